"""SIGINT and SIGTERM as a wish to stop that a loop looks at when it suits it."""

import contextlib
import signal


class StopSignals:
    """Inside ``with``, SIGINT (Ctrl-C) or SIGTERM is noted in ``received``; a second one stops the process at once."""

    received = 0  # the signal's number, once there was one

    def __enter__(self) -> "StopSignals":
        self.before = {}
        # Only the main thread may listen; in any other, signals do what they always did.
        with contextlib.suppress(ValueError):
            for number in (signal.SIGINT, signal.SIGTERM):
                self.before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *error) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame) -> None:
        self.received = number
        signal.signal(number, self.before[number])
