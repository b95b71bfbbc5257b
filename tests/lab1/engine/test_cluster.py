"""A series on a real Slurm, where there is one: an array of jobs, one killed, one told that its time is up, and one
preempted. ``tests/slurm.sh`` starts one."""

import contextlib
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from lab1 import train_mlp
from lab1.engine import cluster
from lab1.engine.config import REPOSITORY, RunFailed, UsageError
from tests.exactness import assert_same_end
from tests.posix import posix

FLAGS = "--family mlp --dataset digits --depths 2 --seeds 0 1 2 3 --width 64 --epochs 150 --device cpu".split()


def test_options_as_submitit_takes_them():
    given = ["partition=gpu", "time=60", "gpus=1", "mem-per-cpu=4GB", "qos=low"]
    found = {"partition": "gpu", "time": 60, "gpus_per_node": 1, "mem_per_cpu": "4GB", "qos": "low"}
    assert cluster.options(given) == found


@pytest.mark.parametrize("option", ["gpu", "=3", "time="])
def test_an_option_that_is_none_is_refused(option):
    with pytest.raises(UsageError, match="KEY=VALUE is needed"):
        cluster.options([option])


def test_a_single_run_is_known_by_its_name_and_its_flags(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(cluster, "run_all", lambda _, jobs, *rest: asked.append(jobs[0][0]) or [])
    first = train_mlp.Config(model_dir=tmp_path, name="one", cluster="slurm")
    later = dict(detach=True, resume="auto", slurm=("time=5",))  # how it is submitted says nothing of the result
    for changed in ({}, later, {"epochs": 3}, {"learning_rate": 0.01}, {"seed": 1}, {"epochs": 3}):
        cluster.run_alone(dataclasses.replace(first, **changed))
    assert {job.split()[0] for job in asked} == {"one"}
    assert [asked.index(job) for job in asked] == [0, 0, 2, 3, 4, 2]


class FakeJob:
    """What submitit knows of a job, as far as it is needed."""

    def __init__(self, place: Path, job_id: str):
        self.job_id, self.paths = job_id, SimpleNamespace(result_pickle=place / f"{job_id}.pkl")

    def exception(self):
        return None

    def result(self) -> str:
        return self.paths.result_pickle.read_text(encoding="utf-8")


class FakeExecutor:
    """Takes jobs as Slurm would."""

    def __init__(self, place: Path):
        self.place, self.submitted = place, []

    def batch(self):
        return contextlib.nullcontext()

    def submit(self, job) -> FakeJob:
        self.submitted.append(job.job)
        return FakeJob(self.place, f"7_{len(self.submitted)}")


@pytest.fixture
def executor(tmp_path, monkeypatch) -> FakeExecutor:
    fake = FakeExecutor(tmp_path / "slurm")
    fake.place.mkdir()
    monkeypatch.setitem(sys.modules, "submitit", SimpleNamespace(SlurmJob=FakeJob))
    monkeypatch.setattr(cluster, "make_executor", lambda given, folder: fake)
    monkeypatch.setattr(cluster, "LOOK_SECONDS", 0)
    return fake


def test_while_the_queue_cannot_be_read_no_job_counts_as_lost(executor, tmp_path, monkeypatch):
    """A busy Slurm does not answer for longer than it takes to give a job up, and then it goes on as it was."""
    silence = [None] * (2 * cluster.LOST_AFTER)
    # Before it is submitted; while it runs; when it has left the queue and its result is not there yet.
    answers = iter([{}, {"7_1": "RUNNING"}, *silence, {"7_1": "RUNNING"}, {}, *silence])

    def queue():
        answer = next(answers, "over")
        if answer == "over":
            (executor.place / "7_1.pkl").write_text("found", encoding="utf-8")
            return {}
        return answer

    monkeypatch.setattr(cluster, "_queue", queue)
    assert list(cluster.run_all(len, [("a", "job")], (), 1, tmp_path)) == [("a", "found")]
    assert executor.submitted == ["job"]


def test_nothing_is_submitted_while_nobody_knows_what_runs(executor, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "_queue", lambda: None)
    with pytest.raises(RunFailed, match=r"squeue does not answer, .* nothing was submitted: try again later"):
        list(cluster.run_all(len, [("a", "job")], (), 1, tmp_path))
    assert executor.submitted == []


@posix
def test_what_squeue_says(tmp_path, monkeypatch):
    squeue = tmp_path / "squeue"
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    for status, queue in ((0, {"7_1": "RUNNING", "7_2": "PENDING"}), (1, None)):
        squeue.write_text(f"#!/bin/sh\necho 7_1 RUNNING\necho 7_2 PENDING\nexit {status}\n", encoding="utf-8")
        squeue.chmod(0o755)
        assert cluster._queue() == queue


def script(name: str, folder: Path, *flags: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(REPOSITORY / "lab1" / name), *flags]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=900, env=environment, cwd=folder)


