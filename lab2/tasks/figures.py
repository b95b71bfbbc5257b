"""Figures of exercises 3.1 to 3.3 from the results of their runs; ``lab2/plot.py`` writes them to files."""

import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch

from lab1.engine.metrics import bootstrap_interval
from lab2.tasks.runs import classification_rows

Run = dict[str, Any]
COLORS = {"tfidf": "#7f7f7f", "features": "#ff7f0e", "lora": "#2ca02c", "finetune": "#1f77b4"}
SYSTEMS = {"bm25": "BM25", "dense": "dense", "hybrid": "both"}
MEASURES = {"ndcg@10": "nDCG@10", "recall@100": "recall@100", "mrr": "MRR"}


def task_figures(runs: list[Run]) -> dict[str, Any]:
    """A Matplotlib figure by name, such as ``classify-rotten_tomatoes``, for each exercise and data set among the runs
    (contents of ``results.json``); runs of other scripts are passed over."""
    makers = {
        "lab2/classify_text.py": ("classify", classification_figure),
        "lab2/answer_questions.py": ("answer", choice_figure),
        "lab2/retrieve.py": ("retrieve", search_figure),
    }
    groups = defaultdict(list)
    for run in runs:
        if run["script"] in makers:
            groups[run["script"], run["dataset"]].append(run)
    found = {}
    for (script, dataset), same in sorted(groups.items()):
        name, make = makers[script]
        found[f"{name}-{dataset}"] = make(dataset, same)
    return found


def classification_figure(dataset: str, runs: list[Run]):
    """Left: test accuracy by method: a dot a run, a line at the mean, and a band of 1.96 standard errors to each side,
    of a test set of this size. Right: validation accuracy of frozen features by layer, the best classifier for each,
    where there is such a run."""
    from matplotlib import pyplot

    layers = [run for run in runs if run["config"]["method"] == ["features"]]
    columns = 2 if layers else 1
    figure, panels = pyplot.subplots(1, columns, figsize=(5.2 * columns, 3.8), layout="constrained", squeeze=False)
    axes, rows = panels[0, 0], classification_rows(runs)
    for place, row in enumerate(rows):
        same = [run for run in runs if run["config"]["method"] == [row["method"]]]
        same = [run for run in same if row["model"] in ("", Path(run["config"]["model"]).name)]
        accuracies = [100 * run["test"]["accuracy"] for run in same]
        texts = sum(map(sum, same[0]["test"]["confusion"]))
        half = 196 * math.sqrt(row["accuracy"] * (1 - row["accuracy"]) / texts)
        middle = 100 * row["accuracy"]
        axes.vlines(place, middle - half, middle + half, color=COLORS[row["method"]], lw=8, alpha=0.25)
        axes.hlines(middle, place - 0.3, place + 0.3, color=COLORS[row["method"]], lw=2)
        axes.plot([place] * len(accuracies), accuracies, "o", color=COLORS[row["method"]], mec="white", ms=7)
    learning = [f"{row['trainable_parameters']:,} learn" for row in rows]
    names = [f"{row['method']}\n{row['model']}\n{each}" for row, each in zip(rows, learning, strict=True)]
    axes.set_xticks(range(len(rows)), names, fontsize=7)
    axes.set(ylabel="test accuracy (%)", xlim=(-0.6, len(rows) - 0.4))
    axes.grid(axis="y", alpha=0.3)
    for run in layers[:1]:
        best: dict[tuple[str, int], float] = defaultdict(float)
        for tried in run["tried"]:
            key = tried["pooling"], tried["layer"]
            best[key] = max(best[key], 100 * tried["accuracy"])
        axes = panels[0, 1]
        for pooling, label in (("cls", "first token"), ("mean", "mean over tokens")):
            points = sorted((layer, accuracy) for (kind, layer), accuracy in best.items() if kind == pooling)
            if points:
                axes.plot(*zip(*points, strict=True), marker="o", ms=4, label=label)
        chosen = run["chosen"]["layer"], 100 * run["chosen"]["accuracy"]
        axes.plot(*chosen, "o", ms=11, mfc="none", mec="black", label="chosen")
        axes.set(xlabel="layer (0: embeddings)", ylabel="validation accuracy (%)", title=f"frozen {names_of(run)}")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    figure.suptitle(dataset)
    return figure


