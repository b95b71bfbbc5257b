"""Which ending does a language model find likeliest? The baseline of multiple choice that learns nothing."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lab2.encoders import autocast
from lab2.text_batches import TextBatches

RULES = ("sum", "mean")


@torch.no_grad()
def ending_scores(
    network: nn.Module,
    tokenizer: Any,
    items: Sequence[tuple[str, list[str]]],
    max_length: int,
    batch_size: int,
    device: torch.device,
    precision: str,
) -> dict[str, Tensor]:
    """The log-likelihood in nats of each choice after its question, ``[N, C]``: ``sum`` over its tokens, which favours
    short choices, and the ``mean`` of them.

    Args:
        network: a causal model of transformers, tokens ``[B, T]`` to logits ``[B, T, V]``.
        items: ``(question, choices)``, of C choices each. Of a question that is too long the beginning is cut off.
        max_length: tokens of question and choice together, at most.
    """
    start = [tokenizer.bos_token_id] if tokenizer.bos_token_id is not None else []
    tokens: dict[str, list[list[int]]] = {"input_ids": [], "ending": []}
    for question, choices in items:
        asked = start + tokenizer(question, add_special_tokens=False)["input_ids"]
        for choice in choices:
            ending = tokenizer(f" {choice}", add_special_tokens=False)["input_ids"][: max_length - 1]
            kept = asked[-(max_length - len(ending)) :]
            tokens["input_ids"].append(kept + ending)
            # 1 where a token is the choice's and something comes before it.
            tokens["ending"].append([0] * len(kept) + [1] * len(ending))
    labels = torch.zeros(len(items), dtype=torch.int64)
    batches = TextBatches(tokens, labels, batch_size, tokenizer.pad_token_id)
    found = {rule: torch.empty(len(items), len(items[0][1])) for rule in RULES}
    network.to(device).eval()
    for rows in batches.order():
        inputs = {name: part.flatten(0, -2).to(device) for name, part in batches.take(rows)[0].items()}
        ids, counted = inputs["input_ids"][:, 1:], inputs.pop("ending")[:, 1:]
        with autocast(device, precision):
            logits = network(**inputs).logits[:, :-1]
        each = logits.float().log_softmax(-1).gather(-1, ids[..., None])[..., 0] * counted
        total = each.sum(-1).cpu().view(len(rows), -1)
        found["sum"][rows] = total
        found["mean"][rows] = total / counted.sum(-1).clamp(min=1).cpu().view(len(rows), -1)
    return found
