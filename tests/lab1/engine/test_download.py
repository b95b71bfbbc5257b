"""Downloads go on where they broke off; what came wrong is not kept, and a full disk is not the network's fault."""

import errno
import functools
import hashlib
import io
from pathlib import Path

import pytest

from lab1.engine import download, network
from lab1.engine.download import Broken, fetch, fetching, whole
from tests.refusals import unavailable
from tests.servers import BreaksOff, Garbles, Misses, Quiet, Ranges, serving

CONTENT = bytes(range(251)) * 40  # 10,040 bytes
MD5 = hashlib.md5(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def here_alone(monkeypatch):
    monkeypatch.setattr(network, "NETWORK_SECONDS", 1)
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def shelf(tmp_path):
    """A folder to be served."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    (folder / "a.gz").write_bytes(CONTENT)
    return folder


@pytest.fixture
def path(tmp_path):
    """Where the file is to come."""
    return tmp_path / "data" / "a.gz"


def broken(*arguments) -> str:
    """Why a file cannot be fetched."""
    with pytest.raises(Broken) as caught:
        fetch(*arguments)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def test_a_file_is_fetched(shelf, path, capsys):
    asked = []
    with serving(functools.partial(Ranges, directory=str(shelf), asked=asked)) as address:
        fetch([address + "a.gz"], path, MD5)
    assert path.read_bytes() == CONTENT
    assert names(path.parent) == ["a.gz"]
    assert asked == []
    assert capsys.readouterr().err == ""  # no progress bar where there is no terminal


def test_a_server_that_breaks_off_is_asked_for_the_rest(shelf, path):
    asked = []
    with serving(functools.partial(Ranges, directory=str(shelf), most=4000, asked=asked)) as address:
        fetch([address + "a.gz"], path, MD5)
    assert path.read_bytes() == CONTENT
    assert asked == ["bytes=4000-", "bytes=8000-"]


def test_a_server_that_breaks_off_again_and_again_is_given_up_in_the_end(shelf, path):
    with serving(functools.partial(Ranges, directory=str(shelf), most=100)) as address:
        assert "after 0.0 of 0.0 MB" in broken([address + "a.gz"], path, MD5)
    assert (path.parent / "a.gz.part").read_bytes() == CONTENT[:2000]  # 20 connections


def test_a_server_that_knows_no_range_sends_all_of_it_again(shelf, path):
    part = path.parent / "a.gz.part"
    with serving(functools.partial(BreaksOff, directory=str(shelf), most=6000)) as address:
        assert (
            broken([address + "a.gz"], path, MD5)
            == "127.0.0.1 broke off the connection after 0.0 of 0.0 MB: run it again"
        )
    assert part.read_bytes() == CONTENT[:6000]
    with serving(functools.partial(Quiet, directory=str(shelf))) as address:
        fetch([address + "a.gz"], path, MD5)
    assert path.read_bytes() == CONTENT
    assert names(path.parent) == ["a.gz"]


def test_a_file_of_another_md5_sum_is_not_kept(shelf, path):
    with serving(functools.partial(Ranges, directory=str(shelf))) as address:
        message = broken([address + "a.gz"], path, "0" * 32)
    assert message == f"what {address}a.gz sends is not the published file, as its MD5 differs: get it elsewhere"
    assert names(path.parent) == []


@pytest.mark.parametrize(
    "before", [b"x" * 500, CONTENT + b"x", b"x" * len(CONTENT)], ids=["of another file", "too long", "as long"]
)
def test_what_was_kept_of_another_file_is_not_kept_for_ever(shelf, path, before):
    path.parent.mkdir()
    (path.parent / "a.gz.part").write_bytes(before)
    with serving(functools.partial(Ranges, directory=str(shelf))) as address:
        if len(before) < len(CONTENT):
            broken([address + "a.gz"], path, MD5)  # found out when all is there
        fetch([address + "a.gz"], path, MD5)
    assert path.read_bytes() == CONTENT
    assert names(path.parent) == ["a.gz"]


def test_what_is_whole_already_only_gets_its_name(path):
    path.parent.mkdir()
    (path.parent / "a.gz.part").write_bytes(CONTENT)
    fetch(["http://127.0.0.1:9/a.gz"], path, MD5)  # nothing listens there
    assert path.read_bytes() == CONTENT


def test_the_second_address_goes_on_with_what_the_first_one_gave(shelf, path):
    asked = []
    with (
        serving(functools.partial(BreaksOff, directory=str(shelf), most=6000)) as one,
        serving(functools.partial(Ranges, directory=str(shelf), asked=asked)) as other,
    ):
        fetch([one + "a.gz", other + "a.gz"], path, MD5)
    assert path.read_bytes() == CONTENT
    assert asked == ["bytes=6000-"]


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        (Misses, "127.0.0.1 does not have it (HTTP 404 Not Found): get it elsewhere"),
        (Garbles, "127.0.0.1 answers in no way that a web server does: try again later"),
    ],
)
def test_a_server_that_does_not_have_it_leaves_nothing_behind(shelf, path, server, expected):
    with serving(functools.partial(server, directory=str(shelf))) as address:
        assert broken([address + "a.gz", address + "b.gz"], path, MD5) == expected
    assert names(path.parent) == []


def test_a_disk_that_cannot_be_written_is_no_fault_of_the_network(tmp_path, shelf, path):
    def get():
        with fetching("MNIST", tmp_path / "raw"), serving(functools.partial(Ranges, directory=str(shelf))) as address:
            fetch([address + "a.gz"], path, MD5)

    (tmp_path / "data").touch()  # a file where the folder should be
    end = "make room, or name another folder with --data-dir"
    assert unavailable(get) == f"MNIST could not be put in {tmp_path / 'raw'} (File exists): {end}"


def test_a_full_disk_is_said(tmp_path, shelf, path, monkeypatch):
    class Full(io.BytesIO):
        def write(self, content):
            raise OSError(errno.ENOSPC, "No space left on device")

    def get():
        with fetching("MNIST", tmp_path / "raw"), serving(functools.partial(Ranges, directory=str(shelf))) as address:
            fetch([address + "a.gz"], path, MD5)

    monkeypatch.setattr(download, "open", lambda *_: Full(), raising=False)
    message = unavailable(get)
    assert message.startswith(f"MNIST could not be put in {tmp_path / 'raw'} (No space left on device): make room")


def test_a_data_set_takes_its_place_whole_or_not_at_all(tmp_path):
    place = tmp_path / "data" / "MNIST" / "raw"
    place.mkdir(parents=True)
    (place / "old").touch()
    with pytest.raises(KeyError), whole(place, tmp_path / "data") as temporary:
        (temporary / "MNIST" / "raw").mkdir(parents=True)
        raise KeyError
    assert names(place) == ["old"]
    with whole(place, tmp_path / "data") as temporary:
        (temporary / "MNIST" / "raw").mkdir(parents=True)
        (temporary / "MNIST" / "raw" / "new").touch()
    assert names(place) == ["new"]
    assert names(tmp_path / "data") == ["MNIST"]
