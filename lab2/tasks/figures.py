"""Figures of exercises 3.1 to 3.3 from the results of their runs; ``lab2/plot.py`` writes them to files.

Colours: validation is blue, the test black, as in all labs. What bars and dots are stands under each figure.
"""

import math
from collections import defaultdict
from pathlib import Path
from typing import Any

from lab1.engine.figures import PARTS, counted, experiments, split
from lab1.engine.metrics import mean_interval, paired_interval
from lab2.tasks.runs import classification_rows

Run = dict[str, Any]
NEUTRAL = "#707070"  # of what is neither a part of the data nor anything else that has a colour of its own
WORDS = {
    "divina_commedia": "the Divina Commedia",
    "python": "Python's standard library",
    "rotten_tomatoes": "Rotten Tomatoes",
    "ag_news": "AG News",
    "codah": "CODAH",
    "swag": "SWAG",
    "cranfield": "Cranfield",
    "scifact": "SciFact",
}
LOSSES = {"cross-entropy": "cross-entropy", "margin": "margin ranking"}
METHODS = {"tfidf": "TF-IDF", "features": "frozen features", "lora": "LoRA", "finetune": "full fine-tuning"}
SYSTEMS = {"bm25": "BM25", "dense": "dense", "hybrid": "hybrid"}
MEASURES = {"ndcg@10": "nDCG@10", "recall@100": "recall@100", "mrr": "MRR"}
NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}
WIDTH = 9.1  # inches: 1,000 pixels, about what a page shows


def in_words(data: str) -> str:
    """The name of a data set or a text as people write it; of a file, its folder's name and its own."""
    return WORDS.get(data, "/".join(Path(data).parts[-2:]))


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
        # Two files of one name are two data sets.
        for place, there in sorted(data_sets(same).items()):
            found[f"{name}-{dataset}" + f", {place}" * bool(place)] = make(dataset, there)
    return found


def data_sets(runs: list[Run]) -> dict[str, list[Run]]:
    """Runs by the path of their data set where they have several, else all of them under an empty name."""
    groups = defaultdict(list)
    for run in runs:
        groups[str(run["config"].get("dataset"))].append(run)
    return dict(groups) if len(groups) > 1 else {"": runs}


def draw_row(axes, row: float, values: list[float], interval: tuple[float, float] | None, color: str, **style) -> None:
    """A dot a value, a stroke at their mean where there are several, a pale bar for an interval."""
    if interval is not None:
        axes.hlines(row, *interval, color=color, lw=9, alpha=0.25)
    if len(values) > 1:
        axes.plot(sum(values) / len(values), row, "|", color=color, ms=17, mew=2.2)
    axes.plot(values, [row] * len(values), "o", color=color, mec="white", ms=7, **style)


def name_rows(axes, names: list[str]) -> None:
    """Names beside rows, the first one above."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(axis="x", alpha=0.3)


def classification_figure(dataset: str, runs: list[Run]):
    """Left: test accuracy by method, with the 95 % interval of a test set of this size; of a method that was trained in
    several ways, the one that validation chooses. Right: validation accuracy of frozen features by layer, the best
    classifier for each, where there is such a run."""
    from matplotlib import pyplot

    rows = [row for row in classification_rows(runs) if row["chosen"]]
    layers = [run for row in rows if row["method"] == "features" for run in row["same"]]
    columns = 2 if layers else 1
    height = max(1.5 + 0.55 * len(rows), 3.8 if layers else 0)
    figure, panels = pyplot.subplots(1, columns, figsize=(WIDTH, height), layout="constrained", squeeze=False)
    models = {row["model"] for row in rows} - {""}
    axes, names = panels[0, 0], []
    for place, row in enumerate(rows):
        same = row["same"]
        accuracies = [100 * run["test"]["accuracy"] for run in same]
        texts = sum(map(sum, same[0]["test"]["confusion"]))
        half = 196 * math.sqrt(row["accuracy"] * (1 - row["accuracy"]) / texts)
        middle = 100 * row["accuracy"]
        draw_row(axes, place, accuracies, (middle - half, middle + half), PARTS["test"])
        name = METHODS[row["method"]] + f", {row['model']}" * (len(models) > 1 and row["model"] != "")
        name += f", {counted(len(same), 'seed')}" * (len(same) > 1)
        names.append(f"{name}\n{row['trainable_parameters']:,} parameters learn")
    name_rows(axes, names)
    axes.set_xlabel("test accuracy (%)")
    for run in layers[:1]:
        draw_layers(panels[0, 1], run)
    caption = f"Dots: runs. Bars: 95 % interval of an accuracy over {texts:,} test texts (normal approximation)"
    strokes = ", around the mean over seeds, the stroke" * any(row["runs"] > 1 for row in rows)
    figure.supxlabel(f"{caption}{strokes}.", fontsize=9)
    figure.suptitle(": ".join([in_words(dataset), "test accuracy by method"]) + f", {', '.join(models)}" * bool(models))
    return figure


def draw_layers(axes, run: Run) -> None:
    """Validation accuracy of frozen features by layer, a line a way of pooling; a ring around what was chosen."""
    best: dict[tuple[str, int], float] = defaultdict(float)
    for tried in run["tried"]:
        key = tried["pooling"], tried["layer"]
        best[key] = max(best[key], 100 * tried["accuracy"])
    for pooling, label, style in (("mean", "mean over tokens", "-"), ("cls", "first token", "--")):
        points = sorted((layer, accuracy) for (kind, layer), accuracy in best.items() if kind == pooling)
        if points:
            look = dict(ls=style, color=PARTS["validation"], mfc=PARTS["validation"] if style == "-" else "white")
            axes.plot(*zip(*points, strict=True), marker="o", label=label, **look)
    chosen = run["chosen"]["layer"], 100 * run["chosen"]["accuracy"]
    axes.plot(*chosen, "o", ms=13, mew=1.5, mfc="none", mec="black", label="chosen")
    axes.set(xlabel="layer (0: embeddings)", ylabel="validation accuracy (%)")
    axes.set_title(f"{METHODS['features']} by layer", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=3, columnspacing=1, fontsize=9)


def names_of(run: Run) -> str:
    """The model's name without its owner or folder."""
    return Path(run["config"]["model"]).name


