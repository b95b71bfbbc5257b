"""Data sets of the exercises with encoders: where they are, their parts, and texts with a class. Questions with choices
are in ``lab2.tasks.choices``, collections to search in ``lab2.tasks.search``, batches in ``lab2.tasks.batches``.

A data set is a folder, a file, a folder under data/, or a name of the hub.
"""

import dataclasses
import json
import re
import sys
import zlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lab1.engine.config import require
from lab1.engine.distributed import rank
from lab1.engine.randomness import stratified_split
from lab2 import hub
from lab2.tasks.files import FORMATS, Table, read, table

# Short names: what they are on the hub (name, configuration), and how people call their classes.
HUB = {
    "rotten_tomatoes": ("cornell-movie-review-data/rotten_tomatoes", None),
    "ag_news": ("fancyzhx/ag_news", None),
    "swag": ("allenai/swag", "regular"),
    "codah": ("jaredfern/codah", "fold_0"),
    "arc_easy": ("allenai/ai2_arc", "ARC-Easy"),
    "arc_challenge": ("allenai/ai2_arc", "ARC-Challenge"),
    "commonsense_qa": ("tau/commonsense_qa", None),
    "openbookqa": ("allenai/openbookqa", "main"),
    "hellaswag": ("Rowan/hellaswag", None),
    "scifact": ("mteb/scifact", None),
}
CLASSES = {"rotten_tomatoes": ["negative", "positive"], "ag_news": ["World", "Sports", "Business", "Sci/Tech"]}
PARTS = ("train", "validation", "test")
Examples = dict[str, tuple[list[Any], Tensor]]


@dataclasses.dataclass
class TaskData:
    """Examples in memory, by part (train, validation, test), each ``(items, labels [N] int64)``.

    An item is a text, or, of a multiple-choice set, a pair ``(question, [choice, ...])`` with the label the place of
    the right choice. ``sources`` says what each part was made of, such as ``{"test": "validation"}``.
    """

    name: str
    classes: list[str]
    parts: Examples
    sources: dict[str, str] = dataclasses.field(default_factory=dict)

    def about(self) -> dict[str, Any]:
        """What ``results.json`` and checkpoints say of the data; the checksum is of every text and label."""
        parts = [(items, labels.tolist()) for items, labels in self.parts.values()]
        return {"dataset": self.name, "parts": self.sources, "checksum": zlib.crc32(json.dumps(parts).encode())}

    def thinned(self, count: int) -> "TaskData":
        """At most ``count`` examples of each part, spread evenly over it, as many sets are sorted by label: for a dry
        run."""
        parts = {}
        for part, (items, labels) in self.parts.items():
            rows = torch.linspace(0, len(items) - 1, min(count, len(items))).round().long()
            parts[part] = [items[row] for row in rows.tolist()], labels[rows]
        return TaskData(self.name, self.classes, parts, self.sources)


def load_texts(dataset: str, data_folder: Path, download: bool = True) -> TaskData:
    """Texts with a class: the columns ``text`` and ``label``.

    Raises:
        UsageError: where the data set cannot be had, has other columns, or an example lacks its text or its label.
    """
    name, parts = load_parts(dataset, data_folder, download)
    for part, found in parts.items():
        missing = {"text", "label"} - set(found.columns)
        require(not missing, f"{dataset}, {part}: no column {' or '.join(sorted(missing))}, only {found.columns}")
        for number, row in enumerate(found.rows, 1):
            text, label = row.get("text"), row.get("label")
            where = f"{dataset}, {part}: example {number}"
            require(isinstance(text, (str, int, float)), f"{where} has no text")
            require(label not in (None, "", -1, "-1"), f"{where} has no label")
            plain = isinstance(label, (str, int, float)) and label == label
            require(plain, f"{where} has the label {label!r}; use a number or a word")
    numbers = as_numbers([row["label"] for found in parts.values() for row in found.rows])
    values = sorted(set(numbers.values()))
    require(len(values) >= 2, f"{dataset}: all examples have the label {values[0]}; at least two classes are needed")
    classes = parts["train"].classes.get("label")  # a class list, where the labels are places in it
    places = {value: value for value in values}
    if classes is None:
        places = {value: place for place, value in enumerate(values)}
        known = CLASSES.get(name, [])
        classes = known if values == list(range(len(known))) else [str(value) for value in values]
    examples = {}
    for part, found in parts.items():
        labels = torch.tensor([places[numbers[row["label"]]] for row in found.rows])
        examples[part] = [str(row["text"]) for row in found.rows], labels
    examples, sources = split(examples, name)
    learned = [str(classes[place]) for place in examples["train"][1].unique().tolist()]
    only = f"{dataset}: all its training examples have the label {learned[0]}; at least two classes are needed"
    require(len(learned) >= 2, only)
    return TaskData(name, classes, examples, sources)


