"""A series on a real Slurm, where there is one: an array of jobs, one killed, one told that its time is up."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lab1.engine import cluster
from lab1.engine.config import REPOSITORY, UsageError
from tests.exactness import without_clocks

FLAGS = "--family mlp --dataset digits --depths 2 --seeds 0 1 --width 64 --epochs 150 --device cpu".split()


def test_options_as_submitit_takes_them():
    given = ["partition=gpu", "time=60", "gpus=1", "mem-per-cpu=4GB", "qos=low"]
    found = {"partition": "gpu", "time": 60, "gpus_per_node": 1, "mem_per_cpu": "4GB", "qos": "low"}
    assert cluster.options(given) == found


@pytest.mark.parametrize("option", ["gpu", "=3", "time="])
def test_an_option_that_is_none_is_refused(option):
    with pytest.raises(UsageError, match="KEY=VALUE is needed"):
        cluster.options([option])


def sweep(folder: Path, *flags: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(REPOSITORY / "lab1" / "sweep_depth.py"), *flags]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment, cwd=folder)


def running() -> list[str]:
    """The ids of the jobs that run."""
    return [job for job, state in cluster._queue().items() if state == "RUNNING"]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("sbatch") is None, reason="there is no Slurm here")
def test_killed_and_out_of_time_the_series_ends_as_if_nothing_had_happened(tmp_path):
    if subprocess.run(["sinfo", "--noheader"], capture_output=True).returncode:
        pytest.skip("Slurm's controller does not answer")
    submitted = sweep(tmp_path, *FLAGS, "--model-dir", "jobs", "--cluster", "slurm", "--detach", "--slurm", "time=10")
    assert submitted.returncode == 0, submitted.stderr
    assert "4 jobs submitted" in submitted.stdout
    folder = tmp_path / "jobs" / "depth-mlp-digits"
    end = time.monotonic() + 120
    while not list(folder.glob("*-seed*/last.pt")) or not running():
        assert time.monotonic() < end
        time.sleep(0.2)
    struck, *others = running()
    subprocess.run(["scancel", "--signal=KILL", struck], check=True)
    if others:  # as at the end of its time: it saves, is put into the queue again, and goes on
        subprocess.run(["scancel", "--signal=USR2", others[0]])
    while struck in cluster._queue():
        time.sleep(0.2)
    resume = ["--resume", str(folder), "--cluster", "slurm", "--slurm", "time=10"]
    first = sweep(tmp_path, *resume)
    if first.returncode:  # where the kill came before the end of the run: submitted again by the same command
        assert first.returncode == 1, first.stderr
        assert "--resume submits them again" in first.stderr
        assert sweep(tmp_path, *resume).returncode == 0
    alone = sweep(tmp_path, *FLAGS, "--model-dir", "alone")
    assert alone.returncode == 0, alone.stderr
    found = [json.loads((tmp_path / at / "depth-mlp-digits" / "results.json").read_text()) for at in ("jobs", "alone")]
    assert without_clocks(found[0]) == without_clocks(found[1])
