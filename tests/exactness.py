"""What "as if nothing had happened" means: equal to the bit."""

from typing import Any

import torch


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
    """What a results.json says, but for seconds, where it was made, and the names in ``aside``."""
    if isinstance(content, dict):
        left_out = {"seconds", "cpu_seconds", "workers", "model_dir", *aside}
        return {name: without_clocks(value, *aside) for name, value in content.items() if name not in left_out}
    return [without_clocks(value, *aside) for value in content] if isinstance(content, list) else content
