"""Text from a GPT, a token at a time: which token comes next, and the loop that keeps what it has computed."""

import dataclasses
import math

import torch
from torch import Tensor

from lab1.config import require


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Logits ``[..., V]`` with all but the k largest of each row at minus infinity (Fan et al. 2018)."""
    least = logits.topk(min(k, logits.shape[-1])).values[..., -1:]
    return logits.masked_fill(logits < least, -math.inf)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Logits ``[..., V]`` with all outside the nucleus at minus infinity: the smallest set of most probable tokens that
    together have probability p or more (Holtzman et al. 2020)."""
    ordered, order = logits.sort(descending=True)
    probability = ordered.softmax(-1)
    more_probable = probability.cumsum(-1) - probability  # what the tokens before this one have together
    outside = torch.empty_like(order, dtype=torch.bool).scatter_(-1, order, more_probable >= p)
    return logits.masked_fill(outside, -math.inf)


@dataclasses.dataclass
class Chooser:
    """Which token comes next. Raises UsageError for a value out of range.

    With ``greedy`` the most probable one. Else one is drawn: of all, with probabilities sharpened by a ``temperature``
    below 1 and flattened by one above; with ``top_k`` and ``top_p`` of the most probable ones alone.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    greedy: bool = False
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        warm = 0 < self.temperature < math.inf
        require(warm, f"temperature {self.temperature}: a positive number is needed; for the limit 0 use greedy")
        require(self.top_k is None or self.top_k >= 1, f"top-k {self.top_k}: at least 1 is needed")
        require(self.top_p is None or 0 < self.top_p <= 1, f"top-p {self.top_p}: above 0 and at most 1 is needed")

    def __call__(self, logits: Tensor) -> Tensor:
        """Logits ``[B, V]`` -> tokens ``[B, 1]``."""
        if self.greedy:
            return logits.argmax(-1, keepdim=True)
        logits = logits.float() / self.temperature
        if self.top_k is not None:
            logits = keep_top_k(logits, self.top_k)
        if self.top_p is not None:
            logits = keep_top_p(logits, self.top_p)
        return torch.multinomial(logits.softmax(-1), 1, generator=self.generator)


def generate(gpt, tokens: Tensor, max_new_tokens: int, choose: Chooser) -> Tensor:
    """Continue texts: tokens ``[B, T]``, T at least 1 -> ``[B, T + max_new_tokens]``, without dropout.

    Keys and values of what was seen are kept, so a new token costs one token's computation. Places are learned up to
    ``gpt.context``; where they are used up, it goes on from the last half of that context alone, which takes the first
    places then. A prompt longer than the context counts with its end.

    Raises:
        UsageError: for an empty prompt.
    """
    batch, length = tokens.shape
    require(length >= 1, "the prompt is empty: at least one token is needed")
    training = gpt.training
    gpt.eval()
    with torch.inference_mode():
        texts = tokens.new_empty(batch, length + max_new_tokens)
        texts[:, :length] = tokens
        cache, start, new = gpt.new_cache(batch), 0, tokens[:, -gpt.context :]
        for place in range(length, length + max_new_tokens):
            if start + new.shape[1] > gpt.context:
                start, new = 0, texts[:, place - max(1, gpt.context // 2) : place]
            logits = gpt(new, cache, start)[:, -1]
            start += new.shape[1]
            new = choose(logits)
            texts[:, place : place + 1] = new
    gpt.train(training)
    return texts.clone()  # outside inference mode: it can be trained on
