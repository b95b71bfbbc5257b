"""A text as tokens in memory: where it comes from, how it is divided, and the windows that a language model sees."""

import dataclasses
import hashlib
import os
import re
import sys
import sysconfig
import urllib.parse
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from lab1.engine.config import UsageError, require
from lab1.engine.distributed import StandIn, first_process_first, has_share, own_share, rank, world_size
from lab1.engine.download import fetch as fetch_file
from lab1.engine.download import fetching
from lab1.engine.files import write_text
from lab1.engine.network import Unavailable, require_network
from lab1.engine.randomness import random_generator

# The complete poem with all accents, UTF-8: ebook 1012; and the same on Project Gutenberg's mirror.
COMMEDIA = (
    "https://www.gutenberg.org/cache/epub/1012/pg1012.txt",
    "https://gutenberg.pglaf.org/cache/epub/1012/pg1012.txt",
)
# SHA-256 of the text, in UTF-8 and without the licence, that the published runs learned from.
COMMEDIA_SHA256 = "81f9544d85aff13c525d5f7e5428e628a6acbe60ad749f9df1ccf952f34de4a9"
EMBEDDED = "python"
PYTHON_CHARACTERS = 1_000_000
LICENCE = r"\*\*\* ?{} OF TH(?:E|IS) PROJECT GUTENBERG EBOOK.*?\*\*\*"


@dataclasses.dataclass
class Corpus:
    """A text and the name that runs and results give it."""

    name: str
    text: str

    def parts(self) -> dict[str, str]:
        """Contiguous parts: the first 90 % to learn from, the next 5 % for validation, the last 5 % for the test.

        Raises:
            UsageError: where the text is too short to be divided.
        """
        require(len(self.text) >= 1000, f"{self.name} has {len(self.text)} characters: at least 1,000 are needed")
        first, second = len(self.text) * 90 // 100, len(self.text) * 95 // 100
        return {
            "train": self.text[:first],
            "validation": self.text[first:second],
            "test": self.text[second:],
        }


def load_corpus(source: str, data_folder: Path, download: bool = True) -> Corpus:
    """The text of a source: ``auto``, ``divina_commedia``, ``python``, a file, or the URL of a text.

    ``auto`` is the Divina Commedia or, where it can be had neither from the disk nor from the network, the source code
    of Python's standard library. What comes from the network is kept in ``data_folder``, without Project Gutenberg's
    licence.

    Raises:
        UsageError: where it cannot be had or is no UTF-8 text; the message says what to do.
    """
    with first_process_first():
        if source == EMBEDDED:
            return Corpus(EMBEDDED, python_source())
        if source in ("auto", "divina_commedia"):
            try:
                return Corpus("divina_commedia", commedia(data_folder / "divina_commedia.txt", download))
            except Unavailable as error:
                if source != "auto":
                    raise
                if rank() == 0:
                    print(f"{error}. Taking the source code of Python's standard library instead.", file=sys.stderr)
                return Corpus(EMBEDDED, python_source())
        if source.startswith(("http://", "https://")):
            try:
                named = bool(urllib.parse.urlsplit(source).hostname) and urllib.parse.urlsplit(source).port != 0
            except ValueError as error:
                raise UsageError(f"--text {source}: this is no address: {error}") from None
            require(named, f"--text {source}: this is no address; a server's name is needed")
            name = Path(source.split("?")[0].rstrip("/")).name or "page"
            return Corpus(Path(name).stem, fetch([source], data_folder / name, download))
        path = Path(os.path.expanduser(source))
        require(path.is_file(), f"--text {source}: no such file; use a file, a URL, divina_commedia or python")
        return Corpus(path.stem, read_text(path))


def read_text(path: Path) -> str:
    """The text of a file, without Project Gutenberg's licence, with ``\\n`` at the end of each line.

    Raises:
        UsageError: where it cannot be read, is not UTF-8, or is no text.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text (byte {error.start}): save it as UTF-8 first") from None
    require("\0" not in text, f"{path} is no text: it holds bytes of value 0, as programs and pictures do")
    return strip_licence(text.replace("\r\n", "\n").replace("\r", "\n"))


def strip_licence(text: str) -> str:
    """What stands between Project Gutenberg's START and END lines; a text without them as it is."""
    begin, end = (re.search(LICENCE.format(word), text, re.DOTALL) for word in ("START", "END"))
    if begin is None or end is None:
        return text
    return text[begin.end() : end.start()].strip() + "\n"


def commedia(place: Path, download: bool = True) -> str:
    """The Divina Commedia. Project Gutenberg edits its books now and then, so a text of another checksum is taken all
    the same: one line on standard error says that it is not quite that of the published runs."""
    text = fetch(COMMEDIA, place, download, book=True)
    if hashlib.sha256(text.encode()).hexdigest() != COMMEDIA_SHA256 and rank() == 0:
        print(
            f"{place} is not letter by letter the text of the published runs (its SHA-256 differs): "
            "another edition, or a part of it; results may differ from theirs",
            file=sys.stderr,
        )
    return text


