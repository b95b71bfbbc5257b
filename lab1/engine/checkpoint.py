"""Checkpoints that survive: written whole or not at all, read without running code, with every random state.

A run folder holds ``last.pt`` and, in ``previous.pt``, the one before it. A new one is written beside them, synced to
the disk and only then renamed, so that a process killed at any moment, or a disk that fills up, leaves a good one.
"""

import contextlib
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

from lab1.engine.config import UsageError

DIGEST_SIZE = 32  # bytes of a SHA-256, which ends every checkpoint


class BrokenCheckpoint(Exception):
    """The file is not a whole checkpoint: cut short, or its bytes changed."""


def save(content: dict[str, Any], path: Path) -> None:
    """Write a dictionary of tensors, numbers, texts, lists and dictionaries to ``path``, atomically.

    Raises:
        OSError: when it could not be written (a full disk); what stood at ``path`` before is intact.
    """
    path = Path(path)
    temporary = path.with_name(path.name + ".tmp")
    # In memory first: torch's own file writer turns a full disk into an "unexpected pos" RuntimeError.
    serialised = io.BytesIO()
    torch.save(content, serialised)
    try:
        with open(temporary, "wb") as file:
            file.write(serialised.getbuffer())
            # torch.load, like every reader of zip files, passes over what follows the end.
            file.write(hashlib.sha256(serialised.getbuffer()).digest())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        error.filename = error.filename or str(path)
        raise
    _sync_folder(path.parent)


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read what ``save`` wrote.

    Raises:
        FileNotFoundError: where there is no such file.
        BrokenCheckpoint: where the file is not byte for byte what ``save`` wrote: cut short, damaged, or another file.
        UsageError: where it holds anything but tensors and plain values. Such a file could run code when it is
            read, so it is not read.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise BrokenCheckpoint(f"{path} cannot be read: {error.strerror}") from None
    serialised, digest = content[:-DIGEST_SIZE], content[-DIGEST_SIZE:]
    if hashlib.sha256(serialised).digest() != digest:
        raise BrokenCheckpoint(f"{path} is cut short, damaged, or no checkpoint of these labs: its checksum differs")
    try:
        return torch.load(io.BytesIO(serialised), map_location=device, weights_only=True)
    except pickle.UnpicklingError:
        raise UsageError(
            f"{path} is refused: it holds more than tensors and plain values, and could run code when read"
        ) from None


def save_newest(content: dict[str, Any], folder: Path) -> None:
    """Save as ``last.pt`` of a run folder and keep the one before it as ``previous.pt``.

    Raises:
        OSError: when it could not be written; ``last.pt`` is intact.
    """
    newest, new = folder / "last.pt", folder / "new.pt"
    save(content, new)
    if newest.exists():
        os.replace(newest, folder / "previous.pt")
    os.replace(new, newest)
    _sync_folder(folder)


def load_newest(folder: Path, device: torch.device | str = "cpu") -> dict[str, Any] | None:
    """The newest good checkpoint of a run folder; None where the run stopped before its first.

    A broken ``last.pt`` is passed over with a line on standard error.

    Raises:
        UsageError: where there are checkpoints and none is good.
    """
    broken = []
    # new.pt is there if the process was killed between the renames of save_newest.
    for name in ("new.pt", "last.pt", "previous.pt"):
        try:
            content = load(folder / name, device)
        except FileNotFoundError:
            continue
        except BrokenCheckpoint as error:
            broken.append(str(error))
            print(f"passing over a broken checkpoint: {error}", file=sys.stderr)
            continue
        return content
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
    if torch.cuda.is_available():
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
