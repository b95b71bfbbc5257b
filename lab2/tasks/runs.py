"""What the scripts with encoders share: dry runs without a download, runs that no Trainer writes, tables of runs."""

import os
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab1.engine.config import RunConfig, UsageError
from lab1.engine.figures import experiments
from lab1.engine.files import read_object, that_fit
from lab1.engine.unfinished import read_settings


def use_tiny(config: RunConfig, data: str | None = None, model: str | None = None) -> None:
    """In a dry run: where the data set or the model is not on the disk, take a tiny one instead, written under data/,
    and say so. Any other run is left as it is.

    Args:
        data: the kind of data set, ``texts``, ``choices`` or ``search``; None to leave it.
        model: the kind of model, ``bert`` or ``gpt2``; None to leave it.
    """
    if not config.dry_run:
        return
    from lab2 import hub
    from lab2.tasks import tiny

    folder = config.data_folder()
    for flag, kind in (("dataset", data), ("model", model)):
        name = getattr(config, flag)
        if kind is None or hub.locate(name, folder) is not None:
            continue
        place = folder / f"tiny-{kind}"
        if not place.exists():
            writers = {"texts": tiny.write_texts, "choices": tiny.write_choices, "search": tiny.write_search}
            writers[kind](place) if flag == "dataset" else tiny.write_model(place, kind=kind)
        print(f"{name} is not on the disk: this dry run takes {place}, which teaches nothing", file=sys.stderr)
        setattr(config, flag, place.name)


def name_in_full(config: RunConfig) -> None:
    """Let ``dataset`` and ``model``, where they are folders or files, be absolute paths: ``--resume`` may come from
    another folder. What an older run to resume calls otherwise stays as it is there."""
    before = {} if config.resume in (None, "auto") else read_settings(Path(config.resume))
    for flag in ("dataset", "model"):
        name = getattr(config, flag)
        path = Path(os.path.expanduser(name))
        if Path(name).name and path.exists() and before.get(flag) != name:
            setattr(config, flag, str(path.resolve()))


def write_run(config: RunConfig, device, results: dict[str, Any], draw: Callable[[], Any] | None = None) -> Path:
    """Write the run of something that no Trainer trained: config.json, TensorBoard, results.json; returns its folder.

    Args:
        results: what ``results.json`` holds beyond the script, the configuration and the environment. The numbers under
            ``test`` go to TensorBoard too.
        draw: makes a Matplotlib figure of the confusion matrix, for TensorBoard and as ``confusion.png``. It is called
            after the results are written, so that no picture can cost them.
    """
    from lab1.engine import logbook
    from lab1.engine.finished import shown

    settings = config.as_dict()
    folder = logbook.new_run_folder(config.runs_folder(), config.run_name(), settings)
    head = {"script": logbook.script_name(config), "config": settings}
    logbook.write_results(head | results | {"environment": logbook.environment(device)}, folder / "results.json")
    log = logbook.Logbook(folder)
    log.configuration(settings, charted=())
    measured = {name: value for name, value in results["test"].items() if type(value) is float}
    log.end(settings, logbook.tagged(measured, "test"), 0)
    if draw is not None:
        figure = draw()
        figure.savefig(folder / "confusion.png", dpi=120)
        log.figure("confusion matrix/test", figure, 0)
    log.close()
    print(f"{shown(folder)} holds the run")
    return folder


def read_runs(folder: Path, script: str, dataset: str, dry_run: bool) -> list[dict[str, Any]]:
    """The results of a script's finished runs on a data set, in a folder. What cannot be read is passed over with a
    line on standard error."""
    found = []
    for path in sorted(folder.glob("*/results.json")):
        try:
            run = read_object(path)
        except (UsageError, FileNotFoundError) as error:
            print(f"passing over a run: {error}", file=sys.stderr)
            continue
        config = run.get("config")
        same = (run.get("script"), run.get("dataset")) == (script, dataset) and isinstance(config, dict)
        found += [run | {"name": path.parent.name}] if same and config.get("dry_run") is dry_run else []
    return found


