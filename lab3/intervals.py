"""How sure a comparison over a few seeds can be: interquartile means and bootstrap intervals (Agarwal et al. 2021)."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def interquartile_mean(values: np.ndarray) -> np.ndarray:
    """The mean over the first axis, a row a run, without the lowest and highest quarter, rounded down to whole runs:
    of the middle 3 of 5 runs, of all 3 of 3. ``[S, ...] -> [...]``"""
    cut = len(values) // 4
    return np.sort(values, axis=0)[cut : len(values) - cut].mean(0)


def bootstrap_interval(values: np.ndarray, resamples: int = 2000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The 95 % percentile bootstrap interval (Efron & Tibshirani 1993, chapter 13) of the interquartile mean over runs.

    ``values`` ``[S, ...]``, a row a run, which are resampled whole, so that a curve stays a curve. Returns low and high
    ends ``[...]``. Of a handful of runs it is a rough guide: it knows nothing that these runs do not show.
    """
    chosen = np.random.default_rng(seed).integers(len(values), size=(len(values), resamples))
    means = interquartile_mean(values[chosen])
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    return low, high


def on_common_steps(
    histories: Sequence[Sequence[dict[str, Any]]], points: int = 100, key: str = "return"
) -> tuple[np.ndarray, np.ndarray]:
    """The evaluations of several runs, ``{"step", "return", ...}`` each, read off at the same steps, between two
    evaluations on the line from one to the other: steps ``[P]`` and values ``[S, P]``.

    The steps go from the latest first evaluation to the earliest last one: where every run has a value.
    """
    first = max(history[0]["step"] for history in histories)
    last = min(history[-1]["step"] for history in histories)
    steps = np.linspace(first, max(first, last), points)
    rows = [np.interp(steps, *zip(*((at["step"], at[key]) for at in run), strict=True)) for run in histories]
    return steps, np.stack(rows)
