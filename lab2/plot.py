"""Every figure of lab 2 comes from its published runs.

Command:  python lab2/plot.py
Time:     10 seconds
Expect:   the figures of lab2/model/published/ in lab2/figures/

    python lab2/plot.py --runs lab2/model     figures of your own runs
"""

from collections import defaultdict
from pathlib import Path
from typing import Any

from lab1.engine.figures import PARTS, FigureConfig, by_experiment, draw, write_figures
from lab1.engine.launch import launch

Run = dict[str, Any]
# Runs of train_gpt.py that agree in these are one model on one text; what else differs is drawn on one axis.
SAME_MODEL = (
    *("text", "tokenizer", "layers", "heads", "width", "context", "dropout"),
    *("steps", "batch_size", "learning_rate", "preset", "without"),
)
STYLES = ("-", "--", ":", "-.")
MEASURES = {
    "distinct_1": "different words\n(distinct-1)",
    "distinct_2": "different pairs of words\n(distinct-2)",
    "repetition": "repeated 4-grams\nof words",
}
ITSELF = "the text itself"


class Config(FigureConfig):
    """The flags of this script."""


def models(runs: list[Run]) -> dict[str, list[Run]]:
    """The runs of train_gpt.py by figure: those of one model together, whatever their seed and weight decay, under the
    shortest of their names."""
    names: dict[tuple, str] = {}
    figures = defaultdict(list)
    for name, same in sorted(by_experiment(runs, SAME_MODEL).items(), key=lambda item: len(item[0])):
        settings = tuple(str(same[0]["config"].get(key) or None) for key in SAME_MODEL)
        figures[names.setdefault(settings, name)] += same
    return figures


def learning_curves(runs: list[Run]):
    """Loss over steps in training (with dropout, as it goes) and in validation, on the left of all steps, on the right
    of the last ones. A line a seed, a kind of line a weight decay. A dot marks where validation chose the weights, a
    cross their test. The axis on the right says the same in bits per character."""
    import math
    import statistics

    from matplotlib import pyplot
    from matplotlib.lines import Line2D

    from lab2.tasks.figures import in_words

    settings, steps = runs[0]["config"], runs[0]["config"]["steps"]
    decays = sorted({run["config"]["weight_decay"] for run in runs}, reverse=True)
    styles = dict(zip(decays, STYLES * len(decays), strict=False))
    figure, panels = pyplot.subplots(1, 2, figsize=(9.1, 4.4), layout="constrained")
    last = max(min(run["history"][-1]["epoch"] * run["config"]["eval_interval"], steps) for run in runs)
    for panel, first in zip(panels, (0, 0.6 * last), strict=True):
        for run in runs:
            style, interval = styles[run["config"]["weight_decay"]], run["config"]["eval_interval"]
            history = [(min(entry["epoch"] * interval, steps), entry) for entry in run["history"]]
            for part in ("train", "validation"):
                points = [(step, entry[part]["loss"]) for step, entry in history if step >= first]
                panel.plot(*zip(*points, strict=True), color=PARTS[part], ls=style, lw=1.8)
            best = history[run["best_epoch"] - 1][0]
            if best >= first:
                panel.plot(best, run["validation"]["loss"], "o", color=PARTS["validation"], mec="white", ms=9)
                panel.plot(best, run["test"]["loss"], "x", color=PARTS["test"], ms=8, mew=2)
        panel.set_xlabel("step")
        panel.set_title("the last steps, enlarged" if first else "all steps", fontsize=10)
        panel.grid(alpha=0.3)
    measured = runs[0]["validation"]
    bits = measured["bits_per_character"] / measured["loss"]  # 1 / ln 2, over the characters of a token
    of_characters = math.isclose(bits, 1 / math.log(2))
    panels[0].set_ylabel(f"loss (nats per {'character' if of_characters else 'token'})")
    right = panels[1].secondary_yaxis("right", functions=(lambda loss: loss * bits, lambda value: value / bits))
    right.set_ylabel("bits per character" if of_characters else "bits per character (validation)")

    keys = [
        Line2D([], [], color=PARTS["train"], lw=2, label="training" + ", with dropout" * (settings["dropout"] > 0)),
        Line2D([], [], color=PARTS["validation"], lw=2, marker="o", mec="white", ms=9, label="validation, dot: chosen"),
        Line2D([], [], color=PARTS["test"], ls="", marker="x", ms=8, mew=2, label="test of the chosen weights"),
    ]
    for decay, style in styles.items():
        same = [run for run in runs if run["config"]["weight_decay"] == decay]
        validation, test = (statistics.fmean(run[part]["loss"] for run in same) for part in ("validation", "test"))
        label = f"weight decay {decay:g}: validation {validation:.3f}, test {test:.3f}"
        keys.append(Line2D([], [], color="black", ls=style, lw=1.8, label=label))
    figure.legend(handles=keys, loc="outside lower center", ncols=2, frameon=False)
    most = max(sum(run["config"]["weight_decay"] == decay for run in runs) for decay in decays)
    seeds = f"{most} seed{'s' if most > 1 else ''}" + " each" * (len(decays) > 1)
    size = f"{settings['layers']} layers of width {settings['width']}, {runs[0]['parameters']:,} parameters, {seeds}"
    kind = "modern GPT" if str(settings.get("preset")).startswith("modern") else "GPT"
    figure.suptitle(f"{kind} on {in_words(settings['text'])}: {size}", fontsize=12)
    return figure


