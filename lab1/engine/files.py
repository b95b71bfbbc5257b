"""The files of a run: written whole or not at all, and read with care, as anyone may have changed them.

Nothing here imports torch.
"""

import contextlib
import json
import os
import shutil
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab1.engine.config import UsageError

WINDOWS = os.name == "nt"
PATIENCE = 1.0  # seconds for which a rename that Windows refuses is tried again
# What code that trusts its data raises where the data are not what it expects.
MISFITS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)

Run = dict[str, Any]


def replace(source: Path, target: Path) -> None:
    """Rename a file, over another one of that name; or a folder, where there is none of that name or an empty one.

    Raises:
        OSError: where it cannot be. Windows refuses while another program, such as a virus scanner, has the file open:
            for a second it is tried again.
    """
    end = time.monotonic() + PATIENCE
    while True:
        try:
            os.replace(source, target)
            return
        except PermissionError:
            if not WINDOWS or time.monotonic() >= end:
                raise
            time.sleep(0.02)


def write_text(text: str, path: Path) -> None:
    """Write a text, atomically, as UTF-8 and with the same line ends on every system.

    Raises:
        OSError: when it could not be written; what stood at ``path`` before is intact.
    """
    write_whole(path, text.encode("utf-8"))


def write_whole(path: Path, *parts: bytes | memoryview) -> None:
    """Write a file of these parts, one after the other, atomically: it is on the disk before it takes its name.

    Raises:
        OSError: when it could not be written; what stood at ``path`` before is intact.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        error.filename = error.filename or str(path)
        raise


def read_object(path: Path) -> dict[str, Any]:
    """A file that holds one JSON object, such as ``config.json`` and ``results.json``.

    Raises:
        FileNotFoundError: where there is no such file.
        UsageError: where it cannot be read, or holds anything else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if path.is_symlink():
            raise UsageError(f"{path} cannot be read: it is a link to a file that is not there") from None
        raise
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except RecursionError:
        raise UsageError(f"{path} cannot be read: it is nested too deeply") from None
    except ValueError as error:
        raise UsageError(f"{path} cannot be read: {reason(error) if path.stat().st_size else 'it is empty'}") from None
    if not isinstance(content, dict):
        raise UsageError(f"{path} cannot be read: it holds {in_words(content)} and not a run's names and values")
    return content


def in_words(value: Any) -> str:
    """What kind of thing a file holds, as people say it."""
    kinds = {bool: "true or false", int: "a number", float: "a number", str: "a text", list: "a list", tuple: "a list"}
    return "nothing" if value is None else kinds.get(type(value), f"a {type(value).__name__}")


def reason(error: Exception) -> str:
    """What an error says, in one line: its first, and where that only introduces the next one, that, too."""
    lines = [line.strip() for line in str(error).splitlines()] or [""]
    first = " ".join(lines[: 2 if lines[0].endswith(":") else 1])
    if isinstance(error, KeyError):
        return f"{first} is missing"
    return first or type(error).__name__


def that_fit(use: Callable[[list[Run]], Any], runs: list[Run]) -> list[Run]:
    """Those of some runs that ``use`` takes each by itself; the others are passed over with a line."""
    fit = []
    for run in runs:
        try:
            use([run])
        except MISFITS as error:
            print(
                f"passing over {run['name']}: its results.json is not as it was written: {reason(error)}",
                file=sys.stderr,
            )
        else:
            fit.append(run)
    return fit


def new_folder(parent: Path, name: str, fill: Callable[[Path], Any]) -> Path:
    """Make and return ``parent/name``, or ``parent/name-2``, ``-3``, ... where that is taken. It appears at once with
    all that ``fill(folder)`` writes, even where several processes want the same name or one is killed.

    Raises:
        OSError: where it cannot be made; nothing is left of it.
    """
    temporary = parent / f".{name}.tmp-{uuid.uuid4().hex[:8]}"
    try:
        temporary.mkdir(parents=True)
        fill(temporary)
        number = 1
        while True:
            folder = parent / (name if number == 1 else f"{name}-{number}")
            # A folder that another process makes in between is never empty: it cannot be replaced.
            if not os.path.lexists(folder):
                try:
                    replace(temporary, folder)
                    return folder
                except OSError:
                    if not os.path.lexists(folder):
                        raise
            number += 1
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
