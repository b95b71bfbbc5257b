"""Strategies that damage what is right: bytes of a file, values of a document, files of a folder."""

import copy
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


@st.composite
def damaged(draw, content: bytes) -> bytes:
    """A text file's bytes, damaged once or twice: cut, changed, in another encoding, with lines lost or twice."""
    for _ in range(draw(st.integers(1, 2))):
        way = draw(st.sampled_from(["cut", "change", "insert", "lines", "encoding", "ends", "noise"]))
        place = draw(st.integers(0, len(content)))
        if way == "cut":
            content = content[:place]
        elif way == "change":
            content = content[:place] + draw(PIECES) + content[place + draw(st.integers(0, 20)) :]
        elif way == "insert":
            content = content[:place] + draw(PIECES) + content[place:]
        elif way == "lines":
            lines = content.splitlines(keepends=True)
            chosen = st.lists(st.sampled_from(lines), max_size=len(lines)) if lines else st.just([])
            content = b"".join(draw(chosen))
        elif way == "encoding":
            content = content.decode("utf-8", "replace").encode(draw(st.sampled_from(["utf-16", "utf-8-sig", "cp037"])))
        elif way == "ends":
            content = content.replace(b"\n", draw(st.sampled_from([b"\r\n", b"\r", b"\n\n", b"", b" \n"])))
        else:
            content = draw(st.binary(max_size=200))
    return content


@st.composite
def altered(draw, document: Any, junk: st.SearchStrategy = JUNK, times: int = 2) -> Any:
    """A document of dictionaries and lists with one or two values changed, lost or added, somewhere in it."""
    root = [copy.deepcopy(document)]
    for _ in range(draw(st.integers(1, times))):
        holder, key = root, 0
        while isinstance(holder[key], dict | list) and holder[key] and draw(st.integers(0, 3)):
            holder = holder[key]
            key = draw(st.sampled_from(list(holder) if isinstance(holder, dict) else range(len(holder))))
        way = draw(st.sampled_from(["change", "change", "lose", "add"]))
        if way == "lose" and holder is not root:
            del holder[key]
        elif way == "add" and isinstance(holder, dict):
            holder[draw(st.sampled_from(["x", "label", "text", "_id", "seed", ""]))] = draw(junk)
        else:
            holder[key] = draw(junk)
    return root[0]


@st.composite
def altered_rows(draw, content: bytes) -> bytes:
    """The lines of a .jsonl file, one of them altered."""
    lines = content.decode("utf-8").splitlines()
    row = draw(st.integers(0, len(lines) - 1))
    lines[row] = json.dumps(draw(altered(json.loads(lines[row]))))
    return ("\n".join(lines) + "\n").encode()


@st.composite
def altered_cells(draw, content: bytes, separator: str) -> bytes:
    """The lines of a table, one of its cells altered."""
    lines = content.decode("utf-8").splitlines()
    row = draw(st.integers(0, len(lines) - 1))
    cells = lines[row].split(separator)
    cells[draw(st.integers(0, len(cells) - 1))] = draw(
        JUNK.map(str) | st.text(max_size=8) | st.sampled_from(['"', f"a{separator}b", "label", "1.0", "01", "-0"])
    )
    lines[row] = separator.join(cells)
    return ("\n".join(lines) + "\n").encode("utf-8", "surrogatepass")


TENSORS = st.sampled_from([torch.zeros(3), torch.zeros(0), torch.full((2, 2), float("nan")), torch.zeros(1).int()])


@st.composite
def folders(draw, files: dict[str, bytes], change: Callable[[str, bytes], st.SearchStrategy[bytes]]) -> dict[str, Any]:
    """What a folder holds, by path: bytes, or None for a folder; one of its files is damaged by ``change``, is missing,
    or is a folder."""
    name = draw(st.sampled_from(sorted(files)))
    way = draw(st.sampled_from(["change"] * 8 + ["missing", "folder", "empty"]))
    found: dict[str, Any] = dict(files)
    if way == "missing":
        del found[name]
    elif way == "folder":
        found[name] = None
    else:
        found[name] = b"" if way == "empty" else draw(change(name, files[name]))
    return found


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
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.mkdir(exist_ok=True)
        else:
            path.write_bytes(content)
    return folder
