"""SIGINT (Ctrl-C) and SIGTERM: what they do while a script starts, and as a wish to stop that a loop looks at when it
suits it."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator


def stop_at_once(number: int, frame) -> None:
    """A handler of SIGINT for the time in which nothing can be lost: it says "stopped" and exits with 130."""
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        if os.environ.get("RANK", "0") == "0":  # under torchrun one process speaks for all
            os.write(2, b"stopped\n")
    os._exit(128 + number)


def stop_or_raise(number: int, frame) -> None:
    """A handler of SIGINT that raises KeyboardInterrupt, but stops at once where something is being imported: cut short
    there, a library may report anything, or go on without a part of itself."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            stop_at_once(number, frame)
        frame = frame.f_back
    raise KeyboardInterrupt


def stop_at_once_in_scripts() -> None:
    """Let SIGINT stop a script of the labs at once, from its first import on; any other program is left as it is."""
    repository, script = os.path.realpath(__file__), getattr(sys.modules["__main__"], "__file__", None) or ""
    for _ in range(3):
        repository = os.path.dirname(repository)
    if os.path.dirname(os.path.dirname(os.path.realpath(script))) == repository and _untouched():
        signal.signal(signal.SIGINT, stop_at_once)


@contextlib.contextmanager
def interruptible_imports() -> Iterator[None]:
    """Inside ``with``, SIGINT does what ``stop_or_raise`` says, unless it was given something else to do before."""
    before = signal.getsignal(signal.SIGINT)
    if not _untouched():
        yield
        return
    signal.signal(signal.SIGINT, stop_or_raise)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _untouched() -> bool:
    return signal.getsignal(signal.SIGINT) in (signal.default_int_handler, stop_at_once)


class StopSignals:
    """Inside ``with``, SIGINT (Ctrl-C) or SIGTERM is noted in ``received``; a second one stops the process at once. In
    a job of submitit it is SIGUSR2 alone, by which Slurm announces that the job's time is up or its place needed."""

    received = 0  # the signal's number, once there was one

    def __enter__(self) -> "StopSignals":
        self.before = {}
        # Only the main thread may listen; in any other, signals do what they always did.
        with contextlib.suppress(ValueError):
            in_a_job = "SUBMITIT_EXECUTOR" in os.environ
            for number in (signal.SIGUSR2,) if in_a_job else (signal.SIGINT, signal.SIGTERM):
                self.before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *error) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame) -> None:
        self.received = number
        signal.signal(number, self.before[number])