def as_numbers(labels: list[Any]) -> dict[Any, Any]:
    """What each label stands for: itself, or the whole number that it spells, where all of them spell one, as those of
    a .csv do."""
    spelled = {label: str(label).strip() for label in labels}
    if all(re.fullmatch(r"-?\d{1,18}(\.0)?", word) for word in spelled.values()):
        return {label: int(word.removesuffix(".0")) for label, word in spelled.items()}
    return {label: label if isinstance(label, str) else str(label) for label in labels}


def load_parts(dataset: str, data_folder: Path, download: bool = True) -> tuple[str, dict[str, Table]]:
    """The data set's short name and its parts, with at least ``train``.

    Raises:
        UsageError: where it cannot be had.
    """
    place = hub.locate(dataset, data_folder)
    if place is None:
        source, configuration = HUB.get(dataset, (dataset, None))
        found = hub.dataset(source, configuration, data_folder, download, dataset)
        parts = {part: table(rows) for part, rows in found.items() if part in PARTS}
        require("train" in parts, f"{dataset} has no part called train, only {', '.join(found)}")
    else:
        files = {"train": place}
        if place.is_dir():
            paths = {part: [place / f"{part}{ending}" for ending in FORMATS] for part in PARTS}
            files = {part: path for part, each in paths.items() for path in each if path.exists()}
        require("train" in files, f"{place} holds no train.csv, train.jsonl or train.parquet")
        parts = {part: read(path, data_folder) for part, path in files.items()}
    for part, found in parts.items():
        require(len(found.rows) > 0, f"{dataset}, {part}: there is no example in it")
    name = Path(dataset).name if place is None else place.resolve().stem if place.is_file() else place.resolve().name
    return name, parts


def split(parts: Examples, name: str, hidden: tuple[str, ...] = ()) -> tuple[Examples, dict[str, str]]:
    """Fill in the parts that a data set does not come with: a missing test set is its validation set, or else a tenth
    of what there is to learn from; a missing validation set is a tenth of that. The split is the same for every seed.
    One line on standard error says so.

    Args:
        hidden: the parts that are missing as their labels are hidden.

    Returns:
        All parts, and what each of them was made of.

    Raises:
        UsageError: where there are too few examples to split.
    """
    parts, sources = dict(parts), {part: part for part in PARTS}
    missing = " and ".join(part for part in PARTS if part not in parts)
    if "test" not in parts and "validation" in parts:
        parts["test"] = parts.pop("validation")
        sources["test"] = "validation"
    for part in ("test", "validation"):
        if part not in parts:
            items, labels = parts["train"]
            rest, held_out = stratified_split(labels, max(1, len(items) // 10), seed=0)
            for each, rows in (("train", rest), (part, held_out)):
                parts[each] = [items[row] for row in rows.tolist()], labels[rows]
            sources[part] = "a tenth of train"
    shown = {"validation": "its validation part"}
    changed = [f"{part} is {shown.get(source, source)}" for part, source in sources.items() if part != source]
    if changed and rank() == 0:
        why = (
            f"{name} hides the labels of its {' and '.join(hidden)} part" if hidden else f"{name} has no {missing} part"
        )
        print(f"{why}: here {' and '.join(changed)}", file=sys.stderr)
    return {part: parts[part] for part in PARTS}, sources
