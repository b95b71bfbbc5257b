"""Class activation maps, and three ways to ask how good a map is. Plain functions of tensors."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms.functional import gaussian_blur


def class_activation_map(features: Tensor, head: nn.Linear) -> Tensor:
    """What each place of the last map gives to each class (Zhou et al. 2016, eq. 2): features ``[N, C, H, W]`` ->
    ``[N, classes, H, W]``.

    The bias is left out, as it stands in no place: the mean over space, plus the bias, is the logit of a network that
    averages over space before its linear layer.
    """
    return torch.einsum("nchw,kc->nkhw", features, head.weight)


def grad_cam(model: nn.Module, images: Tensor, classes: Tensor, layer: int = -1) -> Tensor:
    """Grad-CAM (Selvaraju et al. 2017, eq. 1 and 2) of one class an image, at the output of a layer of ``model.body``:
    images ``[N, C, H, W]`` and classes ``[N]`` -> ``[N, h, w]``, not negative.

    At the last layer it is the positive part of the class activation map, divided by the number of places: the weight
    of a channel, the mean gradient over space, is the one in the linear layer over the number of places.
    """
    layer %= len(model.body)
    with torch.no_grad():
        features = model.body[: layer + 1](images)
    features.requires_grad_()
    with torch.enable_grad():
        logits = model.head(model.body[layer + 1 :](features).mean((2, 3)))
        # Images do not touch each other in evaluation mode, so the sum's gradient holds that of every image.
        (gradients,) = torch.autograd.grad(logits.gather(1, classes[:, None]).sum(), features)
    weights = gradients.mean((2, 3), keepdim=True)
    return (weights * features.detach()).sum(1).relu()


def enlarge(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps ``[N, h, w]`` at the size (height, width) of the images, bilinearly: ``[N, height, width]``."""
    return F.interpolate(maps[:, None], size=size, mode="bilinear")[:, 0]


def overlay(image: np.ndarray, heat: np.ndarray, largest: float) -> np.ndarray:
    """A map laid over an image, RGB uint8 ``[H, W, 3]`` both what comes in and what goes out; the image is turned grey,
    so that every colour is the map's, and the map ``[h, w]`` is enlarged to the image's size.

    Args:
        largest: the value that gets the last colour; 0 and what is below get the first. A map that is 0 everywhere,
            with ``largest`` 0, gets the first colour everywhere.
    """
    import cv2

    height, width = image.shape[:2]
    heat = cv2.resize(heat.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    level = (heat.clip(0) / largest).clip(max=1) if largest > 0 else np.zeros_like(heat)
    colors = cv2.applyColorMap((255 * level).round().astype(np.uint8), cv2.COLORMAP_VIRIDIS)
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return cv2.addWeighted(grey, 0.45, cv2.cvtColor(colors, cv2.COLOR_BGR2RGB), 0.55, 0)


def pointing_game(maps: Tensor, boxes: Tensor) -> Tensor:
    """Whether the largest value of each map ``[N, H, W]`` lies in the object's box ``[N, 4]``: 1 or 0, ``[N]`` (Zhang
    et al. 2018, without their tolerance of 15 pixels).

    Where several places share the largest value, the share of them in the box: a flat map gets what chance would.
    """
    height, width = maps.shape[1:]
    x0, y0, x1, y1 = (edge[:, None, None] for edge in boxes.unbind(1))
    y, x = torch.arange(height)[:, None], torch.arange(width)
    inside = (x0 <= x) & (x < x1) & (y0 <= y) & (y < y1)
    largest = maps == maps.amax((1, 2), keepdim=True)
    return (largest & inside).sum((1, 2)) / largest.sum((1, 2))


@torch.no_grad()
def deletion_insertion_auc(
    model: nn.Module, images: Tensor, maps: Tensor, classes: Tensor, steps: int = 16
) -> tuple[Tensor, Tensor]:
    """How the probability of a class falls as the pixels that a map ranks first are deleted, and how it rises as they
    are inserted (Petsiuk et al. 2018): areas under both curves, each ``[N]`` in 0 .. 1. A good map has a small area of
    deletion and a large one of insertion.

    Args:
        images: normalised, ``[N, C, H, W]``. maps: ``[N, H, W]``. classes: ``[N]``.
        steps: a curve has as many steps, each of the same number of pixels.

    A deleted pixel is 0, the mean colour of the training set; insertion starts from the blurred image, since a black
    one has edges of its own.
    """
    count, _, height, width = images.shape
    order = maps.flatten(1).argsort(dim=1, descending=True, stable=True)
    places = torch.arange(height * width, device=order.device).expand(count, -1).contiguous()
    rank = torch.empty_like(order).scatter_(1, order, places)
    rank = rank.reshape(count, 1, height, width)
    blurred = gaussian_blur(images, 11, 5.0)
    deletion, insertion = [], []
    for step in range(steps + 1):
        first = rank < round(height * width * step / steps)
        for curve, image in ((deletion, images.masked_fill(first, 0)), (insertion, images.where(first, blurred))):
            curve.append(model(image).softmax(1).gather(1, classes[:, None])[:, 0])
    return tuple(torch.trapezoid(torch.stack(curve), dim=0) / steps for curve in (deletion, insertion))
