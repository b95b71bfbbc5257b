"""Encoders: a thin wrapper over transformers, so that the Trainer can train them, and what their hidden states give.

Any model that transformers knows can be named: by a folder, a folder under data/, or a name of the hub.
"""

import contextlib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lab1.engine.config import require
from lab2 import hub
from lab2.tasks.batches import TextBatches, encode

POOLINGS = ("cls", "mean")


class Encoder(nn.Module):
    """A transformers model as the Trainer wants it: a dictionary of token tensors in, logits ``[B, K]`` out, or for a
    model without a head sentence vectors ``[B, D]``: the mean over tokens, of length 1 (Reimers & Gurevych 2019). The
    logit of a choice that a question does not have is minus infinity."""

    def __init__(self, network: nn.Module, task: str):
        super().__init__()
        self.network, self.task = network, task
        self.arguments = {"task": task, "config": network.config.to_dict()}

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        if self.task == "choice":
            return self.choose(inputs)
        found = self.network(**inputs)
        if self.task == "features":
            return F.normalize(pool(found.last_hidden_state, inputs["attention_mask"], "mean"), dim=-1)
        return found.logits

    def choose(self, inputs: dict[str, Tensor]) -> Tensor:
        """A logit a choice, ``[B, C]``, from inputs ``[B, C, T]``."""
        there = inputs["attention_mask"].any(-1)  # [B, C]: a choice that is padding throughout is none
        if there.all():
            return self.network(**inputs).logits
        # Attention over padding alone is not defined: the others go in as questions of one choice each.
        logits = self.network(**{name: tokens[there][:, None] for name, tokens in inputs.items()}).logits[:, 0]
        return logits.new_full(there.shape, -torch.inf).masked_scatter(there, logits)


def load_tokenizer(name: str, data_folder: Path, download: bool = True) -> Any:
    """The tokenizer of a model. UsageError where it cannot be had."""
    from transformers import AutoTokenizer

    tokenizer = hub.pretrained(AutoTokenizer, name, data_folder, download)
    if tokenizer.pad_token is None:  # the decoders of GPT-2's family have none
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_encoder(
    name: str, task: str, data_folder: Path, device: torch.device, download: bool = True, classes: int | None = None
) -> tuple[Encoder, list[str]]:
    """An encoder with a head for a task, and the names of the modules that were not in the pretrained weights.

    Args:
        task: ``classification`` (a head of ``classes`` logits), ``choice`` (a logit a choice) or ``features`` (none).
        device: decides the kernels: a processor's flash attention is slow in bf16, where plain attention is not.

    Raises:
        UsageError: where the model cannot be had or has no such head in transformers.
    """
    import transformers

    kinds = {
        "classification": transformers.AutoModelForSequenceClassification,
        "choice": transformers.AutoModelForMultipleChoice,
        "features": transformers.AutoModel,
    }
    options = {"num_labels": classes} if task == "classification" else {}
    attention = "eager" if device.type == "cpu" else "sdpa"
    network, new = hub.network(
        kinds[task],
        name,
        data_folder,
        download,
        dtype=torch.float32,
        attn_implementation=attention,
        ignore_mismatched_sizes=True,  # a head of another number of classes is made anew
        **options,
    )
    both = getattr(network.config, "is_encoder_decoder", False)
    require(not both, f"--model {name}: it is an encoder and a decoder; an encoder alone is needed, such as BERT")
    if getattr(network.config, "pad_token_id", None) is None:  # as load_tokenizer does: GPT-2's family has none
        network.config.pad_token_id = network.config.eos_token_id
    if task == "features" and getattr(network, "pooler", None) is not None:
        network.pooler.requires_grad_(False)  # nothing here uses it
    return Encoder(network, task), sorted({key.rsplit(".", 1)[0] for key in new})