def choice_figure(dataset: str, runs: list[Run]):
    """Validation and test accuracy on questions with choices, beside chance: a dot a seed, their mean, and its 95 %
    interval by Student's t."""
    from matplotlib import pyplot

    groups = defaultdict(list)
    for run in sorted(runs, key=choice_order):
        groups[choice_kind(run)].append(run)
    groups = split(groups)
    figure, axes = pyplot.subplots(figsize=(WIDTH, 1.7 + 0.65 * len(groups)), layout="constrained")
    for place, same in enumerate(groups.values()):
        for part, offset in (("validation", -0.17), ("test", 0.17)):
            accuracies = [100 * run[part]["accuracy"] for run in same]
            interval = mean_interval(accuracies)[1:] if len(same) > 1 else None
            label = part if place == 0 else None
            draw_row(axes, place + offset, accuracies, interval, PARTS[part], label=label)
    name_rows(axes, [f"{name}, {counted(len(same), 'run')}" for name, same in groups.items()])
    # Chance as the runs found it in their test sets: one line, unless they had different ones.
    chances = defaultdict(set)
    for run in runs:
        if "chance" in run:
            ends = sorted({min(run["choices"]), max(run["choices"])})
            chances[" to ".join(NUMBERS.get(count, str(count)) for count in ends)].add(100 * run["chance"])
    for choices, found in sorted(chances.items(), key=lambda item: min(item[1])):
        for place, chance in enumerate(sorted(found)):
            label = f"chance, {choices} choices" if place == 0 else None
            axes.axvline(chance, color="black", lw=1.2, ls="--", label=label)
    axes.set_xlabel("accuracy (%)")
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    caption = "Dots: runs."
    if any(len(same) > 1 for same in groups.values()):
        caption += " Strokes and bars: the mean over seeds and its 95 % interval by Student's t."
    figure.supxlabel(caption, fontsize=9)
    figure.suptitle(f"{in_words(dataset)}: accuracy in multiple choice")
    return figure


def choice_order(run: Run) -> tuple[int, str]:
    """Where a run comes: a language model as it is, controls, what was fine-tuned."""
    settings = run["config"]
    control = settings.get("control")
    if settings["method"] == "likelihood":
        return 0, ""
    return (2, settings["loss"]) if control is None else (1, control)


def choice_kind(run: Run) -> str:
    """What answered the questions of a run, on two lines."""
    settings = run["config"]
    if settings.get("control") == "length-only":
        return "control: the choices' lengths alone\nlinear classifier"
    kind = f"fine-tuned, {LOSSES[settings['loss']]}"
    if settings["method"] == "likelihood":
        kind = "likelihood, not trained"
    elif settings.get("control") == "random-labels":
        kind = "control: fine-tuned on random labels"
    return f"{kind}\n{names_of(run)}"


