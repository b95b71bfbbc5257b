"""Random numbers and random splits as functions of a few numbers: there is no state to save."""

import numpy as np
import torch

from lab1.engine.config import require


def random_generator(*numbers: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator that is a function of the numbers alone, such as (seed, epoch): there is no state to save. Of up to
    four small ones, a zero at the end counts for nothing: (seed, epoch, 0) is the same as (seed, epoch)."""
    seed = np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(seed >> np.uint64(1)))


def stratified_split(labels: torch.Tensor, held_out: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices of the two parts of a random split with the same class shares in both: (the rest, ``held_out`` rows).

    It is the split of scikit-learn's ``train_test_split``, index by index (a test holds it to that), without that
    library's second of imports at every start.

    Raises:
        UsageError: where a class has too few examples to be in both.
    """
    classes, counts = np.unique(labels.numpy(), return_counts=True)
    total = len(labels)
    require(
        counts.min() >= 2 and min(held_out, total - held_out) >= len(classes),
        f"the data set is too small to hold out {held_out} of {total}: each of its {len(classes)} classes needs two "
        "examples or more, and each part one for every class",
    )
    generator = np.random.RandomState(seed % 2**32)
    shares = proportional(counts, total - held_out, generator)
    others = proportional(counts - shares, held_out, generator)
    rest, part = [], []
    for label, share, other in zip(classes, shares, others, strict=True):
        own = generator.permutation(np.flatnonzero(labels.numpy() == label))
        rest.append(own[:share])
        part.append(own[share : share + other])
    return torch.from_numpy(np.sort(np.concatenate(rest))), torch.from_numpy(np.sort(np.concatenate(part)))


def proportional(counts: np.ndarray, total: int, generator: np.random.RandomState) -> np.ndarray:
    """How many of each class are in a part of ``total`` examples: its share, rounded down; what is then missing goes to
    the classes that lost most, and chance decides between equals."""
    exact = counts / counts.sum() * total
    whole = np.floor(exact)
    lost, missing = exact - whole, int(total - whole.sum())
    for most in np.unique(lost)[::-1]:
        if missing == 0:
            break
        (equals,) = np.where(lost == most)
        chosen = generator.choice(equals, min(len(equals), missing), replace=False)
        whole[chosen] += 1
        missing -= len(chosen)
    return whole.astype(int)
