"""Runs as jobs of a Slurm cluster, through submitit (github.com/facebookincubator/submitit): ``--cluster slurm``.

A series becomes one job array. Each job is the same call that a worker process makes (``lab1.engine.workers``), so it
finds the same. At a job's time limit, or where it is preempted, Slurm sends a signal: the Trainer saves, submitit puts
the job back into the queue, and it goes on from there. What was killed is submitted again by the same command.
"""

import contextlib
import hashlib
import importlib
import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lab1.engine import workers
from lab1.engine.config import Interrupted, RunConfig, RunFailed, UsageError, require
from lab1.engine.files import read_object
from lab1.engine.finished import script_name
from lab1.engine.metrics import in_words

LOOK_SECONDS = 2.0  # between two looks at the queue
LOST_AFTER = 5  # looks that a job is neither in the queue nor has left a result
REQUEUES = 1000  # how often a job may be put back into the queue at its time limit


class Job:
    """One run, as submitit pickles it: calls ``do(job)`` in a process of its own, and again after it was requeued."""

    def __init__(self, do: Callable[[Any], Any], job: Any, threads: int):
        self.do, self.job, self.threads = do, job, threads

    def __call__(self) -> Any:
        workers.limit_threads(self.threads)
        try:
            return self.do(self.job)
        except Interrupted as stop:
            # The run is saved. Submitit's own handler, which is back in its place, puts this job into the queue again.
            signal.raise_signal(stop.signal_number)
            raise

    def checkpoint(self) -> Any:
        """What submitit asks for: what goes on in place of a job that has to stop."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def options(given: Sequence[str]) -> dict[str, Any]:
    """What ``--slurm partition=gpu time=60 gpus=1`` says, as submitit takes it: whole numbers as numbers; other options
    of sbatch than submitit's own are handed on as they are.

    Raises:
        UsageError: for what is not KEY=VALUE.
    """
    short = {"gpus": "gpus_per_node", "cpus": "cpus_per_task"}
    found = {}
    for option in given:
        key, equals, value = option.partition("=")
        require(bool(key and equals and value), f"--slurm {option}: KEY=VALUE is needed, such as partition=gpu time=60")
        key = key.replace("-", "_")
        found[short.get(key, key)] = int(value) if value.isdigit() else value
    return found


def make_executor(given: Sequence[str], folder: Path):
    """Submitit's executor, which writes its files into ``folder``.

    Raises:
        UsageError: where submitit is not installed, there is no Slurm, or it does not know an option.
    """
    try:
        import submitit
    except ImportError:
        raise UsageError("--cluster slurm needs submitit: pip install -e .[cluster]") from None
    try:
        executor = submitit.SlurmExecutor(folder=str(folder), max_num_timeout=REQUEUES)
    except RuntimeError:
        raise UsageError("--cluster slurm: there is no sbatch here; run this on a machine of the cluster") from None
    settings = {"time": 60, "job_name": folder.parent.name} | options(given)
    known = set(submitit.SlurmExecutor._valid_parameters())
    own = {key: value for key, value in settings.items() if key in known}
    others = {key.replace("_", "-"): value for key, value in settings.items() if key not in known}
    executor.update_parameters(**own, **({"additional_parameters": others} if others else {}))
    return executor


def run_all(
    do: Callable[[Any], Any],
    jobs: Sequence[tuple[str, Any]],
    given: Sequence[str],
    threads: int,
    folder: Path,
    detach: bool = False,
) -> Iterator[tuple[str, Any]]:
    """``do(job)`` of every job on the cluster, as one job array; yields ``(name, what it returned)`` as each is done.

    Jobs that an earlier call submitted are collected; those that failed or were killed are submitted again. With
    ``detach`` it does not wait for what is not done yet.

    Args:
        jobs: the name of each, and what ``do`` is given.
        given: options for sbatch (see ``options``).
        folder: of the series; what belongs to the jobs is in ``slurm/`` there.

    Raises:
        UsageError: where jobs cannot be submitted.
        RunFailed: once the others are done, where a job failed.
    """
    place = folder / "slurm"
    executor = make_executor(given, place)
    from submitit import SlurmJob

    ids = _read_ids(place)
    running = {name: SlurmJob(place, ids[name]) for name, _ in jobs if name in ids}
    alive = _queue()
    if alive is None:
        raise RunFailed(
            "squeue does not answer, so nobody knows what still runs; nothing was submitted: try again later"
        )
    running = {name: job for name, job in running.items() if job.job_id in alive or _succeeded(job)}
    new = [(name, job) for name, job in jobs if name not in running]
    if new:
        try:
            with executor.batch():
                submitted = [executor.submit(Job(do, job, threads)) for _, job in new]
        except subprocess.CalledProcessError as error:
            raise UsageError(f"--slurm {' '.join(given)}: sbatch refuses this (status {error.returncode})") from None
        except Exception as error:  # submitit's own, of one name or another
            raise UsageError(f"--slurm: {(str(error).strip().splitlines() or ['?'])[-1]}") from None
        running |= {name: job for (name, _), job in zip(new, submitted, strict=True)}
        _write_ids(place, ids | {name: job.job_id for name, job in running.items()})
        print(f"{len(new)} jobs submitted; what they say is in {place}", flush=True)
    failures: list[str] = []
    missed = dict.fromkeys(running, 0)
    with tqdm(total=len(running), unit=" jobs", disable=None, leave=False) as bar:
        while True:
            seen = _queue()
            alive = alive if seen is None else seen  # a busy Slurm may not answer for a while: nothing is lost by that
            for name, job in list(running.items()):
                # A result may be seen a little after its job has left the queue.
                missed[name] = 0 if job.job_id in alive else missed[name] + (seen is not None)
                if job.job_id in alive or (not job.paths.result_pickle.exists() and missed[name] < LOST_AFTER):
                    continue
                del running[name]
                bar.update()
                if _succeeded(job):
                    yield name, job.result()
                else:
                    failures.append(name)
            if not running or detach:
                break
            states = sorted(alive.get(job.job_id, "ending").lower() for job in running.values())
            shown = [f"{states.count(one)} {one}" for one in dict.fromkeys(states)]
            bar.set_postfix_str(", ".join(shown if seen is not None else [*shown, "squeue does not answer"]))
            time.sleep(LOOK_SECONDS)
    if running:
        print(f"{len(running)} jobs are not done; collect them with the same command and --resume {folder}", flush=True)
    if failures:
        raise RunFailed(f"{len(failures)} jobs failed or were killed ({failures[0]}, ...); --resume submits them again")


def run_alone(config: RunConfig) -> None:
    """A script's whole run as one job; ``--resume auto`` there, so that it goes on wherever it was stopped."""
    module = script_name(config).removesuffix(".py").replace("/", ".")
    fields = vars(config) | {"cluster": None, "slurm": (), "detach": False, "resume": config.resume or "auto"}
    threads = int(options(config.slurm).get("cpus_per_task", 1))
    folder = config.runs_folder().resolve() / f".slurm-{config.run_name()}"
    folder.mkdir(parents=True, exist_ok=True)
    # By its flags, too: with others a finished job's result is not what is asked for.
    flags = hashlib.sha256(json.dumps(config.as_dict(), sort_keys=True).encode()).hexdigest()[:8]
    job = (f"{config.run_name()} {flags}", (module, fields))
    for _, test in run_all(run_script, [job], config.slurm, threads, folder, config.detach):
        print(f"{config.run_name()} is done" + (f": test {in_words(test)}" if isinstance(test, dict) else ""))


def run_script(job: tuple[str, dict[str, Any]]) -> Any:
    """What a job does: a script's ``main`` with these flags."""
    module, fields = job
    script = importlib.import_module(module)
    return script.main(script.Config(**fields))


def _queue() -> dict[str, str] | None:
    """The jobs that wait or run, as Slurm tells, with their states, each of an array by itself; None where it does not
    answer."""
    command = ["squeue", "--me", "--noheader", "--array", "--format=%i %T"]
    said = subprocess.run(command, capture_output=True, text=True)
    if said.returncode != 0:
        return None
    return dict(line.split(maxsplit=1) for line in said.stdout.splitlines() if " " in line.strip())


def _succeeded(job) -> bool:
    return job.paths.result_pickle.exists() and job.exception() is None


def _read_ids(place: Path) -> dict[str, str]:
    with contextlib.suppress(OSError, UsageError):
        return read_object(place / "jobs.json")
    return {}


def _write_ids(place: Path, ids: dict[str, str]) -> None:
    from lab1.engine.logbook import write_json

    write_json(ids, place / "jobs.json")