def at_work(folder: Path) -> set[str]:
    """The jobs whose networks are in the middle of their training, by the ids that Slurm gives them."""
    alive, found = cluster._queue(), set()
    for name, job in json.loads((folder / "slurm" / "jobs.json").read_text(encoding="utf-8")).items():
        depth, residual, seed = (part.split()[-1] for part in name.split(", "))
        run = folder / f"{'residual' if residual == 'True' else 'plain'}-depth{depth}-seed{seed}"
        if alive.get(job) == "RUNNING" and (run / "last.pt").exists() and not (run / "results.json").exists():
            found.add(job)
    return found


def restarts(job: str) -> int:
    """How often Slurm has put a job back into its queue."""
    said = subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True, check=True).stdout
    return int(re.search(r"Restarts=(\d+)", said)[1])


@pytest.fixture
def slurm():
    if shutil.which("sbatch") is None or subprocess.run(["sinfo", "--noheader"], capture_output=True).returncode:
        pytest.skip("there is no Slurm here, or its controller does not answer")


@pytest.mark.slow
@pytest.mark.usefixtures("slurm")
def test_killed_and_out_of_time_and_preempted_the_series_ends_as_if_nothing_had_happened(tmp_path):
    flags = [*FLAGS, "--resume", "auto", "--model-dir", "jobs", "--cluster", "slurm", "--slurm", "time=10"]
    submitted = script("sweep_depth.py", tmp_path, *flags, "--detach")
    assert submitted.returncode == 0, submitted.stderr
    assert "8 jobs submitted" in submitted.stdout
    folder = tmp_path / "jobs" / "depth-mlp-digits"
    struck, strikes = [], []
    for strike in (
        ["scancel", "--signal=KILL"],
        ["scancel", "--signal=USR2"],  # as Slurm sends before the end of a job's time: it saves
        ["scontrol", "requeue"],  # as where its place is needed: it is ended and waits for another place
    ):
        end = time.monotonic() + 240
        while not (found := at_work(folder) - {*struck}):
            assert time.monotonic() < end, (struck, cluster._queue())
            time.sleep(0.05)
        struck += sorted(found)[:1]
        # In the background: scancel goes on trying for a minute where the job is being ended by then.
        strikes.append(subprocess.Popen([*strike, struck[-1]]))
    killed, *others = struck
    while killed in cluster._queue():
        time.sleep(0.2)
    again = script("sweep_depth.py", tmp_path, *flags)
    assert again.returncode == 0, again.stderr
    for process in strikes:
        process.wait(120)
    assert "1 jobs submitted" in again.stdout
    assert all(restarts(job) > 0 for job in others)
    alone = script("sweep_depth.py", tmp_path, *FLAGS, "--model-dir", "alone")
    assert alone.returncode == 0, alone.stderr
    assert len(list(folder.glob("*-seed*/results.json"))) == 8
    assert_same_end(folder, tmp_path / "alone" / "depth-mlp-digits")


@pytest.mark.slow
@pytest.mark.usefixtures("slurm")
def test_a_single_run_with_other_flags_is_another_job(tmp_path):
    flags = "--dataset digits --hidden 8 --device cpu --name one --model-dir jobs --cluster slurm".split()

    def train(epochs: int) -> tuple[bool, str]:
        """Whether a job was submitted, and what is said of its result."""
        done = script("train_mlp.py", tmp_path, *flags, "--epochs", str(epochs))
        assert done.returncode == 0, done.stderr
        *before, last = done.stdout.splitlines()
        assert last.startswith("one is done: test loss ")
        return any(line.startswith("1 jobs submitted") for line in before), last

    one, two = train(1), train(2)
    assert one[0] and two[0]
    assert one[1] != two[1]
    assert (train(1), train(2)) == ((False, one[1]), (False, two[1]))
    lengths = {
        path.name: len(json.loads((path / "results.json").read_text(encoding="utf-8"))["history"])
        for path in (tmp_path / "jobs").glob("one*")
    }
    assert lengths == {"one": 1, "one-2": 2}
