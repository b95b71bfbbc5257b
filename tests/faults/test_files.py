"""Disks that fail, folders that vanish and files that anyone changed, in real processes: one line, nothing lost."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab1.engine import checkpoint
from tests.exactness import assert_equal

FLAGS = "--dataset digits --hidden 16 --batch-size 128 --epochs 3 --dropout 0.2 --patience 0 --name run".split()

# One process imports torch and forks a child for each case: a script with one call of its life struck.
DRIVER = """
import builtins, io, json, os, shutil, sys, traceback
import sklearn.datasets, torch
import matplotlib.backends.backend_agg
from torch.utils.tensorboard import SummaryWriter
import lab1.trainer
from lab1 import train_mlp
from lab1.images import datasets
from lab1.engine.launch import launch


def strike(call, number, code, part=""):
    # Let the calls of this name from this number on fail; of open, only those of files that are called so.
    count = 0

    def struck(*arguments, **keywords):
        nonlocal count
        names = part.split()
        count += not part or any(name in os.path.basename(str(arguments[0])) for name in names)
        if count >= number and (not part or any(name in os.path.basename(str(arguments[0])) for name in names)):
            if call == "train_step":
                (shutil.rmtree if code == 0 else move)(arguments[0].folder)
                if code == 0 or code == 1:
                    setattr(home, call, original)
            else:
                raise OSError(code, os.strerror(code), *(str(path) for path in arguments[:1] if type(path) is not int))
        return original(*arguments, **keywords)

    def move(folder):
        folder.rename(folder.with_name("elsewhere"))

    home = {"open": builtins, "train_step": lab1.trainer.Trainer}.get(call, os)
    original = getattr(home, call)
    setattr(home, call, struck)
    if call == "open":
        io.open = struck


for case in json.load(sys.stdin):
    child = os.fork()
    if child == 0:
        for number, end in ((1, "out"), (2, "err")):
            os.dup2(os.open(case["log"] + "." + end, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        status = 0
        try:
            if case["strike"]:
                strike(*case["strike"])
            sys.argv = ["train_mlp.py", *case["arguments"]]
            launch(train_mlp.main, train_mlp.Config)
        except SystemExit as stop:
            status = stop.code or 0
        except BaseException:
            traceback.print_exc()
            status = 99
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""

# What is struck: the call, from which one on, the error (of train_step: 0 deletes the run's folder, 1 renames it).
WRITING = {
    "checkpoint EACCES": ("open", 2, errno.EACCES, "new.pt"),
    "checkpoint EIO": ("open", 3, errno.EIO, "new.pt"),
    "best EDQUOT": ("open", 2, errno.EDQUOT, "best.pt"),
    "results ENOSPC": ("open", 1, errno.ENOSPC, "results.json"),
    "results EROFS": ("open", 1, errno.EROFS, "results.json"),
    "events ENOSPC": ("open", 3, errno.ENOSPC, "tfevents"),
    "events EIO": ("open", 4, errno.EIO, "tfevents"),
    "picture EIO": ("open", 1, errno.EIO, "confusion.png"),
    "fsync EIO": ("fsync", 9, errno.EIO),
    "rename EDQUOT": ("replace", 5, errno.EDQUOT),
    "rename EACCES": ("replace", 7, errno.EACCES),
    "folder renamed": ("train_step", 15, 1),
    "folder deleted": ("train_step", 15, 0),
}
# The same while a run is resumed that is saved after its first epoch.
READING = {
    "every checkpoint EIO": ("open", 1, errno.EIO, "last.pt previous.pt"),
    "checkpoint EACCES": ("open", 1, errno.EACCES, "last.pt"),
    "best EIO": ("open", 2, errno.EIO, "best.pt"),
    "settings EACCES": ("open", 1, errno.EACCES, "config.json"),
}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """Of each case the folder, and status and lines of standard error of the struck run and of the resumed one."""
    if not hasattr(os, "fork"):
        pytest.skip("children are forked, so that torch is imported once")
    home = tmp_path_factory.mktemp("faults")
    cases = [
        {"log": str(home / "whole"), "strike": None, "arguments": [*FLAGS, "--model-dir", str(home / "whole-runs")]}
    ]
    for kind, strikes in (("writing", WRITING), ("reading", READING)):
        for name, strike in strikes.items():
            parent = home / f"{kind} {name}"
            begin, resume = [*FLAGS, "--model-dir", str(parent)], ["--resume", str(parent / "run")]
            if name == "folder renamed":
                resume = ["--resume", str(parent / "elsewhere")]
            if kind == "reading":
                early = ("open", 2, errno.ENOSPC, "new.pt")
                cases.append({"log": f"{parent}-begun", "strike": early, "arguments": begin})
            cases.append(
                {"log": f"{parent}-struck", "strike": strike, "arguments": begin if kind == "writing" else resume}
            )
            cases.append({"log": f"{parent}-resumed", "strike": None, "arguments": resume})
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        input=json.dumps(cases),
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    found = {}
    for case, status in zip(cases, done.stdout.split(), strict=True):
        found[Path(case["log"]).name] = int(status), Path(f"{case['log']}.err").read_text().splitlines()
    return home, found


def assert_same_end(ours: Path, theirs: Path) -> None:
    """The same weights, optimiser, random states, history and test, to the bit."""
    clocks = ("seconds", "epoch_seconds")
    last = [checkpoint.load(folder / "last.pt") for folder in (ours, theirs)]
    assert_equal(*[{key: value for key, value in content.items() if key not in clocks} for content in last])
    assert_equal(*[checkpoint.load(folder / "best.pt") for folder in (ours, theirs)])
    results = [json.loads((folder / "results.json").read_text()) for folder in (ours, theirs)]
    for key in ("test", "history", "best_epoch", "epochs"):
        assert_equal(results[0][key], results[1][key], key)


def test_the_run_that_nothing_happens_to(outcome):
    home, found = outcome
    assert found["whole"] == (0, [])
    assert (home / "whole-runs" / "run" / "results.json").is_file()


@pytest.mark.parametrize("name", WRITING)
def test_trouble_while_writing_is_one_line_and_loses_nothing(outcome, name):
    home, found = outcome
    status, lines = found[f"writing {name}-struck"]
    assert (status, len(lines)) == (1, 1), lines
    assert lines[0].startswith("error: ")
    code = WRITING[name][2] if not name.startswith("folder") else errno.ENOENT
    assert os.strerror(code) in lines[0]
    status, lines = found[f"writing {name}-resumed"]
    if name == "folder deleted":
        assert status == 2
        assert "no run" in lines[0]
        assert list((home / f"writing {name}").iterdir()) == []
        return
    assert (status, lines) == (0, [])
    folder = home / f"writing {name}" / ("elsewhere" if name == "folder renamed" else "run")
    assert_same_end(folder, home / "whole-runs" / "run")
    assert not list(folder.glob("*.tmp"))


@pytest.mark.parametrize("name", READING)
def test_trouble_while_reading_is_one_line_and_loses_nothing(outcome, name):
    home, found = outcome
    status, lines = found[f"reading {name}-struck"]
    *passed_over, last = lines
    assert status == (2 if name == "settings EACCES" else 1)
    assert last.startswith("error: ")
    assert os.strerror(READING[name][2]) in last
    assert all("passing over a broken checkpoint" in line for line in passed_over)
    assert found[f"reading {name}-resumed"] == (0, [])
    assert_same_end(home / f"reading {name}" / "run", home / "whole-runs" / "run")
