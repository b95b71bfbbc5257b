"""What a name stands for: a folder, a copy under data/, the cache of the Hugging Face hub, or the hub itself.

Whatever is not on the disk is asked for only after the hub has answered within ten seconds; where it has not, one line
says what to fetch and where to put it.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lab1.engine.config import UsageError, require
from lab1.engine.network import NETWORK_SECONDS, require_network

# Read by huggingface_hub as it is imported: at most this many seconds without an answer.
os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", str(NETWORK_SECONDS))
os.environ.setdefault("HF_HUB_DOWNLOAD_TIMEOUT", str(NETWORK_SECONDS))


def locate(name: str, data_folder: Path) -> Path | None:
    """The folder or file that a name stands for: its path, or, of ``name`` and ``owner/name``, what is called so under
    ``data_folder``; None where there is none, so that it can only be a name of the hub.

    Raises:
        UsageError: where there is none and it cannot be a name of the hub either.
    """
    path = Path(os.path.expanduser(name))
    if path.exists() and Path(name).name:
        return path
    # A path that leads nowhere is a slip, though data_folder may hold something whose name is its last part.
    known = len(Path(name).parts) in (1, 2) and not Path(name).is_absolute() and not name.startswith((".", "~"))
    require(known, f"no folder or file {name}")
    place = data_folder / Path(name).name
    return place if place.exists() else None


def require_hub(name: str, data_folder: Path, download: bool = True, short: str | None = None) -> None:
    """Return if the hub answers within ten seconds. ``short`` is what the folder of its files under ``data_folder`` is
    called, if not by the last part of its name.

    Raises:
        Unavailable: if it does not, or nothing may be downloaded; the message names what to fetch and where to put it.
    """
    from huggingface_hub import constants

    place = data_folder / Path(short or name).name
    title = f"{name} ({constants.ENDPOINT})"
    require_network([constants.ENDPOINT], title, place, download and not constants.HF_HUB_OFFLINE)


@contextlib.contextmanager
def offline() -> Iterator[None]:
    """Inside ``with``, the libraries ask the hub for nothing. ``local_files_only`` alone does not see to that:
    transformers looks for adapters on the hub all the same, as long as its time-outs and repetitions let it."""
    import datasets
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before


def pretrained(kind: Any, name: str, data_folder: Path, download: bool = True, **options: Any) -> Any:
    """``kind.from_pretrained``, with ``kind`` such as ``transformers.AutoTokenizer``: of a folder, of the hub's cache,
    or else of the hub.

    Raises:
        UsageError: where it cannot be had, or is not of this kind.
    """
    quiet()
    place = locate(name, data_folder)
    try:
        with offline():
            return kind.from_pretrained(str(place or name), local_files_only=True, **options)
    except Exception as error:  # safetensors, tokenizers, pickle: each has its own, and all speak of these files
        if place is not None:
            raise UsageError(f"{place} cannot be read as {kind.__name__}: {first_line(error)}") from None
    require_hub(name, data_folder, download)
    try:
        return kind.from_pretrained(name, **options)
    except Exception as error:
        raise UsageError(f"{name} cannot be had from the hub as {kind.__name__}: {first_line(error)}") from None


def network(kind: Any, name: str, data_folder: Path, download: bool = True, **options: Any) -> tuple[Any, set[str]]:
    """A model by ``pretrained``, and the names of those weights that its files do not hold or hold in another shape:
    they have random values. Only a head may be new, and a pooling layer, never the network below it.

    Raises:
        UsageError: where it cannot be had, is not of this kind, or lacks weights.
    """
    found, about = pretrained(kind, name, data_folder, download, output_loading_info=True, **options)
    new = {*about["missing_keys"], *(key for key, *_ in about["mismatched_keys"])}
    body = getattr(found, found.base_model_prefix, found)
    prefix = "" if body is found else f"{found.base_model_prefix}."
    lacking = sorted(new & {f"{prefix}{key}" for key in body.state_dict() if "pooler" not in key})
    some = f"{name} lacks {len(lacking)} of its weights, such as {(lacking or [''])[0]}"
    require(not lacking, f"{some}: its config.json and its weights do not belong together, or are not whole")
    return found, new


def dataset(
    name: str, part: str | None, data_folder: Path, download: bool = True, short: str | None = None
) -> dict[str, Any]:
    """The splits of a data set of the hub, by name; ``part`` is one of its configurations, where it has several;
    ``short`` is what the labs call it, if not by the last part of its name. What was downloaded before is read without
    the network.

    Raises:
        UsageError: where it cannot be had.
    """
    quiet()
    import datasets

    def load() -> dict[str, Any]:
        return dict(datasets.load_dataset(name, part, cache_dir=str(data_folder / "huggingface")))

    with contextlib.suppress(Exception), offline():  # what is not whole in the cache is asked for anew
        return load()
    require_hub(name, data_folder, download, short)
    try:
        return load()
    except Exception as error:
        raise UsageError(f"{name} cannot be had from the hub: {first_line(error)}") from None


def quiet() -> None:
    """No progress bars and no remarks of the libraries: what a person must know, the scripts say."""
    import datasets
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.logging.set_verbosity_error()
    datasets.disable_progress_bars()


def first_line(error: Exception) -> str:
    """What an error says, in one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
