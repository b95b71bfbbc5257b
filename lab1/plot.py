"""Rebuild every figure of lab 1 from its published runs.

    python lab1/plot.py                       lab1/model/published/ -> lab1/figures/
    python lab1/plot.py --runs lab1/model     figures of your own runs

Runs that differ in nothing but the seed share a figure.
"""

from collections import defaultdict
from typing import Any

from lab1.engine.figures import FigureConfig, by_experiment, read_runs, write_figures
from lab1.engine.launch import launch

COLORS = {"train": "#7f7f7f", "validation": "#1f77b4"}
NETWORK_COLORS = {"plain": "#d62728", "residual": "#1f77b4"}


class Config(FigureConfig):
    """The flags of this script."""


def learning_curves(name: str, runs: list[dict[str, Any]]):
    """Loss and accuracy by epoch, in training and validation, a line a seed; a dot marks the epoch that validation
    chose, and the test set is looked at there alone."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    for panel, metric in zip(axes, ("loss", "accuracy"), strict=True):
        percent = 100 if metric == "accuracy" else 1
        for run in runs:
            epochs = [entry["epoch"] for entry in run["history"]]
            for part, color in COLORS.items():
                values = [percent * entry[part][metric] for entry in run["history"]]
                panel.plot(epochs, values, color=color, lw=1, alpha=0.8, label=part)
            best = run["best_epoch"]
            chosen = percent * run["validation"][metric]
            panel.plot(best, chosen, "o", color=COLORS["validation"], mec="white", ms=7, label="chosen epoch")
            panel.plot(best, percent * run["test"][metric], "x", color="#d62728", ms=7, mew=2, label="test, there")
        panel.set(xlabel="epoch", ylabel={"loss": "loss (nats)", "accuracy": "accuracy (%)"}[metric])
        panel.grid(alpha=0.3)
    axes[0].set_yscale("log")
    axes[1].set_ylim(bottom=max(0, 100 * min(run["history"][0]["validation"]["accuracy"] for run in runs) - 1))
    handles, labels = axes[0].get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    axes[0].legend(unique.values(), unique.keys(), frameon=False)
    seeds = f"{len(runs)} seeds" if len(runs) > 1 else "1 seed"
    figure.suptitle(f"{name}, {runs[0]['dataset']}, {runs[0]['parameters']:,} parameters, {seeds}")
    return figure


def depth_figure(name: str, runs: list[dict[str, Any]]):
    """Test accuracy against depth, plain and residual: a dot a seed, their mean and its 95 % interval; a run that
    failed to train is a cross at the bottom."""
    from matplotlib import pyplot, ticker

    from lab1.engine.metrics import mean_interval

    (sweep,) = runs
    figure, axes = pyplot.subplots(figsize=(7, 4.2), layout="constrained")
    for residual, network in ((False, "plain"), (True, "residual")):
        same = [run for run in sweep["runs"] if run["residual"] is residual]
        found = defaultdict(list)
        for run in same:
            if "test" in run:
                found[run["depth"]].append(100 * run["test"]["accuracy"])
            else:
                axes.plot(run["depth"], 0, "x", color=NETWORK_COLORS[network], ms=8, mew=2, clip_on=False)
        depths = sorted(found)
        mean, low, high = zip(*(mean_interval(found[depth]) for depth in depths), strict=True)
        axes.plot(depths, mean, color=NETWORK_COLORS[network], lw=1.8, label=network)
        axes.vlines(depths, low, high, color=NETWORK_COLORS[network], alpha=0.3, lw=6)
        for depth in depths:
            axes.plot(
                [depth] * len(found[depth]),
                found[depth],
                "o",
                color=NETWORK_COLORS[network],
                ms=4,
                mec="white",
                mew=0.5,
            )
    depths = sorted({run["depth"] for run in sweep["runs"]})
    axes.set_xscale("log" if depths[-1] > 30 else "linear")
    axes.set_xticks(depths, depths)
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    settings, seeds = sweep["config"], len({run["seed"] for run in sweep["runs"]})
    unit = "blocks of two convolutions" if settings["family"] == "cnn" else "hidden layers after the first"
    axes.set(xlabel=f"depth ({unit})", ylabel="test accuracy (%)", ylim=(0, 100))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, loc="lower left")
    seeds = f"{seeds} seeds, 95 % intervals" if seeds > 1 else "1 seed"
    figure.suptitle(f"{name}, {sweep['dataset']}, {settings['epochs']} epochs, {seeds}")
    return figure


def gradient_figure(name: str, runs: list[dict[str, Any]]):
    """A column for each depth. Above: gradient norm of each layer at the first iteration and over the last ones. Below:
    how much input gradients have in common, by distance on a line between two images. Mean and 95 % interval."""
    from matplotlib import pyplot

    from lab1.engine.metrics import mean_interval, ratio_interval

    (comparison,) = runs
    depths = sorted({run["depth"] for run in comparison["runs"]})
    figure, axes = pyplot.subplots(
        3, len(depths), figsize=(1.5 + 4 * len(depths), 9), layout="constrained", sharey="row", squeeze=False
    )

    def draw(panel, x, columns, interval, network, **style):
        mean, low, high = zip(*map(interval, columns), strict=True)
        panel.fill_between(x, low, high, color=NETWORK_COLORS[network], alpha=0.15, lw=0)
        panel.plot(x, mean, color=NETWORK_COLORS[network], lw=1.5, **style)

    for column, depth in enumerate(depths):
        for network in NETWORK_COLORS:
            same = [run for run in comparison["runs"] if (run["depth"], run["network"]) == (depth, network)]
            for row, moment in enumerate(("start", "end")):
                measured = [run[moment] for run in same if moment in run]
                if not measured:
                    continue
                norms = list(zip(*(one["norms"] for one in measured), strict=True))
                draw(axes[row, column], range(1, len(norms) + 1), norms, ratio_interval, network, marker=".")
                common = list(zip(*(one["correlation"] for one in measured), strict=True))
                distance = [place / (len(common) - 1) for place in range(len(common))]
                style = {"ls": "-" if moment == "start" else "--", "label": f"{network}, {moment}"}
                draw(axes[2, column], distance, common, mean_interval, network, **style)
        axes[0, column].set(title=f"depth {depth}", yscale="log")
        axes[1, column].set(xlabel="layer, first convolution to last dense layer", yscale="log")
        axes[2, column].set(xlabel="distance, as a share of that between the images", ylim=(-0.25, 1.05))
        axes[2, column].axhline(0, color="black", lw=0.6)
    steps, seeds = comparison["config"]["iterations"], len({run["seed"] for run in comparison["runs"]})
    axes[0, 0].set_ylabel("gradient norm, iteration 1")
    axes[1, 0].set_ylabel(f"gradient norm, end ({steps} iterations)")
    axes[2, 0].set_ylabel("correlation of input gradients")
    axes[2, 0].legend(frameon=False)
    limits = [limit for panel in axes[:2, 0] for limit in panel.get_ylim()]
    for panel in axes[:2].flat:
        panel.set_ylim(min(limits), max(limits))
    for panel in axes.flat:
        panel.grid(alpha=0.3)
    figure.suptitle(f"{name}, {comparison['dataset']}, {seeds} seeds, 95 % intervals")
    return figure


# The figure of a script's runs; of any other script they are learning curves.
FIGURES = {"lab1/sweep_depth.py": depth_figure, "lab1/compare_gradients.py": gradient_figure}


def main(config: Config) -> None:
    """Read the runs, write the figures."""
    import matplotlib

    matplotlib.use("Agg")
    runs = [run for run in read_runs(config.runs_folder()) if "history" in run or run["script"] in FIGURES]
    groups = by_experiment(runs).items()
    figures = {name: FIGURES.get(seeds[0]["script"], learning_curves)(name, seeds) for name, seeds in groups}
    write_figures(figures, config.figures_folder())


if __name__ == "__main__":
    launch(main, Config)
