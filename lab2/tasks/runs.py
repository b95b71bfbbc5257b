"""What the scripts with encoders share: dry runs without a download, runs that no Trainer writes, tables of runs."""

import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab1.engine.config import RunConfig


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

    folder = logbook.new_run_folder(config.runs_folder(), config.run_name())
    settings = config.as_dict()
    logbook.write_json(settings, folder / "config.json")
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
    """The results of a script's finished runs on a data set, in a folder; what cannot be read is passed over."""
    found = []
    for path in sorted(folder.glob("*/results.json")):
        try:
            run = json.loads(path.read_text(encoding="utf-8"))
            same = run["script"] == script and run["dataset"] == dataset and run["config"]["dry_run"] is dry_run
        except (OSError, ValueError, KeyError, TypeError):
            continue
        found += [run | {"name": path.parent.name}] if same else []
    return found


def classification_rows(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each method and model, over its seeds, in the order of the methods: means, and the standard deviations
    (``sd``) where there are several."""
    order = ("tfidf", "features", "lora", "finetune")
    groups = defaultdict(list)
    for run in runs:
        (method,) = run["config"]["method"]
        groups[order.index(method), "" if method == "tfidf" else Path(run["config"]["model"]).name].append(run)
    rows = []
    for (place, model), same in sorted(groups.items()):
        row = {"method": order[place], "model": model, "runs": len(same)}
        row["trainable_parameters"] = same[0]["test"]["trainable_parameters"]
        for name in ("accuracy", "macro_f1"):
            values = [run["test"][name] for run in same]
            row[name], row[f"{name}_sd"] = statistics.fmean(values), statistics.stdev(values) if len(same) > 1 else None
        rows.append(row | {"seconds": statistics.fmean(run["seconds"] for run in same)})
    return rows


def classification_table(folder: Path, dataset: str, dry_run: bool) -> str:
    """What people read of all runs so far: a line a method."""
    lines = [f"{dataset:28s}{'runs':>5s}{'accuracy':>17s}{'macro F1':>10s}{'learning':>12s}{'seconds':>9s}"]
    for row in classification_rows(read_runs(folder, "lab2/classify_text.py", dataset, dry_run)):
        spread = "" if row["accuracy_sd"] is None else f" ± {row['accuracy_sd']:.2%}"
        accuracy = f"{row['accuracy']:.2%}{spread}".replace("%", "") + " %"
        name = f"{row['method']} {row['model']}"[:28]
        numbers = f"{row['macro_f1']:10.4f}{row['trainable_parameters']:12,d}{row['seconds']:9.1f}"
        lines.append(f"{name:28s}{row['runs']:5d}{accuracy:>17s}{numbers}")
    return "\n".join(lines)
