"""What "as if nothing had happened" means: equal to the bit."""

import json
from pathlib import Path
from typing import Any

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

EVENTS = "events.out.tfevents.*"
CLOCKS = ("seconds", "per second", "per_second")  # in names of what depends on the time of day


def assert_equal(ours, theirs, where=""):
    """Nested dictionaries, lists and tensors with the same types and values; ``where`` is for the message."""
    assert type(ours) is type(theirs), where
    if isinstance(ours, torch.Tensor):
        assert torch.equal(ours, theirs), where
    elif isinstance(ours, dict):
        assert ours.keys() == theirs.keys(), where
        for key in ours:
            assert_equal(ours[key], theirs[key], f"{where}.{key}")
    elif isinstance(ours, list | tuple):
        assert len(ours) == len(theirs), where
        for place, pair in enumerate(zip(ours, theirs, strict=True)):
            assert_equal(*pair, f"{where}[{place}]")
    else:
        assert ours == theirs, where


def without_clocks(content: Any, *aside: str) -> Any:
    """What a results.json or a checkpoint says, but for seconds, where it was made, and the names in ``aside``."""
    if isinstance(content, dict):
        left_out = {"workers", "model_dir", *aside}
        left_out |= {name for name in content if any(clock in str(name) for clock in CLOCKS)}
        return {name: without_clocks(value, *aside) for name, value in content.items() if name not in left_out}
    return [without_clocks(value, *aside) for value in content] if isinstance(content, list | tuple) else content


def points(folder: Path) -> dict[str, Any]:
    """Every point that TensorBoard shows of a folder: step and value of scalars, steps of everything else."""
    shown = EventAccumulator(
        str(folder), size_guidance=dict.fromkeys(("scalars", "tensors", "images", "histograms"), 0)
    )
    shown.Reload()
    found: dict[str, Any] = {}
    for tag in shown.Tags()["scalars"]:
        if not any(clock in tag for clock in CLOCKS):
            found[tag] = [(point.step, point.value) for point in shown.Scalars(tag)]
    for kind, read in (("tensors", shown.Tensors), ("images", shown.Images), ("histograms", shown.Histograms)):
        found |= {f"{kind} {tag}": [point.step for point in read(tag)] for tag in shown.Tags()[kind]}
    return found


def assert_same_end(ours: Path, theirs: Path) -> None:
    """The same weights, results and points, of a run and of all runs in it."""
    for name in ("last.pt", "best.pt", "results.json"):
        places = [sorted(path.relative_to(folder) for path in folder.rglob(name)) for folder in (ours, theirs)]
        assert places[0] == places[1], name
        for place in places[0]:
            if place.suffix == ".pt":
                contents = [torch.load(folder / place, weights_only=True) for folder in (ours, theirs)]
            else:
                contents = [json.loads((folder / place).read_text(encoding="utf-8")) for folder in (ours, theirs)]
            assert_equal(*[without_clocks(content, "environment") for content in contents], str(place))
    folders = [sorted({path.parent.relative_to(folder) for path in folder.rglob(EVENTS)}) for folder in (ours, theirs)]
    assert folders[0] == folders[1]
    for place in folders[0]:
        assert_equal(points(ours / place), points(theirs / place), f"events of {place}")