def fetch(addresses: Sequence[str], place: Path, download: bool = True, book: bool = False) -> str:
    """The text at ``place``, fetched and put there first where it is not there yet, from the first of the addresses
    that gives it.

    Args:
        book: it is one of Project Gutenberg's, and whole only with both lines that divide it from its licence.

    Raises:
        Unavailable: where it is not there and the network cannot be reached, no address gives a whole UTF-8 text, or
            nothing may be downloaded.
        UsageError: where what is there is no UTF-8 text.
    """
    if not place.exists():
        title = f"the text {addresses[0]}"
        require_network(list(addresses), title, place, download, written=True)
        print(f"Downloading {addresses[0]} to {place} ...", file=sys.stderr)
        with fetching(title, place):
            fetch_file(addresses, place, flaw=partial(flaw, book=book))
            write_text(read_text(place), place)  # without the licence
    return read_text(place)


def flaw(path: Path, book: bool) -> str | None:
    """What a file is in place of a text, or of Project Gutenberg's book; None where it is one."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return f"no UTF-8 text (byte {error.start})"
    if "\0" in text:
        return "no text"
    return "not the book" if book and strip_licence(text) == text else None


def python_source() -> str:
    """The first million characters of the modules at the top of Python's standard library, by name, one by one.
    They differ a little between versions of Python."""
    folder, text = Path(sysconfig.get_paths()["stdlib"]), ""
    for path in sorted(folder.glob("*.py")):
        text += path.read_text(encoding="utf-8", errors="replace")
        if len(text) >= PYTHON_CHARACTERS:
            break
    return text[:PYTHON_CHARACTERS]


class RandomWindows:
    """Batches to learn from: windows at random places of a text. Yields ``(tokens [B, T], next tokens [B, T])``.

    An epoch is a stretch of ``interval`` steps. The windows of a step are a function of (seed, step), so a place in
    training is one integer. Under torchrun each process gets its share of every batch, or a ``StandIn``.
    """

    def __init__(self, tokens: Tensor, context: int, batch_size: int, seed: int, steps: int, interval: int):
        """Args:
        tokens: int64 ``[N]``, on the device to train on. context: T. steps: in all; the last epoch may be shorter.

        Raises:
            UsageError: where the text is shorter than one window.
        """
        require(len(tokens) > context, f"{len(tokens)} tokens to learn from: a context of {context} needs more")
        self.tokens, self.context, self.batch_size, self.seed = tokens, context, batch_size, seed
        self.steps, self.interval = steps, interval
        self.offsets = torch.arange(context + 1, device=tokens.device)

    def __len__(self) -> int:
        return min(self.interval, self.steps)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of one epoch, from number ``start`` on."""
        first = epoch * self.interval
        for step in range(first + start, min(first + self.interval, self.steps)):
            yield self.batch(step)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """The batch of a step, counted from 0."""
        starts = self.starts(step)[own_share(self.batch_size)].to(self.tokens.device)
        windows = self.tokens[starts[:, None] + self.offsets]
        batch = windows[:, :-1], windows[:, 1:]
        return batch if has_share(self.batch_size) else StandIn(batch)

    def starts(self, step: int) -> Tensor:
        """Where the windows of a step begin, those of all processes: ``[B]``."""
        generator = random_generator(self.seed, step)
        return torch.randint(len(self.tokens) - self.context, (self.batch_size,), generator=generator)


class ShuffledWindows(RandomWindows):
    """The same, without replacement: the text is cut into windows that follow one another, and all of them come once,
    in random order, before any comes again. Each pass over the text cuts it at other places, and leaves out less than
    two windows at its ends. Cuts and order are a function of (seed, pass)."""

    def starts(self, step: int) -> Tensor:
        first, windows = step * self.batch_size, max(1, len(self.tokens) // self.context - 1)
        numbers = range(first, first + self.batch_size)  # of all passes, one after the other
        passes = {number // windows for number in numbers}
        order = torch.cat([self.order(each, windows) for each in sorted(passes)])
        begin = first % windows
        return order[begin : begin + self.batch_size]

    def order(self, number: int, windows: int) -> Tensor:
        """Where the windows of one pass over the text begin, as they come: ``[windows]``."""
        generator = random_generator(self.seed, number)
        cut = torch.randint(len(self.tokens) - windows * self.context, (1,), generator=generator)
        return cut + self.context * torch.randperm(windows, generator=generator)


class ConsecutiveWindows:
    """Batches to evaluate on: windows one after the other, so that each token but the first is predicted once, from
    those before it in its window. Yields ``(tokens [B, T], next tokens [B, T])``; the last window may be shorter."""

    def __init__(self, tokens: Tensor, context: int, batch_size: int, characters: int, limit: int | None = None):
        """Args:
        tokens: int64 ``[N]``. characters: of the text that they stand for. limit: at most this many batches.

        Raises:
            UsageError: for fewer than two tokens.
        """
        require(len(tokens) >= 2, f"{len(tokens)} tokens to evaluate on: at least 2 are needed")
        self.characters_per_token = characters / len(tokens)
        inputs, targets = tokens[:-1], tokens[1:]
        self.batches = []
        whole = len(inputs) // context * context
        pairs = [part[:whole].view(-1, context).split(batch_size) for part in (inputs, targets)]
        self.batches = list(zip(*pairs, strict=True)) if whole else []
        if whole < len(inputs):
            self.batches.append((inputs[None, whole:], targets[None, whole:]))
        self.batches = self.batches[:limit]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for number, (inputs, targets) in enumerate(self.batches):
            rows = slice((rank() - number) % world_size(), None, world_size())  # a last lone window, too, finds a rank
            if len(inputs[rows]) > 0:
                yield inputs[rows], targets[rows]