def add_lora(encoder: Encoder, rank: int, alpha: float, dropout: float, new: Sequence[str]) -> Encoder:
    """Freeze the encoder and put low-rank updates beside every linear layer of it (Hu et al. 2022), with ``peft``:
    W x + alpha / rank * B A x, where only A ``[rank, in]`` and B ``[out, rank]`` learn. The head, and of the encoder
    the modules named in ``new``, which were not pretrained, learn in full."""
    import peft

    # peft compares the ends of names: by its last part, RoBERTa's classifier.dense would be layers of the encoder, too.
    body = f"{encoder.network.base_model_prefix}."
    heads = sorted({name if name.startswith(body) else name.split(".")[0] for name in new}) or None
    settings = peft.LoraConfig(
        task_type="SEQ_CLS",
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules="all-linear",
        exclude_modules=heads,
        modules_to_save=heads,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by an older name
        network = peft.get_peft_model(encoder.network, settings)
    adapted = Encoder(network, encoder.task)
    adapted.arguments = encoder.arguments | {"lora": {"rank": rank, "alpha": alpha}}
    return adapted


def trainable(model: nn.Module) -> int:
    """How many parameters learn."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def pool(hidden: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """One vector a sequence from its tokens' hidden states ``[B, T, D]``: the first token's, ``[CLS]`` for BERT, or
    the mean over the tokens that ``mask`` ``[B, T]`` says are none of the padding."""
    if pooling == "cls":
        return hidden[:, 0]
    weights = mask.unsqueeze(-1).float()
    return (hidden.float() * weights).sum(1) / weights.sum(1).clamp(min=1)


def autocast(device: torch.device, precision: str):
    """The context in which a model computes in bf16, or one that changes nothing."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()


def text_batches(tokenizer: Any, texts: Sequence[str], max_length: int, batch_size: int) -> TextBatches:
    """Texts without labels, sorted by length."""
    tokens = encode(tokenizer, texts, max_length)
    return TextBatches(tokens, torch.zeros(len(texts), dtype=torch.int64), batch_size, tokenizer.pad_token_id)


@torch.no_grad()
def hidden_features(
    encoder: Encoder,
    tokenizer: Any,
    texts: Sequence[str],
    max_length: int,
    batch_size: int,
    device: torch.device,
    precision: str,
) -> dict[str, Tensor]:
    """What a frozen encoder says of texts: for each pooling the hidden states ``[L + 1, N, D]`` after the embeddings
    (layer 0) and after each of its L layers, as float32 on the CPU."""
    batches, found = text_batches(tokenizer, texts, max_length, batch_size), {}
    network = encoder.network.to(device).eval()
    for rows in batches.order():
        inputs = {name: tensor.to(device) for name, tensor in batches.take(rows)[0].items()}
        with autocast(device, precision):
            states = network(**inputs, output_hidden_states=True).hidden_states
        for pooling in POOLINGS:
            pooled = torch.stack([pool(state, inputs["attention_mask"], pooling) for state in states]).float().cpu()
            if pooling not in found:
                found[pooling] = torch.empty(len(pooled), len(texts), pooled.shape[-1])
            found[pooling][:, rows] = pooled
    return found


@torch.no_grad()
def sentence_vectors(
    encoder: Encoder,
    tokenizer: Any,
    texts: Sequence[str],
    max_length: int,
    batch_size: int,
    device: torch.device,
    precision: str,
) -> Tensor:
    """Vectors of length 1, ``[N, D]`` as float32 on the CPU, of an encoder without a head."""
    batches, found = text_batches(tokenizer, texts, max_length, batch_size), None
    training = encoder.training
    encoder.to(device).eval()
    for rows in batches.order():
        with autocast(device, precision):
            vectors = encoder({name: tensor.to(device) for name, tensor in batches.take(rows)[0].items()}).cpu()
        found = torch.empty(len(texts), vectors.shape[-1]) if found is None else found
        found[rows] = vectors
    encoder.train(training)
    return found


def longest(tokenizer: Any, network: nn.Module, asked: int) -> int:
    """``asked`` tokens, or as many as the model has positions for, if these are fewer. UsageError where the tokenizer
    is another model's."""
    require_same_vocabulary(tokenizer, network)
    positions = getattr(network.config, "max_position_embeddings", None)
    table = next((part for name, part in network.named_modules() if name.endswith("position_embeddings")), None)
    if positions and getattr(table, "padding_idx", None) is not None:
        positions -= table.padding_idx + 1  # RoBERTa and its kin count places from there
    return min(asked, tokenizer.model_max_length, positions or asked)


def require_same_vocabulary(tokenizer: Any, network: nn.Module) -> None:
    """Raise UsageError where a tokenizer has tokens that a network knows nothing of."""
    known = network.get_input_embeddings().num_embeddings
    require(
        len(tokenizer) <= known,
        f"{network.config.name_or_path}: its tokenizer has {len(tokenizer):,} tokens and its network {known:,}: "
        "they do not belong together",
    )
