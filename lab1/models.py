"""The networks of lab 1. Logits leave them: no softmax and no ReLU after the last layer.

Every network has ``features(x)``, what the last layer sees, and ``head``, that linear layer; and ``arguments``, with
which ``build`` makes the same network again.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lab1 import checkpoint
from lab1.config import UsageError, require


class MLP(nn.Module):
    """Multi-layer perceptron: linear layers with ReLU between them.

    With ``residual``, two successive hidden layers that keep the width form a block with the identity around it,
    ``h <- ReLU(h + W2 ReLU(W1 h + b1) + b2)`` (He et al. 2016, eq. 1), and nothing else changes: the plain network of
    the same sizes has the same parameters.

    | sizes | parameters |
    |---|---|
    | 784, 128, 64, 10 | 109,386 |
    | 784, 256, 128, 10 | 235,146 |
    | 784, 128, 128, 128, 10 | 134,794 |
    """

    def __init__(self, sizes: Sequence[int], residual: bool = False, dropout: float = 0.0):
        """Args:
        sizes: width of the input, of each hidden layer, and of the output (the number of classes).
        residual: put the identity around pairs of hidden layers of equal width.
        dropout: probability of dropping a hidden unit in training.

        Raises:
            UsageError: for fewer than two sizes, a size below 1, a dropout outside [0, 1), or ``residual`` where no
                two successive layers keep the width.
        """
        super().__init__()
        sizes = [int(size) for size in sizes]
        require(len(sizes) >= 2 and min(sizes) >= 1, f"an MLP needs at least two sizes of 1 or more, not {sizes}")
        require(0 <= dropout < 1, f"dropout {dropout}: a probability from 0 to below 1 is needed")
        self.arguments = {"sizes": sizes, "residual": residual, "dropout": dropout}
        hidden = sizes[:-1]
        layers: list[nn.Module] = []
        at = 0
        while at + 1 < len(hidden):
            if residual and hidden[at : at + 3] == [hidden[at]] * 3:
                layers.append(ResidualBlock(hidden[at], dropout))
                at += 2
            else:
                layers += [nn.Linear(hidden[at], hidden[at + 1]), nn.ReLU()]
                layers += [nn.Dropout(dropout)] if dropout else []
                at += 1
        require(
            not residual or any(isinstance(layer, ResidualBlock) for layer in layers),
            f"no two of the hidden layers {hidden[1:]} keep the width, so no residual connection fits: "
            "use three equal ones or more, such as 128 128 128",
        )
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(sizes[-2], sizes[-1])

    def features(self, x: Tensor) -> Tensor:
        """Images ``[N, C, H, W]`` or vectors ``[N, sizes[0]]`` -> the last hidden layer ``[N, sizes[-2]]``."""
        return self.body(x.flatten(1))

    def forward(self, x: Tensor) -> Tensor:
        """Images or vectors -> logits ``[N, classes]``."""
        return self.head(self.features(x))


class ResidualBlock(nn.Module):
    """Two linear layers of one width with the identity around them: ``[N, width] -> [N, width]``."""

    def __init__(self, width: int, dropout: float = 0.0):
        super().__init__()
        self.branch = nn.Sequential(
            nn.Linear(width, width),
            nn.ReLU(),
            *([nn.Dropout(dropout)] if dropout else []),
            nn.Linear(width, width),
        )
        self.after = nn.Sequential(nn.ReLU(), *([nn.Dropout(dropout)] if dropout else []))

    def forward(self, x: Tensor) -> Tensor:
        return self.after(x + self.branch(x))


# What a checkpoint may ask for by name; nothing is ever imported by a name found in a file.
MODELS = {"MLP": MLP}


def build(description: dict[str, Any]) -> nn.Module:
    """The untrained network of a description ``{"class": "MLP", "arguments": {...}}``.

    Raises:
        UsageError: for a class that is not one of this lab's.
    """
    name = description.get("class")
    require(name in MODELS, f"a network of class {name!r} is none of this lab's ({', '.join(MODELS)})")
    try:
        return MODELS[name](**description["arguments"])
    except (TypeError, KeyError) as error:
        raise UsageError(f"the description of a {name} does not fit: {error}") from None


def describe(model: nn.Module) -> dict[str, Any]:
    """What ``build`` needs to make this network again."""
    return {"class": type(model).__name__, "arguments": model.arguments}


def load(path: Path, device: torch.device | str = "cpu") -> tuple[nn.Module, dict[str, Any]]:
    """The trained network of a ``best.pt``, in evaluation mode, and what is stored beside it (data set, classes,
    normalisation).

    Raises:
        UsageError: where there is no such file, or it is not a network of this lab.
    """
    try:
        content = checkpoint.load(Path(path), device)
        model = build(content["model"])
        model.load_state_dict(content["weights"])
    except FileNotFoundError:
        raise UsageError(f"no file {path}; train a network first") from None
    except checkpoint.BrokenCheckpoint as error:
        raise UsageError(str(error)) from None
    except (KeyError, TypeError, RuntimeError) as error:
        raise UsageError(f"{path} holds no network of this lab: {str(error).splitlines()[0]}") from None
    return model.to(device).eval(), content["about"]
