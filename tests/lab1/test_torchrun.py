"""Real processes under torchrun: they learn what one does, survive the loss of one, and speak with one voice."""

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from lab1.engine.config import REPOSITORY
from tests.exactness import assert_equal

FLAGS = "--dataset digits --hidden 16 --batch-size 64 --epochs 3 --dropout 0.2 --augment --device cpu".split()
STEPS = 3 * 21  # 1,295 digits to learn from

# The script, with faults by what torchrun counts its attempts with: {attempt: (rank, step, signal or "bug")}.
STRUCK = """
import json, os, sys
from lab1 import train_mlp
from lab1.engine.config import RunFailed
from lab1.engine.launch import launch
from lab1.trainer import Trainer

faults, train_step, taken = json.loads(sys.argv.pop(1)), Trainer.train_step, 0

def struck(self, batch):
    global taken
    taken += 1
    rank, step, fault = faults.get(os.environ["TORCHELASTIC_RESTART_COUNT"], (0, 0, 0))
    if (int(os.environ["RANK"]), taken) == (rank, step):
        if fault == "bug":
            raise ZeroDivisionError("a bug")
        if fault == "failure":
            raise RunFailed("the loss is nan")
        os.kill(os.getpid(), fault)
    return train_step(self, batch)

Trainer.train_step = struck
launch(train_mlp.main, train_mlp.Config)
"""


def torchrun(processes: int, *arguments: object, restarts: int = 0) -> subprocess.CompletedProcess:
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return run(*start, f"--max-restarts={restarts}", *arguments)


def run(*arguments: object) -> subprocess.CompletedProcess:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(list(map(str, arguments)), capture_output=True, text=True, timeout=240, env=environment)


@pytest.fixture(scope="module")
def script(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("struck") / "struck.py"
    path.write_text(STRUCK, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, script) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    done = torchrun(2, script, "{}", *FLAGS, "--model-dir", folder)
    assert done.returncode == 0, done.stderr
    return the_run(folder)


def the_run(folder: Path) -> Path:
    (found,) = folder.iterdir()
    return found


@pytest.mark.parametrize(("batch_size", "processes"), [(20, 2), pytest.param(1, 3, marks=pytest.mark.slow)])
def test_few_images_are_learned_as_by_one_process(tmp_path, batch_size, processes):
    flags = (
        f"--dataset digits --train-images 101 --hidden 16 --batch-size {batch_size} --epochs 2 --dropout 0 --augment"
    )
    script = REPOSITORY / "lab1" / "train_mlp.py"
    one = run(sys.executable, script, *flags.split(), "--model-dir", tmp_path / "one")
    assert one.returncode == 0, one.stderr
    several = torchrun(processes, script, *flags.split(), "--model-dir", tmp_path / "several")
    assert several.returncode == 0, several.stderr
    ours, theirs = (the_run(tmp_path / name) for name in ("several", "one"))
    steps = [torch.load(folder / "last.pt", weights_only=True)["step"] for folder in (ours, theirs)]
    assert steps == [2 * -(-101 // batch_size)] * 2
    ours, theirs = (json.loads((folder / "results.json").read_text(encoding="utf-8")) for folder in (ours, theirs))
    for mine, other in zip(ours["history"], theirs["history"], strict=True):
        for part in ("train", "validation"):
            assert mine[part] == pytest.approx(other[part], abs=1e-5)
    assert ours["test"]["loss"] == pytest.approx(theirs["test"]["loss"], abs=1e-5)


def assert_survives(faults: dict, script: Path, folder: Path, uninterrupted: Path) -> list[str]:
    """Killed as ``faults`` say, the run ends by itself as the uninterrupted one did; returns what was said."""
    done = torchrun(2, script, json.dumps(faults), *FLAGS, "--model-dir", folder, restarts=3)
    assert done.returncode == 0, done.stderr
    ours = the_run(folder)
    last = [torch.load(path / "last.pt", weights_only=True) for path in (ours, uninterrupted)]
    for name in ("weights", "optimizer", "random_states", "history", "step", "best_epoch"):
        assert_equal(last[0][name], last[1][name], name)
    assert_equal(*[torch.load(path / "best.pt", weights_only=True) for path in (ours, uninterrupted)])
    assert_equal(
        *[json.loads((path / "results.json").read_text(encoding="utf-8"))["test"] for path in (ours, uninterrupted)]
    )
    # Each time that one is killed the other says so, unless torchrun stops it first.
    said = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert set(said) <= {
        "error: one of the processes was lost; torchrun starts all of them again, from the newest checkpoint on"
    }
    assert len(said) <= len(faults)
    assert "[rank" not in done.stderr  # no traceback
    return done.stdout.splitlines()


def test_a_group_that_torchrun_starts_again_goes_on(script, tmp_path, uninterrupted):
    # Before the first checkpoint; in the second epoch; in the third.
    kills = {0: (1, 9, signal.SIGKILL), 1: (0, 21 + 12, signal.SIGKILL), 2: (1, 21 + 2, signal.SIGKILL)}
    said = assert_survives(kills, script, tmp_path, uninterrupted)
    folder = the_run(tmp_path)
    assert f"{folder} stopped before its first checkpoint: it starts again" in said
    assert f"resuming {folder} in epoch 2, after step 21" in said
    assert f"resuming {folder} in epoch 3, after step 42" in said


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_random_kills(script, tmp_path, uninterrupted, seed):
    draw = random.Random(seed)
    kills = {attempt: (draw.randrange(2), draw.randrange(1, STEPS), signal.SIGKILL) for attempt in range(3)}
    assert_survives(kills, script, tmp_path, uninterrupted)


@pytest.mark.parametrize(
    ("rank", "fault", "line"),
    [
        (0, signal.SIGKILL, "error: one of the processes was lost, so all of them stop; go on with the same command"),
        pytest.param(1, "failure", "error: the loss is nan", marks=pytest.mark.slow),
        pytest.param(1, "bug", "[rank1]: ZeroDivisionError: a bug", marks=pytest.mark.slow),
    ],
)
def test_one_fault_is_one_line(script, tmp_path, rank, fault, line):
    faults = json.dumps({0: (rank, 5, fault)})
    failed = torchrun(2, script, faults, *FLAGS, "--model-dir", tmp_path)
    assert failed.returncode == 1
    said = [each for each in failed.stderr.splitlines() if each.startswith("error: ") or "Error: " in each]
    said = [each for each in said if "ChildFailedError" not in each]  # torchrun's own account
    assert len(said) == 1, said
    assert said[0].startswith(line)
    assert f"[rank{1 - rank}]" not in failed.stderr


def test_buffers_that_are_evaluated_are_those_that_are_saved(tmp_path):
    script = tmp_path / "buffers.py"
    script.write_text(
        "import torch\n"
        "from lab1.engine import distributed\n"
        "distributed.start(torch.device('cpu'))\n"
        "norm = torch.nn.BatchNorm1d(2)\n"
        "norm(torch.arange(8.0).view(4, 2) + 100 * distributed.rank())\n"
        "distributed.share_buffers(norm)\n"
        "means = distributed.from_every_process(norm.running_mean)\n"
        "if distributed.rank() == 0:\n"
        "    print(torch.stack(means).tolist())\n"
        "distributed.finish()\n",
        encoding="utf-8",
    )
    done = torchrun(2, script)
    norm = nn.BatchNorm1d(2)
    norm(torch.arange(8.0).view(4, 2))
    assert json.loads(done.stdout) == [norm.running_mean.tolist()] * 2
