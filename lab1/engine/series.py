"""What the scripts that compare several networks share: one folder, entries in its results.json, stopping and going on.

An entry is written when its network is done, so that a series that is stopped loses at most what it was at.
"""

import contextlib
import dataclasses
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from lab1.engine import logbook, workers
from lab1.engine.config import Interrupted, RunConfig, UsageError, require
from lab1.engine.devices import find_precision
from lab1.engine.files import MISFITS, read_object, reason
from lab1.engine.finished import PLACES, changed_flags, is_published, shown
from lab1.engine.launch import prepare
from lab1.engine.unfinished import find_unfinished, read_settings
from lab1.engine.workers import SeriesConfig

RUNS = ("depths", "kinds", "agents", "seeds")  # which runs belong to a series
# What may change when a series is resumed: which runs belong to it, and where it computes; not the threads of its runs.
FREE = {*RUNS, *PLACES} - {"threads"}

Plan = list[dict[str, Any]]


def prepare_series(config: SeriesConfig) -> torch.device:
    """What a series does first, as ``prepare`` for a run; and finds the number format. On a cluster each job does so
    for itself: the machine that submits them may have no such device."""
    if config.cluster is not None:
        return torch.device("cpu")
    device = prepare(config)
    config.precision = find_precision(config.precision, device)
    return device


def open_series(
    config: RunConfig, planned: Callable[[Any], Plan], summary: Callable[[list[dict[str, Any]]], Any] = list
) -> tuple[Path, list[dict[str, Any]], Plan, Plan]:
    """The folder of a series, a new one or the one to resume, the entries that are done, the plan, and what of it is
    left to do. Where nothing is left, no file of the folder is touched. One that is unfinished keeps the runs that it
    was to have, whatever further ones are asked for: ``config`` names them all afterwards.

    Args:
        planned: of each run of a series of this configuration, what its entry says of it: ``{"depth": 5, "seed": 0}``.
        summary: what the script makes of its entries; it fails on those that are not its own.

    Raises:
        UsageError: where a flag was changed that what is done depends on, or the results cannot be read, or something
            is left to do in a published series.
    """
    entries = []
    if config.resume == "auto":
        config.resume = find_unfinished(config, partial(_is_done, config, planned))
    if config.resume is None:
        folder = logbook.new_run_folder(config.runs_folder(), config.run_name(), config.as_dict())
    else:
        folder = Path(config.resume)
        flags = ", ".join(flag.split()[0] for flag in changed_flags(config, folder, FREE))
        require(not flags, f"{flags}: changed since {folder} was begun, which compares like with like; start anew")
        entries = read_entries(folder / "results.json", logbook.script_name(config), summary)
        if config.precision == "auto":
            config.precision = read_settings(folder).get("precision", "auto")
        if not _is_done(config, planned, folder):
            for name, before in read_settings(folder).items():
                if name in RUNS and isinstance(before, list):
                    setattr(config, name, tuple(dict.fromkeys([*before, *getattr(config, name)])))
    plan = planned(config)
    left = _left(plan, entries)
    if left:
        require(
            not is_published(folder),
            f"{shown(folder)}: published runs stay as they are; to train one of your own, leave out --resume and give "
            "the flags of its config.json with yours",
        )
        if config.resume is not None:
            logbook.write_json(config.as_dict(), folder / "config.json")
    else:
        print(f"{shown(folder)} is finished: its results.json stands")
    return folder, entries, plan, left


def _left(plan: Plan, entries: list[dict[str, Any]]) -> Plan:
    """What of a plan has no entry yet."""
    return [one for one in plan if not any(all(entry.get(key) == one[key] for key in one) for entry in entries)]


def _is_done(config: RunConfig, planned: Callable[[Any], Plan], folder: Path) -> bool:
    """Whether a series has all the entries that its own ``config.json`` plans."""
    saved = {name: tuple(v) if isinstance(v, list) else v for name, v in read_settings(folder).items()}
    own = {name: value for name, value in saved.items() if name not in PLACES}
    return not _left(
        planned(dataclasses.replace(config, **own, resume=str(folder))), read_entries(folder / "results.json")
    )


