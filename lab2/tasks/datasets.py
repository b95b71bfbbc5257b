"""Data sets of the exercises with encoders, all through Hugging Face ``datasets``: texts with a class, questions with
choices, and collections to search. Batches of them are in ``lab2.tasks.batches``.

A data set is a folder, a file, a folder under data/, or a name of the hub.
"""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lab1.engine.config import UsageError, require
from lab1.engine.randomness import stratified_split
from lab2 import hub

# Short names: what they are on the hub (name, configuration), and how people call their classes.
HUB = {
    "rotten_tomatoes": ("cornell-movie-review-data/rotten_tomatoes", None),
    "ag_news": ("fancyzhx/ag_news", None),
    "swag": ("allenai/swag", "regular"),
    "codah": ("jaredfern/codah", "fold_0"),
    "scifact": ("mteb/scifact", None),
}
CLASSES = {"rotten_tomatoes": ["negative", "positive"], "ag_news": ["World", "Sports", "Business", "Sci/Tech"]}
FORMATS = {".csv": "csv", ".jsonl": "json", ".parquet": "parquet"}
PARTS = ("train", "validation", "test")
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
QUESTION = '{"question": "The sky is", "choices": ["blue", "green"], "label": 0}'


@dataclasses.dataclass
class TaskData:
    """Examples in memory, by part (train, validation, test), each ``(items, labels [N] int64)``.

    An item is a text, or, of a multiple-choice set, a pair ``(question, [choice, ...])`` with the label the place of
    the right choice.
    """

    name: str
    classes: list[str]
    parts: dict[str, tuple[list[Any], Tensor]]

    def thinned(self, count: int) -> "TaskData":
        """At most ``count`` examples of each part, spread evenly over it, as many sets are sorted by label: for a dry
        run."""
        parts = {}
        for part, (items, labels) in self.parts.items():
            rows = torch.linspace(0, len(items) - 1, min(count, len(items))).round().long()
            parts[part] = [items[row] for row in rows.tolist()], labels[rows]
        return TaskData(self.name, self.classes, parts)


@dataclasses.dataclass
class SearchData:
    """A collection in BEIR's terms (Thakur et al. 2021): documents and queries by their ids, and for each part the
    judgements ``{query: {document: score}}``, where 0 is not relevant and a larger score is better."""

    name: str
    documents: dict[str, str]
    queries: dict[str, str]
    judgements: dict[str, dict[str, dict[str, int]]]

    def head(self, queries: int, documents: int) -> "SearchData":
        """The first queries of each part, and the documents judged for them with the first of the others."""
        judged = {part: dict(list(found.items())[:queries]) for part, found in self.judgements.items()}
        needed = {document for found in judged.values() for scores in found.values() for document in scores}
        needed |= set(list(self.documents)[:documents])
        kept = {name: text for name, text in self.documents.items() if name in needed}
        return SearchData(self.name, kept, self.queries, judged)


def load_texts(dataset: str, data_folder: Path, download: bool = True) -> TaskData:
    """Texts with a class: the columns ``text`` and ``label``.

    Raises:
        UsageError: where the data set cannot be had or has other columns.
    """
    name, parts = load_parts(dataset, data_folder, download)
    for part, rows in parts.items():
        missing = {"text", "label"} - set(rows.column_names)
        require(not missing, f"{dataset}, {part}: no column {' or '.join(sorted(missing))}, only {rows.column_names}")
    values = sorted({value for rows in parts.values() for value in rows["label"]}, key=lambda v: (str(type(v)), v))
    require(None not in values and -1 not in values, f"{dataset}: an example has no label")
    require(len(values) >= 2, f"{dataset}: all examples have the label {values[0]}; at least two classes are needed")
    classes = getattr(
        parts["train"].features["label"], "names", None
    )  # a class list, where the labels are places in it
    places = {value: value for value in values}
    if classes is None:
        places = {value: place for place, value in enumerate(values)}
        known = CLASSES.get(name, [])
        classes = known if values == list(range(len(known))) else [str(value) for value in values]
    examples = {
        part: ([str(text or "") for text in rows["text"]], torch.tensor([places[v] for v in rows["label"]]))
        for part, rows in parts.items()
    }
    return TaskData(name, classes, split(examples))


