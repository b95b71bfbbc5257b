"""CIFAR-10 from the disk, its archive and a server, in small files of the same layout."""

import functools
import hashlib
import http.server
import io
import pickle
import tarfile
import threading

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10

from lab1.engine.network import Unavailable
from lab1.images import datasets
from lab1.images.batches import ImageData
from tests.lab1.images.conftest import CLASSES
from tests.refusals import refusal, unavailable
from tests.servers import BreaksOff, Ranges, serving

IMAGE = (3, 32, 32)


def assert_is_cifar(loaded: ImageData, files: dict[str, bytes]) -> None:
    batches = [pickle.loads(files[name]) for name in files if name != "batches.meta"]
    assert loaded.name == "cifar10"
    assert loaded.classes == CLASSES
    pixels = torch.tensor(np.concatenate([batch["data"] for batch in batches])).reshape(-1, *IMAGE)
    labels = torch.tensor([label for batch in batches for label in batch["labels"]])
    assert torch.equal(loaded.train_images, pixels[:50])
    assert torch.equal(loaded.test_images, pixels[50:])
    assert torch.equal(loaded.train_labels, labels[:50])
    assert torch.equal(loaded.test_labels, labels[50:])
    assert loaded.train_images.is_contiguous()


@pytest.mark.parametrize("name", ["cifar10", "auto"])
def test_cifar_is_read_from_the_disk_without_a_network(cifar, cifar_files, name):
    assert_is_cifar(datasets.load(name, cifar, channels=3, size=32), cifar_files)


def archive_of(files: dict[str, bytes], path) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"{CIFAR10.base_folder}/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def test_cifar_is_unpacked_from_its_archive(tmp_path, cifar_files, monkeypatch):
    path = tmp_path / CIFAR10.filename
    archive_of(cifar_files, path)
    assert f"{path} is damaged" in refusal(datasets.load, "auto", tmp_path, channels=3, size=32)
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(path.read_bytes()).hexdigest())
    assert_is_cifar(datasets.load("auto", tmp_path, channels=3, size=32), cifar_files)


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        """Nothing on standard error."""


def test_cifar_is_downloaded_once(tmp_path, cifar_files, monkeypatch):
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    archive_of(cifar_files, shelf / CIFAR10.filename)
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5((shelf / CIFAR10.filename).read_bytes()).hexdigest())
    handler = functools.partial(QuietHandler, directory=shelf)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{server.server_port}/{CIFAR10.filename}")
        assert_is_cifar(datasets.load("auto", tmp_path / "data", channels=3, size=32), cifar_files)
        server.shutdown()
    assert [path.name for path in (tmp_path / "data").iterdir()] == [CIFAR10.base_folder]
    assert_is_cifar(datasets.load("cifar10", tmp_path / "data", channels=3, size=32, download=False), cifar_files)


@pytest.mark.parametrize("damage", [lambda content: content[:-1], lambda content: b"", lambda content: b"x" + content])
@pytest.mark.parametrize("name", ["data_batch_3", "test_batch", "batches.meta"])
def test_a_damaged_file_of_cifar_is_refused_by_its_name(cifar, cifar_files, name, damage):
    path = cifar / CIFAR10.base_folder / name
    path.write_bytes(damage(cifar_files[name]))
    assert f"{path} is damaged" in refusal(datasets.load, "auto", cifar, channels=3, size=32)


def test_a_pickle_that_is_not_the_published_one_is_not_opened(cifar):
    marker = cifar / "opened"
    code = f"open({str(marker)!r}, 'w').close()"
    (cifar / CIFAR10.base_folder / "data_batch_2").write_bytes(f"cbuiltins\nexec\n(V{code}\ntR.".encode())
    refusal(datasets.load, "cifar10", cifar, channels=3, size=32)
    assert not marker.exists()


@pytest.mark.parametrize("missing", ["data_batch_5", "batches.meta"])
def test_cifar_with_a_file_missing_is_unavailable(cifar, missing):
    folder = cifar / CIFAR10.base_folder
    (folder / missing).unlink()
    refused = "cannot be reached on the network: 127.0.0.1 refuses the connection: try again later, or"
    for download, why in ((True, refused), (False, "is not downloaded in a dry run:")):
        with pytest.raises(Unavailable) as caught:
            datasets.load("cifar10", cifar, channels=3, size=32, download=download)
        assert str(caught.value) == f"CIFAR-10 is not in {folder} and {why} put its files there"


