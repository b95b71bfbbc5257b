"""How good class activation maps are, on images whose objects have known boxes."""

from typing import Any

import torch
from torch import Tensor, nn

from lab1 import models
from lab1.engine.metrics import bootstrap_interval
from lab1.explanation import cam
from lab1.explanation.sheet import predict

FEW = 500  # images for deletion and insertion, which take 34 forward passes each
PART = 500  # images in one forward pass


def evaluate(model: nn.Module, inputs: Tensor, labels: Tensor, boxes: Tensor, seed: int) -> dict[str, Any]:
    """How well the maps of the predicted class do, beside maps that know nothing of the network; each with its 95 %
    interval, the images resampled. Most objects cover the middle of the image, so ``off_centre`` is the pointing game
    on those that do not.

    - ``cam``: the class activation map
    - ``grad-cam, 16 x 16``: Grad-CAM at the end of the second stage, a finer map of simpler features
    - ``random weights``: the class activation map of a network that was never trained (Adebayo et al. 2018)
    - ``random map``: noise of the class activation map's resolution
    - ``centre``: the middle of the image, whatever it shows; ``chance``: the box's share of the image

    Args:
        inputs: normalised images ``[N, 3, H, W]``. labels: ``[N]``. boxes: ``[N, 4]`` in pixels.
        seed: of the random maps and the random weights.
    """
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    untrained = models.build(models.describe(model)).to(inputs.device).eval()
    height, width = inputs.shape[2:]
    classes = predict(model, inputs).argmax(1)
    parts = list(zip(inputs.split(PART), classes.split(PART), strict=True))
    middle = end_of_second_stage(model)
    maps = {
        "cam": torch.cat([class_map(model, *part) for part in parts]),
        "grad-cam, 16 x 16": torch.cat([cam.grad_cam(model, *part, middle) for part in parts]),
        "random weights": torch.cat([class_map(untrained, *part) for part in parts]),
    }
    maps["random map"] = torch.rand(maps["cam"].shape, generator=generator)
    maps = {name: cam.enlarge(each.cpu(), (height, width)) for name, each in maps.items()}
    centre = torch.zeros(1, height, width)
    centre[:, height // 2 - 1 : height // 2 + 1, width // 2 - 1 : width // 2 + 1] = 1
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) / (height * width)

    pointing = {name: cam.pointing_game(each, boxes) for name, each in maps.items()}
    pointing |= {"centre": cam.pointing_game(centre.expand(len(boxes), -1, -1), boxes), "chance": area}
    off_centre = pointing["centre"] == 0
    deletion, insertion = {}, {}
    for name, each in maps.items():
        few = inputs[:FEW], each[:FEW].to(inputs.device), classes[:FEW]
        deletion[name], insertion[name] = cam.deletion_insertion_auc(model, *few)
    return {
        "images": len(inputs),
        "accuracy": (classes.cpu() == labels).double().mean().item(),
        "pointing_game": {name: _mean(values) for name, values in pointing.items()},
        "off_centre": {name: _mean(values[off_centre]) for name, values in pointing.items()},
        "off_centre_images": int(off_centre.sum()),
        "deletion_auc": {name: _mean(values) for name, values in deletion.items()},
        "insertion_auc": {name: _mean(values) for name, values in insertion.items()},
    }


@torch.no_grad()
def class_map(model: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
    """The class activation map ``[N, h, w]`` of one class for each image."""
    return cam.class_activation_map(model.features(images), model.head)[torch.arange(len(classes)), classes]


def end_of_second_stage(model: nn.Module) -> int:
    """The index in ``model.body`` of what precedes the second halving: the last map of 16 x 16."""
    layers = enumerate(model.body)
    halving = [index for index, layer in layers if isinstance(layer, nn.Sequential) and layer[0].stride == (2, 2)]
    return halving[1] - 1


def _mean(values: Tensor) -> dict[str, Any] | None:
    if len(values) == 0:
        return None
    values = values.cpu().double()  # in this order: MPS has no float64
    return {
        "mean": values.mean().item(),
        "interval": list(bootstrap_interval(values[:, None], lambda means: means[:, 0])),
    }


def table(found: dict[str, Any]) -> str:
    """What ``evaluate`` returned, as people read it: means and their intervals."""
    metrics = ("pointing_game", "off_centre", "deletion_auc", "insertion_auc")
    lines = [f"{'':18s}" + "".join(f"{metric.replace('_', ' '):>24s}" for metric in metrics)]
    for name in found["pointing_game"]:
        cells = [_in_words(found[metric].get(name)) for metric in metrics]
        lines.append((f"{name:18s}" + "".join(f"{cell:>24s}" for cell in cells)).rstrip())
    return "\n".join(lines)


def _in_words(cell: dict[str, Any] | None) -> str:
    if cell is None:
        return ""
    low, high = cell["interval"]
    return f"{cell['mean']:.3f} ({low:.3f}-{high:.3f})"
