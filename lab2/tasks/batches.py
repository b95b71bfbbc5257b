"""Batches of tokens: texts of about the same length together, padded to the longest of their batch and no further."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lab1.engine.distributed import StandIn, has_share, own_share
from lab1.engine.randomness import random_generator

POOL = 50  # batches' worth of shuffled examples that are sorted by length together


def encode(tokenizer: Any, items: Sequence[Any], max_length: int) -> dict[str, list[list[int]]]:
    """Tokens of texts, or of ``(question, [choice, ...])`` pairs, of which each choice becomes a sequence of its own,
    cut to ``max_length`` tokens: ``input_ids`` and, where the tokenizer has them, ``token_type_ids``."""
    if items and not isinstance(items[0], str):
        firsts = [question for question, choices in items for _ in choices]
        texts = (firsts, [choice for _, choices in items for choice in choices])
    else:
        texts = (list(items),)
    found = tokenizer(*texts, truncation=True, max_length=max_length, return_attention_mask=False)
    return {name: found[name] for name in ("input_ids", "token_type_ids") if name in found}


class TextBatches:
    """Batches ``(inputs, labels [B])`` of tokenized examples; ``inputs`` is what a transformers model takes:
    ``input_ids`` and ``attention_mask`` ``[B, T]``, or ``[B, C, T]`` where examples have up to C choices, and
    ``token_type_ids`` where the tokenizer makes them. A choice that an example does not have is padding throughout: its
    mask is 0 everywhere.

    With a ``seed`` they are shuffled: the examples are cut into pools of 50 batches at random, each pool is sorted by
    length, and its batches come in random order. All of it is a function of (seed, epoch), so that a place in training
    is two integers. Without a seed they come sorted by length. Under torchrun each process gets its share of every
    batch; where a shuffled one has fewer examples than there are processes, those left over get a ``StandIn``.
    """

    def __init__(
        self,
        tokens: dict[str, list[list[int]]],
        labels: Tensor,
        batch_size: int,
        padding: int,
        seed: int | None = None,
        limit: int | None = None,
        choices: Sequence[int] | None = None,
    ):
        """Args:
        tokens: see ``encode``: a sequence an example, or one for each of its choices, one after the other.
        labels: int64 ``[N]``.
        padding: the token to fill up with.
        limit: at most this many batches.
        choices: how many each example has, ``[N]``; None where examples have none.
        """
        self.tokens, self.labels, self.batch_size = tokens, labels, batch_size
        self.padding, self.seed, self.limit = padding, seed, limit
        self.choices = choices
        counts = torch.ones(len(labels), dtype=torch.int64) if choices is None else torch.tensor(choices)
        self.ends = counts.cumsum(0)  # the sequences of example n are ends[n] - counts[n] ... ends[n]
        self.starts = self.ends - counts
        lengths = torch.tensor([len(ids) for ids in tokens["input_ids"]], dtype=torch.int64)
        examples = torch.arange(len(labels)).repeat_interleave(counts)
        self.lengths = torch.zeros(len(labels), dtype=torch.int64).scatter_reduce(0, examples, lengths, "amax")

    def __len__(self) -> int:
        count = -(-len(self.labels) // self.batch_size)
        return count if self.limit is None else min(count, self.limit)

    def __iter__(self) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        return self.epoch(0)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        """The batches of one epoch, from number ``start`` on."""
        for rows in self.order(epoch)[start:]:
            batch = rows[own_share(len(rows))]
            if has_share(len(rows)):
                yield self.take(batch)
            elif self.seed is not None:
                yield StandIn(self.take(batch))

    def order(self, epoch: int = 0) -> list[Tensor]:
        """The rows of each batch of an epoch."""
        if self.seed is None:
            return list(self.lengths.argsort(stable=True).split(self.batch_size))[: len(self)]
        generator = random_generator(self.seed, epoch)
        shuffled = torch.randperm(len(self.labels), generator=generator)
        pools = [pool[self.lengths[pool].argsort(stable=True)] for pool in shuffled.split(POOL * self.batch_size)]
        batches = torch.cat(pools).split(self.batch_size)
        return [batches[number] for number in torch.randperm(len(batches), generator=generator)][: len(self)]

    def take(self, rows: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """The inputs and labels of these rows ``[B]``."""
        bounds = list(zip(self.starts[rows].tolist(), self.ends[rows].tolist(), strict=True))
        most = max(end - start for start, end in bounds)
        longest = int(self.lengths[rows].max())
        inputs = {name: np.zeros((len(rows), most, longest), np.int64) for name in self.tokens}
        inputs["input_ids"].fill(self.padding)
        mask = np.zeros((len(rows), most, longest), np.int64)
        for place, (start, end) in enumerate(bounds):
            for choice, sequence in enumerate(range(start, end)):
                for name, values in self.tokens.items():
                    inputs[name][place, choice, : len(values[sequence])] = values[sequence]
                mask[place, choice, : len(self.tokens["input_ids"][sequence])] = 1
        inputs["attention_mask"] = mask
        if self.choices is None:
            inputs = {name: array[:, 0] for name, array in inputs.items()}
        return {name: torch.from_numpy(array) for name, array in inputs.items()}, self.labels[rows]
