"""Texts to tokens and back: single characters, pairs of bytes merged by frequency, or a pretrained model's pieces.

Every tokenizer has ``encode(text) -> list of int``, ``decode(list of int) -> text``, a length, its vocabulary's size,
and ``describe()``, plain values from which ``build`` makes it again: they stand in a run's ``best.pt``.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from lab1.engine.config import LARGEST, REPOSITORY, UsageError, require
from lab1.engine.files import reason
from lab2 import hub


class Tokenizer(Protocol):
    """What the rest of the lab asks of a tokenizer."""

    def encode(self, text: str) -> list[int]: ...
    def decode(self, tokens: Iterable[int]) -> str: ...
    def describe(self) -> dict[str, Any]: ...
    def __len__(self) -> int: ...


class Characters:
    """Every character is a token; the vocabulary is the given characters, in order."""

    def __init__(self, characters: Iterable[str]):
        self.characters = sorted(set(characters))
        self.places = {character: place for place, character in enumerate(self.characters)}

    def encode(self, text: str) -> list[int]:
        """Raises UsageError for a character that is not in the vocabulary."""
        try:
            return [self.places[character] for character in text]
        except KeyError as error:
            raise UsageError(f"the character {error} is not in this model's vocabulary: {self.known()}") from None

    def known(self) -> str:
        """The vocabulary, as people read it."""
        return "".join(character for character in self.characters if character.isprintable())

    def decode(self, tokens: Iterable[int]) -> str:
        return "".join(self.characters[token] for token in tokens)

    def describe(self) -> dict[str, Any]:
        return {"kind": "characters", "characters": "".join(self.characters)}

    def __len__(self) -> int:
        return len(self.characters)


class BytePairs:
    """Byte-level byte-pair encoding (Sennrich et al. 2016; on bytes as in Radford et al. 2019): it starts from the 256
    bytes and merges the most frequent pair, again and again. Any text can be encoded."""

    def __init__(self, serialised: str):
        """``serialised``: the JSON of a ``tokenizers.Tokenizer``."""
        from tokenizers import Tokenizer

        self.serialised, self.tokenizer = serialised, Tokenizer.from_str(serialised)

    @classmethod
    def train(cls, text: str, size: int) -> "BytePairs":
        """Learn a vocabulary of ``size`` tokens, or fewer where the text gives out, from a text.

        Raises:
            UsageError: for fewer than the 256 bytes.
        """
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

        require(size >= 256, f"a vocabulary of {size}: byte-pair encoding starts from 256")
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
        tokenizer.train_from_iterator([text], trainer)
        return cls(tokenizer.to_str())

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text).ids

    def decode(self, tokens: Iterable[int]) -> str:
        return self.tokenizer.decode(list(tokens))

    def describe(self) -> dict[str, Any]:
        return {"kind": "bpe", "serialised": self.serialised}

    def __len__(self) -> int:
        return self.tokenizer.get_vocab_size()


class Pretrained:
    """The tokenizer of a model, by its folder or hub name; no special tokens are added."""

    def __init__(self, name: str, data_folder: Path = REPOSITORY / "data", download: bool = True):
        """Raises UsageError where it cannot be had."""
        from transformers import AutoTokenizer

        self.name, self.tokenizer = name, hub.pretrained(AutoTokenizer, name, data_folder, download)

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)

    def decode(self, tokens: Iterable[int]) -> str:
        return self.tokenizer.decode(list(tokens))

    def describe(self) -> dict[str, Any]:
        return {"kind": "pretrained", "name": self.name}

    def __len__(self) -> int:
        return len(self.tokenizer)


def make(name: str, text: str, data_folder: Path, download: bool = True) -> Tokenizer:
    """A tokenizer by name: ``characters`` of the text; ``bpe`` or ``bpe-512``, byte pairs learned from it, 1,024 tokens
    unless a number is given; else a pretrained one, by its folder or hub name.

    Raises:
        UsageError: where it cannot be had.
    """
    if name == "characters":
        return Characters(text)
    if match := re.fullmatch(r"bpe(?:-(\d+))?", name):
        size = int(match[1] or 1024)
        require(size <= LARGEST, f"--tokenizer {name}: at most {LARGEST:,} tokens will do")
        return BytePairs.train(text, size)
    return Pretrained(name, data_folder, download)


def build(description: dict[str, Any], data_folder: Path = REPOSITORY / "data", download: bool = True) -> Tokenizer:
    """The tokenizer of a description that ``describe`` gave.

    Raises:
        UsageError: for another description.
    """
    try:
        kind = description["kind"]
        if kind == "characters":
            return Characters(description["characters"])
        if kind == "bpe":
            return BytePairs(description["serialised"])
        name = description["name"] if kind == "pretrained" else None
    except Exception as error:  # tokenizers raises nothing more special
        raise UsageError(f"a run's tokenizer cannot be made again: {reason(error)}") from None
    require(isinstance(name, str), f"a tokenizer of kind {kind!r} is none of this lab's")
    return Pretrained(name, data_folder, download)
