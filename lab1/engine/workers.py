"""Several runs side by side, each in a process of its own: ``--workers``.

The runs share nothing but a folder, and each computes with as many threads as it is told, however many run beside it:
what they find does not depend on the number of workers.
"""

import contextlib
import dataclasses
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lab1.engine.config import Interrupted, RunConfig, RunFailed, Whole, require

RESTARTS = 2  # how often it begins again after a process was killed, as by a machine that is out of memory
number = 0  # of this worker, from 1; 0 in a process that is none
# Of this worker: whether it was told to leave, whether it is at a run, whether a signal ended one. It is told by a
# number in shared memory: to set an Event takes the consent of all that wait for it, also of one that was killed.
_told, _at_work, _interrupted = None, False, False


@dataclasses.dataclass
class SeriesConfig(RunConfig):
    """The further flags of a script that makes several runs."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of everything random; each makes all runs."""
    seed: int = 0
    """Stays 0: here it is --seeds that counts."""
    workers: Whole = None
    """Runs side by side, each in a process of its own (default: one a core, or one a GPU, where small networks leave
    room for more; 1 in a dry run)."""
    threads: int = 1
    """Threads that each run computes with. Their number changes its last digits, that of the workers nothing."""

    def check(self) -> None:
        super().check()
        require(self.seed == 0, f"--seed {self.seed}: use --seeds {self.seed}")
        require(len(self.seeds) > 0, "--seeds: at least one is needed, such as --seeds 0 1 2")
        require(
            len(set(self.seeds)) == len(self.seeds), f"--seeds {' '.join(map(str, self.seeds))}: one is there twice"
        )
        require(self.workers is None or self.workers >= 1, f"--workers {self.workers}: at least 1 is needed")
        require(1 <= self.threads <= 1024, f"--threads {self.threads}: a number from 1 to 1024 is needed")


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def how_many(config: SeriesConfig, jobs: int, device: str) -> int:
    """The number of workers: what was asked for, or else as many as fit on the cores with so many threads each; on GPUs
    one for each; on another device, and in a dry run, one. No more than there are jobs.

    Args:
        device: the type of the device that the runs compute on, such as ``cpu``.
    """
    asked = config.workers
    if asked is None and device == "cuda" and not config.dry_run:
        import torch

        asked = torch.cuda.device_count()
    elif asked is None:
        asked = cores() // config.threads if device == "cpu" and not config.dry_run else 1
    return max(1, min(asked, jobs))


def run_all(
    do: Callable[[Any], Any], jobs: Sequence[tuple[str, Any]], workers: int, threads: int, done: int = 0
) -> Iterator[tuple[str, Any]]:
    """Call ``do(job)`` for every job, ``workers`` at a time; yields ``(name, what it returned)`` as each is done. To be
    used inside ``contextlib.closing``, so that the workers stop, saved, where the loop over it is left.

    One that raises does not take the others along: what it raised is raised here after the last. Where a process is
    killed, the jobs that are not done begin again, or go on, if ``do`` resumes them.

    Args:
        do: a function at the top of a module. It and the jobs are pickled.
        jobs: the name of each, and what ``do`` is given.
        threads: that torch computes with in each worker.
        done: how many jobs were done before, for the progress bar.

    Raises:
        Interrupted: after SIGINT or SIGTERM, once every run is saved.
        RunFailed: where processes are killed again and again.
    """
    failures: list[BaseException] = []
    limit_threads(threads)
    if workers == 1:
        for name, job in jobs:
            try:
                found = do(job)
            except Interrupted:
                raise
            except Exception as error:
                failures.append(error)
            else:
                yield name, found
    else:
        yield from _run_in_pool(do, jobs, workers, threads, done, failures)
    if failures:
        raise failures[0]


def _run_in_pool(do, jobs, workers, threads, done, failures):
    context, pending, restarts = multiprocessing.get_context("spawn"), dict(jobs), 0
    with (
        _environment(threads),
        tqdm(total=len(jobs) + done, initial=done, desc="all", unit=" runs", disable=None, position=0) as bar,
    ):
        while pending:
            # New ones for each pool: a worker that is killed may hold a lock.
            told, numbers, lock = context.RawValue("b", 0), context.Value("i", 0), context.RLock()
            tqdm.set_lock(lock)
            pool = ProcessPoolExecutor(workers, context, _begin, (told, numbers, workers, threads, lock))
            try:
                futures = {pool.submit(_work, do, job): name for name, job in pending.items()}
                for future in as_completed(futures):
                    error, name = future.exception(), futures[future]
                    if isinstance(error, BrokenProcessPool):
                        raise error
                    if isinstance(error, Interrupted):  # the signal came to a worker, and may come here later
                        raise error
                    del pending[name]
                    bar.update()
                    if error is None:
                        yield name, future.result()
                    else:
                        failures.append(error)
            except BrokenProcessPool:
                told.value = True
                tqdm.set_lock(context.RLock())
                restarts += 1
                if restarts > RESTARTS:
                    raise RunFailed(
                        "a worker's process was killed again and again; where memory is short, use fewer --workers"
                    ) from None
                tqdm.write("a worker's process was killed: its run is begun again, or resumed", file=sys.stderr)
            except BaseException:  # a signal, or the loop over this was left
                told.value = True
                raise
            finally:
                pool.shutdown(cancel_futures=True)


def limit_threads(threads: int) -> None:
    """Have torch compute with so many threads in this process."""
    import torch

    torch.set_num_threads(threads)


@contextlib.contextmanager
def _environment(threads: int) -> Iterator[None]:
    """Inside ``with``, what is started reads that it may use so many threads, before it imports anything."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, str(threads)))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def gpu_of(number: int) -> int:
    """The GPU that "cuda" stands for in this worker: they take turns, and where there are more workers than GPUs,
    several share one."""
    import torch

    return (number - 1) % max(1, torch.cuda.device_count())


def _begin(told, numbers, workers: int, threads: int, lock) -> None:
    """What a worker does first."""
    global number, _told
    _told = told
    with numbers.get_lock():
        number, numbers.value = numbers.value % workers + 1, numbers.value + 1
    os.environ["LOCAL_RANK"] = str(gpu_of(number))
    # Between runs there is nothing to save: a Trainer at work has handlers of its own.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # The first process tells what becomes of each run.
    sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    tqdm.set_lock(lock)
    threading.Thread(target=_watch, daemon=True).start()
    limit_threads(threads)


def _watch() -> None:
    """Leave when all are told to, or when the first process is gone, once the Trainer has saved this worker's run. The
    pool could not be relied on: one that broke tells its workers to end by a signal that they may not hear."""
    parent = multiprocessing.parent_process()
    while parent.is_alive() and not _told.value:
        time.sleep(0.5)
    while _at_work:  # again and again: a Trainer that has not begun to train yet hears nothing
        if os.name == "nt":
            signal.raise_signal(signal.SIGTERM)  # os.kill would end the process there, unsaved
        else:
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.2)
    os._exit(1)


def _work(do: Callable[[Any], Any], job: Any) -> Any:
    global _at_work, _interrupted
    _at_work = True  # before it looks: whoever tells it to stop later finds it at work
    try:
        if _told.value or _interrupted:
            raise Interrupted(signal.SIGTERM, Path())
        return do(job)
    except Interrupted:
        _interrupted = True  # Ctrl-C reaches all processes, but not at once: it is not to begin another run meanwhile
        raise
    finally:
        _at_work = False