def load_choices(dataset: str, data_folder: Path, download: bool = True) -> TaskData:
    """Questions with choices: the columns ``question``, ``choices``, ``label``, or those of SWAG or CODAH on the hub.

    Raises:
        UsageError: where the data set cannot be had, has other columns, or questions differ in their number of choices.
    """
    name, parts = load_parts(dataset, data_folder, download)
    examples = {}
    for part, rows in parts.items():
        found = [_choices(row) for row in rows]
        require(
            None not in found,
            f"{dataset}, {part}: no question, choices and label, only {rows.column_names}; a line: {QUESTION}",
        )
        # Some test sets keep their labels to themselves.
        found = [(question, choices, label) for question, choices, label in found if label >= 0]
        if found:
            questions, choices, labels = zip(*found, strict=True)
            examples[part] = (list(zip(questions, choices, strict=True)), torch.tensor(labels))
    counts = {len(choices) for items, _ in examples.values() for _, choices in items}
    require(len(counts) == 1, f"{dataset}: its questions have {sorted(counts)} choices; one number is needed")
    count = counts.pop()
    require(
        all(labels.max() < count for _, labels in examples.values()), f"{dataset}: a label is beyond {count} choices"
    )
    return TaskData(name, [chr(ord("A") + place) for place in range(count)], split(examples))


def _choices(row: dict[str, Any]) -> tuple[str, list[str], int] | None:
    if "ending0" in row:  # SWAG
        endings = [row[f"ending{place}"] for place in range(4)]
        return f"{row['sent1']} {row['sent2']}".strip(), endings, row["label"]
    if "candidate_answers" in row:  # CODAH
        return row["question"], list(row["candidate_answers"]), row["correct_answer_idx"]
    if row.keys() >= {"question", "choices", "label"}:
        return row["question"], list(row["choices"]), int(row["label"])
    return None


def load_search(dataset: str, data_folder: Path, download: bool = True) -> SearchData:
    """A collection to search: a folder in BEIR's format (``corpus.jsonl``, ``queries.jsonl``, ``qrels/<part>.tsv``), or
    one of the hub with the configurations ``corpus``, ``queries`` and ``default``, as MTEB's are.

    Raises:
        UsageError: where it cannot be had or is not of this format.
    """
    folder = hub.locate(dataset, data_folder)
    try:
        if folder is not None:
            files = {"corpus": folder / "corpus.jsonl", "queries": folder / "queries.jsonl"}
            judged = {part: folder / "qrels" / f"{part}.tsv" for part in PARTS}
            judged = {part: path for part, path in judged.items() if path.exists()}
            absent = [str(path) for path in files.values() if not path.exists()]
            require(
                not absent and bool(judged), f"{folder} is not in BEIR's format: no {(absent or ['qrels/*.tsv'])[0]}"
            )
            corpus, queries = (read(path, data_folder) for path in files.values())
            judgements = {part: read(path, data_folder, delimiter="\t") for part, path in judged.items()}
            name = folder.resolve().name
        else:
            source, name = HUB.get(dataset, (dataset,))[0], Path(dataset).name
            corpus, queries = (
                next(iter(hub.dataset(source, part, data_folder, download).values())) for part in ("corpus", "queries")
            )
            judgements = hub.dataset(source, "default", data_folder, download)
        documents = {str(row["_id"]): f"{row.get('title') or ''} {row['text']}".strip() for row in corpus}
        texts = {str(row["_id"]): row["text"] for row in queries}
        scores = {part: _by_query(rows) for part, rows in judgements.items()}
    except KeyError as error:
        raise UsageError(f"{dataset} is not in BEIR's format: no column {error}") from None
    require("test" in scores, f"{dataset} has no judgements to test on (qrels/test.tsv)")
    for part, found in scores.items():
        strangers = [query for query in found if query not in texts]
        require(not strangers, f"{dataset}, qrels of {part}: {len(strangers)} queries are not among the queries")
    return SearchData(name, documents, texts, scores)


