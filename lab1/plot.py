"""Draws every figure of lab 1, from the published runs or from your own.

Command:  python lab1/plot.py
Time:     20 seconds
Expect:   one figure for each experiment, in lab1/figures

    python lab1/plot.py --runs lab1/model     of your own runs, in lab1/model/figures

Runs that differ in nothing but the seed and the precision are one experiment; of a command that was given twice the
newer run counts.
"""

from collections import defaultdict
from itertools import pairwise
from statistics import fmean
from typing import Any

from lab1.compare_gradients import WINDOW
from lab1.engine.figures import (
    NETWORKS,
    PARTS,
    FigureConfig,
    by_experiment,
    counted,
    draw,
    legend_below,
    write_figures,
)
from lab1.engine.launch import launch
from lab1.images.figures import ablation_figure, images_of, rates_figure

INITS = {
    "default": "PyTorch's initial weights",
    "he": "He's initial weights",
    "he-zero": "He's initial weights, branches ending in zero",
    "he-scaled": "He's initial weights, branches divided by the root of their number",
}


class Config(FigureConfig):
    """The flags of this script."""


def learning_curves(name: str, runs: list[dict[str, Any]]):
    """Loss and accuracy by epoch, in training and validation, a line a seed; a dot marks the epoch that validation
    chose, and the test set is looked at there alone."""
    from matplotlib import pyplot, ticker

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4.4), layout="constrained")
    handles = {}
    for panel, metric in zip(axes, ("loss", "accuracy"), strict=True):
        percent = 100 if metric == "accuracy" else 1
        for run in runs:
            epochs = [entry["epoch"] for entry in run["history"]]
            parts = {"train": "training", "validation": "validation"} if run["validation"] else {"train": "training"}
            for part, label in parts.items():
                values = [percent * entry[part][metric] for entry in run["history"]]
                (handles[label],) = panel.plot(epochs, values, color=PARTS[part], lw=1.2, alpha=0.8)
            chosen = "chosen" if run["validation"] else "last"
            for part, label, style in (
                ("validation", "validation, at the chosen epoch", dict(marker="o", ms=7, mec="white")),
                ("test", f"test, at the {chosen} epoch", dict(marker="x", ms=7, mew=1.8)),
            ):
                if not run[part]:
                    continue
                value = percent * run[part][metric]
                (handles[label],) = panel.plot(run["best_epoch"], value, ls="", color=PARTS[part], zorder=3, **style)
        panel.set(xlabel="epoch", ylabel={"loss": "loss (nats)", "accuracy": "accuracy (%)"}[metric])
        panel.xaxis.set_major_locator(ticker.MaxNLocator(integer=True, steps=(1, 2, 5, 10)))
        panel.grid(alpha=0.3)
    axes[0].set_yscale("log")
    axes[0].yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes[0].yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    axes[0].yaxis.set_minor_formatter(ticker.NullFormatter())
    # From the lowest validation accuracy on, but for the first tenth of training, which would press the rest together.
    later = [entry for run in runs for entry in run["history"][len(run["history"]) // 10 :]]
    low = max(0, 100 * min((entry["validation"] or entry["train"])["accuracy"] for entry in later) - 1)
    high = 100 * max(entry[part]["accuracy"] for entry in (*later, *runs) for part in PARTS if entry.get(part))
    axes[1].set_ylim(low, high + (high - low) / 25)
    legend_below(figure, handles)
    seeds = f"{len(runs)} seeds (a line each)" if len(runs) > 1 else "one seed"
    figure.suptitle(f"{subject(name, runs[0])}, {runs[0]['parameters']:,} parameters, {seeds}")
    return figure


def subject(name: str, run: dict[str, Any]) -> str:
    """What was trained on what: ``MLP 784-128-64-10 on MNIST``; a run of another script goes by its name."""
    settings, classes = run["config"], len(run["test"].get("per_class_accuracy", ()))
    dataset = images_of(run)
    if run["script"] == "lab1/train_mlp.py":
        network = "residual MLP" if settings["residual"] else "MLP"
        pixels = (784,) if run["dataset"] in ("mnist", "digits", "folder") else ()  # one's own have others
        sizes = "-".join(map(str, (*pixels, *settings["hidden"], classes)))
        return f"{network} {sizes} on {dataset}{', augmented' if settings['augment'] else ''}"
    if run["script"] == "lab1/train_cnn.py":
        own = settings.get("network")
        network = own or f"{'ResCNN' if settings['residual'] else 'CNN'} of depth {settings['depth']}"
        norm = "" if settings["norm"] == "batch" else " without normalisation"
        width = f", width {settings['width']}" if own is None and settings.get("width", 16) != 16 else ""
        muon = ", Muon" if settings.get("optimizer") == "muon" else ""
        return f"{network}{width}{norm}{muon} on {dataset}"
    if run["script"] == "lab1/train_fast.py":
        held_out = ", nothing held out" if settings.get("validation_images") == 0 else ""
        return f"FastCNN of width {settings['width']} on {dataset}{held_out}"
    if run["script"] == "lab1/detect_digits.py":
        network = "LeNet" if settings["network"] == "lenet" else f"MLP 784-256-128-{classes}"
        return f"{network} on windows of canvases, {dataset}"
    return f"{name} on {dataset}"


def depth_figure(name: str, runs: list[dict[str, Any]]):
    """Test accuracy against depth, plain and residual, over the whole range and, larger, where the better of the two
    lies: a dot a seed, their mean and its 95 % interval, cut at 0 and 100; a cross at 0 for a run that failed."""
    from matplotlib import pyplot, ticker
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    (sweep,) = runs
    if sweep["config"].get("rates"):
        return rates_figure(name, runs)
    settings, seeds = sweep["config"], len({run["seed"] for run in sweep["runs"]})
    depths = sorted({run["depth"] for run in sweep["runs"]})
    unit = "blocks of two convolutions" if settings["family"] == "cnn" else "hidden layers after the first"
    figure, (whole, upper) = pyplot.subplots(1, 2, figsize=(10, 4.9), layout="constrained")
    labels = [str(depth) for depth in depths]
    for panel in (whole, upper):
        for network in NETWORKS:
            draw_depths(panel, network, [run for run in sweep["runs"] if run["residual"] is (network == "residual")])
        if depths[-1] > 30:
            panel.set(xscale="log", xlim=(depths[0] / 1.25, depths[-1] * 1.25))
        else:
            panel.set_xlim(depths[0] - 1.5, depths[-1] + 1.5)
            # A label that would touch the one before goes a line lower.
            near = [False, *((two - one) / (depths[-1] + 2) < 1 / 20 for one, two in pairwise(depths))]
            labels = ["\n" * low + str(depth) for depth, low in zip(depths, near, strict=True)]
        panel.set_xticks(depths, labels)
        panel.xaxis.set_minor_locator(ticker.NullLocator())
        panel.set_xlabel(f"depth ({unit})")
        panel.grid(alpha=0.3)
    whole.set(ylim=(-3, 103), ylabel="test accuracy (%)", title="from 0 to 100 %")
    upper.set(ylim=upper_range(sweep["runs"]), title="enlarged: the upper range")

    kinds = {"residual" if run["residual"] else "plain" for run in sweep["runs"]}
    handles = {kind: Line2D([], [], color=color, lw=1.8) for kind, color in NETWORKS.items() if kind in kinds}
    handles["one seed"] = Line2D([], [], ls="", marker="o", color="#666666", ms=4.5)
    if seeds > 1:
        handles[f"mean and 95 % interval (Student's t, n = {seeds} seeds)"] = Patch(color="#666666", alpha=0.3)
    failed = sum("test" not in run for run in sweep["runs"])
    if failed:
        label = f"failed to train ({failed} of {len(sweep['runs'])} runs)"
        handles[label] = Line2D([], [], ls="", marker="x", color="#666666", ms=9, mew=2)
    legend_below(figure, handles)
    if settings["family"] == "cnn":
        networks = "CNNs" if settings["norm"] == "batch" else "CNNs without normalisation"
    else:
        networks = f"MLPs from {INITS[settings['init']]}"
    tuned = ", learning rates chosen by validation" if settings.get("tuned") else ""
    figure.suptitle(f"{networks}, {images_of(sweep)}, {counted(settings['epochs'], 'epoch')}{tuned}")
    return figure


def accuracies(runs: list[dict[str, Any]]) -> dict[int, list[float]]:
    """Test accuracies in percent by depth, of the runs that did not fail."""
    found = defaultdict(list)
    for run in runs:
        if "test" in run:
            found[run["depth"]].append(100 * run["test"]["accuracy"])
    return found


def upper_range(runs: list[dict[str, Any]]) -> tuple[float, float]:
    """Accuracies between which the better network's mean and interval lie at every depth, and a point below them."""
    from lab1.engine.metrics import mean_interval

    kinds = [accuracies([run for run in runs if run["residual"] is residual]) for residual in (False, True)]
    depths = set().union(*kinds)
    best = [max(mean_interval(kind[depth]) for kind in kinds if depth in kind) for depth in depths]
    _, low, high = zip(*best, strict=True) if best else [(1,), (1,), (100,)]
    return max(0, min(low) - 1), min(100, max(high) + 0.3)


def draw_depths(panel, network: str, runs: list[dict[str, Any]]) -> None:
    """The runs of one kind of network, a little left or right of their depth, so that neither hides the other."""
    from matplotlib.transforms import ScaledTranslation

    from lab1.engine.metrics import mean_interval

    inches = 3 / 72 if network == "residual" else -3 / 72
    beside = panel.transData + ScaledTranslation(inches, 0, panel.figure.dpi_scale_trans)
    style = dict(color=NETWORKS[network], transform=beside)
    found = accuracies(runs)
    means = []
    for depth, values in sorted(found.items()):
        mean, low, high = mean_interval(values)
        means.append(mean)
        panel.vlines(depth, max(0, low), min(100, high), alpha=0.3, lw=6, **style)
        panel.plot([depth] * len(values), values, "o", ms=4.5, mec="white", mew=0.5, zorder=3, **style)
    panel.plot(sorted(found), means, lw=1.8, label=network, **style)
    failed = [run["depth"] for run in runs if "test" not in run]
    panel.plot(failed, [0] * len(failed), "x", ms=9, mew=2, zorder=4, **style)


def gradient_figure(name: str, runs: list[dict[str, Any]]):
    """A column for each depth. Above: gradient norm of each layer at the first iteration and over the last ones. Below:
    how much input gradients have in common, by distance on a line between two images. Means and 95 % intervals; a panel
    says which networks have no end because they diverged."""
    from matplotlib import pyplot
    from matplotlib.lines import Line2D

    from lab1.engine.metrics import correlation_interval, ratio_interval

    (comparison,) = runs
    settings, seeds = comparison["config"], len({run["seed"] for run in comparison["runs"]})
    depths = sorted({run["depth"] for run in comparison["runs"]})
    size = 1.2 + 2.2 * len(depths), 8
    figure, axes = pyplot.subplots(3, len(depths), figsize=size, layout="constrained", sharey="row", squeeze=False)

    def draw(panel, x, intervals, network, style):
        mean, low, high = zip(*intervals, strict=True)
        panel.fill_between(x, low, high, color=NETWORKS[network], alpha=0.2, lw=0)
        panel.plot(x, mean, color=NETWORKS[network], lw=1.6, ls=style)

    for depth, (start, end, below) in zip(depths, axes.T, strict=True):
        diverged = []
        for network in NETWORKS:
            same = [run for run in comparison["runs"] if (run["depth"], run["network"]) == (depth, network)]
            for moment, panel, style in (("start", start, "-"), ("end", end, "--")):
                measured = [run[moment] for run in same if moment in run]
                if not measured:
                    continue
                norms = list(zip(*(one["norms"] for one in measured), strict=True))
                draw(panel, range(1, len(norms) + 1), map(ratio_interval, norms), network, style)
                itself, *others = zip(*(one["correlation"] for one in measured), strict=True)
                # A gradient's correlation with itself has no spread.
                intervals = [(fmean(itself),) * 3, *map(correlation_interval, others)]
                draw(below, [place / len(others) for place in range(len(intervals))], intervals, network, style)
            failed = sum("failed" in run for run in same)
            diverged += [f"{network}: {failed} of {len(same)}\nruns diverged"] if failed else []
        end.text(0.5, 0.96, "\n".join(diverged), transform=end.transAxes, ha="center", va="top", fontsize="small")
        start.set(title=f"depth {depth}", yscale="log")
        end.set(xlabel="layer, from the input on", yscale="log")
        below.set(xlabel="distance (1: two images)", xticks=(0, 0.5, 1), xticklabels=("0", "0.5", "1"))
        below.axhline(0, color="black", lw=0.6)
    axes[0, 0].set_ylabel("gradient norm,\niteration 1")
    last = min(WINDOW, settings["iterations"])
    axes[1, 0].set_ylabel(f"gradient norm, last {last}\nof {settings['iterations']} iterations")
    axes[2, 0].set_ylabel("correlation of gradients\nalong a line of inputs")
    limits = [limit for panel in axes[:2, 0] for limit in panel.get_ylim()]
    axes[0, 0].set_ylim(min(limits), max(limits))
    axes[1, 0].set_ylim(min(limits), max(limits))
    for panel in axes.flat:
        panel.grid(alpha=0.3)

    handles = {network: Line2D([], [], color=color, lw=1.6) for network, color in NETWORKS.items()}
    handles["iteration 1"] = Line2D([], [], color="#666666", lw=1.6)
    handles["end"] = Line2D([], [], color="#666666", lw=1.6, ls="--")
    intervals = "of norms by Student's t of their logarithms, of correlations by Fisher's z"
    title = f"means and 95 % intervals, n = {seeds} seeds, {intervals}" if seeds > 1 else "one seed"
    legend_below(figure, handles, title)
    norm = "with batch normalisation" if settings["norm"] == "batch" else "without normalisation"
    figure.suptitle(f"Gradients of CNN and ResCNN {norm}, {images_of(comparison)}")
    return figure


# The figure of a script's runs; of any other script they are learning curves.
FIGURES = {
    "lab1/sweep_depth.py": depth_figure,
    "lab1/compare_gradients.py": gradient_figure,
    "lab1/ablate_fast.py": ablation_figure,
}


def figures_of(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """A figure for each experiment, by its name and the flags that tell it from others of that name."""
    figures = {}
    for name, seeds in by_experiment(runs).items():
        make = FIGURES.get(seeds[0]["script"], learning_curves)
        figures[name] = make(name.partition(", ")[0], seeds)
    return figures


def main(config: Config) -> None:
    """Read the runs, write the figures."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["font.size"] = 11
    runs = [run for run in config.read() if "history" in run or run.get("script") in FIGURES]
    write_figures(draw(figures_of, runs), config.figures_folder())


if __name__ == "__main__":
    launch(main, Config)