# Flags that mean nothing to a method: two runs that differ in these alone are of one command.
ENCODER = ("epochs", "batch_size", "learning_rate", "weight_decay", "patience", "select", "lora_rank")
WITHOUT_MEANING = {
    "tfidf": (*ENCODER, "model", "max_length", "layer", "pooling"),
    "features": ENCODER,
    "finetune": ("layer", "pooling", "classifier", "lora_rank"),
    "lora": ("layer", "pooling", "classifier"),
}


def classification_rows(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each method, model and way to train it, over its seeds, in the order of the methods: means, and the
    standard deviations (``sd``) where there are several. ``same`` are the runs of a row, ``flags`` what else tells it
    from others. ``chosen`` is, of the rows of a method and a model, the one whose validation accuracy is the highest in
    the mean."""
    order = ("tfidf", "features", "lora", "finetune")
    groups = defaultdict(list)
    for run in runs:
        settings = run["config"]
        (method,) = settings["method"]
        learns = method in order[2:]
        training = (settings["learning_rate"], settings["epochs"], settings.get("select", "loss")) if learns else ()
        groups[order.index(method), "" if method == "tfidf" else Path(settings["model"]).name, training].append(run)
    rows = []
    split = [
        (*key, flags, same)
        for key in sorted(groups)
        for flags, same in experiments(groups[key], ignored=WITHOUT_MEANING[order[key[0]]]).items()
    ]
    for place, model, training, flags, same in split:
        row = {"method": order[place], "model": model, "training": training, "flags": flags}
        row |= {"runs": len(same), "same": same}
        row["trainable_parameters"] = same[0]["test"]["trainable_parameters"]
        row["validation"] = statistics.fmean(run["validation"]["accuracy"] for run in same)
        for name in ("accuracy", "macro_f1"):
            values = [run["test"][name] for run in same]
            row[name], row[f"{name}_sd"] = statistics.fmean(values), statistics.stdev(values) if len(same) > 1 else None
        rows.append(row | {"seconds": statistics.fmean(run["seconds"] for run in same)})
    for row in rows:
        rivals = [each for each in rows if (each["method"], each["model"]) == (row["method"], row["model"])]
        row["chosen"] = row is max(rivals, key=lambda each: each["validation"])
    return rows


def classification_table(folder: Path, dataset: str, dry_run: bool, place: str | None = None) -> str:
    """What people read of all runs so far on a data set (at this ``place``, where another may have its name): a line a
    method and a way to train it; a star marks the way that validation chooses among several."""
    head = f"{dataset:28s}{'rate':>7s}{'epochs':>7s}{'by':>9s}{'runs':>5s}{'validation':>12s}{'test':>17s}"
    head += f"{'macro F1':>10s}{'learning':>12s}{'seconds':>9s}"
    runs = read_runs(folder, "lab2/classify_text.py", dataset, dry_run)
    runs = [run for run in runs if place is None or run["config"].get("dataset") == place]
    return "\n".join([head, *_lines(that_fit(_lines, runs))])


def _lines(runs: list[dict[str, Any]]) -> list[str]:
    lines, rows = [], classification_rows(runs)
    for row in rows:
        spread = "" if row["accuracy_sd"] is None else f" ± {row['accuracy_sd']:.2%}"
        accuracy = f"{row['accuracy']:.2%}{spread}".replace("%", "") + " %"
        several = sum((each["method"], each["model"]) == (row["method"], row["model"]) for each in rows) > 1
        name = f"{row['method']} {row['model']}"[:26] + " *" * (several and row["chosen"])
        rate, epochs, select = row["training"] or ("", "", "")
        numbers = f"{row['macro_f1']:10.4f}{row['trainable_parameters']:12,d}{row['seconds']:9.1f}"
        training = f"{rate and f'{rate:g}':>7s}{epochs:>7}{select:>9s}{row['runs']:5d}"
        line = f"{name:28s}{training}{100 * row['validation']:10.2f} %{accuracy:>17s}{numbers}  {row['flags']}"
        lines.append(line.rstrip())
    return lines
