"""Interrupted anywhere and resumed, a run ends as if nothing had happened: real signals, in real processes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lab1.engine import checkpoint
from lab1.engine.config import REPOSITORY
from tests.exactness import assert_equal
from tests.posix import posix

# Dropout, augmentation and an optimiser with momentum: everything random, everything that has a state.
FLAGS = "--dataset digits --hidden 32 16 --batch-size 64 --epochs 4 --dropout 0.2 --augment --patience 0".split()
STEPS_PER_EPOCH = 21  # 1,295 digits to learn from

# The script, with one call in its life struck: the process sends itself a real signal, or the disk is full.
STRUCK = """
import errno, os, sys
import lab1.trainer
from lab1 import train_mlp
from lab1.engine.launch import launch

name, call, strike = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
del sys.argv[1:4]
home = os if hasattr(os, name) else lab1.trainer.Trainer
original, calls = getattr(home, name), 0

def struck(*arguments, **keywords):
    global calls
    calls += 1
    if calls == call and int(os.environ.get("RANK", 0)) == int(os.environ.get("STRUCK_RANK", 0)):
        if strike == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.kill(os.getpid(), strike)
    return original(*arguments, **keywords)

setattr(home, name, struck)
launch(train_mlp.main, train_mlp.Config)
"""


def run(*arguments: object, torchrun: bool = False, **environment: str) -> subprocess.CompletedProcess:
    start = [sys.executable]
    if torchrun:
        start += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    return subprocess.run(
        [*start, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=180,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
    )


def train(*arguments: object, **options) -> subprocess.CompletedProcess:
    return run(REPOSITORY / "lab1" / "train_mlp.py", *arguments, **options)


@pytest.fixture(scope="module")
def strike(tmp_path_factory):
    script = tmp_path_factory.mktemp("struck") / "struck.py"
    script.write_text(STRUCK, encoding="utf-8")
    return lambda name, call, number, *arguments, **options: run(script, name, call, int(number), *arguments, **options)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    done = train(*FLAGS, "--model-dir", folder)
    assert done.returncode == 0, done.stderr
    return the_run(folder)


def the_run(folder: Path) -> Path:
    (found,) = folder.iterdir()
    return found


def assert_same_end(ours: Path, theirs: Path) -> None:
    """The same parameters, optimiser, random states, history and test result, to the bit."""
    clocks = ("seconds", "epoch_seconds")
    last = [torch.load(folder / "last.pt", weights_only=True) for folder in (ours, theirs)]
    best = [torch.load(folder / "best.pt", weights_only=True) for folder in (ours, theirs)]
    results = [json.loads((folder / "results.json").read_text(encoding="utf-8")) for folder in (ours, theirs)]
    assert_equal(*[{key: value for key, value in content.items() if key not in clocks} for content in last])
    assert_equal(*best)
    assert last[0]["step"] == 4 * STEPS_PER_EPOCH
    for key in ("test", "history", "best_epoch", "epochs"):
        assert_equal(results[0][key], results[1][key], key)


def scalars(folder: Path) -> dict[str, list[int]]:
    shown = EventAccumulator(str(folder))
    shown.Reload()
    return {tag: [point.step for point in shown.Scalars(tag)] for tag in shown.Tags()["scalars"]}


@posix
def test_stopped_by_signals(strike, uninterrupted, tmp_path):
    stopped = strike("train_step", STEPS_PER_EPOCH + 5, signal.SIGINT, *FLAGS, "--model-dir", tmp_path)
    folder = the_run(tmp_path)
    assert stopped.returncode == 130
    (line,) = stopped.stderr.splitlines()
    assert line.startswith("stopped and saved; go on with: python ")
    assert line.endswith(f"struck.py --resume {folder}")
    assert torch.load(folder / "last.pt", weights_only=True)["step"] == STEPS_PER_EPOCH + 5

    # By the run's name, from another folder's point of view; SIGTERM in the validation of the second epoch.
    stopped = strike("evaluate", 1, signal.SIGTERM, "--resume", folder.name, "--model-dir", tmp_path)
    assert stopped.returncode == 143, stopped.stderr
    assert torch.load(folder / "last.pt", weights_only=True)["epoch"] == 2

    stopped = strike("train_step", 1, signal.SIGTERM, "--resume", folder)
    assert stopped.returncode == 143
    assert not (folder / "results.json").exists()

    finished = train("--resume", folder)
    assert finished.returncode == 0, finished.stderr
    assert_same_end(folder, uninterrupted)
    assert the_run(tmp_path) == folder  # no second folder was made

    shown = scalars(folder)
    assert shown == scalars(uninterrupted)
    assert shown["loss/train"] == shown["accuracy/validation"] == [1, 2, 3, 4]

    again = train("--resume", folder)
    assert again.returncode == 0
    assert "is finished and tested" in again.stdout
    assert scalars(folder) == shown


@posix
def test_killed_at_any_moment(strike, uninterrupted, tmp_path):
    killed = -signal.SIGKILL
    # Before the first checkpoint; in the middle of an epoch; between the renames of a save; while one is being synced.
    assert strike("train_step", 3, signal.SIGKILL, *FLAGS, "--model-dir", tmp_path).returncode == killed
    folder = the_run(tmp_path)
    assert not (folder / "last.pt").exists()
    assert strike("train_step", STEPS_PER_EPOCH + 9, signal.SIGKILL, "--resume", folder).returncode == killed
    assert torch.load(folder / "last.pt", weights_only=True)["epoch"] == 1
    assert strike("replace", 5, signal.SIGKILL, "--resume", folder).returncode == killed
    assert not (folder / "last.pt").exists()
    assert (folder / "previous.pt").exists()
    assert strike("fsync", 3, signal.SIGKILL, "--resume", folder).returncode == killed
    finished = train("--resume", folder)
    assert finished.returncode == 0, finished.stderr
    assert_same_end(folder, uninterrupted)
    assert scalars(folder) == scalars(uninterrupted)
    assert not list(folder.glob("*.tmp"))


@posix
def test_a_full_disk_and_a_broken_checkpoint(strike, uninterrupted, tmp_path):
    # Those of config.json and of the first epoch's best.pt, its folder, last.pt, its folder twice came before it.
    full = strike("fsync", 7, 0, *FLAGS, "--model-dir", tmp_path)
    folder = the_run(tmp_path)
    assert full.returncode == 1
    assert len(full.stderr.splitlines()) == 1
    assert "No space left on device" in full.stderr
    assert torch.load(folder / "last.pt", weights_only=True)["epoch"] == 1

    stopped = strike("train_step", STEPS_PER_EPOCH + 5, signal.SIGTERM, "--resume", folder)
    assert stopped.returncode == 143
    last = folder / "last.pt"
    last.write_bytes(last.read_bytes()[: last.stat().st_size // 2])
    finished = train("--resume", folder)
    assert finished.returncode == 0
    (line,) = finished.stderr.splitlines()
    assert "passing over a broken checkpoint" in line
    assert "last.pt" in line
    assert_same_end(folder, uninterrupted)


class Payload:
    """What runs a command when it is unpickled."""

    def __init__(self, command: str):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_a_checkpoint_that_carries_a_payload_is_refused(uninterrupted, tmp_path):
    folder, trace = tmp_path / "run", tmp_path / "trace"
    folder.mkdir()
    (folder / "config.json").write_text((uninterrupted / "config.json").read_text(encoding="utf-8"), encoding="utf-8")
    checkpoint.save({"weights": Payload(f"touch {trace}")}, folder / "last.pt")
    refused = train("--resume", folder)
    assert refused.returncode == 2
    assert len(refused.stderr.splitlines()) == 1
    assert "refused" in refused.stderr
    assert not trace.exists()


def test_a_flag_beside_resume_changes_that_one_thing(uninterrupted, tmp_path):
    for name in ("config.json", "last.pt", "best.pt"):
        (tmp_path / name).write_bytes((uninterrupted / name).read_bytes())
    longer = train("--resume", tmp_path, "--epochs", 5)
    assert longer.returncode == 0, longer.stderr
    last = torch.load(tmp_path / "last.pt", weights_only=True)
    assert (last["epoch"], last["step"]) == (5, 5 * STEPS_PER_EPOCH)
    assert json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))["epochs"] == 5
    other = train("--resume", tmp_path, "--hidden", 24, "--epochs", 6)
    assert other.returncode == 2
    assert "does not fit this network" in other.stderr
    assert json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))["hidden"] == [32, 16]


@posix
def test_two_processes_learn_what_one_does(strike, tmp_path):
    flags = "--dataset digits --hidden 32 16 --batch-size 63 --epochs 2 --dropout 0 --augment".split()
    one = train(*flags, "--model-dir", tmp_path / "one")
    two = train(*flags, "--model-dir", tmp_path / "two", torchrun=True)
    assert one.returncode == two.returncode == 0, two.stderr
    ours, theirs = (
        json.loads((the_run(tmp_path / name) / "results.json").read_text(encoding="utf-8")) for name in ("two", "one")
    )
    for mine, other in zip(ours["history"], theirs["history"], strict=True):
        for part in ("train", "validation"):
            assert mine[part] == pytest.approx(other[part], abs=1e-5)
    assert ours["test"]["loss"] == pytest.approx(theirs["test"]["loss"], abs=1e-5)
    assert ours["test"]["confusion"] == theirs["test"]["confusion"]


@posix
def test_two_processes_stop_together_and_resume_exactly(strike, tmp_path):
    whole = train(*FLAGS, "--epochs", 2, "--model-dir", tmp_path / "whole", torchrun=True)
    assert whole.returncode == 0, whole.stderr
    # The second process alone is told to stop.
    part = tmp_path / "part"
    strike(
        *("train_step", 9, signal.SIGTERM, *FLAGS, "--epochs", 2, "--model-dir", part),
        torchrun=True,
        STRUCK_RANK="1",
    )
    assert torch.load(the_run(part) / "last.pt", weights_only=True)["step"] == 9
    resumed = train("--resume", the_run(part), torchrun=True)
    assert resumed.returncode == 0, resumed.stderr
    ends = [torch.load(the_run(folder) / "last.pt", weights_only=True) for folder in (part, tmp_path / "whole")]
    for key in ("weights", "optimizer", "history", "random_states"):
        assert_equal(ends[0][key], ends[1][key], key)
