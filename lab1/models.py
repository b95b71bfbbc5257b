"""The networks of lab 1. Logits leave them: no softmax and no ReLU after the last layer.

Every network has ``features(x)``, what the last layer sees, and ``head``, that linear layer. ``@register`` lets scripts
load it again from a run, and train_cnn.py train it by name (``--network``); one of your own goes to the end of this
file (README.md, "Changing it").
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lab1.engine.config import require
from lab1.engine.metrics import count_macs as count_macs
from lab1.engine.registry import NETWORKS as NETWORKS
from lab1.engine.registry import build as build
from lab1.engine.registry import describe as describe
from lab1.engine.registry import load as load  # to be had from here, where the networks are known
from lab1.engine.registry import make as make
from lab1.engine.registry import register


@register
class MLP(nn.Module):
    """Multi-layer perceptron: linear layers with ReLU between them.

    With ``residual``, two successive hidden layers that keep the width form a block with the identity around it,
    ``h <- ReLU(h + W2 ReLU(W1 h + b1) + b2)`` (He et al. 2016, eq. 1), and nothing else changes: the plain network of
    the same sizes has the same parameters, and from the same seed the same initial weights.

    PyTorch's initial weights (variance 1 / (3 fan-in)) let each plain layer shrink the signal's variance over inputs to
    about a sixth, so that they can hardly be told apart after ten layers, while each residual block lets its mean
    square grow by about 7 %: five times the size at depth 100. With ``init="he"`` (variance 2 / fan-in, biases 0) plain
    layers keep it, as He et al. (2015) derive, and each residual block more than doubles it: 10 ** 9 times the size at
    depth 100. Branches that begin smaller prevent that: ``init="he-zero"`` begins the last layer of each at 0, so that
    a block is the identity (as Zhang et al. 2019, "Fixup"), and ``init="he-scaled"`` divides it by the square root of
    their number.

    | sizes | parameters |
    |---|---|
    | 784, 128, 64, 10 | 109,386 |
    | 784, 256, 128, 10 | 235,146 |
    | 784, 128, 128, 128, 10 | 134,794 |
    """

    def __init__(self, sizes: Sequence[int], residual: bool = False, dropout: float = 0.0, init: str = "default"):
        """Args:
        sizes: width of the input, of each hidden layer, and of the output (the number of classes).
        residual: put the identity around pairs of hidden layers of equal width.
        dropout: probability of dropping a hidden unit in training.
        init: initial weights: ``default``, PyTorch's, or ``he``; with ``residual`` also ``he-zero`` or ``he-scaled``.

        Raises:
            UsageError: for fewer than two sizes, a size below 1, a dropout outside [0, 1), another init, or
                ``residual`` where no two successive layers keep the width.
        """
        super().__init__()
        sizes = [int(size) for size in sizes]
        require(len(sizes) >= 2 and min(sizes) >= 1, f"an MLP needs at least two sizes of 1 or more, not {sizes}")
        require(0 <= dropout < 1, f"dropout {dropout}: a probability from 0 to below 1 is needed")
        require(init in ("default", *INITS), f"init {init!r}: use default, {', '.join(INITS[:2])} or {INITS[2]}")
        require(residual or init in ("default", "he"), f"init {init}: a plain network has no branches to scale")
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
            f"no two of the hidden layers {hidden[1:]} keep the width of the one before, so no residual connection "
            "fits: use three equal ones or more, such as 128 128 128",
        )
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(sizes[-2], sizes[-1])
        if init != "default":
            for module in self.modules():
                if isinstance(module, nn.Linear):
                    nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                    nn.init.zeros_(module.bias)
            scale_branches([layer.branch[-1] for layer in layers if isinstance(layer, ResidualBlock)], init)

    def features(self, x: Tensor) -> Tensor:
        """Images ``[N, C, H, W]`` or vectors ``[N, sizes[0]]`` -> the last hidden layer ``[N, sizes[-2]]``."""
        return self.body(x.flatten(1))

    def forward(self, x: Tensor) -> Tensor:
        """Images or vectors -> logits ``[N, classes]``."""
        return self.head(self.features(x))


# How He's initial weights go on in the last layer of each residual branch: as they are, at zero, or divided by the
# square root of the number of branches.
INITS = ("he", "he-zero", "he-scaled")


def scale_branches(last_layers: list[nn.Module], init: str) -> None:
    """Change the weights of the last layer of each branch as ``init``, one of ``INITS``, says."""
    factor = {"he": 1, "he-zero": 0, "he-scaled": max(1, len(last_layers)) ** -0.5}[init]
    for layer in last_layers:
        layer.weight.data.mul_(factor)


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


@register
class CNN(nn.Module):
    """Plain convolutional network: a stem, ``depth`` blocks of two 3x3 convolutions, the mean over space, one linear
    layer (He et al. 2016, section 4.2, without the shortcuts).

    The blocks are spread over three stages of width w, 2w, 4w at 32, 16, 8 pixels (of a 32 x 32 image); between two
    stages stands a convolution of stride 2. A depth that is not a multiple of 3 gives the first stages one block more:
    depth 5 is 2, 2, 1 and depth 1 is 1, 0, 0. A block costs as many multiplications in any stage, since the width
    doubles where the area falls to a quarter, so cost grows evenly with depth; most parameters lie in the last stage.

    ``ResCNN`` puts the identity around each block and changes nothing else: the same parameters under the same names,
    the same initial weights from the same seed, the same multiply-accumulates (MACs, per 32 x 32 colour image).

    | depth | blocks | convolutions | parameters | without norm | MACs |
    |---|---|---|---|---|---|
    | 1 | 1, 0, 0 | 5 | 29,018 | 28,874 | 7,520,896 |
    | 5 | 2, 2, 1 | 13 | 144,794 | 144,362 | 26,395,264 |
    | 9 | 3, 3, 3 | 21 | 315,994 | 315,210 | 45,269,632 |
    | 10 | 4, 3, 3 | 23 | 320,666 | 319,850 | 49,988,224 |
    | 20 | 7, 7, 6 | 43 | 630,874 | 629,322 | 97,174,144 |
    | 25 | 9, 8, 8 | 53 | 806,746 | 804,810 | 120,767,104 |

    The table is for width 16 and 10 classes. Depth 9 is the ResNet-20 of He et al. (269,722 parameters and 40.6 M MACs
    with their shortcuts that add nothing) but for one thing: their first block of a stage changes the width itself and
    its shortcut pads with zeros; here a convolution does so before the first block, so that every identity is one.
    That makes 2 convolutions, 46 thousand parameters and 4.7 M MACs more.
    """

    residual = False

    def __init__(
        self, depth: int, width: int = 16, norm: str = "batch", in_channels: int = 3, classes: int = 10, init="he"
    ):
        """Args:
        depth: number of two-convolution blocks.
        width: channels of the first stage; the second has twice, the third four times as many.
        norm: ``batch``, batch normalisation after each convolution; or ``none``, and each has a bias instead.
        in_channels: 3 for colour images, 1 for grey ones.
        classes: number of logits.
        init: ``he``; for residual networks without norm also ``he-zero`` or ``he-scaled`` (see ``MLP``).

        Convolutions start as He et al. (2015) derive it for ReLU: normal, variance 2 / fan-out; biases start at 0.

        Raises:
            UsageError: for a number below 1, another norm or init.
        """
        super().__init__()
        numbers = {"depth": depth, "width": width, "in_channels": in_channels, "classes": classes}
        for name, number in numbers.items():
            require(number >= 1, f"{name} {number}: a {type(self).__name__} needs 1 or more")
        require(norm in ("batch", "none"), f"norm {norm!r}: use batch or none")
        fits = init == "he" or (init in INITS and self.residual and norm == "none")
        require(fits, f"init {init!r}: use he; or, in a ResCNN without norm, he-zero or he-scaled")
        layers = [convolution(in_channels, width, norm), nn.ReLU(inplace=True)]
        for stage, blocks in enumerate(blocks_per_stage(depth)):
            channels = width * 2**stage
            if stage > 0:
                layers += [convolution(channels // 2, channels, norm, stride=2), nn.ReLU(inplace=True)]
            layers += [ConvBlock(channels, norm, self.residual) for _ in range(blocks)]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(width * 4, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        scale_branches([block.branch[-1][0] for block in self.body if isinstance(block, ConvBlock)], init)
        # With the channels of a pixel side by side in memory, convolutions on CPUs and on GPUs in bf16 are faster.
        self.to(memory_format=torch.channels_last)

    def features(self, x: Tensor) -> Tensor:
        """Images ``[N, in_channels, H, W]`` -> the last map ``[N, 4 * width, H / 4, W / 4]``, 8 x 8 for 32 x 32."""
        return self.body(x.contiguous(memory_format=torch.channels_last))

    def forward(self, x: Tensor) -> Tensor:
        """Images -> logits ``[N, classes]``: the linear layer on the mean of the last map over space."""
        return self.head(self.features(x).mean((2, 3)))


@register
class ResCNN(CNN):
    """``CNN`` with the identity around each block: a residual network (He et al. 2016). See there for its size.

    Without norm each block adds to its input a branch that starts about as large, and maps grow by a factor of about
    1.4 a block: a thousand at depth 20, where the first loss is in the hundreds and a learning rate of 0.01 diverges.
    """

    residual = True


class ConvBlock(nn.Module):
    """Two 3x3 convolutions, ``ReLU(norm(conv(ReLU(norm(conv(x))))))``, keeping the shape ``[N, width, H, W]``; with
    ``residual`` the input is added before the last ReLU."""

    def __init__(self, width: int, norm: str, residual: bool):
        super().__init__()
        # In place a ReLU needs no memory of its own: 3 % less time for a training step on a processor.
        first, second = convolution(width, width, norm), convolution(width, width, norm)
        self.branch = nn.Sequential(first, nn.ReLU(inplace=True), second)
        self.relu = nn.ReLU(inplace=True)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        y = self.branch(x)
        return self.relu(x + y if self.residual else y)


def convolution(in_channels: int, channels: int, norm: str, stride: int = 1) -> nn.Sequential:
    """A 3x3 convolution that keeps the size (or halves it, with stride 2), and its norm if it has one."""
    conv = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=norm == "none")
    return nn.Sequential(conv, nn.BatchNorm2d(channels)) if norm == "batch" else nn.Sequential(conv)


def blocks_per_stage(depth: int) -> list[int]:
    """How many of ``depth`` blocks stand in each of the three stages: as even as can be, the first stages first."""
    return [(depth + 2 - stage) // 3 for stage in range(3)]


@register
class LeNet(nn.Module):
    """A small convolutional network for 28 x 28 grey images, after LeNet-5 (LeCun et al. 1998, figure 2) but with ReLU
    and max pooling: 5x5 convolutions of 16 and 32 channels without padding, then 128 hidden units.

    Without padding, a window of a large image passes through it exactly as an image of its own would: what
    ``lab1.detection.detector`` needs. 80,331 parameters with 11 classes.
    """

    def __init__(self, classes: int = 10):
        super().__init__()
        layers: list[nn.Module] = []
        for in_channels, channels in ((1, 16), (16, 32)):
            layers += [nn.Conv2d(in_channels, channels, 5), nn.MaxPool2d(2), nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(32 * 4 * 4, 128), nn.ReLU())
        self.head = nn.Linear(128, classes)
        self.to(memory_format=torch.channels_last)

    def features(self, x: Tensor) -> Tensor:
        """Images ``[N, 1, 28, 28]`` -> the last hidden layer ``[N, 128]``."""
        return self.body(x)

    def forward(self, x: Tensor) -> Tensor:
        """Images -> logits ``[N, classes]``."""
        return self.head(self.features(x))


@register
class FastCNN(nn.Module):
    """A wide, shallow network that learns CIFAR-10 in a few passes, with the parts of the published speed runs (Page
    2018; Jordan 2024, arXiv 2404.00498). Six 3x3 convolutions; max pooling halves the image from 31 x 31 to 15, 7, 3.

    - ``whitening``: the first layer whitens patches of 2 x 2, and is not learned (see ``whiten``).
    - ``identity``: a convolution begins as the identity on its input's channels; those that it adds begin at random.
    - ``frozen-scales``: batch normalisation learns shifts alone; its scales stay 1.

    | width | parameters | learned | MACs |
    |---|---|---|---|
    | 16 | 127,072 | 126,496 | 10,135,072 |
    | 64 | 1,972,768 | 1,971,328 | 118,147,360 |

    The table is for 10 classes and 32 x 32 colour images.
    """

    def __init__(self, width: int = 64, in_channels: int = 3, classes: int = 10, without: Sequence[str] = ()):
        """Args:
        width: channels of the first stage; the two others have four times as many.
        in_channels: 3 for colour images, 1 for grey ones.
        classes: number of logits.
        without: which of these parts to leave out: then layers begin as PyTorch's do, and learn all they have.

        Raises:
            UsageError: for a number below 1.
        """
        super().__init__()
        for name, number in {"width": width, "in_channels": in_channels, "classes": classes}.items():
            require(number >= 1, f"{name} {number}: a FastCNN needs 1 or more")
        first = nn.Conv2d(in_channels, 8 * in_channels, 2, bias=False)
        first.weight.requires_grad_("whitening" in without)
        layers: list[nn.Module] = [first, nn.GELU()]
        for before, after in ((8 * in_channels, width), (width, 4 * width), (4 * width, 4 * width)):
            convs = [nn.Conv2d(channels, after, 3, padding=1, bias=False) for channels in (before, after)]
            # Statistics that follow the weights within a few steps: in so few epochs slower ones would lag behind.
            norms = [nn.BatchNorm2d(after, momentum=0.4) for _ in convs]
            layers += [convs[0], nn.MaxPool2d(2), norms[0], nn.GELU(), convs[1], norms[1], nn.GELU()]
            for conv, norm in zip(convs, norms, strict=True):
                norm.weight.requires_grad_("frozen-scales" in without)
                if "identity" not in without:
                    nn.init.dirac_(conv.weight.data[: conv.in_channels])
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(4 * width, classes, bias=False)
        self.to(memory_format=torch.channels_last)

    @torch.no_grad()
    def whiten(self, images: Tensor, eps: float = 5e-4) -> None:
        """Have the first layer whiten patches like those of these images ``[N, in_channels, H, W]``, as the network
        sees them: its channels are the patches' principal components, each divided by its standard deviation, and
        their negatives, as GELU cuts these off. ``eps`` is added to the variances, to keep those of noise small."""
        weight = self.body[0].weight
        patches = F.unfold(images.double(), 2).transpose(0, 1).flatten(1)  # [in_channels * 4, patches]
        variances, components = torch.linalg.eigh(torch.cov(patches))
        whitening = (components / (variances + eps).sqrt()).T.reshape(-1, *weight.shape[1:])
        weight.copy_(torch.cat([whitening, -whitening]))

    def features(self, x: Tensor) -> Tensor:
        """Images ``[N, in_channels, H, W]`` -> the last map, ``[N, 4 * width, 3, 3]`` for 32 x 32."""
        return self.body(x.contiguous(memory_format=torch.channels_last))

    def forward(self, x: Tensor) -> Tensor:
        """Images -> logits ``[N, classes]``; divided by 9, they begin small, and the linear layer learns slowly."""
        return self.head(self.features(x).amax((2, 3))) / 9
