"""What the campaigns of this folder share: few inputs in every run of the tests and many with ``-m slow``; what counts
as a clean end; and a look at what was written."""

import contextlib
import importlib
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy

from lab1.engine.config import RunFailed, UsageError
from lab1.engine.launch import launch

LONGEST_LINE = 1000  # characters of what a user is told


def inputs(few: int, many: int):
    """Test decorator: the parameter ``count`` is ``few``, and with ``-m slow`` it is ``many``."""
    return pytest.mark.parametrize("count", [few, pytest.param(many, marks=pytest.mark.slow)], ids=["few", "many"])


def try_all(count: int, strategy: SearchStrategy, check: Callable[[Any], Any]) -> None:
    """Call ``check`` with ``count`` values of the strategy, always the same ones, and name the first that fails. None
    is made simpler: each is small, and some take seconds."""
    usual = settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )

    @usual
    @given(strategy)
    def each(value: Any) -> None:
        check(value)

    each()


def ends_cleanly(call: Callable[[], Any], seconds: float = 30) -> Any:
    """What the call returns, or None where it ends in one line for the user; anything else it raises is a fault, and so
    is taking longer than this."""
    with within(seconds):
        try:
            return call()
        except (UsageError, RunFailed) as error:
            check_line(str(error))
        except SystemExit as stop:
            assert not stop.code, f"exit status {stop.code} without a word"
    return None


def launched(script: str, *arguments: Any, seconds: float = 60) -> int:
    """Run a script in this process as its command line does; returns its exit status. Status 1 or 2 without a line that
    says why, an exception and taking longer than so many seconds are faults."""
    module, said, complaint = importlib.import_module(script.replace("/", ".")), io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", [script, *map(str, arguments)]),
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(complaint),
        within(seconds),
    ):
        try:
            launch(module.main, module.Config)
            status = 0
        except SystemExit as stop:
            status = stop.code or 0
    assert "Traceback" not in complaint.getvalue(), complaint.getvalue()
    assert status in (0, 1, 2), (status, complaint.getvalue())
    if status:
        last = complaint.getvalue().splitlines()[-1]
        assert last.startswith("error: "), complaint.getvalue()
        check_line(last.removeprefix("error: "))
    return status


def check_line(line: str) -> None:
    """What a user is told is one line, and can be read."""
    assert line.strip()
    assert len(line.splitlines()) == 1, line
    assert len(line) <= LONGEST_LINE, line
    assert "Traceback" not in line


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Inside ``with``, TimeoutError is raised after so many seconds of the processor, or ten times as many on the
    clock, as others use the machine; where the system has such timers."""
    if os.name != "posix":
        yield
        return

    def late(number: int, frame: Any) -> None:
        raise TimeoutError(f"not done after {seconds} seconds")

    timers = ((signal.ITIMER_PROF, signal.SIGPROF, seconds), (signal.ITIMER_REAL, signal.SIGALRM, 10 * seconds))
    before = {number: signal.signal(number, late) for _, number, _ in timers}
    for timer, _, limit in timers:
        signal.setitimer(timer, limit)
    try:
        yield
    finally:
        for timer, number, _ in timers:
            signal.setitimer(timer, 0)
            signal.signal(number, before[number])


def snapshot(*folders: Path) -> dict[str, tuple[int, int]]:
    """Every file and folder in these folders, with its size and the time it was written."""
    found = {}
    for folder in folders:
        for place, names, files in os.walk(folder):
            names[:] = [name for name in names if name not in ("__pycache__", ".git")]
            for name in names:
                found[os.path.join(place, name)] = (0, 0)
            for name in files:
                status = os.lstat(os.path.join(place, name))
                found[os.path.join(place, name)] = (status.st_size, status.st_mtime_ns)
    return found
