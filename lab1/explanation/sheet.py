"""The contact sheet of class activation maps: images, the network's most probable classes, and the map of each."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from torch import Tensor, nn

from lab1.engine.figures import plain
from lab1.explanation.cam import class_activation_map, grad_cam, overlay
from lab1.images.files import read_image

LARGEST = 640  # pixels of an image's longer side on the sheet


@dataclasses.dataclass
class Example:
    """An image to explain: its name on the sheet, uint8 ``[H, W, 3]``, or ``[H, W, 1]`` if grey, of any size and, if
    known, its true class and the box of its object: x0, y0, x1, y1 in pixels, x1 and y1 just beyond it."""

    name: str
    pixels: np.ndarray
    label: int | None = None
    box: list[int] | None = None


def read_example(path: Path) -> Example:
    """An image file, read as those of a folder of one's own are (see ``lab1.images.files``).

    Raises:
        UsageError: where it cannot be read as an image.
    """
    return Example(path.name, np.asarray(read_image(path)))


def network_input(pixels: np.ndarray, about: dict[str, Any]) -> Tensor:
    """Uint8 ``[N, H, W, C]`` or ``[H, W, C]`` -> what the network was trained on, ``[N, C, H', W']`` float32. One image
    is brought to its size, if it has another, as those of a folder of one's own are, and to its channels, 1 or 3."""
    if pixels.ndim == 3:
        (height, width), channels = about.get("size", (32, 32)), len(about["mean"])  # older runs do not have it
        if pixels.shape != (height, width, channels):
            image = Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels)
            image = image.convert("L" if channels == 1 else "RGB").resize((width, height), Image.Resampling.BILINEAR)
            pixels = np.array(image).reshape(height, width, channels)
        pixels = pixels[None]
    scaled = torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))).float() / 255
    mean, std = (torch.tensor(about[name]).reshape(-1, 1, 1) for name in ("mean", "std"))
    return (scaled - mean) / std


def predict(model: nn.Module, inputs: Tensor) -> Tensor:
    """The probabilities ``[N, classes]`` of inputs ``[N, C, H, W]``, in parts that fit in memory."""
    with torch.no_grad():
        return torch.cat([model(part).softmax(1) for part in inputs.split(500)])


def maps_of(model: nn.Module, inputs: Tensor, classes: Tensor, method: str) -> Tensor:
    """The maps ``[K, h, w]`` of K classes of one input ``[1, 3, H, W]``."""
    with torch.no_grad():
        if method == "cam":
            return class_activation_map(model.features(inputs), model.head)[0, classes]
        return grad_cam(model, inputs.expand(len(classes), -1, -1, -1), classes)


def contact_sheet(
    examples: list[Example], model: nn.Module, about: dict[str, Any], method: str, top: int
) -> tuple[Figure, list[dict[str, Any]]]:
    """The contact sheet, and what it says in numbers: of each image the classes shown, and their probabilities.

    All maps of an image share one scale, from 0 to the largest value; what is negative speaks against the class and is
    shown as 0. Where the true class is not among the ``top`` most probable, it takes the place of the last of them; its
    title is bold. A known box is drawn dashed.
    """

    classes, top = about["classes"], min(top, len(about["classes"]))
    device = next(model.parameters()).device
    figure = Figure(figsize=(1.8 * (top + 1), 2.15 * len(examples) + 0.8), layout="constrained", dpi=110)
    axes = figure.subplots(len(examples), top + 1, squeeze=False)
    said = []
    for example, row in zip(examples, axes, strict=True):
        inputs = network_input(example.pixels, about).to(device)
        probabilities = predict(model, inputs)[0]
        shown = probabilities.topk(top).indices.tolist()
        if top > 1 and example.label is not None and example.label not in shown:
            shown[-1] = example.label
        maps = maps_of(model, inputs, torch.tensor(shown, device=device), method).cpu().numpy()
        large = max(1, 160 // max(example.pixels.shape[:2]))  # small images would hide the map's smooth course
        colors = example.pixels.repeat(3 // example.pixels.shape[-1], -1)
        pixels = np.asarray(_at_most(colors, LARGEST)).repeat(large, 0).repeat(large, 1)
        row[0].imshow(pixels)
        truth = None if example.label is None else classes[example.label]
        named = "" if truth is None else f"label: {truth}"
        row[0].set_title(plain(f"{example.name}\n{named}"), fontsize=11)
        for panel, label, heat in zip(row[1:], shown, maps, strict=True):
            panel.imshow(overlay(pixels, heat, maps.max()))
            right = label == example.label
            title = f"{classes[label]}{' (label)' if right else ''}\n{percent(probabilities[label])}"
            panel.set_title(plain(title), fontsize=11, weight="bold" if right else "normal")
        for panel in row:
            panel.set_axis_off()
            if example.box is not None:
                _outline(panel, [edge * large for edge in example.box])
        named = {classes[label]: probabilities[label].item() for label in shown}
        said.append({"image": example.name, "class": truth, "probabilities": named})
        guesses = ", ".join(f"{name} {percent(share)}" for name, share in named.items())
        print(f"{example.name}{f' ({truth})' if truth else ''}: {guesses}")
    _color_bar(figure, axes, method)
    boxes = any(example.box is not None for example in examples)
    kind = "Class activation maps" if method == "cam" else "Grad-CAM"
    figure.suptitle(f"{kind}\ndashed: the object's box" if boxes else kind, fontsize=12)
    return figure, said


def _at_most(pixels: np.ndarray, size: int) -> Image.Image:
    """An image ``[H, W, 3]`` of no more than ``size`` pixels a side: a photograph's maps would fill the memory."""
    image = Image.fromarray(pixels)
    image.thumbnail((size, size), Image.Resampling.BOX)  # leaves smaller ones as they are
    return image


def _color_bar(figure: Figure, axes: np.ndarray, method: str) -> None:
    """What the colours of ``overlay`` mean, as they are on a medium grey."""
    scale = np.linspace(0, 1, 256, dtype=np.float32)[None]
    colors = overlay(np.full((1, 256, 3), 128, np.uint8), scale, 1.0)[0] / 255
    place = dict(location="bottom", aspect=40, shrink=0.8, pad=0.02)
    bar = figure.colorbar(ScalarMappable(cmap=ListedColormap(colors)), ax=axes, ticks=[0, 1], **place)
    lowest = "nothing for the class,\nor against it" if method == "cam" else "nothing\nfor the class"
    bar.ax.set_xticklabels([lowest, "most for the class,\nof all maps in the row"], fontsize=11)
    for label, side in zip(bar.ax.get_xticklabels(), ("left", "right"), strict=True):
        label.set_horizontalalignment(side)
    bar.outline.set_visible(False)


def _outline(panel: Axes, box: list[int]) -> None:
    """A dashed white box on black, which shows on any colour."""
    x0, y0, x1, y1 = box
    # The middle of the first pixel is at 0 in imshow, its edge at -0.5.
    for color, style in (("black", "-"), ("white", (0, (4, 4)))):
        panel.add_patch(Rectangle((x0 - 0.5, y0 - 0.5), x1 - x0, y1 - y0, fill=False, ec=color, lw=1.5, ls=style))


def percent(share: float) -> str:
    """``0.1234`` as people read it: ``12.3 %``."""
    return f"{100 * share:.1f} %"
