"""Text from a GPT, a token at a time: which token comes next, and the loop that remembers what it has seen."""

import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from lab1.engine.config import require
from lab2.language import positions


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


class Decoder:
    """A GPT that keeps the keys and values of what it has seen, so that a new token costs one token's computation.

    The same arithmetic as ``GPT.forward``, from the same weights, written out: for one token of a small network calling
    torch's modules takes as long as the computation does.
    """

    def __init__(self, gpt, batch: int):
        """Make room for ``batch`` texts of up to ``gpt.context`` tokens."""
        self.wte, self.norm = gpt.wte.weight, (gpt.ln_f.weight, gpt.ln_f.bias)
        self.places = None if gpt.wpe is None else gpt.wpe.weight  # position embeddings, or else
        self.turns = gpt.turns  # rotary positions
        self.heads, width = gpt.h[0].attn.heads, self.wte.shape[1]
        self.qk_norm, self.activation = gpt.h[0].attn.qk_norm, gpt.h[0].mlp.activation
        self.blocks = []
        for block in gpt.h:
            cache = self.wte.new_empty(2, batch, self.heads, gpt.context, width // self.heads)  # keys, values
            attention, mlp = block.attn, block.mlp
            parts = (block.ln_1, attention.c_attn, attention.c_proj, block.ln_2, mlp.c_fc, mlp.c_proj)
            self.blocks.append((cache, *((part.weight, part.bias) for part in parts)))

    def __call__(self, tokens: Tensor, start: int) -> Tensor:
        """Tokens ``[B, T]`` at places from ``start`` on -> logits of the token after the last ``[B, V]``. Those before
        were seen in earlier calls; several at once must start at 0."""
        (B, T), width = tokens.shape, self.wte.shape[1:]
        x = self.wte[tokens] if self.places is None else self.wte[tokens] + self.places[start : start + T]
        turns = None if self.turns is None else self.turns[:, start : start + T]
        for cache, norm_1, attention, out, norm_2, up, down in self.blocks:
            qkv = F.linear(torch.layer_norm(x, width, *norm_1), *attention)
            qkv = qkv.view(B, T, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            if self.qk_norm or turns is not None:  # keys are kept as they are attended to
                qkv[:2] = positions.place(qkv[:2], turns, self.qk_norm)
            cache.narrow(3, start, T).copy_(qkv[1:])
            keys, values = cache.narrow(3, 0, start + T).unbind()
            y = F.scaled_dot_product_attention(qkv[0], keys, values, is_causal=T > 1)
            x = x + F.linear(y.transpose(1, 2).reshape(B, T, -1), *out)
            inner = self.activation(F.linear(torch.layer_norm(x, width, *norm_2), *up))
            x = x + F.linear(inner, *down)
        return F.linear(torch.layer_norm(x[:, -1], width, *self.norm), self.wte)


def generate(gpt, tokens: Tensor, max_new_tokens: int, choose: Chooser) -> Tensor:
    """Continue texts: tokens ``[B, T]``, T at least 1 -> ``[B, T + max_new_tokens]``, without dropout.

    Places are known up to ``gpt.context``; where they are used up, it goes on from the last half of that context
    alone, which takes the first places then. A prompt longer than the context counts with its end.

    Raises:
        UsageError: for an empty prompt.
    """
    batch, length = tokens.shape
    require(length >= 1, "the prompt is empty: at least one token is needed")
    with torch.inference_mode():
        texts = tokens.new_empty(batch, length + max_new_tokens)
        texts[:, :length] = tokens
        decode, start, new = Decoder(gpt, batch), 0, tokens[:, -gpt.context :]
        for place in range(length, length + max_new_tokens):
            if start + new.shape[1] > gpt.context:
                start, new = 0, texts[:, place - max(1, gpt.context // 2) : place]
            logits = decode(new, start)
            start += new.shape[1]
            new = choose(logits)
            texts[:, place : place + 1] = new
    return texts.clone()  # outside inference mode: it can be trained on