def decoding_figure(runs: list[Run]):
    """Above: the length of each of some lines in characters and in tokens, by tokenizer. Below: for each way of
    decoding how much of what it wrote is different, and how much repeats; the dashed lines are the text itself."""
    import matplotlib
    from matplotlib import pyplot

    from lab2.tasks.figures import NEUTRAL, in_words

    run = runs[0]
    rows = run["decoding"]
    figure = pyplot.figure(figsize=(9.1, 4.2 + 0.32 * len(rows)), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(3, 1.2 + 0.32 * len(rows)))
    panel = above.add_subplot()
    shades = matplotlib.colormaps["copper"]
    for place, (tokenizer, row) in enumerate(run["tokenizers"].items()):
        style = {"color": shades(0.2 + 0.65 * place / max(1, len(run["tokenizers"]) - 1)), "marker": "os^Dv"[place % 5]}
        label = f"{tokenizer_in_words(tokenizer)}:\n{row['characters_per_token']:.2f} characters per token"
        panel.plot(*zip(*row["lines"], strict=True), ls="", ms=4.5, alpha=0.7, mec="none", label=label, **style)
    panel.set(xlabel="characters of a line", ylabel="tokens of the line", ylim=0, xlim=0)
    panel.grid(alpha=0.3)
    panel.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), labelspacing=1, markerscale=1.8)
    columns = below.subplots(1, len(MEASURES), sharey=True)
    for panel, (key, label) in zip(columns, MEASURES.items(), strict=True):
        shares = [100 * row[key] for row in rows.values()]
        panel.barh(range(len(rows)), shares, color=["black" if name == ITSELF else NEUTRAL for name in rows])
        for place, share in enumerate(shares):
            panel.text(143, place, f"{share:.1f} %", ha="right", va="center", fontsize=9)
        panel.axvline(100 * rows[ITSELF][key], color="black", ls="--", lw=1, zorder=0)
        panel.set(xlim=(0, 146), xticks=(0, 50, 100), xlabel="share (%)")
        panel.set_title(label, fontsize=10)
    columns[0].set_yticks(range(len(rows)), rows)
    columns[0].invert_yaxis()
    samples, length = (run["config"][key] for key in ("samples", "length"))
    texts = f"{samples} texts of {length} tokens by each way of decoding"
    model = Path(run["config"]["model"] or run["config"]["run"] or "a GPT").name
    figure.suptitle(f"Lines of {in_words(run['dataset'])} in tokens, and {texts}, {model}", fontsize=11)
    return figure


def tokenizer_in_words(name: str) -> str:
    """``byte pairs, 512 tokens`` of ``bpe-512``; of any other the name, without its owner or folder."""
    name = Path(name).name
    return f"byte pairs, {int(name[4:]):,} tokens" if name.startswith("bpe-") and name[4:].isdigit() else name


def main(config: Config) -> None:
    """Read the runs, write the figures; those of exercise 3 are in lab2/tasks/figures.py."""
    import matplotlib

    matplotlib.use("Agg")
    write_figures(draw(figures_of, config.read()), config.figures_folder())


def figures_of(runs: list[Run]) -> dict[str, Any]:
    """A figure for each model and text, and each exercise, by its name."""
    from lab2.tasks.figures import task_figures

    trained = models([run for run in runs if run["script"] == "lab2/train_gpt.py"])
    # One of --prompt may have no text beside it, and nothing to compare.
    decoded = by_experiment([run for run in runs if run["script"] == "lab2/generate.py" and run["tokenizers"]])
    figures = {name: learning_curves(same) for name, same in trained.items()}
    for name, same in decoded.items():
        figures |= {name if len(same) == 1 else run["name"]: decoding_figure([run]) for run in same}
    return figures | task_figures(runs)


if __name__ == "__main__":
    launch(main, Config)
