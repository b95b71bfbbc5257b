"""What the machine does to a script, in one line that says what helps: a library that cannot be loaded, memory or disk
that is full, a file that is gone, a network that breaks off.

Whatever ``in_one_line`` does not know is a bug of ours and keeps its traceback.
"""

import errno
import importlib.util
import os
import re
import sys
from pathlib import Path
from typing import Any

# A shared library as systems name it in a complaint, and what installs it.
SHARED = re.compile(r"[\w.+-]*\w\.(?:so(?:\.\d+)*|dylib|dll)\b|DLL load failed[^.]*")
OPENCV = "apt-get install libgl1 libglib2.0-0, or pip install opencv-python-headless"
CURES = {
    "libGL": OPENCV,
    "libglib-2": OPENCV,
    "libgthread-2": OPENCV,
    "libxcb": OPENCV,
    "libgomp": "apt-get install libgomp1",
    "libstdc++": "apt-get install libstdc++6",
    "libomp": "brew install libomp",
}

# Flags that memory goes by.
SIZES = (
    *("hidden", "width", "depth", "depths", "layers", "context", "max_length", "batch_size"),
    *("num_envs", "rollout", "buffer_size", "evaluation_episodes", "test_episodes", "canvases", "train_canvases"),
)
NO_MEMORY = re.compile(
    r"can't allocate memory|out of memory|not enough memory|Storage size calculation overflowed|"
    r"array is too big|CUBLAS_STATUS_ALLOC_FAILED"
)
NO_THREAD = "can't start new thread"
GPU = re.compile(r"CUDA error: (.*(?:busy or unavailable|no kernel image|insufficient|unknown error).*)")

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
OURS = (errno.EBADF, errno.EFAULT, errno.ECHILD, errno.ENOTTY, errno.ESPIPE)  # no system does these by itself
HELP = {
    errno.EIO: "the disk, or the connection to it, fails",
    errno.ENOENT: "it was moved or removed",
    errno.ESTALE: "it was moved or removed, or the connection to its disk fails",
    errno.EACCES: "give yourself the right to, or name another place",
    errno.EPERM: "give yourself the right to, or name another place",
    errno.EMFILE: "close other programs, or raise the limit: ulimit -n 4096",
    errno.ENFILE: "close other programs",
    errno.EAGAIN: "close other programs, or raise the limit of processes: ulimit -u",
}


def in_one_line(error: Exception, config: Any = None) -> tuple[int, str] | None:
    """The exit status and the line of a failure that is the machine's; None for anything else.

    Args:
        config: the script's configuration, once it is known: where memory does not suffice, its flags are named.
    """
    text = (str(error).splitlines() or [""])[0].rstrip(".")
    if isinstance(error, (ImportError, OSError)) and SHARED.search(str(error)) and not getattr(error, "filename", None):
        return 1, f"{_importing(error)} cannot be loaded: {text}; {_cure(str(error))}"
    if isinstance(error, ModuleNotFoundError) and _is_missing(error.name):
        return 1, f"{error.name} is not installed: pip install -r requirements.txt"
    if isinstance(error, (MemoryError, RuntimeError)) and (isinstance(error, MemoryError) or NO_MEMORY.search(text)):
        return 1, f"there is not enough memory{_amount(text)}: {_smaller(config)}"
    if isinstance(error, RuntimeError) and NO_THREAD in text:
        return 1, f"{text}: close other programs, or raise the limit of processes: ulimit -u"
    if isinstance(error, RuntimeError) and (found := GPU.search(text)):
        return 1, f"the GPU cannot be used: {found[1]}; --device cpu computes without it"
    http = sys.modules.get("http.client")  # who has not imported it has none of its errors
    if http is not None and isinstance(error, http.HTTPException):
        return 1, f"the network failed: {text or type(error).__name__}; try again"
    if isinstance(error, UnicodeEncodeError) and re.search("[\udc80-\udcff]", error.object):
        return 2, f"{os.fsencode(error.object)!r} is not UTF-8; choose another name"
    return _of_the_system(error, text, config) if isinstance(error, OSError) else None