def _by_query(rows) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for row in rows:
        found.setdefault(str(row["query-id"]), {})[str(row["corpus-id"])] = int(row["score"])
    # A query without anything relevant says nothing of a ranking.
    return {query: scores for query, scores in found.items() if max(scores.values()) > 0}


def load_parts(dataset: str, data_folder: Path, download: bool = True) -> tuple[str, dict[str, Any]]:
    """The data set's short name and its parts (``datasets.Dataset``), with at least ``train``.

    Raises:
        UsageError: where it cannot be had.
    """
    place = hub.locate(dataset, data_folder)
    if place is None:
        source, part = HUB.get(dataset, (dataset, None))
        parts = hub.dataset(source, part, data_folder, download)
    else:
        files = {"train": place}
        if place.is_dir():
            found = {part: [place / f"{part}{ending}" for ending in FORMATS] for part in PARTS}
            files = {part: path for part, paths in found.items() for path in paths if path.exists()}
        require("train" in files, f"{place} holds no train.csv, train.jsonl or train.parquet")
        parts = {part: read(path, data_folder) for part, path in files.items()}
    require("train" in parts, f"{dataset} has no part called train, only {', '.join(parts)}")
    for part, rows in parts.items():
        require(len(rows) > 0, f"{dataset}, {part}: there is no example in it")
    name = Path(dataset).name if place is None else place.resolve().stem if place.is_file() else place.resolve().name
    return name, {part: rows for part, rows in parts.items() if part in PARTS}


def read(path: Path, data_folder: Path, **options: Any):
    """One file as a ``datasets.Dataset``. UsageError where it cannot be read."""
    hub.quiet()
    import datasets

    kind = "csv" if path.suffix == ".tsv" else FORMATS.get(path.suffix)
    require(kind is not None, f"{path}: use a file in {', '.join(FORMATS)}")
    if kind == "csv":
        _check_separator(path, "\t" if path.suffix == ".tsv" else ",")
    try:
        cache = str(data_folder / "huggingface")
        with hub.offline():
            return datasets.load_dataset(kind, data_files=str(path), split="train", cache_dir=cache, **options)
    except (datasets.exceptions.DatasetGenerationError, OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {hub.first_line(error.__cause__ or error)}") from None


def _check_separator(path: Path, right: str) -> None:
    """Refuse a table whose first line, the names of its columns, has another separator than this."""
    with path.open(encoding="utf-8", errors="replace") as file:
        first = file.readline()
    for sign, word in SEPARATORS.items():
        require(
            right in first or sign not in first,
            f"{path}: its columns, {first.strip()!r}, have {word} between them; use {SEPARATORS[right]}",
        )


def split(parts: dict[str, tuple[list, Tensor]]) -> dict[str, tuple[list, Tensor]]:
    """Fill in the parts that a data set does not come with: a missing test set is its validation set, or else a tenth
    of what there is to learn from; a missing validation set is a tenth of that. The split is the same for every seed.

    Raises:
        UsageError: where there are too few examples to split.
    """
    parts = dict(parts)
    if "test" not in parts and "validation" in parts:
        parts["test"] = parts.pop("validation")
    for part in ("test", "validation"):
        if part not in parts:
            items, labels = parts["train"]
            rest, held_out = stratified_split(labels, max(1, len(items) // 10), seed=0)
            for name, rows in (("train", rest), (part, held_out)):
                parts[name] = [items[row] for row in rows.tolist()], labels[rows]
    return {part: parts[part] for part in PARTS}
