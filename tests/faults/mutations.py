"""Strategies that damage what is right: bytes of a file, values of a document, files of a folder.

What they draw knows how it came about, so that a failing test says ``config.json: ['epochs'] = None`` and not all the
bytes of a folder.
"""

import contextlib
import copy
import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st

JUNK = st.sampled_from(
    [None, True, False, -1, 0, 1, 3, 7, 10**30, -0.5, 1e300, float("nan"), float("inf"), "", " ", "x", "é\n", "\0"]
    + ["nan", "a" * 5000, [], [1], [[]], ["x", None], {}, {"a": 1}, [0] * 300]
)
PIECES = st.sampled_from(
    [b"", b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\xc3", b'"', b"'", b",", b";", b"\t", b"\n", b"\r", b"\\", b"null"]
    + [b"{}", b"[", b"[" * 3000, b"]", b"{", b"}", b"-1", b"1e999", b"9" * 400, b"NaN", b"\xed\xb0\x80", b"a" * 9000]
)


Changed = tuple[Any, str]  # content, and in words what was done to it


@dataclasses.dataclass
class Damage:
    """One file of a folder that is not as it should be; ``content`` is None for a folder in its place."""

    name: str
    how: str
    content: bytes | None

    def __repr__(self) -> str:
        return f"{self.name}: {self.how}"

    def of(self, files: dict[str, bytes]) -> dict[str, Any]:
        """The folder with this file as it is now."""
        if self.how == "missing":
            return {name: content for name, content in files.items() if name != self.name}
        return files | {self.name: self.content}


@st.composite
def damaged(draw, content: bytes) -> Changed:
    """A text file's bytes, damaged once or twice: cut, changed, in another encoding, with lines lost or twice."""
    how = []
    for _ in range(draw(st.integers(1, 2))):
        way = draw(st.sampled_from(["cut", "change", "insert", "lines", "encoding", "ends", "noise"]))
        place = draw(st.integers(0, len(content)))
        if way == "cut":
            content = content[:place]
        elif way in ("change", "insert"):
            piece, gone = draw(PIECES), draw(st.integers(0, 20)) if way == "change" else 0
            content = content[:place] + piece + content[place + gone :]
            way = f"{piece[:20]!r} for {gone} bytes"
        elif way == "lines":
            lines = content.splitlines(keepends=True)
            chosen = draw(st.lists(st.integers(0, len(lines) - 1), max_size=len(lines))) if lines else []
            content, way = b"".join(lines[row] for row in chosen), f"lines {chosen}"
        elif way == "encoding":
            way = draw(st.sampled_from(["utf-16", "utf-8-sig", "cp037"]))
            content = content.decode("utf-8", "replace").encode(way, "replace")
        elif way == "ends":
            ends = draw(st.sampled_from([b"\r\n", b"\r", b"\n\n", b"", b" \n"]))
            content, way = content.replace(b"\n", ends), f"lines end in {ends!r}"
        else:
            content = draw(st.binary(max_size=200))
            way = repr(content)
        how.append(f"{way} at {place}")
    return content, ", ".join(how)


@st.composite
def altered(draw, document: Any, junk: st.SearchStrategy = JUNK, times: int = 2) -> Changed:
    """A document of dictionaries and lists with one or two values changed, lost or added, somewhere in it."""
    root, how = [copy.deepcopy(document)], []
    for _ in range(draw(st.integers(1, times))):
        holder, key, path = root, 0, ""
        while isinstance(holder[key], dict | list) and holder[key] and draw(st.integers(0, 3)):
            holder = holder[key]
            key = draw(st.sampled_from(list(holder) if isinstance(holder, dict) else range(len(holder))))
            path += f"[{key!r}]"
        way = draw(st.sampled_from(["change", "change", "lose", "add"]))
        if way == "lose" and holder is not root:
            del holder[key]
            how.append(f"no {path}")
            continue
        if way == "add" and isinstance(holder, dict):
            key = draw(st.sampled_from(["x", "label", "text", "_id", "seed", ""]))
            path += f" beside it [{key!r}]"
        holder[key] = copy.deepcopy(draw(junk))
        how.append(f"{path} = {str(holder[key])[:50]!r}")
    return root[0], ", ".join(how)


@st.composite
def altered_rows(draw, content: bytes) -> Changed:
    """The lines of a .jsonl file, one of them altered."""
    lines = content.decode("utf-8").splitlines()
    row = draw(st.integers(0, len(lines) - 1))
    document, how = draw(altered(json.loads(lines[row])))
    lines[row] = json.dumps(document)
    return ("\n".join(lines) + "\n").encode(), f"line {row}: {how}"


@st.composite
def altered_cells(draw, content: bytes, separator: str) -> Changed:
    """The lines of a table, one of its cells altered."""
    lines = content.decode("utf-8").splitlines()
    row = draw(st.integers(0, len(lines) - 1))
    cells = lines[row].split(separator)
    column = draw(st.integers(0, len(cells) - 1))
    cells[column] = draw(
        JUNK.map(str) | st.text(max_size=8) | st.sampled_from(['"', f"a{separator}b", "label", "1.0", "01", "-0"])
    )
    lines[row] = separator.join(cells)
    how = f"line {row}, column {column}: {cells[column][:50]!r}"
    return ("\n".join(lines) + "\n").encode("utf-8", "surrogatepass"), how


TENSORS = st.sampled_from([torch.zeros(3), torch.zeros(0), torch.full((2, 2), float("nan")), torch.zeros(1).int()])


@st.composite
def damages(draw, files: dict[str, bytes], change: Callable[[str, bytes], st.SearchStrategy[Changed]]) -> Damage:
    """One of these files is damaged by ``change``, is empty, is missing, or is a folder."""
    name = draw(st.sampled_from(sorted(files)))
    way = draw(st.sampled_from(["change"] * 8 + ["missing", "folder", "empty"]))
    if way != "change":
        return Damage(name, way, b"" if way == "empty" else None)
    content, how = draw(change(name, files[name]))
    return Damage(name, how, content)


def read_folder(folder: Path) -> dict[str, bytes]:
    """The files of a folder by path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def write_folder(files: dict[str, bytes | None], folder: Path) -> Path:
    """Write such files, and folders where there is None, in place of what the folder held."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, content in files.items():
        path = folder / name
        with contextlib.suppress(FileExistsError, NotADirectoryError, IsADirectoryError):  # of names that cannot be
            path.parent.mkdir(parents=True, exist_ok=True)
            if content is None:
                path.mkdir(exist_ok=True)
            else:
                path.write_bytes(content)
    return folder
