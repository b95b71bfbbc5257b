"""Checkpoints: exact, never half written, never run as code, whatever happens to the process or to the disk."""

import errno
import io
import os
import pickle
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from lab1.engine import checkpoint, files
from lab1.engine.checkpoint import BrokenCheckpoint, load_newest, save_newest
from lab1.engine.config import RunFailed, UsageError
from tests.posix import posix


def content(number: int = 0) -> dict:
    """A small checkpoint, with something of every kind that one may hold."""
    return {
        "weights": {"w": torch.arange(6.0).reshape(2, 3) + number, "b": torch.tensor([], dtype=torch.bfloat16)},
        "step": number,
        "history": [{"epoch": 1, "loss": 0.1 + number}, None, True, "text"],
        "random_states": checkpoint.random_states() if number == 0 else [number],
    }


def same(one: object, other: object) -> bool:
    """Whether two contents are equal to the bit."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return isinstance(other, dict) and list(one) == list(other) and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return (
            type(one) is type(other)
            and len(one) == len(other)
            and all(same(a, b) for a, b in zip(one, other, strict=True))
        )
    return type(one) is type(other) and one == other


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def flip(path: Path, place: int, bits: int = 0xFF) -> None:
    """Change one byte of a file."""
    data = bytearray(path.read_bytes())
    data[place] ^= bits
    path.write_bytes(data)


def refusal(call, *arguments) -> str:
    """The one line with which a call is refused."""
    with pytest.raises(UsageError) as caught:
        call(*arguments)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_what_was_saved_is_loaded(tmp_path):
    saved = content()
    checkpoint.save(saved, tmp_path / "last.pt")
    assert same(checkpoint.load(tmp_path / "last.pt"), saved)
    assert names(tmp_path) == ["last.pt"]


def test_torch_alone_can_read_a_checkpoint(tmp_path):
    saved = content(1)
    checkpoint.save(saved, tmp_path / "best.pt")
    assert same(torch.load(tmp_path / "best.pt", weights_only=True), saved)


def draws() -> list:
    return [
        random.random(),
        random.gauss(0, 1),
        np.random.rand(),
        np.random.normal(),
        torch.rand(3).tolist(),
        torch.randperm(9).tolist(),
    ]


def test_every_random_state_survives_the_file(tmp_path):
    random.gauss(0, 1)  # leaves a second number in store, and so does NumPy's normal
    np.random.normal()
    checkpoint.save({"random_states": checkpoint.random_states()}, tmp_path / "last.pt")
    expected = draws()
    assert draws() != expected
    checkpoint.restore_random_states(checkpoint.load(tmp_path / "last.pt")["random_states"])
    assert draws() == expected


def test_taking_the_random_states_changes_none_of_them():
    states = checkpoint.random_states()
    expected = draws()
    checkpoint.restore_random_states(states)
    checkpoint.random_states()
    assert draws() == expected


@pytest.mark.parametrize("share", [0, 0.01, 0.3, 0.7, 0.99, 1])
def test_a_checkpoint_cut_short_is_broken(tmp_path, share):
    path = tmp_path / "last.pt"
    checkpoint.save(content(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: min(int(share * len(whole)), len(whole) - 1)])
    with pytest.raises(BrokenCheckpoint, match=r"^[^\n]+$") as caught:
        checkpoint.load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("bits", [0x01, 0xFF])
def test_a_checkpoint_with_one_changed_byte_is_broken(tmp_path, share, bits):
    path = tmp_path / "last.pt"
    checkpoint.save({"w": torch.rand(100, 100)}, path)
    flip(path, int(share * path.stat().st_size), bits)
    with pytest.raises(BrokenCheckpoint, match=r"^[^\n]+$") as caught:
        checkpoint.load(path)
    assert str(path) in str(caught.value)


def test_no_changed_byte_anywhere_goes_unnoticed(tmp_path):
    path = tmp_path / "last.pt"
    checkpoint.save({"w": torch.arange(3.0)}, path)
    whole = path.read_bytes()
    with open(path, "r+b", buffering=0) as file:
        for place, byte in enumerate(whole):
            file.seek(place)
            file.write(bytes([byte ^ 0xFF]))
            with pytest.raises(BrokenCheckpoint):
                checkpoint.load(path)
            file.seek(place)
            file.write(bytes([byte]))
    assert same(checkpoint.load(path), {"w": torch.arange(3.0)})


def test_the_last_two_checkpoints_are_kept(tmp_path):
    assert load_newest(tmp_path) is None
    for number in (1, 2, 3):
        save_newest(content(number), tmp_path)
        assert same(load_newest(tmp_path), content(number))
    assert names(tmp_path) == ["last.pt", "previous.pt"]
    assert same(checkpoint.load(tmp_path / "previous.pt"), content(2))


@pytest.mark.parametrize("damage", ["cut short", "empty", "changed", "folder"])
def test_a_broken_newest_checkpoint_is_passed_over_in_one_line(tmp_path, capsys, damage):
    for number in (1, 2):
        save_newest(content(number), tmp_path)
    path = tmp_path / "last.pt"
    if damage == "changed":
        flip(path, 100)
    else:
        whole = path.read_bytes()
        path.write_bytes(whole[:-50] if damage == "cut short" else b"")
    if damage == "folder":
        path.unlink()
        path.mkdir()
    assert same(load_newest(tmp_path), content(1))
    (line,) = capsys.readouterr().err.splitlines()
    assert str(path) in line


def test_a_missing_newest_checkpoint_is_no_loss(tmp_path, capsys):
    for number in (1, 2):
        save_newest(content(number), tmp_path)
    (tmp_path / "last.pt").unlink()
    assert same(load_newest(tmp_path), content(1))
    assert capsys.readouterr().err == ""


def test_where_every_checkpoint_is_broken_the_run_cannot_be_resumed(tmp_path):
    for number in (1, 2):
        save_newest(content(number), tmp_path)
    for name in ("last.pt", "previous.pt"):
        flip(tmp_path / name, 100)
    message = refusal(load_newest, tmp_path)
    assert str(tmp_path) in message
    assert "start the run anew" in message


class Payload:
    """When unpickled, makes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("read", [checkpoint.load, lambda path: load_newest(path.parent)], ids=["load", "load_newest"])
