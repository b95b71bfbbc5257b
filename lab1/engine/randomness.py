"""Random numbers and random splits as functions of a few numbers: there is no state to save."""

import numpy as np
import torch

from lab1.engine.config import UsageError


def random_generator(*numbers: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator that is a function of the numbers alone, such as (seed, epoch): there is no state to save."""
    seed = np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(seed >> np.uint64(1)))


def stratified_split(labels: torch.Tensor, held_out: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices of the two parts of a random split with the same class shares in both: (the rest, ``held_out`` rows).

    Raises:
        UsageError: where a class has too few examples to be in both.
    """
    from sklearn.model_selection import train_test_split

    try:
        rest, part = train_test_split(
            np.arange(len(labels)), test_size=held_out, random_state=seed % 2**32, stratify=labels.numpy()
        )
    except ValueError as error:
        raise UsageError(f"the data set is too small to hold out {held_out} of {len(labels)}: {error}") from None
    return torch.from_numpy(np.sort(rest)), torch.from_numpy(np.sort(part))