def search_figure(dataset: str, runs: list[Run]):
    """Above: each measure of each system with its 95 % bootstrap interval over queries; fine-tuned encoders come last.
    Below: differences in nDCG@10 between two systems on the same queries, which differ less than queries do."""
    from matplotlib import pyplot

    lines, pairs = search_lines(runs), search_pairs(runs)
    heights = 1.0 + 0.3 * len(lines), 0.9 + 0.3 * len(pairs)
    figure = pyplot.figure(figsize=(WIDTH, sum(heights) + 0.8), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=heights)
    panels = above.subplots(1, len(MEASURES), sharey=True)
    for axes, (measure, label) in zip(panels, MEASURES.items(), strict=True):
        for place, (_, found) in enumerate(lines):
            draw_row(axes, place, [found[measure]], found[f"{measure}_interval"], PARTS["test"])
        axes.grid(axis="x", alpha=0.3)
        axes.set_xlabel(label)
    name_rows(panels[0], [name for name, _ in lines])
    axes = below.add_subplot()
    for place, (_, first, second) in enumerate(pairs):
        difference, *interval = paired_difference(first, second)
        draw_row(axes, place, [difference], interval, PARTS["test"])
        text = f"{difference:+.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"
        axes.text(1.01, place, text, transform=axes.get_yaxis_transform(), va="center")
    axes.axvline(0, color="black", lw=1)
    name_rows(axes, [name for name, _, _ in pairs])
    axes.set_xlabel("difference in nDCG@10 on the same queries")
    queries, models = len(lines[0][1]["queries"]), sorted({names_of(run) for run in runs})
    caption = "Bars: 95 % intervals over queries, above by bootstrap, below of the paired difference by Student's t."
    figure.supxlabel(caption, fontsize=9)
    figure.suptitle(f"{in_words(dataset)}, {queries} test queries, {', '.join(models)}")
    return figure


def search_runs(runs: list[Run]) -> list[tuple[str, Run]]:
    """The runs in reading order, and what tells one from the others: nothing, or its model, fine-tuning and seed."""
    ordered = sorted(runs, key=lambda run: (run["config"]["finetune"], run["config"]["model"], run["config"]["seed"]))
    several = len({names_of(run) for run in runs}) > 1
    seeds = len({run["config"]["seed"] for run in runs if run["config"]["finetune"]}) > 1
    groups = defaultdict(list)
    for run in ordered:
        tuned = ", fine-tuned" if run["config"]["finetune"] else ""
        groups[f", {names_of(run)}" * several + tuned].append(run)
    named = []
    for label, same in groups.items():
        for flags, alike in experiments(same).items():
            for run in alike:
                seed = f"seed {run['config']['seed']}" if seeds and run["config"]["finetune"] else ""
                named.append((label + "".join(f", {more}" for more in (seed, flags) if more), run))
    return named


def search_lines(runs: list[Run]) -> list[tuple[str, dict[str, Any]]]:
    """What was measured, a line a system, in reading order. BM25 learns nothing: it comes once for each of its
    settings."""
    settings = {id(run): f", k1 {run['config'].get('k1')}, b {run['config'].get('b')}" for run in runs}
    several = len(set(settings.values())) > 1
    lines = {}
    for label, run in search_runs(runs):
        for system, name in SYSTEMS.items():
            own = settings[id(run)] * several if system == "bm25" else label
            lines.setdefault(f"{name}{own}", run["test"][system])
    return list(lines.items())


def search_pairs(runs: list[Run]) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    """What is compared on the same queries, ``(name, first, second)`` for second minus first: the systems of an
    encoder; those of a fine-tuned one with themselves before, where that was measured."""
    before = {run["config"]["model"]: run["test"] for run in runs if not run["config"]["finetune"]}
    pairs = []
    for label, run in search_runs(runs):
        earlier, test = before.get(run["config"]["model"]), run["test"]
        if run["config"]["finetune"] and earlier is not None:
            label = label.replace(", fine-tuned", ": fine-tuned")
            for system in ("dense", "hybrid"):
                pairs.append((f"{SYSTEMS[system]}{label} minus as it is", earlier[system], test[system]))
        else:
            for first, second in (("bm25", "dense"), ("bm25", "hybrid"), ("dense", "hybrid")):
                pairs.append((f"{SYSTEMS[second]} minus {SYSTEMS[first]}{label}", test[first], test[second]))
    return pairs


def paired_difference(first: dict[str, Any], second: dict[str, Any]) -> tuple[float, float, float]:
    """How much better the second system's mean nDCG@10 is than the first's on the same queries, and the 95 % interval
    of that difference over queries, by Student's t."""
    return paired_interval(second["queries"], first["queries"])
