"""The figure of a detector: canvases with what it found, right or wrong, what it missed, and the heat map behind."""

import dataclasses
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor
from torchvision.ops import box_iou

from lab1.detection.detector import RIGHT, Detections, right

# On the black canvas; width and dashes tell the same to those who do not see the colours.
STYLES = {
    "right": dict(ec="white", lw=1.3, ls="-"),
    "wrong: no such digit there": dict(ec="#f0e442", lw=3, ls="-"),
    "missed digit": dict(ec="white", lw=2, ls=(0, (2, 1.5))),
}


@dataclasses.dataclass
class Example:
    """A canvas to show: its title, the image ``[S, S]``, the true boxes ``[n, 4]`` and classes ``[n]``, what was found,
    and the heat maps ``[10, S, S]``."""

    title: str
    image: np.ndarray
    boxes: Tensor
    labels: Tensor
    found: Detections
    heat: Tensor


def detection_figure(examples: list[Example]) -> Figure:
    """A column a canvas: above, the boxes that were found, right or wrong, with their class, and the digits that were
    missed; below, the heat map of all digits."""
    figure = Figure(figsize=(2.4 * len(examples) + 0.6, 6), layout="constrained", dpi=110)
    axes = figure.subplots(2, len(examples), squeeze=False)
    right_style, wrong_style, missed_style = STYLES.values()
    for (above, below), example in zip(axes.T, examples, strict=True):
        above.imshow(example.image, cmap="gray", vmin=0, vmax=255)
        above.set_title(example.title, fontsize=11)
        found = example.found
        is_right = right(found, example.boxes, example.labels)
        for box, label, good in zip(found.boxes, found.labels, is_right, strict=True):
            _outline(above, box, label, right_style if good else wrong_style)
        is_missed = missed(found, is_right, example.boxes, example.labels)
        for box, label in zip(example.boxes[is_missed], example.labels[is_missed], strict=True):
            _outline(above, box, label, missed_style, beside=True)
        below.imshow(example.heat.amax(0).numpy(), cmap="viridis", vmin=0, vmax=1)
        for panel in (above, below):
            panel.set(xticks=[], yticks=[])
    axes[0, 0].set_ylabel("what was found", fontsize=11)
    axes[1, 0].set_ylabel("heat map", fontsize=11)
    bar = figure.colorbar(ScalarMappable(cmap="viridis"), ax=axes[1], aspect=15, pad=0.01, ticks=[0, 0.5, 1])
    bar.set_label("probability of the centre\nof any digit", fontsize=11)
    handles = [Rectangle((0, 0), 1, 1, fc="black", **style) for style in STYLES.values()]
    look = dict(fontsize=11, handleheight=1.2, facecolor="black", labelcolor="white", framealpha=1)
    figure.legend(handles, STYLES, loc="outside lower center", ncols=3, **look)
    return figure


def missed(found: Detections, is_right: Tensor, boxes: Tensor, labels: Tensor) -> Tensor:
    """Which of the true digits ``[n]`` none of the right detections stands for."""
    same = found.labels[is_right][:, None] == labels
    return ~(same & (box_iou(found.boxes[is_right], boxes) >= RIGHT)).any(0)


def _outline(axes: Axes, box: Tensor, label: Tensor, style: dict[str, Any], beside: bool = False) -> None:
    """A box with its class above it, or at its right, where it stands clear of that of another box."""
    x0, y0, x1, y1 = box.tolist()
    # The middle of the first pixel is at 0 in imshow, its edge at -0.5.
    axes.add_patch(Rectangle((x0 - 0.5, y0 - 0.5), x1 - x0, y1 - y0, fill=False, **style))
    place = (x1 + 2, y1) if beside else (x0, y0 - 2)
    axes.text(*place, str(int(label)), color=style["ec"], fontsize=11, weight="bold")
