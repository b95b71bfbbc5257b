"""From a classifier of digits to a detector: surgery, an image pyramid, non-maximum suppression, and how good it is.

A linear layer on an image is a convolution with a kernel as large as the image, evaluated in one place. Evaluated
everywhere it gives a map of logits, and costs far less than a forward pass per window, as windows share what they
overlap in (Matan et al. 1992; Sermanet et al. 2014).
"""

import dataclasses
import math
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import box_iou, nms

from lab1.detection.canvases import MARGIN, SCALES, WINDOW, Canvases, resize
from lab1.engine.config import require
from lab1.engine.metrics import bootstrap_interval
from lab1.models import MLP, LeNet, ResidualBlock

STRIDE = 4  # pixels of a level between two windows: two poolings by 2 make it so in LeNet
LEVELS = 5  # of the pyramid: neighbours differ by a factor of 1.21, so a digit is off by 10 % at most
LEAST = 0.2  # windows with a smaller probability of any digit are dropped at once
CANDIDATES = 1000  # at most so many windows of a canvas are considered, the most probable
AGREE = 0.4  # windows of one class agree from this intersection over union on, and count for each other
OVERLAP = 0.1  # of two candidates with a larger intersection over union, the better one stays
RIGHT = 0.5  # a detection is right from this intersection over union on


def convolutional(model: nn.Module) -> nn.Sequential:
    """The same network with each linear layer as a convolution with the same weights: images ``[N, 1, H, W]`` of any
    size from 28 x 28 on give maps of logits ``[N, classes, h, w]``, one every ``STRIDE`` pixels. Each is the logit
    that the model gives for that 28 x 28 window.

    Raises:
        UsageError: for another network than an MLP on 28 x 28 pixels or a LeNet.
    """
    name = type(model).__name__
    require(isinstance(model, MLP | LeNet), f"a {name} cannot be cut into a detector: use an MLP or a LeNet")
    if isinstance(model, MLP):
        inputs = model.arguments["sizes"][0]
        require(inputs == WINDOW**2, f"an MLP of {inputs} inputs cannot be cut into a detector: 28 x 28 are needed")
    layers, channels = [], 1
    for layer in (*model.body, model.head):
        if isinstance(layer, nn.Linear):
            layer = as_convolution(layer, channels)
        elif isinstance(layer, ResidualBlock):
            layer = _residual_convolution(layer)
        elif isinstance(layer, nn.Flatten):
            continue
        channels = getattr(layer, "out_channels", channels)
        layers.append(layer)
    return nn.Sequential(*layers).eval()


