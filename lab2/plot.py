"""Rebuild every figure of lab 2 from its published runs.

    python lab2/plot.py                       lab2/model/published/ -> lab2/figures/
    python lab2/plot.py --runs lab2/model     figures of your own runs

Runs that differ in nothing but the seed share a figure.
"""

from pathlib import Path
from typing import Any

from lab1.engine.figures import FigureConfig, by_experiment, read_runs, write_figures
from lab1.engine.launch import launch

Run = dict[str, Any]


class Config(FigureConfig):
    """The flags of this script."""


def learning_curves(name: str, runs: list[Run]):
    """Loss over steps, in training (with dropout, as it goes) and validation, a line a seed; a dot marks where
    validation chose, a cross the test there. On the right the same loss in bits per character."""
    import math

    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.2), layout="constrained")
    interval, steps = (runs[0]["config"][key] for key in ("eval_interval", "steps"))
    for number, run in enumerate(runs):
        at = [min(entry["epoch"] * interval, steps) for entry in run["history"]]
        for part, color in (("train", "#7f7f7f"), ("validation", "#1f77b4")):
            losses = [entry[part]["loss"] for entry in run["history"]]
            axes.plot(at, losses, color=color, lw=1.3, label=part if number == 0 else None)
        best = at[run["best_epoch"] - 1]
        axes.plot(best, run["validation"]["loss"], "o", color="#1f77b4", mec="white", ms=8)
        axes.plot(best, run["test"]["loss"], "x", color="#d62728", ms=7, mew=2, label=None if number else "test, there")
    axes.set(xlabel="step", ylabel="loss (nats a token)")
    measured = runs[0]["validation"]
    bits = measured["bits_per_character"] / measured["loss"]  # 1 / ln 2, over the characters of a token
    right = axes.secondary_yaxis("right", functions=(lambda loss: loss * bits, lambda value: value / bits))
    right.set_ylabel("bits per character" if math.isclose(bits, 1 / math.log(2)) else "bits per character (validation)")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    seeds = f"{len(runs)} seeds" if len(runs) > 1 else "1 seed"
    figure.suptitle(f"{name}, {runs[0]['dataset']}, {runs[0]['parameters']:,} parameters, {seeds}")
    return figure


def decoding_figure(name: str, runs: list[Run]):
    """Left: the length of each of some lines in characters and in tokens, by tokenizer. Right: for each way of decoding
    how much of what it wrote is different, and how much repeats; the dashed lines are the text itself."""
    from matplotlib import pyplot

    run = runs[0]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for tokenizer, row in run["tokenizers"].items():
        label = f"{Path(tokenizer).name}: {row['characters_per_token']:.2f} characters a token"
        left.plot(*zip(*row["lines"], strict=True), "o", ms=4, alpha=0.5, mec="none", label=label)
    left.set(xlabel="characters of a line", ylabel="tokens", ylim=0, xlim=0)
    left.legend(frameon=False, fontsize=8)
    measures = {"distinct_1": "distinct-1", "distinct_2": "distinct-2", "repetition": "repeated 4-grams"}
    rows = dict(run["decoding"])
    itself = rows.pop("the text itself")
    for place, (key, label) in enumerate(measures.items()):
        at = [number + 0.27 * (place - 1) for number in range(len(rows))]
        (*_, bar) = right.bar(at, [100 * row[key] for row in rows.values()], width=0.25, label=label)
        right.axhline(100 * itself[key], color=bar.get_facecolor(), ls="--", lw=1)
    right.set_xticks(range(len(rows)), rows, fontsize=8)
    right.set_ylabel("share (%), dashed: the text itself")
    right.legend(frameon=False, fontsize=8)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    samples, length = (run["config"][key] for key in ("samples", "length"))
    figure.suptitle(f"{name}, {run['dataset']}, {samples} texts of {length} tokens each")
    return figure


# The figures of exercises 1 and 2, by script; those of exercise 3 are in lab2/tasks/figures.py.
FIGURES = {"lab2/train_gpt.py": learning_curves, "lab2/generate.py": decoding_figure}


def main(config: Config) -> None:
    """Read the runs, write the figures."""
    import matplotlib

    matplotlib.use("Agg")
    from lab2.tasks.figures import task_figures

    runs = read_runs(config.runs_folder())
    ours = by_experiment([run for run in runs if run["script"] in FIGURES])
    figures = {name: FIGURES[seeds[0]["script"]](name, seeds) for name, seeds in ours.items()}
    figures |= task_figures(runs)
    write_figures(figures, config.figures_folder())


if __name__ == "__main__":
    launch(main, Config)