def test_where_cifar_cannot_be_had_the_shapes_take_its_place(tmp_path, cifar_files, capsys):
    assert datasets.load("auto", tmp_path, channels=3, size=32).name == "shapes"
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("Taking 10,000 images of ten drawn shapes instead.")


@pytest.mark.parametrize("name", ["mnist", "digits", "cifar"])
def test_a_data_set_of_grey_images_is_none_for_colour(cifar, name):
    message = refusal(datasets.load, name, cifar, channels=3, size=32)
    assert message == f"--dataset {name}: use auto, cifar10, shapes or folder"


@pytest.fixture
def shelved(tmp_path, cifar_files, monkeypatch):
    """A folder to be served that holds the archive, with the MD5 sum of the published one."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    archive_of(cifar_files, shelf / CIFAR10.filename)
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5((shelf / CIFAR10.filename).read_bytes()).hexdigest())
    return shelf


def download(monkeypatch, address: str, data_dir) -> ImageData:
    monkeypatch.setattr(CIFAR10, "url", address + CIFAR10.filename)
    return datasets.load("cifar10", data_dir, channels=3, size=32)


def test_a_connection_that_breaks_off_is_made_again(tmp_path, shelved, cifar_files, monkeypatch):
    with serving(functools.partial(Ranges, directory=str(shelved), most=10_000)) as address:
        assert_is_cifar(download(monkeypatch, address, tmp_path / "data"), cifar_files)
    assert [path.name for path in (tmp_path / "data").iterdir()] == [CIFAR10.base_folder]


def test_what_came_of_the_archive_is_kept_and_gone_on_with(tmp_path, shelved, cifar_files, monkeypatch):
    data_dir, part = tmp_path / "data", tmp_path / "data" / f"{CIFAR10.filename}.part"
    content = (shelved / CIFAR10.filename).read_bytes()
    with serving(functools.partial(BreaksOff, directory=str(shelved), most=100_000)) as address:
        message = unavailable(download, monkeypatch, address, data_dir)
    assert message == (
        f"CIFAR-10 could not be downloaded: 127.0.0.1 broke off the connection after 0.1 of {len(content) / 1e6:.1f} "
        f"MB: run it again, or put it in {data_dir / CIFAR10.base_folder}; {part} keeps the 0.1 MB that came, to go on "
        "with"
    )
    assert [path.name for path in data_dir.iterdir()] == [part.name]
    assert part.read_bytes() == content[:100_000]
    asked = []
    with serving(functools.partial(Ranges, directory=str(shelved), asked=asked)) as address:
        assert_is_cifar(download(monkeypatch, address, data_dir), cifar_files)
    assert asked == ["bytes=100000-"]
    assert [path.name for path in data_dir.iterdir()] == [CIFAR10.base_folder]


def test_an_archive_that_is_not_the_published_one_is_not_kept(tmp_path, shelved, monkeypatch):
    archive = shelved / CIFAR10.filename
    archive.write_bytes(archive.read_bytes()[:-1] + b"x")
    with serving(functools.partial(Ranges, directory=str(shelved))) as address:
        message = unavailable(download, monkeypatch, address, tmp_path / "data")
    assert f"what {address}{CIFAR10.filename} sends is not the published file, as its MD5 differs" in message
    assert list((tmp_path / "data").iterdir()) == []


def test_an_archive_that_was_there_is_left_there(tmp_path, shelved, cifar_files):
    archive = tmp_path / CIFAR10.filename
    (shelved / CIFAR10.filename).rename(archive)
    (tmp_path / CIFAR10.base_folder).mkdir()
    (tmp_path / CIFAR10.base_folder / "data_batch_1").write_bytes(b"cut off as it was unpacked")
    assert_is_cifar(datasets.load("cifar10", tmp_path, channels=3, size=32), cifar_files)
    assert archive.exists()
