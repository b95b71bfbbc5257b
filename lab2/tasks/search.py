"""Collections to search, in BEIR's format: documents, queries, and which documents were judged to answer which."""

import dataclasses
import json
import math
import sys
import zlib
from pathlib import Path
from typing import Any

from lab1.engine.config import require
from lab1.engine.distributed import rank
from lab2 import hub
from lab2.tasks.datasets import HUB, PARTS
from lab2.tasks.files import Table, read, several, table

Judgements = dict[str, dict[str, int]]  # {query: {document: score}}


@dataclasses.dataclass
class SearchData:
    """A collection in BEIR's terms (Thakur et al. 2021): documents and queries by their ids, and for each part the
    judgements ``{query: {document: score}}``, where 0 is not relevant and a larger score is better. ``unknown`` counts
    the judged documents of a part that are none of the documents."""

    name: str
    documents: dict[str, str]
    queries: dict[str, str]
    judgements: dict[str, Judgements]
    unknown: dict[str, int] = dataclasses.field(default_factory=dict)

    def about(self) -> dict[str, Any]:
        """What ``results.json`` and checkpoints say of the data; the checksum is of all documents, queries and
        judgements."""
        checksum = zlib.crc32(json.dumps([self.documents, self.queries, self.judgements]).encode())
        found = {"dataset": self.name, "checksum": checksum}
        return found | ({"unknown_documents": self.unknown} if self.unknown else {})

    def head(self, queries: int, documents: int) -> "SearchData":
        """The first queries of each part, and the documents judged for them with the first of the others."""
        judged = {part: dict(list(found.items())[:queries]) for part, found in self.judgements.items()}
        needed = {document for found in judged.values() for scores in found.values() for document in scores}
        needed |= set(list(self.documents)[:documents])
        kept = {name: text for name, text in self.documents.items() if name in needed}
        return SearchData(self.name, kept, self.queries, judged, self.unknown)


def load_search(dataset: str, data_folder: Path, download: bool = True) -> SearchData:
    """A collection to search: a folder in BEIR's format (``corpus.jsonl``, ``queries.jsonl``, ``qrels/<part>.tsv``), or
    one of the hub with the configurations ``corpus``, ``queries`` and ``default``, as MTEB's are.

    A judged document that is none of the documents stays among the judgements: as in trec_eval it is one that no
    ranking finds. How many there are is said on standard error.

    Raises:
        UsageError: where it cannot be had, is not of this format, or has a part without any relevant document.
    """
    folder = hub.locate(dataset, data_folder)
    if folder is not None:
        name, (corpus, queries, judged) = folder.resolve().name, read_folder(folder, data_folder)
    else:
        there = data_folder / "cranfield"  # no name of the hub: it is made from the original files
        require(
            dataset != there.name, f"{there} is not there; make it: python lab2/prepare_data.py --datasets cranfield"
        )
        source, name = HUB.get(dataset, (dataset,))[0], Path(dataset).name
        corpus, queries = (
            table(next(iter(hub.dataset(source, kind, data_folder, download).values())))
            for kind in ("corpus", "queries")
        )
        found = hub.dataset(source, "default", data_folder, download)
        judged = {part: table(rows) for part, rows in found.items() if part in PARTS}
    documents, texts = texts_by_id(corpus, f"{dataset}, corpus"), texts_by_id(queries, f"{dataset}, queries")
    require(len(documents) >= 2, f"{dataset}: at least two documents are needed to rank, not {len(documents)}")
    require("test" in judged, f"{dataset} has no judgements to test on (qrels/test.tsv)")
    data = SearchData(name, documents, texts, {})
    for part, rows in judged.items():
        where = f"{dataset}, qrels of {part}"
        # A query without anything relevant says nothing of a ranking.
        scores = {query: found for query, found in by_query(rows, where).items() if max(found.values()) > 0}
        strangers = [query for query in scores if query not in texts]
        require(not strangers, f"{where}: {len(strangers)} queries are not among the queries: {several(strangers)}")
        unknown = list(dict.fromkeys(id for found in scores.values() for id in found if id not in documents))
        if unknown:
            data.unknown[part] = len(unknown)
            if rank() == 0:
                print(
                    f"{where}: {len(unknown)} judged documents are not in the corpus: {several(unknown)}; "
                    "no ranking finds them",
                    file=sys.stderr,
                )
        data.judgements[part] = scores
        relevant = any(score > 0 and id in documents for found in scores.values() for id, score in found.items())
        require(relevant, f"{where}: no document of the corpus is relevant to any query; a score of 1 or more says so")
    return data


def read_folder(folder: Path, data_folder: Path) -> tuple[Table, Table, dict[str, Table]]:
    """Documents, queries, and judgements by part, of a folder in BEIR's format. UsageError where there is none."""
    files = [folder / "corpus.jsonl", folder / "queries.jsonl"]
    judged = {part: folder / "qrels" / f"{part}.tsv" for part in PARTS}
    judged = {part: path for part, path in judged.items() if path.exists()}
    absent = [str(path) for path in files if not path.exists()] or ([] if judged else ["qrels/*.tsv"])
    require(not absent, f"{folder} is not in BEIR's format: no {(absent or [''])[0]}")
    corpus, queries = (read(path, data_folder) for path in files)
    return corpus, queries, {part: read(path, data_folder) for part, path in judged.items()}


def texts_by_id(found: Table, where: str) -> dict[str, str]:
    """``{_id: text}`` of documents or queries; a document's title comes before its text.

    Raises:
        UsageError: where one lacks its id or its text, or an id stands twice.
    """
    texts: dict[str, str] = {}
    for number, row in enumerate(found.rows, 1):
        require({"_id", "text"} <= row.keys(), f"{where}: not in BEIR's format: no _id and text in row {number}")
        name, title, text = str(row["_id"]), row.get("title"), row["text"]
        require(isinstance(text, str), f"{where}: {name!r} has no text")
        require(name not in texts, f"{where}: the id {name!r} stands twice")
        texts[name] = f"{title or ''} {text}".strip()
    return texts


def by_query(judged: Table, where: str) -> dict[str, dict[str, int]]:
    """``{query: {document: score}}`` of rows with ``query-id``, ``corpus-id`` and ``score``. UsageError where a column
    is missing or a score is no whole number."""
    found: dict[str, dict[str, int]] = {}
    for number, row in enumerate(judged.rows, 1):
        missing = {"query-id", "corpus-id", "score"} - row.keys()
        require(not missing, f"{where}: not in BEIR's format: no column {', '.join(sorted(missing))}")
        try:
            score = float(row["score"])
        except (TypeError, ValueError):
            score = math.nan
        require(score.is_integer(), f"{where}: the score {row['score']!r} of row {number} is no whole number")
        found.setdefault(str(row["query-id"]), {})[str(row["corpus-id"])] = int(score)
    return found
