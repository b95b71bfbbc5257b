"""Rebuild every figure of lab 1 from its published runs.

python lab1/plot.py                       lab1/model/published/ -> lab1/figures/
python lab1/plot.py --runs lab1/model     figures of your own runs
"""

import dataclasses
import json
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Annotated, Any

import tyro

from lab1.config import UsageError, launch, require

LAB = Path(__file__).resolve().parent
PICTURES = ("detections.png", "sheet.png")  # what runs that trained nothing, or more than a classifier, drew themselves
COLORS = {"train": "#7f7f7f", "validation": "#1f77b4"}


@dataclasses.dataclass
class Config:
    """The flags of this script."""

    runs: Annotated[Path, tyro.conf.arg(metavar="DIR")] = LAB / "model" / "published"
    """Folder of finished runs."""
    figures: Annotated[Path, tyro.conf.arg(metavar="DIR")] = LAB / "figures"
    """Folder that the figures are written to."""


def read_runs(folder: Path) -> list[dict[str, Any]]:
    """The results of every finished run under a folder, by name of the run.

    Raises:
        UsageError: where there is none.
    """
    paths = sorted(Path(folder).rglob("results.json"))
    require(len(paths) > 0, f"{folder} holds no finished run (no results.json); train one first")
    try:
        return [json.loads(path.read_text(encoding="utf-8")) | {"name": path.parent.name} for path in paths]
    except (OSError, ValueError) as error:
        raise UsageError(f"a results.json under {folder} cannot be read: {error}") from None


def by_experiment(runs: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Runs that differ in nothing but the seed, under the name that they share."""
    groups = defaultdict(list)
    for run in runs:
        groups[run["name"].split("-seed")[0]].append(run)
    return groups


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


def main(config: Config) -> None:
    """Read the runs, write the figures."""
    import matplotlib

    matplotlib.use("Agg")
    config.figures.mkdir(parents=True, exist_ok=True)
    runs = [run for run in read_runs(config.runs) if "history" in run]
    for name, seeds in by_experiment(runs).items():
        path = config.figures / f"{name}.png"
        learning_curves(name, seeds).savefig(path, dpi=110)
        print(path)
    for picture in sorted(path for path in config.runs.rglob("*.png") if path.name in PICTURES):
        print(shutil.copyfile(picture, config.figures / f"{picture.parent.name}-{picture.name}"))


if __name__ == "__main__":
    launch(main, Config)
