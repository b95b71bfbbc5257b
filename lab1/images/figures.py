"""Figures of series of networks: an ablation, and a sweep over learning rates."""

from collections import defaultdict
from typing import Any

from lab1.engine.figures import NETWORKS, PARTS, legend_below

DATASETS = {
    "mnist": "MNIST",
    "digits": "scikit-learn's digits",
    "cifar10": "CIFAR-10",
    "shapes": "drawn shapes",
    "folder": "images of a folder",
}


def images_of(run: dict[str, Any]) -> str:
    """The data set in words, and how much of it: ``10,000 images of CIFAR-10``."""
    dataset, part = DATASETS.get(run["dataset"], run["dataset"]), run["config"].get("train_images")
    return dataset if part is None else f"{part:,} images of {dataset}"


def ablation_figure(name: str, runs: list[dict[str, Any]]):
    """A line for each variant: its test accuracy, a dot a seed with their mean and its 95 % interval; and after how
    many steps validation first reached the goal, a cross where it never did."""
    from matplotlib import pyplot
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    from lab1.engine.metrics import mean_interval

    (ablation,) = runs
    settings, goal = ablation["config"], ablation["config"]["goal"]
    found = defaultdict(list)
    for run in ablation["runs"]:
        found[run["variant"]].append(run)
    most, seeds = max(run.get("steps", 0) for run in ablation["runs"]), max(map(len, found.values()))
    size = 10, 1.9 + 0.28 * len(found)
    figure, (left, right) = pyplot.subplots(1, 2, figsize=size, sharey=True, layout="constrained")
    for place, same in enumerate(found.values()):
        tested = [100 * run["test"]["accuracy"] for run in same if "test" in run]
        if tested:
            mean, low, high = mean_interval(tested)
            left.hlines(place, low, high, color="#666666", alpha=0.3, lw=6)
            left.plot(mean, place, "|", color="#666666", ms=12, mew=2)
        left.plot(tested, [place] * len(tested), "o", color=PARTS["test"], ms=4.5, mec="white", mew=0.5, zorder=3)
        reached = [run["steps_to_goal"] for run in same if run.get("steps_to_goal")]
        right.plot(reached, [place] * len(reached), "o", color=PARTS["validation"], ms=5, alpha=0.7, mec="white")
        if len(reached) < len(same):
            right.plot(1.05 * most, place, "x", color="#666666", ms=8, mew=2)
    left.set_yticks(range(len(found)), found)
    left.invert_yaxis()
    left.set(xlabel="test accuracy (%)", title=f"after {most:,} steps")
    right.set(xlabel="steps", xlim=(0, 1.1 * most), title=f"until validation accuracy is {100 * goal:g}%")
    for panel in (left, right):
        panel.grid(alpha=0.3)
    handles = {"test, one seed": Line2D([], [], ls="", marker="o", color=PARTS["test"], ms=4.5)}
    if seeds > 1:
        handles[f"mean and 95 % interval (Student's t, n = {seeds} seeds)"] = Patch(color="#666666", alpha=0.3)
    handles["validation, one seed"] = Line2D([], [], ls="", marker="o", color=PARTS["validation"], ms=5)
    handles["not by all seeds"] = Line2D([], [], ls="", marker="x", color="#666666", ms=8, mew=2)
    legend_below(figure, handles)
    figure.suptitle(f"FastCNN of width {settings['width']} on {images_of(ablation)}, {settings['epochs']} epochs")
    return figure


def rates_figure(name: str, runs: list[dict[str, Any]]):
    """Validation accuracy over the learning rate, a panel for plain and one for residual networks, a line a depth: a
    dot a seed, the mean with its 95 % interval where there are several; a cross at 0 for a run that failed."""
    from matplotlib import colormaps, pyplot

    from lab1.engine.metrics import mean_interval

    (sweep,) = runs
    settings = sweep["config"]
    kinds = [kind for kind in NETWORKS if any(run["residual"] is (kind == "residual") for run in sweep["runs"])]
    depths = sorted({run["depth"] for run in sweep["runs"]})
    shades = dict(zip(depths, colormaps["viridis"]([0.85 * n / len(depths) for n in range(len(depths))]), strict=True))
    size = 1.2 + 4.4 * len(kinds), 4.6
    figure, axes = pyplot.subplots(1, len(kinds), figsize=size, sharey=True, squeeze=False, layout="constrained")
    handles = {}
    for panel, kind in zip(axes[0], kinds, strict=True):
        for depth in depths:
            found = defaultdict(list)
            for run in sweep["runs"]:
                if (run["depth"], run["residual"]) == (depth, kind == "residual"):
                    accuracy = run["validation"]["accuracy"] if "validation" in run else None
                    found[run["learning_rate"]].append(accuracy)
            means = {}
            for rate, accuracies in found.items():
                trained = [100 * accuracy for accuracy in accuracies if accuracy is not None]
                panel.plot([rate] * len(trained), trained, "o", color=shades[depth], ms=4.5, mec="white", mew=0.5)
                if len(trained) < len(accuracies):
                    panel.plot(rate, 0, "x", color=shades[depth], ms=9, mew=2)
                if trained:
                    means[rate], low, high = mean_interval(trained)
                    panel.vlines(rate, max(0, low), min(100, high), color=shades[depth], alpha=0.3, lw=6)
            rates = sorted(means)
            (handles[f"depth {depth}"],) = panel.plot(rates, [means[rate] for rate in rates], color=shades[depth])
        panel.set(xscale="log", xlabel="peak learning rate", title=kind)
        panel.set_xticks(settings["rates"], [f"{rate:g}" for rate in settings["rates"]])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    axes[0, 0].set_ylabel("validation accuracy (%)")
    legend_below(figure, handles)
    figure.suptitle(f"Learning rates, {images_of(sweep)}, {settings['epochs']} epochs")
    return figure
