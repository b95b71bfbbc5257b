"""Runs that stay as they are when they are resumed: published ones, and those that left no checkpoint to go on from.

Nothing here imports torch at the top.
"""

import contextlib
import dataclasses
import inspect
import json
import math
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from lab1.engine.config import REPOSITORY, RunConfig, require
from lab1.engine.files import read_object, write_text

# Where a run computes, and where its files lie.
PLACES = ("device", "data_dir", "model_dir", "name", "compile", "threads", "workers")


def shown(path: Path) -> str:
    """A path as people read it: relative where it is inside the current folder."""
    path = Path(path)
    inside = path.is_relative_to(Path.cwd()) and path != Path.cwd()
    return str(path.relative_to(Path.cwd()) if inside else path)


def is_published(folder: Path) -> bool:
    """Whether a run is one of those that come with the repository, under a lab's ``model/published``."""
    return any((parent.name, parent.parent.name) == ("published", "model") for parent in folder.resolve().parents)


def script_name(config: RunConfig) -> str:
    """The script that a Config belongs to, such as ``lab1/train_mlp.py``."""
    path = Path(inspect.getfile(type(config))).resolve()
    return path.relative_to(REPOSITORY).as_posix() if path.is_relative_to(REPOSITORY) else path.name


def read_results(config: RunConfig, folder: Path) -> dict[str, Any] | None:
    """The ``results.json`` of a run of this configuration's script; None where there is none.

    Raises:
        UsageError: where it cannot be read, or is none of this script's.
    """
    path = folder / "results.json"
    try:
        results = read_object(path)
    except FileNotFoundError:
        return None
    ours = results.get("script") in (None, script_name(config)) and isinstance(results.get("test", {}), dict)
    require(ours, f"{path} is not what {script_name(config)} wrote there; move it away to resume the run")
    return results


def changed_flags(config: RunConfig, folder: Path, aside: Collection[str] = PLACES) -> list[str]:
    """The flags with another value than in the ``config.json`` of a run, such as ``["--epochs 40"]``, but for those
    ``aside``: where it computes and files lie."""
    return [
        f"--{name.replace('_', '-')} {' '.join(map(str, value)) if isinstance(value, list) else value}"
        for name, (_, value) in _changes(config, folder, aside).items()
    ]


def _changes(config: RunConfig, folder: Path, aside: Collection[str]) -> dict[str, tuple[Any, Any]]:
    """The values before and now of each flag that has another one than in a run's ``config.json``; one that an older
    run does not know had its default, or what ``older`` says."""
    before = read_object(folder / "config.json")
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    defaults = {name: list(value) if isinstance(value, tuple) else value for name, value in defaults.items()}
    defaults |= {name: None if value == math.inf else value for name, value in config.older.items()}
    values = {name: (before.get(name, defaults[name]), value) for name, value in config.as_dict().items()}
    changed = {name: pair for name, pair in values.items() if name not in aside and pair[0] != pair[1]}
    if "auto" in changed.get("precision", ()):  # a series leaves it to its jobs on a cluster
        del changed["precision"]
    return changed


def earlier_flags(folder: Path) -> list[dict[str, Any]]:
    """What a run was made with before it was resumed with other flags, in order: ``[{"epochs": 2, "flags": {"epochs":
    2, "learning_rate": 0.1}}]`` of one that had these values up to its second epoch. Empty where it never was.

    Raises:
        UsageError: where the file that says so cannot be read.
    """
    path, before = folder / "resumed.json", []
    with contextlib.suppress(FileNotFoundError):
        before = read_object(path).get("before")
    require(isinstance(before, list), f"{path} is not as it was written; move it away to resume the run")
    return before


def note_flags(config: RunConfig, folder: Path, unit: str, done: int) -> None:
    """Write the values that flags had up to now, where a run is resumed with others, to its ``resumed.json``; to be
    called before ``config.json`` is written anew."""
    flags = {name: before for name, (before, _) in _changes(config, folder, PLACES).items()}
    earlier, note = earlier_flags(folder), {unit: done, "flags": flags}
    if flags and note not in earlier:  # it is there if this was killed before config.json was written
        write_text(json.dumps({"before": [*earlier, note]}, indent=1) + "\n", folder / "resumed.json")


def stands(config: RunConfig) -> dict[str, Any] | None:
    """The results of the run to resume if nothing of it is to be touched, after a line that says so: of a published
    one, and of one that is finished and has no checkpoint. None where there is something to go on with, or nothing to
    resume.

    Raises:
        UsageError: where flags were changed all the same.
    """
    if config.resume is None:
        return None
    folder = Path(config.resume)
    published, results = is_published(folder), read_results(config, folder)
    kept = any((folder / name).exists() for name in ("new.pt", "last.pt", "previous.pt"))
    if not published and (results is None or kept or "test" not in results):
        return None
    changed = ", ".join(changed_flags(config, folder))
    require(
        not published or (results is not None and not changed),
        f"{shown(folder)}: published runs stay as they are; to train one of your own, leave out --resume and give the "
        f"flags of its config.json{f' with {changed}' if changed else ''}",
    )
    require(
        not changed,
        f"{shown(folder)} has no checkpoint to go on from with {changed}; leave out --resume to train a new run",
    )
    if os.environ.get("RANK", "0") == "0":  # under torchrun one process speaks for all
        from lab1.engine.metrics import in_words

        without = "" if kept or "runs" in results else "; it has no checkpoint to go on from"
        test = in_words(results.get("test", {}))
        print(f"{shown(folder)} is finished: its results.json stands{without}{f' (test {test})' if test else ''}")
    return results