def make_all(
    config: SeriesConfig,
    device: torch.device,
    planned: Callable[[Any], Plan],
    do: Callable[[Any], Any],
    job: Callable[..., Any],
    summary: Callable[[list[dict[str, Any]]], Any],
) -> tuple[Path, list[dict[str, Any]], bool]:
    """Make what is left of a series, and write ``results.json`` after each run; returns the folder, all entries, and
    whether there was anything left.

    Args:
        planned: see ``open_series``. do: see ``each``; what it returns is an entry, or a list of them.
        job: what ``do`` is given, of the series' folder and, by name, what the plan says of a run.
        summary: what ``results.json`` says of the entries.
    """
    folder, entries, plan, left = open_series(config, planned, summary)
    with interruptible(folder):
        for one, found in each(config, device, plan, left, do, lambda one: job(folder, **one), folder):
            new = found if isinstance(found, list) else [found]
            entries = in_order([*entries, *(one | entry for entry in new)], plan)
            write_series(logbook.script_name(config), config, device, folder, summary(entries), entries)
    return folder, entries, bool(left)


def each(
    config: SeriesConfig,
    device: torch.device,
    plan: Plan,
    left: Plan,
    do: Callable[[Any], Any],
    job: Callable[[dict[str, Any]], Any],
    folder: Path,
) -> Iterator[tuple[dict[str, Any], Any]]:
    """Make the runs of a series that are left, ``config.workers`` at a time; yields what the plan says of each and what
    ``do`` returned of it, as they end.

    Args:
        do: makes one run. A function at the top of a module, which other processes import.
        job: what ``do`` is given, of what the plan says of a run.
        folder: of the series.
    """
    jobs = {", ".join(f"{name} {value}" for name, value in one.items()): (one, job(one)) for one in left}
    named, done = [(name, work) for name, (_, work) in jobs.items()], len(plan) - len(left)
    if config.cluster == "slurm":
        from lab1.engine import cluster

        runs = cluster.run_all(do, named, config.slurm, config.threads, folder.resolve(), config.detach)
    else:
        count = workers.how_many(config, len(left), device.type)
        if count > 1:
            print(f"{len(left)} runs, {count} at a time", flush=True)
        runs = workers.run_all(do, named, count, config.threads, done)
    with contextlib.closing(runs) as found:
        for number, (name, result) in enumerate(found, start=done + 1):
            tqdm.write(f"[{number}/{len(plan)}] {name}: done")
            yield jobs[name][0], result


def begin_or_resume(config: RunConfig) -> None:
    """Have a run of a series go on where it was begun before, in its folder within that of the series."""
    folder = config.runs_folder() / config.run_name()
    if folder.exists():
        config.resume = str(folder)


def in_order(entries: list[dict[str, Any]], plan: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The entries in the order of the plan, whenever each was done; what the plan does not know comes first."""

    def place(entry: dict[str, Any]) -> int:
        return next((n for n, one in enumerate(plan) if all(entry.get(key) == one[key] for key in one)), -1)

    return sorted(entries, key=place)


def read_entries(
    path: Path, script: str | None = None, summary: Callable[[list[dict[str, Any]]], Any] = list
) -> list[dict[str, Any]]:
    """The entries of a ``results.json``; none where it is not there yet.

    Args:
        script: whose it must be. summary: what must take its entries.

    Raises:
        UsageError: where it cannot be read, or is of another script, or its entries are not as they were written.
    """
    try:
        results = read_object(path)
    except FileNotFoundError:
        return []
    require(script in (None, results.get("script")), f"{path} is of another script: {results.get('script')!r}")
    try:
        entries = [dict(entry) for entry in results["runs"]]
        summary(entries)
    except MISFITS as error:
        raise UsageError(f"{path} is not as it was written: {reason(error)}") from None
    return entries


def write_series(
    script: str,
    config: RunConfig,
    device: torch.device,
    folder: Path,
    summary: list[dict[str, Any]],
    entries: list[dict[str, Any]],
) -> None:
    """Write ``results.json``: a summary over the seeds, the entries it is made from, and where these were made: here,
    and before that perhaps on other machines."""
    path, here = folder / "results.json", logbook.environment(device)
    before = read_object(path) if path.exists() else {}
    earlier = [one for one in (*before.get("earlier_environments", ()), before.get("environment", here)) if one != here]
    content = {"script": script, "config": config.as_dict(), "dataset": config.dataset, "summary": summary}
    content |= {"runs": entries, "environment": here} | ({"earlier_environments": earlier} if earlier else {})
    logbook.write_results(content, path)


@contextlib.contextmanager
def interruptible(folder: Path) -> Iterator[None]:
    """Inside ``with``, SIGINT or SIGTERM raises ``Interrupted`` at once, with the folder to go on with. A Trainer takes
    the signals over while it trains, and saves first; its own ``Interrupted`` comes out with this folder, too."""

    def stop(number: int, frame) -> None:
        raise Interrupted(number, folder)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except Interrupted as interrupted:
        raise Interrupted(interrupted.signal_number, folder) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