def names_of(run: Run) -> str:
    """The model's name without its owner or folder."""
    return Path(run["config"]["model"]).name


def choice_figure(dataset: str, runs: list[Run]):
    """Validation and test accuracy of each run on questions with choices, beside chance."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(1.6 + 1.4 * len(runs), 3.8), layout="constrained")
    runs = sorted(runs, key=lambda run: (run["config"]["method"] != "likelihood", run["config"]["loss"]))
    for place, run in enumerate(runs):
        for part, marker, color in (("validation", "o", "#1f77b4"), ("test", "x", "#d62728")):
            accuracy = 100 * run[part]["accuracy"]
            axes.plot(place, accuracy, marker, color=color, ms=8, mew=2, label=part if place == 0 else None)
    names = []
    for run in runs:
        kind = "likelihood" if run["config"]["method"] == "likelihood" else run["config"]["loss"]
        names.append(f"{kind}\n{names_of(run)}\nseed {run['config']['seed']}")
    axes.set_xticks(range(len(runs)), names, fontsize=7)
    axes.axhline(25, color="black", lw=0.8, ls="--", label="chance, four choices")
    axes.set(ylabel="accuracy (%)", xlim=(-0.6, len(runs) - 0.4))
    axes.grid(axis="y", alpha=0.3)
    axes.legend(frameon=False)
    figure.suptitle(dataset)
    return figure


def search_figure(dataset: str, runs: list[Run]):
    """Each measure of each system with its 95 % bootstrap interval over queries; fine-tuned encoders come last."""
    from matplotlib import pyplot

    lines = search_lines(runs)
    figure, panels = pyplot.subplots(1, 3, figsize=(10, 1.2 + 0.4 * len(lines)), layout="constrained", sharey=True)
    for axes, (measure, label) in zip(panels, MEASURES.items(), strict=True):
        for place, (_, found) in enumerate(lines):
            low, high = found[f"{measure}_interval"]
            axes.hlines(place, low, high, color="#1f77b4", lw=5, alpha=0.3)
            axes.plot(found[measure], place, "o", color="#1f77b4")
        axes.set(xlabel=label)
        axes.grid(axis="x", alpha=0.3)
    panels[0].set_yticks(range(len(lines)), [name for name, _ in lines], fontsize=8)
    panels[0].invert_yaxis()
    queries = len(lines[0][1]["queries"])
    figure.suptitle(f"{dataset}, {queries} test queries, 95 % bootstrap intervals")
    return figure


def search_lines(runs: list[Run]) -> list[tuple[str, dict[str, Any]]]:
    """What was measured, a line a system, in reading order. BM25 learns nothing: it comes once."""
    lines = {}
    for run in sorted(runs, key=lambda run: (run["config"]["finetune"], run["config"]["model"], run["config"]["seed"])):
        tuned = f", fine-tuned, seed {run['config']['seed']}" if run["config"]["finetune"] else ""
        for system, name in SYSTEMS.items():
            label = name if system == "bm25" else f"{name}: {names_of(run)}{tuned}"
            lines.setdefault(label, run["test"][system])
    return list(lines.items())


def paired_difference(first: dict[str, Any], second: dict[str, Any]) -> tuple[float, float, float]:
    """How much better the second system's mean nDCG@10 is than the first's on the same queries, and the 95 % bootstrap
    interval of that difference over queries."""
    each = [torch.tensor(system["queries"], dtype=torch.float64) for system in (first, second)]
    difference = each[1] - each[0]
    low, high = bootstrap_interval(difference[:, None], lambda means: means[:, 0])
    return difference.mean().item(), low, high