def test_a_checkpoint_that_would_run_code_is_refused_and_runs_none(tmp_path, read):
    trace = tmp_path / "it-ran"
    checkpoint.save({"step": 1, "payload": Payload(trace)}, tmp_path / "last.pt")
    message = refusal(read, tmp_path / "last.pt")
    assert str(tmp_path / "last.pt") in message
    assert "could run code" in message
    assert not trace.exists()
    # Read without that care the payload does fire, so that its silence above says something.
    with open(tmp_path / "last.pt", "rb") as file:
        torch.load(file, weights_only=False)
    assert trace.exists()


@pytest.mark.parametrize("write", [torch.save, lambda thing, path: path.write_bytes(pickle.dumps(thing))])
def test_no_kind_of_pickle_runs_code(tmp_path, write):
    trace = tmp_path / "it-ran"
    write({"payload": Payload(trace)}, tmp_path / "last.pt")
    with pytest.raises((UsageError, BrokenCheckpoint)):
        checkpoint.load(tmp_path / "last.pt")
    assert not trace.exists()


def full_disk(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class FullFile(io.FileIO):
    """A file on a disk that has room for ten bytes more."""

    def write(self, data):
        super().write(bytes(data[:10]))
        full_disk()


@pytest.mark.parametrize("save", [checkpoint.save, lambda new, path: save_newest(new, path.parent)])
@pytest.mark.parametrize("fails", ["open", "write", "fsync", "replace"])
def test_a_full_disk_leaves_the_old_checkpoint_and_nothing_else(tmp_path, monkeypatch, save, fails):
    for number in (1, 2):
        save_newest(content(number), tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in names(tmp_path)}
    with monkeypatch.context() as patch:
        if fails in ("open", "write"):
            patch.setattr(files, "open", full_disk if fails == "open" else FullFile, raising=False)
        else:
            patch.setattr(os, fails, full_disk)
        with pytest.raises(OSError, match="No space left") as caught:
            save(content(3), tmp_path / "last.pt")
    assert caught.value.errno == errno.ENOSPC
    assert str(tmp_path) in str(caught.value.filename)
    assert {name: (tmp_path / name).read_bytes() for name in names(tmp_path)} == before
    assert same(load_newest(tmp_path), content(2))


def run(script: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder)],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


LIMITED = """
import errno, resource, signal, sys
from pathlib import Path
import torch
from lab1.engine import checkpoint

folder = Path(sys.argv[1])
checkpoint.save_newest({"w": torch.ones(10)}, folder)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
for save in (checkpoint.save_newest, lambda new, folder: checkpoint.save(new, folder / "last.pt")):
    try:
        save({"w": torch.ones(100_000)}, folder)
    except OSError as error:
        print(errno.errorcode[error.errno], Path(error.filename).parent == folder)
checkpoint.save_newest({"w": torch.zeros(10)}, folder)
"""


@posix
def test_a_real_limit_on_what_can_be_written_leaves_the_old_checkpoint_and_nothing_else(tmp_path):
    assert run(LIMITED, tmp_path).splitlines() == ["EFBIG True"] * 2
    assert names(tmp_path) == ["last.pt", "previous.pt"]
    assert same(checkpoint.load(tmp_path / "last.pt"), {"w": torch.zeros(10)})
    assert same(checkpoint.load(tmp_path / "previous.pt"), {"w": torch.ones(10)})


