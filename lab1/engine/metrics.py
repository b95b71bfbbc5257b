"""What a batch is measured by: the loss and accuracy of a classifier, their means, and how people read them; and how
sure a comparison can be: confidence intervals over examples and over runs. And what a network costs.

One convention holds in all labs. Tables give mean and standard deviation over n seeds. A 95 % interval of n runs comes
from ``over_runs``: Student's t for few of them, the interquartile mean and its bootstrap from ten on. Ratios go by way
of their logarithms (``ratio_interval``), correlations and cosines by Fisher's z (``correlation_interval``). Systems are
compared pair by pair, on the same seeds or examples (``paired_interval``).
"""

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lab1.engine import distributed

MANY = 10  # runs from which on a bootstrap says something: that of three is their range, and covers 75 % and not 95


def classification_loss(logits: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean cross-entropy in nats, and accuracy as a fraction, of logits ``[B, K]`` and class labels ``[B]``."""
    correct = (logits.detach().argmax(1) == labels).sum()
    return F.cross_entropy(logits.float(), labels), {"accuracy": correct / len(labels)}


def confusion_matrix(predicted: Tensor, labels: Tensor, classes: int) -> Tensor:
    """How often each class ``[row]`` was taken for each class ``[column]``: ``[K, K]`` from classes ``[N]``."""
    return torch.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes)


def macro_f1(confusion: Tensor) -> float:
    """The mean over classes of F1 = 2 TP / (2 TP + FP + FN), from a confusion matrix ``[true, predicted]``. A class
    that is neither there nor predicted counts 0."""
    confusion = confusion.cpu().double()  # in this order: MPS has no float64
    return (2 * confusion.diagonal() / (confusion.sum(0) + confusion.sum(1)).clamp(min=1)).mean().item()


def by_class(confusion: Tensor, classes: list[str]) -> dict[str, Any]:
    """Macro F1, each class's accuracy (its recall), and the counts themselves, of a confusion matrix
    ``[true, predicted]``."""
    accuracy = confusion.diagonal() / confusion.sum(1).clamp(min=1)
    return {
        "macro_f1": macro_f1(confusion),
        "per_class_accuracy": dict(zip(classes, accuracy.tolist(), strict=True)),
        "confusion": confusion.tolist(),
    }


class Averages:
    """Means of what training steps return, weighted by example (or token).

    Metrics stay on the device until ``read``: reading one number makes the processor wait for the GPU.
    """

    def __init__(self, sums: dict[str, float] | None = None, weight: float = 0.0):
        self.sums, self.weight = dict(sums or {}), weight
        self.pending: list[tuple[dict[str, Tensor], float]] = []

    def add(self, metrics: dict[str, Tensor], weight: float) -> None:
        """Add one batch's metrics (scalars). One of weight 0 says nothing, not even where a metric is not finite."""
        if weight == 0:
            metrics = {name: torch.zeros_like(value) for name, value in metrics.items()}
        self.pending.append((metrics, weight))

    def read(self) -> list[float]:
        """Take in what is pending; returns its losses, oldest first."""
        pending, self.pending = self.pending, []
        if not pending:
            return []
        columns = {name: torch.stack([metrics[name] for metrics, _ in pending]).tolist() for name in pending[0][0]}
        weights = [weight for _, weight in pending]
        for name, values in columns.items():
            # One after the other, so that the sum is the same to the bit wherever a run was interrupted.
            for value, weight in zip(values, weights, strict=True):
                self.sums[name] = self.sums.get(name, 0.0) + value * weight
        self.weight += sum(weights)
        return columns["loss"]

    def totals(self) -> tuple[dict[str, float], float]:
        """The weighted sums so far and the weight, over all processes."""
        self.read()
        # A process whose share of a small set is empty has no sums at all.
        parts = distributed.from_every_process([self.sums, self.weight])
        names = dict.fromkeys(name for sums, _ in parts for name in sums)
        return {name: sum(sums.get(name, 0.0) for sums, _ in parts) for name in names}, sum(part[1] for part in parts)

    def means(self) -> dict[str, float]:
        """The means so far, over all processes."""
        sums, weight = self.totals()
        return {name: value / weight for name, value in sums.items()}


def in_words(metrics: dict[str, Any]) -> str:
    """Metrics as people read them: ``loss 0.0712  accuracy 97.91 %``."""
    shown = {name: value for name, value in metrics.items() if isinstance(value, float)}
    return "  ".join(
        f"{name} {value:.2%}".replace("%", " %") if name == "accuracy" else f"{name} {value:.4f}"
        for name, value in shown.items()
    )


def bootstrap_interval(
    rows: Tensor, statistic: Callable[[Tensor], Tensor], resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """The 95 % percentile bootstrap interval (Efron & Tibshirani 1993, chapter 13) of a statistic of column means.

    Args:
        rows: ``[N, K]``, K numbers of each of N independent examples, such as the images of a test set.
        statistic: maps the means of the K columns, ``[resamples, K]``, to ``[resamples]``.
    """
    rows, generator = rows.cpu(), torch.Generator().manual_seed(seed)
    means = []
    for _ in range(resamples):
        chosen = torch.randint(len(rows), (len(rows),), generator=generator)
        means.append(rows[chosen].double().mean(0))
    low, high = torch.quantile(statistic(torch.stack(means)), torch.tensor([0.025, 0.975], dtype=torch.float64))
    return low.item(), high.item()


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The mean of n independent values, and the low and high end of its 95 % confidence interval by Student's t with
    n - 1 degrees of freedom. A single value says nothing of its spread: both ends are then the value itself. All
    three are NaN where a value is not finite."""
    from scipy.stats import t

    if not all(map(math.isfinite, values)):
        return math.nan, math.nan, math.nan
    mean, count = statistics.fmean(values), len(values)
    half = float(t.ppf(0.975, count - 1)) * statistics.stdev(values) / math.sqrt(count) if count > 1 else 0.0
    return mean, mean - half, mean + half


def paired_interval(after: Sequence[float], before: Sequence[float]) -> tuple[float, float, float]:
    """``mean_interval`` of the differences ``after - before`` of values that belong together, such as those of two
    systems with the same seed or on the same query.

    Raises:
        ValueError: where there are not as many of one as of the other.
    """
    return mean_interval([second - first for second, first in zip(after, before, strict=True)])


def ratio_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The same of positive values that vary by factors, by way of their logarithms: geometric mean, low and high end.
    All three are NaN where a value is 0 or not finite."""
    if not all(0 < value < math.inf for value in values):
        return math.nan, math.nan, math.nan
    mean, low, high = map(math.exp, mean_interval([math.log(value) for value in values]))
    return mean, low, high


def correlation_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The same of correlations (or cosines), whose 95 % interval stays within -1 .. 1: the mean of the values as they
    are, and the ends by Fisher's z (1921), which is ``mean_interval`` of atanh(value), brought back by tanh. A value of
    1 or -1, whose z is infinite, counts as 1 - 1e-9 or 1e-9 - 1."""
    if len(values) == 1:
        return mean_interval(values)
    limit = 1 - 1e-9
    _, low, high = mean_interval([math.atanh(min(max(value, -limit), limit)) for value in values])
    return statistics.fmean(values), math.tanh(low), math.tanh(high)


def interquartile_mean(values: np.ndarray) -> np.ndarray:
    """The mean over the first axis, a row a run, without the lowest and highest quarter, rounded down to whole runs:
    of the middle 3 of 5 runs, of all 3 of 3 (Agarwal et al. 2021). ``[S, ...] -> [...]``"""
    cut = len(values) // 4
    return np.sort(values, axis=0)[cut : len(values) - cut].mean(0)


def interquartile_mean_interval(
    values: np.ndarray, resamples: int = 2000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """The 95 % percentile bootstrap interval (Efron & Tibshirani 1993, chapter 13) of the interquartile mean over runs
    of one task, which is the stratified bootstrap of Agarwal et al. (2021) where there is one stratum.

    ``values`` ``[S, ...]``, a row a run, which are resampled whole, so that a curve stays a curve. Returns low and high
    ends ``[...]``. It knows nothing that these runs do not show: ``over_runs`` uses it for ``MANY`` runs or more.
    """
    chosen = np.random.default_rng(seed).integers(len(values), size=(len(values), resamples))
    means = interquartile_mean(values[chosen])
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    return low, high


def over_runs(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What stands for several runs, with its 95 % interval: middle, low and high end ``[...]`` of values ``[S, ...]``,
    a row a run. Of ``MANY`` runs or more the interquartile mean and its bootstrap interval; of fewer the mean and
    ``mean_interval``, by Student's t."""
    values = np.asarray(values, dtype=float)
    if len(values) >= MANY:
        return interquartile_mean(values), *interquartile_mean_interval(values)
    columns = [mean_interval(column) for column in values.reshape(len(values), -1).T]
    middle, low, high = (np.array(each).reshape(values.shape[1:]) for each in zip(*columns, strict=True))
    return middle, low, high


def on_common_steps(
    histories: Sequence[Sequence[dict[str, Any]]], points: int = 100, key: str = "return", to_the_last: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """The evaluations of several runs, ``{"step", "return", ...}`` each, read off at the same steps, between two
    evaluations on the line from one to the other: steps ``[P]`` and values ``[S, P]``.

    The steps go from the latest first evaluation to the earliest last one: where every run has a value. With
    ``to_the_last`` they go on to the latest last one, and a run that has ended keeps the value of its last evaluation.
    """
    first = max(history[0]["step"] for history in histories)
    last = (max if to_the_last else min)(history[-1]["step"] for history in histories)
    steps = np.linspace(first, max(first, last), points)
    rows = [np.interp(steps, *zip(*((at["step"], at[key]) for at in run), strict=True)) for run in histories]
    return steps, np.stack(rows)


def count_macs(model: nn.Module, input_shape: Sequence[int]) -> int:
    """Multiply-accumulates of convolutions and linear layers for one input of this shape, such as ``(3, 32, 32)``."""
    training = model.training
    device = next(model.parameters()).device
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(torch.zeros(1, *input_shape, device=device))
    model.train(training)
    return counter.get_total_flops() // 2  # a multiplication and an addition count as two
