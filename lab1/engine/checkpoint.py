"""Checkpoints that survive: written whole or not at all, read without running code, with every random state.

A run folder holds ``last.pt`` and, in ``previous.pt``, the one before it. A new one is written beside them, synced to
the disk and only then renamed, so that a process killed at any moment, or a disk that fills up, leaves a good one.
"""

import hashlib
import io
import os
import pickle
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lab1.engine.config import RunFailed, UsageError
from lab1.engine.files import in_words, reason, replace, write_whole

DIGEST_SIZE = 32  # bytes of a SHA-256, which ends every checkpoint


class BrokenCheckpoint(Exception):
    """The file is not a whole checkpoint: cut short, or its bytes changed, or something else altogether."""


class UnreadableCheckpoint(BrokenCheckpoint):
    """The file is there, but the system cannot read it, such as from a disk that fails. It may be whole."""


def save(content: dict[str, Any], path: Path) -> None:
    """Write a dictionary of tensors, numbers, texts, lists and dictionaries to ``path``, atomically.

    Raises:
        OSError: when it could not be written (a full disk); what stood at ``path`` before is intact.
    """
    path = Path(path)
    # In memory first: torch's own file writer turns a full disk into an "unexpected pos" RuntimeError.
    serialised = io.BytesIO()
    torch.save(content, serialised)
    # torch.load, like every reader of zip files, passes over what follows the end.
    write_whole(path, serialised.getbuffer(), hashlib.sha256(serialised.getbuffer()).digest())
    _sync_folder(path.parent)


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read what ``save`` wrote.

    Raises:
        FileNotFoundError: where there is no such file.
        BrokenCheckpoint: where the file is not byte for byte what ``save`` wrote: cut short, damaged, or another file.
        RunFailed: where the user may not read it.
        UsageError: where it holds anything but tensors and plain values. Such a file could run code when it is
            read, so it is not read.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        if path.is_symlink():
            raise BrokenCheckpoint(f"{path} is a link to a file that is not there") from None
        raise
    except OSError as error:
        if path.is_dir():
            raise BrokenCheckpoint(f"{path} is a folder and no checkpoint") from None
        if isinstance(error, PermissionError):  # nothing is wrong with the file: it must not be passed over
            raise RunFailed(f"{path} cannot be read: {error.strerror}") from None
        raise UnreadableCheckpoint(f"{path} cannot be read: {error.strerror}") from None
    serialised, digest = content[:-DIGEST_SIZE], content[-DIGEST_SIZE:]
    if hashlib.sha256(serialised).digest() != digest:
        raise BrokenCheckpoint(f"{path} is cut short, damaged, or no checkpoint of these labs: its checksum differs")
    try:
        content = torch.load(io.BytesIO(serialised), map_location=device, weights_only=True)
    except pickle.UnpicklingError:
        raise UsageError(
            f"{path} is refused: it holds more than tensors and plain values, and could run code when read"
        ) from None
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # bytes that torch did not write can raise anything in it
        raise BrokenCheckpoint(f"{path} is no checkpoint of these labs: {reason(error)}") from None
    if not isinstance(content, dict):
        raise BrokenCheckpoint(f"{path} is no checkpoint of these labs: it holds {in_words(content)}")
    return content


def save_newest(content: dict[str, Any], folder: Path) -> None:
    """Save as ``last.pt`` of a run folder and keep the one before it as ``previous.pt``.

    Raises:
        OSError: when it could not be written; ``last.pt`` is intact.
    """
    newest, new = folder / "last.pt", folder / "new.pt"
    save(content, new)
    if newest.exists():
        replace(newest, folder / "previous.pt")
    replace(new, newest)
    _sync_folder(folder)


def load_newest(folder: Path, device: torch.device | str = "cpu") -> dict[str, Any] | None:
    """The newest good checkpoint of a run folder; None where the run stopped before its first.

    A broken ``last.pt`` is passed over with a line on standard error.

    Raises:
        UsageError: where there are checkpoints and none is good.
        RunFailed: where there are some, none can be read, and that may be the disk's fault or for want of permission.
    """
    broken = []
    # new.pt is there if the process was killed between the renames of save_newest.
    for name in ("new.pt", "last.pt", "previous.pt"):
        try:
            content = load(folder / name, device)
        except FileNotFoundError:
            continue
        except BrokenCheckpoint as error:
            broken.append(error)
            print(f"passing over a broken checkpoint: {error}", file=sys.stderr)
            continue
        return content
    if any(isinstance(error, UnreadableCheckpoint) for error in broken):
        raise RunFailed(f"{folder} has no checkpoint that can be read now ({broken[0]}); try again")
    if broken:
        raise UsageError(f"{folder} has no checkpoint that can be read ({broken[0]}); start the run anew")
    return None


def _sync_folder(folder: Path) -> None:
    """Make renames in the folder survive a power failure. Windows has no such call and needs none."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def random_states() -> dict[str, Any]:
    """The state of every global random generator: Python's, NumPy's, torch's on the CPU and on each accelerator."""
    kind, keys, position, has_gauss, cached_gaussian = np.random.get_state()
    states = {
        "python": random.getstate(),
        "numpy": [kind, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached_gaussian],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_initialized():  # with --device cpu a GPU is left alone, which may be broken
        states["cuda"] = torch.cuda.get_rng_state_all()
    if torch.backends.mps.is_available():
        states["mps"] = torch.mps.get_rng_state()
    return states


def restore_random_states(states: dict[str, Any]) -> None:
    """Put every global random generator back to what ``random_states`` returned."""
    version, internal, gaussian = states["python"]
    random.setstate((version, tuple(internal), gaussian))
    kind, keys, position, has_gauss, cached_gaussian = states["numpy"]
    np.random.set_state((kind, keys.cpu().numpy().astype(np.uint32), position, has_gauss, cached_gaussian))
    torch.set_rng_state(states["torch"].cpu())
    if "cuda" in states and torch.cuda.device_count() == len(states["cuda"]):
        torch.cuda.set_rng_state_all([state.cpu() for state in states["cuda"]])
    if "mps" in states and torch.backends.mps.is_available():
        torch.mps.set_rng_state(states["mps"].cpu())
