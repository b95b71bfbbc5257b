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
import builtins, contextlib, io, json, os, shutil, sys, tempfile, traceback
from pathlib import Path
import lab1.trainer
from lab1 import train_mlp
from lab1.engine.launch import launch

# Imports all that is ever needed.
with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
    train_mlp.main(train_mlp.Config(dataset="digits", hidden=(16,), epochs=1, model_dir=Path(folder), dry_run=True))


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

# What is struck: the call, from which one on, the error (of train_step: 0 deletes the run's folder, 1 renames it), the
# files. Reading: the same while a run is resumed that stopped after its first epoch.
STRIKES = {
    "writing a checkpoint EACCES": ("open", 2, errno.EACCES, "new.pt"),
    "writing a checkpoint EIO": ("open", 3, errno.EIO, "new.pt"),
    "writing best EDQUOT": ("open", 2, errno.EDQUOT, "best.pt"),
    "writing results ENOSPC": ("open", 1, errno.ENOSPC, "results.json"),
    "writing results EROFS": ("open", 1, errno.EROFS, "results.json"),
    "writing events ENOSPC": ("open", 3, errno.ENOSPC, "tfevents"),
    "writing events EIO": ("open", 4, errno.EIO, "tfevents"),
    "writing a picture EIO": ("open", 1, errno.EIO, "confusion.png"),
    "writing, fsync EIO": ("fsync", 9, errno.EIO),
    "writing, rename EDQUOT": ("replace", 5, errno.EDQUOT),
    "writing, rename EACCES": ("replace", 7, errno.EACCES),
    "writing, folder renamed": ("train_step", 15, 1),
    "writing, folder deleted": ("train_step", 15, 0),
    "reading every checkpoint EIO": ("open", 1, errno.EIO, "last.pt previous.pt"),
    "reading a checkpoint EACCES": ("open", 1, errno.EACCES, "last.pt"),
    "reading best EIO": ("open", 2, errno.EIO, "best.pt"),
    "reading settings EACCES": ("open", 1, errno.EACCES, "config.json"),
}
QUICK = ("writing a checkpoint EIO", "writing events ENOSPC", "writing, folder renamed", "reading every checkpoint EIO")
NAMES = [pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK)) for name in STRIKES]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """Of a case its folder, that of a run that nothing happened to, and for each of its runs the status and the lines
    of standard error: the struck one, and the one that resumes it."""
    if not hasattr(os, "fork"):
        pytest.skip("children are forked, so that torch is imported once")
    found = {}

    def outcome(name: str):
        group = QUICK if name in QUICK else [each for each in STRIKES if each not in QUICK]
        if name not in found:
            home = tmp_path_factory.mktemp("faults")
            ends = run_cases(home, group)
            assert ends["whole"] == (0, [])
            found.update(dict.fromkeys(group, (home, ends)))
        home, ends = found[name]
        return home / name, home / "whole" / "run", ends[f"{name}-struck"], ends[f"{name}-resumed"]

    return outcome


def run_cases(home: Path, names) -> dict[str, tuple[int, list[str]]]:
    """Status and lines of standard error of each run, by its name."""
    cases = []

    def add(name: str, arguments: list[str], strike: tuple | None = None) -> None:
        cases.append({"log": str(home / f"{name}-log"), "strike": strike, "arguments": arguments})

    add("whole", [*FLAGS, "--model-dir", str(home / "whole")])
    for name in names:
        begin = [*FLAGS, "--model-dir", str(home / name)]
        resume = ["--resume", str(home / name / ("elsewhere" if "renamed" in name else "run"))]
        if name.startswith("reading"):
            add(f"{name}-begun", begin, ("open", 2, errno.ENOSPC, "new.pt"))
        add(f"{name}-struck", resume if name.startswith("reading") else begin, STRIKES[name])
        add(f"{name}-resumed", resume)
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        input=json.dumps(cases),
        capture_output=True,
        text=True,
        timeout=600,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    found = {}
    for case, status in zip(cases, done.stdout.split(), strict=True):
        name = Path(case["log"]).name.removesuffix("-log")
        found[name] = int(status), Path(f"{case['log']}.err").read_text(encoding="utf-8").splitlines()
    return found


def assert_same_end(ours: Path, theirs: Path) -> None:
    """The same weights, optimiser, random states, history and test, to the bit."""
    clocks = ("seconds", "epoch_seconds")
    last = [checkpoint.load(folder / "last.pt") for folder in (ours, theirs)]
    assert_equal(*[{key: value for key, value in content.items() if key not in clocks} for content in last])
    assert_equal(*[checkpoint.load(folder / "best.pt") for folder in (ours, theirs)])
    results = [json.loads((folder / "results.json").read_text(encoding="utf-8")) for folder in (ours, theirs)]
    for key in ("test", "history", "best_epoch", "epochs"):
        assert_equal(results[0][key], results[1][key], key)


@pytest.mark.parametrize("name", NAMES)
def test_trouble_with_a_file_is_one_line_and_loses_nothing(outcome, name):
    parent, whole, (status, lines), resumed = outcome(name)
    *passed_over, last = lines
    assert status == (2 if "settings" in name else 1)  # what cannot be opened at all is no run
    assert last.startswith("error: ")
    assert os.strerror(errno.ENOENT if "folder" in name else STRIKES[name][2]) in last
    expected = 2 if "every checkpoint" in name else 0
    assert ["passing over a broken checkpoint" in line for line in passed_over] == [True] * expected
    if "deleted" in name:
        assert resumed[0] == 2
        assert "no run" in resumed[1][0]
        assert list(parent.iterdir()) == []
        return
    assert resumed == (0, [])
    folder = parent / ("elsewhere" if "renamed" in name else "run")
    assert_same_end(folder, whole)
    assert not list(folder.glob("*.tmp"))
