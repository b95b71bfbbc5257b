"""Standard input, output and error: open whatever started the script, and no reason for it to stop.

What a script is run for lies in its files. What it prints may be read by ``head``, which leaves after a line, by a
terminal that is closed, or by nobody: cron and pythonw start programs without a standard error.
"""

import codecs
import io
import os
import sys

NAMES = ("stdin", "stdout", "stderr")  # by number


class LastingFile(io.FileIO):
    """A file that always takes what is written: once it cannot, the null device gets what else comes."""

    failure: OSError | None = None  # why it could not

    def write(self, data) -> int | None:
        """Write bytes; returns how many were taken, as ``io.FileIO`` does."""
        try:
            return super().write(data)
        except OSError as error:
            self.failure = self.failure or error
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())
            os.close(null)
            return memoryview(data).nbytes


def start_in_utf8() -> None:
    """Start this program again in Python's UTF-8 mode (PEP 540) where the locale has names of files read otherwise:
    TensorBoard writes to the UTF-8 of a name alone. What is printed stays in the locale's encoding, unless that is
    ASCII, as in the locale C, which says nothing of the terminal."""
    if os.name == "posix" and sys.getfilesystemencoding() != "utf-8" and not sys.flags.utf8_mode:
        encoding = getattr(sys.stdout, "encoding", None) or "ascii"
        if codecs.lookup(encoding).name != "ascii":
            os.environ.setdefault("PYTHONIOENCODING", encoding)
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def prepare_streams() -> None:
    """Open standard streams that are closed, on the null device, and let no writing to them fail: neither for a reader
    that has left nor for a character that the console or the locale lacks."""
    codecs.register_error("shown", _shown)
    for number, name in enumerate(NAMES):
        try:
            os.fstat(number)
        except OSError:
            # Otherwise the next file that is opened gets this number, and what libraries in C complain of.
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", encoding="utf-8", closefd=False))  # noqa: SIM115
    sys.stdout, sys.stderr = _lasting(sys.stdout), _lasting(sys.stderr)


def lost_output() -> OSError | None:
    """Why something that was printed could not be written, such as a full disk; None where all was, or where its reader
    has left."""
    sys.stdout.flush()
    raw = _raw(sys.stdout)
    failure = raw.failure if isinstance(raw, LastingFile) else None
    return None if isinstance(failure, BrokenPipeError) else failure


def _raw(stream):
    buffer = getattr(stream, "buffer", None)
    return getattr(buffer, "raw", buffer)  # unbuffered, with python -u, they are the same


def _lasting(stream):
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    if type(_raw(stream)) is not io.FileIO:  # a Windows console, a test's
        stream.reconfigure(errors="shown")
        return stream
    stream.flush()
    raw = LastingFile(stream.fileno(), "wb", closefd=False)
    buffer = raw if stream.buffer is _raw(stream) else io.BufferedWriter(raw)
    options = dict(line_buffering=stream.line_buffering, write_through=stream.write_through)
    return io.TextIOWrapper(buffer, stream.encoding, "shown", **options)


def _shown(error: UnicodeError) -> tuple[bytes, int]:
    """Characters that cannot be printed: a question mark each; but of a file's name, the bytes that Python could not
    read as text (PEP 383) are printed as they came."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    characters = error.object[error.start : error.end]
    raw = (bytes([ord(one) - 0xDC00]) if 0xDC80 <= ord(one) <= 0xDCFF else b"?" for one in characters)
    return b"".join(raw), error.end
