"""GPT, a decoder-only Transformer: GPT-2's architecture and names (Radford et al. 2019), so that weights can be
exchanged with transformers' ``GPT2LMHeadModel`` both ways; and, each to be switched on, what later networks do in its
place. Sampling from it is in ``lab2/language/sampling.py``.

Letters in shapes: B texts, T tokens of each, V tokens in the vocabulary, C width, H heads, D = C / H.
"""

import math
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lab1.engine import registry
from lab1.engine.config import REPOSITORY, require
from lab1.engine.registry import register
from lab2.language import positions, sampling


def squared_relu(x: Tensor) -> Tensor:
    """``max(x, 0) ** 2`` (So et al. 2021)."""
    return F.relu(x).square()


# By the names of transformers. GELU (Hendrycks & Gimpel 2016): exact, or the tanh form that GPT-2 was trained with and
# that takes a processor three times as long.
ACTIVATIONS = {"gelu": F.gelu, "gelu_new": partial(F.gelu, approximate="tanh"), "relu2": squared_relu}

# What this GPT does not have; a GPT-2 that differs in one of these is refused.
FIXED = {
    "model_type": "gpt2",
    "layer_norm_epsilon": 1e-5,
    "n_inner": None,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
}


def dropout(x: Tensor, probability: float) -> Tensor:
    """Zero each element with this probability and scale up the others, so that the mean stays (Srivastava et al. 2014).

    On a processor the probability is rounded to 256ths, for one random byte an element is enough then: with
    ``F.dropout`` a fifth of the training step goes into random numbers.
    """
    if probability == 0:
        return x
    if x.device.type != "cpu":
        return F.dropout(x, probability)
    dropped = min(255, round(256 * probability))
    numbers = torch.randint(-(2**63), 2**63 - 1, ((x.numel() + 7) // 8,))
    kept = numbers.view(torch.uint8)[: x.numel()].view(x.shape) >= dropped
    return x * kept.to(x.dtype).mul_(256 / (256 - dropped))


def attend(queries: Tensor, keys: Tensor, values: Tensor, drop: float = 0.0) -> Tensor:
    """Causal scaled dot-product attention (Vaswani et al. 2017, eq. 1): ``[B, H, T, D]`` -> ``[B, H, T, D]``. Each
    token sees those up to its own place."""
    if queries.device.type != "cpu" or queries.dtype != torch.bfloat16:
        return F.scaled_dot_product_attention(queries, keys, values, dropout_p=drop, is_causal=True)
    # On a processor the backward pass of fused attention in bf16 takes half the step; plain products do not.
    scores = (queries * queries.shape[3] ** -0.5) @ keys.transpose(2, 3)
    scores = scores + torch.full(scores.shape[2:], -math.inf, dtype=scores.dtype).triu(1)
    return dropout(scores.softmax(3), drop) @ values


class Attention(nn.Module):
    """Multi-head causal self-attention; with ``qk_norm`` queries and keys are normalised (``positions.place``)."""

    def __init__(self, width: int, heads: int, drop: float, qk_norm: bool):
        super().__init__()
        self.heads, self.drop, self.qk_norm = heads, drop, qk_norm
        self.c_attn = nn.Linear(width, 3 * width)  # queries, keys and values of all heads
        self.c_proj = nn.Linear(width, width)

    def forward(self, x: Tensor, turns: Tensor | None) -> Tensor:
        """``[B, T, C]`` -> ``[B, T, C]``. turns: of rotary positions (``positions.turns``)."""
        B, T, C = x.shape
        q, k, v = self.c_attn(x).view(B, T, 3, self.heads, C // self.heads).permute(2, 0, 3, 1, 4)
        q, k = (positions.place(each, turns, self.qk_norm) for each in (q, k))
        y = attend(q, k, v, self.drop if self.training else 0.0)
        return self.c_proj(y.transpose(1, 2).reshape(B, T, C))


class MLP(nn.Module):
    """Two layers, four times as wide between them, with GELU or another activation."""

    def __init__(self, width: int, activation: str):
        super().__init__()
        self.activation = ACTIVATIONS[activation]
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, T, C]`` -> ``[B, T, C]``."""
        return self.c_proj(self.activation(self.c_fc(x)))


class Block(nn.Module):
    """Attention, then MLP; each behind a layer norm and with the identity around it ("pre-norm")."""

    def __init__(self, width: int, heads: int, drop: float, activation: str, qk_norm: bool):
        super().__init__()
        self.drop = drop
        self.ln_1, self.attn = nn.LayerNorm(width), Attention(width, heads, drop, qk_norm)
        self.ln_2, self.mlp = nn.LayerNorm(width), MLP(width, activation)

    def forward(self, x: Tensor, turns: Tensor | None) -> Tensor:
        """``[B, T, C]`` -> ``[B, T, C]``. turns: of rotary positions."""
        drop = self.drop if self.training else 0.0
        x = x + dropout(self.attn(self.ln_1(x), turns), drop)
        return x + dropout(self.mlp(self.ln_2(x)), drop)


@register
class GPT(nn.Module):
    """Token and position embeddings, blocks, a last layer norm, and the token embeddings again as the output layer.

    | vocabulary, context, layers, heads, width | parameters |
    |---|---|
    | 80, 64, 4, 4, 128 | 811,776 |
    | 80, 128, 6, 6, 192 | 2,709,504 |
    | 50257, 1024, 12, 12, 768 (GPT-2 small) | 124,439,808 |
    """

    def __init__(
        self,
        vocabulary: int,
        context: int,
        layers: int,
        heads: int,
        width: int,
        dropout: float = 0.0,
        activation: str = "gelu",
        rotary: bool = False,
        qk_norm: bool = False,
        zero_init: bool = False,
    ):
        """Args:
        vocabulary: number of tokens V. context: most tokens that it sees at once.
        dropout: of embeddings, attention weights, and what each block adds. activation: see ``ACTIVATIONS``.
        rotary: places turn queries and keys, in place of position embeddings. qk_norm: queries and keys are normalised.
        zero_init: each block begins as the identity (Zhang et al. 2019, "Fixup").

        Raises:
            UsageError: for a size below 1, a width that the heads do not divide, a dropout outside [0, 1), an
                activation not in ``ACTIVATIONS``, heads of an odd width with rotary positions.
        """
        super().__init__()
        sizes = {"vocabulary": vocabulary, "context": context, "layers": layers, "heads": heads, "width": width}
        for name, size in sizes.items():
            require(size >= 1, f"{name} {size}: at least 1 is needed")
        require(width % heads == 0, f"width {width}: a multiple of the {heads} heads is needed")
        require(0 <= dropout < 1, f"dropout {dropout}: a probability from 0 to below 1 is needed")
        require(activation in ACTIVATIONS, f"activation {activation}: one of {', '.join(ACTIVATIONS)} is needed")
        head = width // heads
        require(not rotary or head % 2 == 0, f"heads of width {head}: an even width is needed for rotary positions")
        self.context, self.drop = context, dropout
        self.wte, self.wpe = nn.Embedding(vocabulary, width), None if rotary else nn.Embedding(context, width)
        self.register_buffer("turns", positions.turns(context, head) if rotary else None, persistent=False)
        self.h = nn.ModuleList(Block(width, heads, dropout, activation, qk_norm) for _ in range(layers))
        self.ln_f = nn.LayerNorm(width)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2 and zero_init and "c_proj" in name:
                nn.init.zeros_(parameter)
            elif parameter.ndim == 2:
                # Each block adds twice to the sum; so its variance at the end does not depend on the depth.
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * layers) if "c_proj" in name else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens ``[B, T]`` -> logits of the token after each ``[B, T, V]``.

        Raises:
            UsageError: for more tokens than the context.
        """
        length = tokens.shape[1]
        require(length <= self.context, f"{length} tokens are more than this GPT's context of {self.context}")
        x, turns = self.wte(tokens), None
        if self.wpe is None:
            turns = self.turns[:, :length]
        else:
            x = x + self.wpe.weight[:length]
        x = dropout(x, self.drop) if self.training else x
        for block in self.h:
            x = block(x, turns)
        return F.linear(self.ln_f(x), self.wte.weight)

    def generate(
        self,
        tokens: Tensor,
        max_new_tokens: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        greedy: bool = False,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Continue texts: tokens ``[B, T]`` -> ``[B, T + max_new_tokens]``; see ``lab2.language.sampling.generate``."""
        choose = sampling.Chooser(temperature, top_k, top_p, greedy, generator)
        return sampling.generate(self, tokens, max_new_tokens, choose)

    @classmethod
    def from_pretrained(cls, name: str | Path, data_folder: Path = REPOSITORY / "data", download: bool = True) -> "GPT":
        """A GPT-2 by its folder or its name on the Hugging Face hub, in evaluation mode.

        Raises:
            UsageError: where it cannot be had, or is another architecture.
        """
        from transformers import AutoConfig, GPT2LMHeadModel

        from lab2 import hub

        config = hub.pretrained(AutoConfig, str(name), data_folder, download)
        for key, value in FIXED.items():
            found = getattr(config, key, None)
            require(found == value, f"{name} is no plain GPT-2: its {key} is {found!r}, not {value!r}")
        activation = config.activation_function
        known = " or ".join(map(repr, ACTIVATIONS))
        fits = activation in ACTIVATIONS
        require(fits, f"{name} is no plain GPT-2: its activation_function is {activation!r}, not {known}")
        theirs = hub.network(GPT2LMHeadModel, str(name), data_folder, download)[0].state_dict()
        sizes = (config.vocab_size, config.n_positions, config.n_layer, config.n_head, config.n_embd)
        gpt = cls(*sizes, activation=activation)
        gpt.load_state_dict({name: transposed(name, theirs[f"transformer.{name}"]) for name in gpt.state_dict()})
        return gpt.eval()

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a folder that ``GPT2LMHeadModel.from_pretrained`` reads.

        Raises:
            UsageError: for a GPT with rotary positions or normalised queries and keys, which GPT-2 does not have.
        """
        from transformers import GPT2Config, GPT2LMHeadModel

        size, drop = self.arguments, self.drop
        plain = not (size["rotary"] or size["qk_norm"])
        require(plain, "GPT-2 has no rotary positions and no normalised queries and keys: this one stays here")
        config = GPT2Config(
            vocab_size=size["vocabulary"],
            n_positions=size["context"],
            n_embd=size["width"],
            n_layer=size["layers"],
            n_head=size["heads"],
            bos_token_id=None,
            eos_token_id=None,
            resid_pdrop=drop,
            embd_pdrop=drop,
            attn_pdrop=drop,
            activation_function=size["activation"],
        )
        theirs = GPT2LMHeadModel(config)
        weights = {f"transformer.{name}": transposed(name, weight) for name, weight in self.state_dict().items()}
        theirs.load_state_dict(weights | {"lm_head.weight": self.wte.weight})
        theirs.save_pretrained(folder)


def write(model: Any, prompts: Tensor, length: int, settings: dict[str, Any], seed: int) -> Tensor:
    """What a model writes after the prompts: tokens ``[B, P]`` -> ``[B, length]``.

    model: our GPT, or a causal language model of transformers.
    """
    if isinstance(model, GPT):
        generator = torch.Generator(prompts.device).manual_seed(seed)
        return model.generate(prompts, length, **settings, generator=generator)[:, prompts.shape[1] :]
    torch.manual_seed(seed)
    options = {"do_sample": not settings.get("greedy", False), "min_new_tokens": length, "max_new_tokens": length}
    if options["do_sample"]:
        # All said by name: transformers has a top-k of 50 unless told otherwise.
        options |= {"temperature": settings.get("temperature", 1.0)}
        options |= {"top_k": settings.get("top_k", 0), "top_p": settings.get("top_p", 1.0)}
    from transformers import GenerationConfig

    # Of the model's own settings its end of text alone: others, such as a penalty on repetition, would count here.
    own, everything = model.generation_config, torch.ones_like(prompts)
    model.generation_config = GenerationConfig(eos_token_id=own.eos_token_id, pad_token_id=0)
    try:
        return model.generate(prompts, attention_mask=everything, **options)[:, prompts.shape[1] :]
    finally:
        model.generation_config = own


def transposed(name: str, weight: Tensor) -> Tensor:
    """A weight of ours as GPT-2 stores it, and the other way round: matrices of its blocks are ``[in, out]``."""
    return weight.T.contiguous() if name.startswith("h.") and weight.ndim == 2 else weight


def load(path: Path, device: torch.device | str = "cpu") -> tuple[GPT, dict[str, Any]]:
    """The GPT of a ``best.pt``, in evaluation mode, and what is stored beside it (corpus, tokenizer).

    Raises:
        UsageError: where there is no such file, or it is no GPT of this lab.
    """
    gpt, about = registry.load(path, device, "GPT", f"no file {path}; train a GPT first: python lab2/train_gpt.py")
    require(isinstance(gpt, GPT), f"{path} holds no GPT")
    return gpt, about
