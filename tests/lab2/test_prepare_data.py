"""Data sets from a server on this machine or from a folder; what is there already, what is damaged, what is missing."""

import functools
import hashlib

import pytest

from lab1.engine.config import RunFailed, UsageError
from lab1.engine.launch import parse
from lab2 import prepare_data
from lab2.tasks import originals
from lab2.tasks.datasets import load_texts
from tests import servers

LINE = "o\tThe sky is\tblue.\tgreen.\tsad.\tlate.\t0\n"
CONTENTS = {
    "rotten_tomatoes": {
        f"rt-polarity.{ending}": "".join(f"{word} {n} .\n" for n in range(20))
        for ending, word in (("pos", "good"), ("neg", "bad"))
    },
    "codah": {name: LINE * count for name, count in (("train.tsv", 3), ("dev.tsv", 2), ("test.tsv", 1))},
}


def md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Two data sets of a few lines: a folder of their originals, and a function that says at which address they are."""
    for name, files in CONTENTS.items():
        (tmp_path / "given" / name).mkdir(parents=True)
        for file, text in files.items():
            (tmp_path / "given" / name / file).write_text(text, encoding="utf-8", newline="\n")

    def at(address: str) -> None:
        for name, files in CONTENTS.items():
            found = {f"{address}{name}/{file}": md5(text) for file, text in files.items()}
            monkeypatch.setitem(originals.ORIGINALS, name, found)
            made = getattr(originals, name)(files)
            monkeypatch.setitem(originals.MADE, name, {file: md5(text) for file, text in made.items()})

    at("http://nowhere.invalid/")
    return tmp_path / "given", at


def prepared(folder, *arguments):
    """Run the script on the two small data sets, with ``folder`` as its data folder."""
    words = ["--datasets", *CONTENTS, "--data-dir", str(folder), *map(str, arguments)]
    prepare_data.main(parse(prepare_data.Config, words, ""))


def test_data_sets_are_fetched_and_made(small, tmp_path):
    given, at = small
    with servers.serving(functools.partial(servers.Quiet, directory=str(given))) as address:
        at(address)
        prepared(tmp_path / "data")
    for name in CONTENTS:
        files = originals.MADE[name]
        assert {file: md5((tmp_path / "data" / name / file).read_text(encoding="utf-8")) for file in files} == files
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == sorted(CONTENTS)  # no originals, no remains
    texts = load_texts("rotten_tomatoes", tmp_path / "data", download=False)
    assert texts.classes == ["negative", "positive"]
    assert {part: len(items) for part, (items, _) in texts.parts.items()} == {"train": 32, "validation": 4, "test": 4}


def test_originals_may_lie_in_a_folder(small, tmp_path, capsys):
    given, _ = small
    prepared(tmp_path / "data", "--from-dir", given)
    said = capsys.readouterr().out.splitlines()
    places = [tmp_path / "data" / name / file for name in CONTENTS for file in originals.MADE[name]]
    assert said == [f"{place}  MD5 {md5(place.read_text(encoding='utf-8'))}" for place in places]
    # What is there is checked and left.
    before = {place: place.stat().st_mtime_ns for place in places}
    prepared(tmp_path / "data")
    assert {place: place.stat().st_mtime_ns for place in places} == before
    assert capsys.readouterr().out.count("is there already: 3 files") == 2


def test_what_is_there_and_differs_is_left_and_refused(small, tmp_path):
    given, _ = small
    prepared(tmp_path / "data", "--from-dir", given)
    (tmp_path / "data/codah/test.jsonl").write_text("mine\n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"codah.test\.jsonl is not what the published runs read: move .*codah away"):
        prepared(tmp_path / "data")
    assert (tmp_path / "data/codah/test.jsonl").read_text(encoding="utf-8") == "mine\n"
    (tmp_path / "data/codah/test.jsonl").unlink()
    with pytest.raises(UsageError, match=r"codah lacks test\.jsonl: move this folder away"):
        prepared(tmp_path / "data")


def test_an_original_that_is_missing_or_another_file_is_refused(small, tmp_path):
    given, _ = small
    (given / "codah/dev.tsv").write_text("x", encoding="utf-8")
    with pytest.raises(UsageError, match=r"dev\.tsv is not the file at http://nowhere\.invalid/codah/dev\.tsv"):
        prepared(tmp_path / "data", "--from-dir", given)
    (given / "codah/dev.tsv").unlink()
    with pytest.raises(UsageError, match=r"no file .*dev\.tsv; it is at http://nowhere\.invalid/codah/dev\.tsv"):
        prepared(tmp_path / "data", "--from-dir", given)
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["rotten_tomatoes"]  # nothing half made


@pytest.mark.parametrize(
    ("server", "says"),
    [
        (servers.Cut, "is not the published file, as its MD5 differs"),
        (servers.Misses, "does not have it (HTTP 404"),
        (servers.HangsUp, "broke off the connection"),
    ],
)
def test_what_goes_wrong_on_the_network_is_one_line(small, tmp_path, server, says):
    given, at = small
    with servers.serving(functools.partial(server, directory=str(given))) as address:
        at(address)
        with pytest.raises(UsageError) as refused:
            prepared(tmp_path / "data")
    assert says in str(refused.value)
    assert list((tmp_path / "data").iterdir()) == []


def test_a_split_that_comes_out_otherwise_is_no_data_set(small, tmp_path, monkeypatch):
    given, _ = small
    monkeypatch.setitem(originals.MADE, "codah", originals.MADE["codah"] | {"test.jsonl": "0" * 32})
    with pytest.raises(RunFailed, match=r"codah, test\.jsonl is not what the published runs read: its MD5 is"):
        prepared(tmp_path / "data", "--from-dir", given)
    assert not (tmp_path / "data/codah").exists()


def test_a_dry_run_says_what_it_would_do(run_script, tmp_path):
    done = run_script("lab2/prepare_data.py", "--dry-run", "--datasets", "cranfield", "--data-dir", tmp_path / "data")
    assert done.returncode == 0
    *fetched, made = done.stdout.splitlines()
    assert [line.split()[0] for line in fetched] == [
        f"cranfield/{name}" for name in ("cran.all.1400", "cran.qry", "cranqrel")
    ]
    assert all("https://" in line for line in fetched)
    assert made.endswith(
        f"corpus.jsonl, queries.jsonl, qrels/train.tsv, qrels/test.tsv in {tmp_path / 'data/cranfield'}"
    )
    assert not (tmp_path / "data").exists()


def test_what_cannot_be_meant_is_refused(tmp_path):
    for words, says in (
        (["--datasets"], "at least one is needed"),
        (["--from-dir", str(tmp_path / "no")], "no such folder"),
        (["--resume", "auto"], "run it again"),
    ):
        with pytest.raises(UsageError, match=says):
            parse(prepare_data.Config, words, "")