class Killed(BaseException):
    """Stands for the end of the process: nothing in the code under test catches it."""


@pytest.mark.parametrize("first_broken", [False, True], ids=["last good", "last broken"])
@pytest.mark.parametrize("survived", [0, 1, 2])
def test_killed_between_any_two_renames_a_good_checkpoint_is_left(tmp_path, monkeypatch, survived, first_broken):
    for number in (1, 2):
        save_newest(content(number), tmp_path)
    if first_broken:
        flip(tmp_path / "last.pt", 100)
    rename, renames = os.replace, []

    def replace(*paths):
        if len(renames) == survived:
            raise Killed
        renames.append(paths)
        rename(*paths)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(os, "replace", replace)
        save_newest(content(3), tmp_path)
    assert any(same(load_newest(tmp_path), content(number)) for number in (1, 2, 3))
    save_newest(content(4), tmp_path)
    assert same(load_newest(tmp_path), content(4))
    assert names(tmp_path) == ["last.pt", "previous.pt"]


# One process that imports torch, and forks children that save without end until each is killed.
KILLED = """
import os, random, signal, sys, time
from pathlib import Path
import torch
from lab1.engine import checkpoint

random.seed(0)
for trial in range(15):
    folder = Path(sys.argv[1]) / str(trial)
    folder.mkdir()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        step = 0
        while True:
            step += 1
            checkpoint.save_newest({"step": step, "w": torch.full((20_000,), float(step))}, folder)
            os.write(writing, b".")
    os.close(writing)
    steps = len(os.read(reading, 1))
    time.sleep(random.uniform(0, 0.05))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while more := os.read(reading, 10_000):
        steps += len(more)
    os.close(reading)
    print(trial, steps)
"""


@posix
def test_killed_at_any_moment_the_newest_checkpoint_is_whole(tmp_path, capsys):
    lines = run(KILLED, tmp_path).splitlines()
    assert len(lines) == 15
    for line in lines:
        trial, finished = line.split()
        newest = load_newest(tmp_path / trial)
        assert newest["step"] in (int(finished), int(finished) + 1)
        assert torch.equal(newest["w"], torch.full((20_000,), float(newest["step"])))
        save_newest({"step": 0}, tmp_path / trial)
        assert "last.pt.tmp" not in names(tmp_path / trial)
        assert set(names(tmp_path / trial)) <= {"last.pt", "previous.pt"}
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("thing", "what"),
    [([1, 2], "a list"), (3, "a number"), ("text", "a text"), (None, "nothing"), (torch.ones(2), "Tensor")],
)
def test_a_whole_file_that_is_no_dictionary_is_passed_over(tmp_path, capsys, thing, what):
    for number in (1, 2):
        save_newest(content(number), tmp_path)
    checkpoint.save(thing, tmp_path / "last.pt")
    with pytest.raises(BrokenCheckpoint, match=f"is no checkpoint of these labs: it holds .*{what}$"):
        checkpoint.load(tmp_path / "last.pt")
    assert same(load_newest(tmp_path), content(1))
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_link_to_nowhere_is_broken_and_not_missing(tmp_path):
    (tmp_path / "last.pt").symlink_to(tmp_path / "gone.pt")
    assert "is a link to a file that is not there" in refusal(load_newest, tmp_path)


def unreadable(monkeypatch, code: int, *unread: str) -> None:
    """Let the files of these names be unreadable."""
    read = Path.read_bytes

    def read_bytes(path):
        if path.name in unread:
            raise OSError(code, os.strerror(code), str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)


def test_what_one_may_not_read_is_not_passed_over(tmp_path, monkeypatch):
    for number in (1, 2):
        save_newest(content(number), tmp_path)
    unreadable(monkeypatch, errno.EACCES, "last.pt")
    with pytest.raises(RunFailed, match=r"last\.pt cannot be read: Permission denied$"):
        load_newest(tmp_path)


def test_what_a_failing_disk_does_not_give_is_passed_over_where_there_is_another(tmp_path, monkeypatch, capsys):
    for number in (1, 2):
        save_newest(content(number), tmp_path)
    with monkeypatch.context() as patch:
        unreadable(patch, errno.EIO, "last.pt")
        assert same(load_newest(tmp_path), content(1))
    assert "last.pt cannot be read: Input/output error" in capsys.readouterr().err
    unreadable(monkeypatch, errno.EIO, "last.pt", "previous.pt")
    with pytest.raises(RunFailed, match=r"has no checkpoint that can be read now .*; try again$"):
        load_newest(tmp_path)
