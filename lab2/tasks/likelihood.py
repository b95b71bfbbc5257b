"""Which ending does a language model find likeliest? The baseline of multiple choice that learns nothing."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from lab1.engine.config import REPOSITORY, require
from lab2 import hub
from lab2.tasks.batches import TextBatches
from lab2.tasks.encoders import autocast, load_tokenizer, require_same_vocabulary

RULES = ("sum", "mean")


@dataclasses.dataclass
class LanguageModel:
    """A causal model, of transformers or of exercise 1, as it is needed here."""

    logits: Callable[[Tensor], Tensor]  # tokens [B, T] to logits [B, T, V]
    encode: Callable[[str], list[int]]
    start: list[int]  # what a text begins with, where the model has such a token
    most: int  # tokens that it sees at once
    parameters: int


def load(name: str, data_folder: Path, runs_folder: Path, device: torch.device, download: bool = True) -> LanguageModel:
    """A model by name: a run of ``train_gpt.py``, a folder or its name among the runs, or what transformers can load.

    Raises:
        UsageError: where it cannot be had.
    """
    for folder in (Path(name), runs_folder / name, REPOSITORY / "lab2" / "model" / "published" / name):
        if (folder / "best.pt").is_file():
            from lab2 import models
            from lab2.language import tokens

            gpt, about = models.load(folder / "best.pt", device)
            tokenizer = tokens.build(about.get("tokenizer"), data_folder, download)
            count = sum(parameter.numel() for parameter in gpt.parameters())
            return LanguageModel(gpt, tokenizer.encode, [], gpt.context, count)
    from transformers import AutoModelForCausalLM

    tokenizer = load_tokenizer(name, data_folder, download)
    network, _ = hub.network(AutoModelForCausalLM, name, data_folder, download, dtype=torch.float32)
    require_same_vocabulary(tokenizer, network)
    network = network.to(device).eval()
    return LanguageModel(
        # Padding comes last, and what comes last changes nothing before it: no mask is needed.
        lambda ids: network(input_ids=ids).logits,
        lambda text: tokenizer(text, add_special_tokens=False)["input_ids"],
        [tokenizer.bos_token_id] if tokenizer.bos_token_id is not None else [],
        min(tokenizer.model_max_length, getattr(network.config, "max_position_embeddings", None) or 10**9),
        sum(parameter.numel() for parameter in network.parameters()),
    )


@torch.no_grad()
def ending_scores(
    model: LanguageModel,
    items: Sequence[tuple[str, list[str]]],
    max_length: int,
    batch_size: int,
    device: torch.device,
    precision: str,
) -> dict[str, Tensor]:
    """The log-likelihood in nats of each choice after its question, ``[N, C]``: ``sum`` over its tokens, which favours
    short choices, and the ``mean`` of them. It is minus infinity for a choice that a question does not have.

    Args:
        items: ``(question, choices)``, of up to C choices each. Of too long a question the beginning is cut off.
        max_length: tokens of question and choice together, at most.

    Raises:
        UsageError: for an empty question, where the model has no token that a text begins with.
    """
    length = min(max_length, model.most)
    tokens: dict[str, list[list[int]]] = {"input_ids": [], "ending": []}
    counts: list[int] = []
    for question, choices in items:
        asked = model.start + model.encode(question)
        for choice in choices:
            ending = model.encode(f" {choice}")[: length - 1]
            kept = asked[-(length - len(ending)) :]
            # The first token of a text has nothing before it that would say how likely it is.
            require(
                len(kept) > 0,
                f"question {len(counts) + 1} is empty, and this model's texts begin with no token of their own",
            )
            tokens["input_ids"].append(kept + ending)
            tokens["ending"].append([0] * len(kept) + [1] * len(ending))
        counts.append(len(choices))
    none = torch.zeros(len(items), dtype=torch.int64)
    batches = TextBatches(tokens, none, batch_size, padding=0, choices=counts)
    found = {rule: torch.full((len(items), max(counts)), -torch.inf) for rule in RULES}
    for rows in batches.order():
        inputs = batches.take(rows)[0]
        there = inputs["attention_mask"].any(-1)  # [B, C]
        inputs = {name: part[there].to(device) for name, part in inputs.items()}
        ids, counted = inputs["input_ids"], inputs["ending"][:, 1:]
        with autocast(device, precision):
            logits = model.logits(ids)[:, :-1]
        # Not log_softmax, which would hold as much again as the logits.
        chosen = logits.gather(-1, ids[:, 1:, None])[..., 0].float()
        each = (chosen - logits.float().logsumexp(-1)) * counted
        total = each.sum(-1).cpu()
        questions, places = there.nonzero(as_tuple=True)
        found["sum"][rows[questions], places] = total
        found["mean"][rows[questions], places] = total / counted.sum(-1).clamp(min=1).cpu()
    return found