def _of_the_system(error: OSError, text: str, config: Any) -> tuple[int, str] | None:
    place, reason = error.filename or "the run", error.strerror or text
    if error.errno in OURS or (error.errno == errno.ENOENT and not _was_there(error.filename, config)):
        return None
    if error.errno in FULL:
        return 1, f"cannot write {place}: {reason}; make room, then --resume it"
    if error.errno == errno.ENOMEM:
        return 1, f"there is not enough memory: {reason}; close other programs"
    if error.errno == errno.ENAMETOOLONG:
        return 2, f"{str(place)[:40]}...: {reason}; choose a shorter one"
    if error.filename is None and (isinstance(error, (ConnectionError, TimeoutError)) or hasattr(error, "reason")):
        return 1, f"the network failed: {text}; try again"
    where = f"{place}: " if error.filename is not None else ""
    return 1, f"{where}{reason}" + (f"; {HELP[error.errno]}" if error.errno in HELP else "")


def _was_there(file: Any, config: Any) -> bool:
    """Whether a file that is not found is one that others may have removed: its whole folder is gone, or it lies among
    runs or data. Of any other file it is a bug to look for it."""
    if not isinstance(file, (str, bytes)):
        return False
    path = Path(os.fsdecode(file)).absolute()
    folders = [getattr(config, name)() for name in ("runs_folder", "data_folder") if hasattr(config, name)]
    folders += [Path(config.resume)] if getattr(config, "resume", None) else []
    return not path.parent.exists() or any(path.is_relative_to(folder.absolute()) for folder in folders)


def _importing(error: Exception) -> str:
    """The package whose import failed: of the innermost one on the way that is none of Python's own."""
    names, trace = [], error.__traceback__
    while trace is not None:
        names.append(trace.tb_frame.f_globals.get("__name__", "").split(".")[0])
        trace = trace.tb_next
    names = [name for name in names if name not in (*sys.stdlib_module_names, "lab1", "lab2", "lab3", "__main__", "")]
    return (names and names[-1]) or getattr(error, "name", None) or "a library"


def _cure(text: str) -> str:
    libraries = SHARED.findall(text)
    for start, cure in CURES.items():
        if any(library.startswith(start) for library in libraries):
            return cure
    if any(library.lower().endswith("dll") or library.startswith("DLL") for library in libraries):
        return "install the Visual C++ Redistributable (https://aka.ms/vs/17/release/vc_redist.x64.exe)"
    return "install the package of your system that has this library"


def _is_missing(module: str | None) -> bool:
    package = (module or "").split(".")[0]
    own = ("", "lab1", "lab2", "lab3", "tests", *sys.stdlib_module_names)
    return package not in own and importlib.util.find_spec(package) is None


def _amount(text: str) -> str:
    found = re.search(r"(?:allocate|allocate memory: you tried to allocate) ([\d.]+ (?:bytes|[KMGTP]iB))", text)
    if found is None:
        return ""
    number, unit = found[1].split()
    return f" for another {float(number) / 2**30:,.1f} GiB" if unit == "bytes" else f" for another {found[1]}"


def _smaller(config: Any) -> str:
    """Which flags to lower: those that were set to more than their default, what exceeds it most first."""
    usual, factors = {}, {}
    if config is not None:
        deciding = getattr(config, "deciding", ())
        usual = vars(type(config)(**{name: getattr(config, name) for name in deciding}))
    for name in SIZES:
        value, default = (each.get(name) for each in (vars(config) if config is not None else {}, usual))
        value, default = (sum(each) if isinstance(each, tuple) else each for each in (value, default))
        if value is not None and value > (default or 128):
            factors[name] = value / (default or 128)
    names = sorted(factors, key=factors.get, reverse=True) or [name for name in ("batch_size",) if name in usual]
    if not names:
        return "close other programs"
    return "lower " + " or ".join(f"--{name.replace('_', '-')}" for name in names)
