"""Rotary positions: a token's place turns its queries and keys, so that their product knows only how far they are
apart (Su et al. 2021, RoFormer)."""

import torch
import torch.nn.functional as F
from torch import Tensor


def turns(context: int, width: int, base: float = 10_000.0) -> Tensor:
    """Cosine and sine of the angle by which each place turns each pair of a head's numbers: ``[2, T, D / 2]``. Place t
    turns pair i by ``t * base ** (-2 i / D)`` radians (eq. 15); D, the width of a head, is even."""
    frequencies = base ** (-torch.arange(0, width, 2) / width)
    angles = torch.arange(context)[:, None] * frequencies
    return torch.stack([angles.cos(), angles.sin()])


def rotate(x: Tensor, turns: Tensor) -> Tensor:
    """Queries or keys ``[..., T, D]``, turned by ``turns`` ``[2, T, D / 2]`` (eq. 34). Number i makes a pair with
    number i + D / 2, as in GPT-NeoX; the paper pairs neighbours, which is the same up to the order of the weights."""
    cosine, sine = turns
    first, second = x.float().chunk(2, -1)
    return torch.cat([first * cosine - second * sine, first * sine + second * cosine], -1).to(x.dtype)


def place(x: Tensor, turns: Tensor | None, normalise: bool) -> Tensor:
    """Queries or keys ``[..., T, D]`` as attention compares them. With ``normalise`` each is scaled to a root mean
    square of 1, so that no product of two exceeds D (Henry et al. 2020; RMS norm: Zhang & Sennrich 2019). Where there
    are ``turns``, each is turned by its place."""
    if normalise:
        x = F.rms_norm(x, x.shape[-1:])
    return x if turns is None else rotate(x, turns)
