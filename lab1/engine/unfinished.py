"""``--resume auto``: which run it stands for.

Nothing here imports torch at the top.
"""

import contextlib
import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab1.engine.config import RunConfig, UsageError, require
from lab1.engine.files import read_object
from lab1.engine.finished import PLACES, changed_flags, is_published, read_results, shown


def find_unfinished(config: RunConfig, is_finished: Callable[[Path], bool]) -> str | None:
    """The folder of the newest unfinished run of this name and these flags; where there is none, that of a finished
    one, which is left alone; None where there is none either, and a run is to be begun.

    Args:
        config: with what depends on the data set filled in.
        is_finished: tells it of a run's folder.

    Raises:
        UsageError: where a run of this name is unfinished and was begun with other flags.
    """
    changed = {folder: changed_flags(config, folder) for folder in runs_of_this_name(config)}
    same = [folder for folder, flags in changed.items() if not flags]
    going_on = [folder for folder in same if not is_finished(folder)]
    if same:
        return str((going_on or same)[0])
    for folder, flags in changed.items():
        require(
            is_finished(folder),
            f"--resume auto: {shown(folder)} is unfinished and has other flags than {', '.join(flags)}; give its own, "
            f"go on with --resume {shown(folder)}, or choose another --name",
        )
    return None


def runs_of_this_name(config: RunConfig) -> list[Path]:
    """The folders of this script's runs of the same name, that of the highest number first: the newest one."""
    parent, fields = config.runs_folder(), {field.name for field in dataclasses.fields(config)}
    numbered = re.compile(re.escape(config.run_name()) + r"(?:-(\d+))?")
    found = []
    for folder in parent.iterdir() if parent.is_dir() else ():
        match = numbered.fullmatch(folder.name)
        settings = read_settings(folder) if match and not is_published(folder) else {}
        # One of another --name may end with a number, too; one of another script has other flags.
        if settings and set(settings) <= fields and settings.get("name") == config.name:
            found.append((int(match[1] or 1), folder))
    return [folder for _, folder in sorted(found, reverse=True)]


def read_settings(folder: Path) -> dict[str, Any]:
    """A run's ``config.json``; empty where it has none that can be read."""
    with contextlib.suppress(OSError, UsageError):
        return read_object(folder / "config.json")
    return {}


def is_tested(config: RunConfig, folder: Path) -> bool:
    """Whether a run was trained as long as its ``config.json`` says, and tested."""
    results, settings = read_results(config, folder), read_settings(folder)
    if not isinstance(results, dict) or "test" not in results:
        return False
    before = results.get("config", {})
    return all(before.get(name) == value for name, value in settings.items() if name not in PLACES)
