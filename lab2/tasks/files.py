"""Tables on the disk: .jsonl and .csv by the standard library, line by line, so that a broken line can be named;
.parquet by Hugging Face ``datasets``."""

import csv
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lab1.engine.config import UsageError, require
from lab2 import hub

FORMATS = (".csv", ".jsonl", ".parquet")
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
NAMED = 3  # of many that are wrong, so many are named


@dataclasses.dataclass
class Table:
    """The rows of a data set in memory, each a dictionary by column, and the names of the classes of those columns that
    come with such a list."""

    rows: list[dict[str, Any]]
    columns: list[str]
    classes: dict[str, list[str]] = dataclasses.field(default_factory=dict)


def read(path: Path, data_folder: Path) -> Table:
    """One file. The columns of a .jsonl are those of its first line.

    Raises:
        UsageError: where it cannot be read; the message names the lines that are broken, counted from 1.
    """
    readers = {".jsonl": read_json_lines, ".csv": read_delimited, ".tsv": read_delimited}
    require(path.suffix in (*readers, ".parquet"), f"{path}: use a file in {', '.join(FORMATS)}")
    return readers[path.suffix](path) if path.suffix in readers else read_parquet(path, data_folder)


def read_json_lines(path: Path) -> Table:
    """A file with a JSON object on each line; empty lines are passed over. UsageError where a line holds none."""
    rows, broken = [], []
    for number, line in enumerate(lines_of(path), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            # Half of a surrogate pair is valid in JSON, but is no text.
            known = isinstance(row, dict) and ("\\u" not in line or json.dumps(row, ensure_ascii=False).encode())
        except (ValueError, RecursionError):
            known = False
        if known:
            rows.append(row)
        else:
            broken.append(f"line {number}")
    if broken:
        raise UsageError(f"{path} cannot be read: no JSON object on {several(broken)}")
    return Table(rows, list(rows[0]) if rows else [])


def read_delimited(path: Path) -> Table:
    """A table with the names of its columns on the first line, commas between them, or tabs in a .tsv. All values are
    text.

    Raises:
        UsageError: for another separator, a quote that does not end, a line with more or fewer fields than the first.
    """
    sign = "\t" if path.suffix == ".tsv" else ","
    csv.field_size_limit(2**31 - 1)
    reader, rows = csv.reader(lines_of(path), delimiter=sign, strict=True), []
    try:
        columns = next((row for row in reader if row), [])
        check_separator(path, columns, sign)
        require(len(set(columns)) == len(columns), f"{path}: a column stands twice in {columns}")
        for row in reader:
            require(
                len(row) in (0, len(columns)),
                f"{path} cannot be read: line {reader.line_num} has {len(row)} fields, the first one {len(columns)}; "
                f"put quotes around a text with {SEPARATORS[sign]} in it",
            )
            rows += [dict(zip(columns, row, strict=True))] if row else []
    except csv.Error as error:
        raise UsageError(f"{path} cannot be read: line {reader.line_num}: {error}") from None
    return Table(rows, columns)


def check_separator(path: Path, columns: list[str], right: str) -> None:
    """Refuse a table whose columns have another separator than this between them."""
    for sign, word in SEPARATORS.items():
        require(
            len(columns) != 1 or sign not in columns[0],
            f"{path}: its columns, {columns and columns[0]!r}, have {word} between them; use {SEPARATORS[right]}",
        )


def read_parquet(path: Path, data_folder: Path) -> Table:
    """A .parquet file; its copy in the cache of ``datasets`` is under ``data_folder``."""
    hub.quiet()
    import datasets

    cache = str(data_folder / "huggingface")
    try:
        with hub.offline():
            return table(datasets.load_dataset("parquet", data_files=str(path), split="train", cache_dir=cache))
    except Exception as error:  # whatever datasets and pyarrow raise, it is this file that they cannot read
        raise UsageError(f"{path} cannot be read: {hub.first_line(error.__cause__ or error)}") from None


def table(rows: Any) -> Table:
    """A ``datasets.Dataset`` as a table."""
    names = {name: getattr(feature, "names", None) for name, feature in rows.features.items()}
    return Table(list(rows), list(rows.column_names), {name: found for name, found in names.items() if found})


def lines_of(path: Path) -> Iterator[str]:
    """The lines of a text file, each with its end. UsageError where it cannot be read or is not UTF-8."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8 text (line {number}): save it as UTF-8 first") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None


def several(things: list[str]) -> str:
    """The first few of many things, and how many there are: ``a, b, c and 4 more``."""
    if len(things) <= NAMED:
        return ", ".join(things)
    return f"{', '.join(things[:NAMED])} and {len(things) - NAMED} more"
