"""Runs side by side: each once, alone in its process, stopped together, and none lost because another one fails."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from lab1.engine import workers
from lab1.engine.config import Interrupted, RunFailed
from tests.posix import posix

# Jobs: they run in other processes, which import this file.


def square(job):
    return job**2, os.getpid(), workers.number, torch.get_num_threads(), os.environ.get("LOCAL_RANK")


def fail_at_three(job):
    if job == 3:
        raise RunFailed("three is too many")
    return job


def killed_once(job):
    """The process of job 1 is killed the first time."""
    folder, number = job
    mark = Path(folder) / "killed"
    if number == 1 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def killed_beside_a_run(job):
    """The process of job 0 is killed once, while job 1 trains: that one is to save, and to go on afterwards."""
    folder, number = Path(job[0]), job[1]
    if number == 0 and not (folder / "killed").exists():
        wait_until((folder / "began1").exists)
        (folder / "killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 1 and not (folder / "saved1").exists():
        wait_for_a_signal(job)
    return number


def killed_always(job):
    os.kill(os.getpid(), signal.SIGKILL)


def results(do, jobs, count):
    named = [(str(number), job) for number, job in enumerate(jobs)]
    with contextlib.closing(workers.run_all(do, named, count, threads=1)) as found:
        return {jobs[int(name)]: result for name, result in found}


@pytest.mark.parametrize("count", [1, 2])
def test_every_job_is_done_once_with_the_threads_it_was_told(count):
    found = results(square, range(5), count)
    assert {job: value[0] for job, value in found.items()} == {0: 0, 1: 1, 2: 4, 3: 9, 4: 16}
    assert {value[3] for value in found.values()} == {1}
    if count == 1:
        assert {value[1:3] for value in found.values()} == {(os.getpid(), 0)}
    else:
        assert os.getpid() not in {value[1] for value in found.values()}
        assert {value[2] for value in found.values()} <= {1, 2}
        assert all(int(value[4]) == workers.gpu_of(value[2]) for value in found.values())


def test_workers_take_turns_on_the_gpus(monkeypatch):
    for gpus, expected in ((0, [0, 0, 0, 0, 0]), (1, [0, 0, 0, 0, 0]), (2, [0, 1, 0, 1, 0]), (8, [0, 1, 2, 3, 4])):
        monkeypatch.setattr(torch.cuda, "device_count", lambda gpus=gpus: gpus)
        assert [workers.gpu_of(number) for number in range(1, 6)] == expected


@pytest.mark.parametrize("count", [1, 2])
def test_a_run_that_fails_does_not_take_the_others_along(count):
    found = []
    with (
        pytest.raises(RunFailed, match="three is too many"),
        contextlib.closing(workers.run_all(fail_at_three, [(f"{n}", n) for n in range(6)], count, threads=1)) as jobs,
    ):
        found.extend(jobs)
    assert sorted(found) == [(f"{job}", job) for job in (0, 1, 2, 4, 5)]


@posix
def test_a_run_whose_process_is_killed_begins_again(tmp_path, capfd):
    jobs = [(str(tmp_path), number) for number in range(4)]
    assert results(killed_once, jobs, 2) == {job: job[1] for job in jobs}
    assert "a worker's process was killed" in capfd.readouterr().err


@posix
def test_where_processes_are_killed_again_and_again_it_gives_up():
    with pytest.raises(RunFailed, match="fewer --workers"):
        results(killed_always, range(3), 2)


def test_how_many_workers():
    def many(jobs, device="cpu", **flags):
        return workers.how_many(workers.SeriesConfig(**flags), jobs, device)

    assert many(100) == workers.cores()
    assert many(100, threads=workers.cores()) == 1
    assert many(1) == many(100, dry_run=True) == many(100, device="mps") == 1
    assert many(100, workers=7) == many(100, workers=7, dry_run=True) == 7
    assert many(3, workers=7) == 3


def killed_then_waiting(job):
    return killed_beside_a_run(job) if job[1] < 2 else wait_for_a_signal(job)


WAITING = """
import contextlib, sys, time
from pathlib import Path
from lab1.engine import workers
from lab1.engine.series import interruptible
from tests.lab1.engine import test_workers