def as_convolution(linear: nn.Linear, channels: int) -> nn.Conv2d:
    """A linear layer on flattened maps ``[channels, k, k]`` as a k x k convolution with the same weights. On an image
    itself it moves by ``STRIDE``; where k is 1 it is a 1x1 convolution."""
    side = math.isqrt(linear.in_features // channels)
    conv = nn.Conv2d(channels, linear.out_features, side, stride=STRIDE if side == WINDOW else 1)
    with torch.no_grad():
        conv.weight.copy_(linear.weight.reshape(conv.weight.shape))
        conv.bias.copy_(linear.bias)
    return conv


def _residual_convolution(block: ResidualBlock) -> ResidualBlock:
    width = block.branch[0].in_features
    converted = ResidualBlock(width)
    parts = (as_convolution(part, width) if isinstance(part, nn.Linear) else part for part in block.branch)
    converted.branch, converted.after = nn.Sequential(*parts), block.after
    return converted


@dataclasses.dataclass
class Detections:
    """What was found on one canvas, the most certain first: boxes ``[n, 4]`` in pixels of the canvas, as
    ``lab1.detection.canvases`` defines them; scores ``[n]``, not probabilities but sums of them; classes ``[n]``."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor

    def above(self, threshold: float) -> "Detections":
        """Those with a score of at least the threshold."""
        keep = self.scores >= threshold
        return Detections(self.boxes[keep], self.scores[keep], self.labels[keep])


class Detector:
    """A convolutional classifier run over an image pyramid: 28 pixels of a level are a larger or smaller part of the
    canvas."""

    def __init__(self, model: nn.Module, mean: list[float], std: list[float], device: torch.device | str = "cpu"):
        """``mean`` and ``std`` are those of the pixels, in 0 .. 1, that the model was trained with."""
        self.network = convolutional(model).to(device)
        self.mean, self.std, self.device = mean[0], std[0], device

    @torch.no_grad()
    def maps(self, images: np.ndarray) -> Iterator[tuple[Tensor, float]]:
        """For each level of the pyramid of square canvases uint8 ``[N, S, S]``: the probabilities of the digits
        ``[N, 10, h, w]``, and how many pixels of the canvas one of the level is."""
        canvas = images.shape[-1]
        for scale in np.geomspace(*SCALES, LEVELS):
            level = np.stack([resize(image, round(canvas / scale)) for image in images])
            # A border, so that digits at the very edge have a window that is centred on them.
            pixels = F.pad(torch.from_numpy(level)[:, None].to(self.device).float() / 255, [MARGIN] * 4)
            logits = self.network((pixels - self.mean) / self.std)
            yield logits.softmax(1)[:, :10].cpu(), canvas / level.shape[-1]

    def detect(self, images: np.ndarray, at_once: int = 50) -> list[Detections]:
        """What is on each of the canvases uint8 ``[N, S, S]``, after non-maximum suppression over all levels."""
        found = []
        for start in range(0, len(images), at_once):
            part = images[start : start + at_once]
            candidates, canvas = [], []
            for probabilities, pixel in self.maps(part):
                scores, labels = probabilities.max(1)
                numbers, rows, columns = places = (scores >= LEAST).nonzero(as_tuple=True)
                # A window starts MARGIN before this corner, because of the border, and its box MARGIN after its start.
                corners = torch.stack([columns, rows], 1) * STRIDE
                boxes = torch.cat([corners, corners + WINDOW - 2 * MARGIN], 1) * pixel
                candidates.append(torch.column_stack([boxes, scores[places], labels[places]]))
                canvas.append(numbers)
            candidates, canvas = torch.cat(candidates), torch.cat(canvas)
            found += [suppress(candidates[canvas == number]) for number in range(len(part))]
        return found

    def heat_maps(self, image: np.ndarray) -> Tensor:
        """The probability ``[10, S, S]`` that a digit of each class, of any size, has its centre at each pixel of one
        canvas uint8 ``[S, S]``: the largest over the levels, brought to the canvas's size."""
        heat = torch.zeros(10, *image.shape)
        for probabilities, pixel in self.maps(image[None]):
            height, width = probabilities.shape[-2:]
            first, step = pixel * (WINDOW / 2 - MARGIN), pixel * STRIDE
            # grid_sample counts from -1 to 1 between the outer edges of the map; a pixel's centre is half in.
            at = ((torch.arange(len(image)) + 0.5 - first) / step + 0.5) * 2
            y, x = torch.meshgrid(at / height - 1, at / width - 1, indexing="ij")
            level = F.grid_sample(probabilities, torch.stack([x, y], -1)[None], align_corners=False)[0]
            heat = torch.maximum(heat, level)
        return heat


def suppress(candidates: Tensor) -> Detections:
    """Voting, then greedy non-maximum suppression, of candidates ``[n, 6]`` (box, probability, class).

    A digit is seen by several windows, an accident of the classifier by one. So the score of a candidate is the sum of
    the probabilities of all that agree with it, weighted by their overlap; and its box is their mean, weighted alike,
    which is finer than the steps of the pyramid (box voting: Gidaris & Komodakis 2015). Suppression is over all classes
    at once: two digits do not stand in one place.
    """
    candidates = candidates[candidates[:, 4].argsort(descending=True, stable=True)[:CANDIDATES]]
    boxes, probabilities, labels = candidates[:, :4], candidates[:, 4], candidates[:, 5].long()
    overlap = box_iou(boxes, boxes) * (labels[:, None] == labels)
    votes = overlap * (overlap >= AGREE) * probabilities
    scores = votes.sum(1)
    keep = nms(boxes, scores, OVERLAP)
    return Detections((votes @ boxes / scores[:, None])[keep], scores[keep], labels[keep])


def right(found: Detections, boxes: Tensor, labels: Tensor) -> Tensor:
    """Which detections ``[n]`` are right: each, the most certain first, takes the digit of its class that it overlaps
    most among those not yet taken, by an intersection over union of 0.5 at least (Everingham et al. 2010, VOC).

    As a detection only depends on more certain ones, those above any threshold are judged alike.
    """
    overlap = box_iou(found.boxes, boxes) * (found.labels[:, None] == labels)
    is_right = torch.zeros(len(found.scores), dtype=torch.bool)
    if len(boxes):
        for row in range(len(overlap)):
            best, column = overlap[row].max(0)
            if best >= RIGHT:
                is_right[row] = True
                overlap[:, column] = 0
    return is_right


def counts(found: list[Detections], canvases: Canvases, threshold: float) -> Tensor:
    """For each canvas ``[N, 3]``: right detections, detections, digits."""
    rows = []
    for each, boxes, labels in zip(found, canvases.boxes, canvases.labels, strict=True):
        each = each.above(threshold)
        rows.append([int(right(each, boxes, labels).sum()), len(each.scores), len(boxes)])
    return torch.tensor(rows)


def f1(means: Tensor) -> Tensor:
    """F1, the harmonic mean of precision and recall, of (right detections, detections, digits) ``[..., 3]``."""
    return 2 * means[..., 0] / (means[..., 1] + means[..., 2]).clamp(min=1e-9)


def best_threshold(found: list[Detections], canvases: Canvases) -> float:
    """The score from which on to report a detection, for the best F1 on these canvases; where nothing at all was found
    on them, as by a classifier that has learned next to nothing, the least there is."""
    pairs = zip(found, canvases.boxes, canvases.labels, strict=True)
    is_right = torch.cat([right(each, boxes, labels) for each, boxes, labels in pairs])
    scores, order = torch.cat([each.scores for each in found]).sort(descending=True)
    if len(scores) == 0:
        return LEAST
    digits = sum(map(len, canvases.labels))
    reported = torch.arange(1, len(scores) + 1)
    # Halfway to the next score, so that a new canvas does not have to match a score to the last bit.
    best = f1(torch.stack([is_right[order].cumsum(0), reported, torch.full_like(reported, digits)], 1)).argmax()
    below = scores[best + 1].item() if best + 1 < len(scores) else 0.0
    return (scores[best].item() + below) / 2


def measure(found: list[Detections], canvases: Canvases, threshold: float) -> dict[str, float | list[float]]:
    """Precision, recall and F1, with its 95 % interval, the canvases resampled."""
    rows = counts(found, canvases, threshold)
    correct, reported, digits = rows.sum(0).tolist()
    return {
        "f1": f1(rows.sum(0)).item(),
        "f1_interval": list(bootstrap_interval(rows, f1)),
        "precision": correct / max(reported, 1),
        "recall": correct / max(digits, 1),
        "threshold": threshold,
        "canvases": len(canvases),
        "digits": digits,
    }
