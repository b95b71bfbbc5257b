"""What the figures of all labs share: the runs that they are drawn from, and a classifier's confusion matrix."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from lab1.engine.config import UsageError, require

# One colour has one meaning in all labs: those of Okabe & Ito (2008), which colour-blind people can tell apart.
PARTS = {"train": "#8c8c8c", "validation": "#0072b2", "test": "#000000"}
NETWORKS = {"plain": "#d55e00", "residual": "#009e73"}
ALGORITHMS = {"ppo": "#cc79a7", "dqn": "#e69f00", "reinforce": "#56b4e9"}


def read_runs(folder: Path) -> list[dict[str, Any]]:
    """The results of every finished run under a folder, by name of the run; a network that is part of a sweep has its
    place in the sweep's figure and is left out.

    Raises:
        UsageError: where there is none.
    """
    paths = sorted(Path(folder).rglob("results.json"))
    require(len(paths) > 0, f"{folder} holds no finished run (no results.json); train one first")
    try:
        runs = {path.parent: json.loads(path.read_text(encoding="utf-8")) for path in paths}
        series = {folder for folder, run in runs.items() if "runs" in run}
        return [run | {"name": folder.name} for folder, run in runs.items() if folder.parent not in series]
    except (OSError, ValueError) as error:
        raise UsageError(f"a results.json under {folder} cannot be read: {error}") from None


def by_experiment(runs: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Runs that differ in nothing but the seed, under the name that they share."""
    groups = defaultdict(list)
    for run in runs:
        groups[run["name"].split("-seed")[0]].append(run)
    return groups


def confusion_figure(confusion: np.ndarray, classes: list[str]):
    """A Matplotlib figure of a confusion matrix ``[true class, predicted class]`` of counts."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 5.6), layout="constrained")
    axes = figure.add_subplot()
    share = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    if len(classes) <= 20:
        axes.set_xticks(range(len(classes)), classes, rotation=45 if max(map(len, classes)) > 3 else 0)
        axes.set_yticks(range(len(classes)), classes)
        for (row, column), count in np.ndenumerate(confusion):
            if count:
                color = "white" if share[row, column] > 0.5 else "black"
                axes.text(column, row, int(count), ha="center", va="center", color=color, fontsize=8)
    axes.set(xlabel="predicted class", ylabel="true class", title="Test set, number of examples")
    return figure