if __name__ == "__main__":
    do, folder = getattr(test_workers, sys.argv[1]), Path(sys.argv[2])
    jobs = [(str(number), (str(folder), number)) for number in range(4)]
    with interruptible(folder), contextlib.closing(workers.run_all(do, jobs, 2, threads=1)) as found:
        print(sorted(value for _, value in found))
"""


def wait_for_a_signal(job):
    """As a Trainer does: notes the signal, finishes what it is at, and leaves."""
    from lab1.engine.config import Interrupted
    from lab1.engine.signals import StopSignals

    folder, number = job
    with StopSignals() as signals:
        (Path(folder) / f"began{number}").touch()
        wait_until(lambda: signals.received)
    (Path(folder) / f"saved{number}").touch()
    raise Interrupted(signals.received, Path(folder))


def begin_and_wait(job):
    """As ``wait_for_a_signal``; the first one's worker is sent the signal, and it alone."""
    _, number = job
    if number == 0:
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    wait_for_a_signal(job)


@posix
def test_a_signal_that_comes_to_one_worker_alone_stops_all_of_them_saved(tmp_path):
    """Ctrl-C may reach a worker sooner than the first process: it is not to begin another run meanwhile."""
    jobs = [(str(number), (str(tmp_path), number)) for number in range(6)]
    with pytest.raises(Interrupted) as stop, contextlib.closing(workers.run_all(begin_and_wait, jobs, 2, 1)) as found:
        list(found)
    assert (stop.value.signal_number, stop.value.folder) == (signal.SIGINT, tmp_path)
    began = {path.name.removeprefix("began") for path in tmp_path.glob("began*")}
    assert began == {path.name.removeprefix("saved") for path in tmp_path.glob("saved*")}
    assert "0" in began
    assert len(began) <= 2


def start(do, folder, **options):
    """Four jobs of this file's function, two at a time, by a script of its own."""
    script = folder / "waiting.py"
    script.write_text(WAITING, encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, script, do, folder]
    return subprocess.Popen(command, env=environment, start_new_session=True, **options)


@posix
def test_a_run_beside_one_whose_process_is_killed_is_saved_and_goes_on(tmp_path):
    process = start("killed_beside_a_run", tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        out, err = process.communicate(timeout=120)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert out.split("\n")[-2] == "[0, 1, 2, 3]"
    assert "a worker's process was killed" in err
    assert (tmp_path / "saved1").exists()


@posix
def test_a_signal_after_a_process_was_killed_stops_the_others(tmp_path):
    """What stops them must not wait for one that was killed while it waited."""
    process = start("killed_then_waiting", tmp_path)
    wait_until(lambda: (tmp_path / "began2").exists() and (tmp_path / "began3").exists())
    process.terminate()
    assert process.wait(timeout=60) == 1  # by the Interrupted that it raises
    assert (tmp_path / "saved2").exists() and (tmp_path / "saved3").exists()
    wait_until(lambda: not alive(process.pid))


@pytest.mark.parametrize(
    ("number", "to_all"), [(signal.SIGTERM, False), (signal.SIGINT, True), (signal.SIGKILL, False)]
)
@posix
def test_a_signal_stops_all_of_them_saved(tmp_path, number, to_all):
    """SIGTERM comes to the first process alone, Ctrl-C to all of a terminal's; after SIGKILL nobody is left behind."""
    process = start("wait_for_a_signal", tmp_path)
    wait_until(lambda: len(list(tmp_path.glob("began*"))) == 2)
    os.killpg(process.pid, number) if to_all else os.kill(process.pid, number)
    assert process.wait(timeout=60) != 0
    wait_until(lambda: len(list(tmp_path.glob("saved*"))) == 2)  # those that had begun
    assert len(list(tmp_path.glob("began*"))) == 2
    wait_until(lambda: not alive(process.pid))


def alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def wait_until(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
