"""The figure of a detector: canvases with true and found boxes, and the heat map behind them."""

from collections.abc import Iterable

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from lab1.detection.detector import Detections


def detection_figure(canvases: Iterable[tuple[np.ndarray, Tensor, Detections, Tensor]]) -> Figure:
    """A column a canvas: boxes above, heat map of all digits below, coloured by the class that is most probable.

    Args:
        canvases: of each the image ``[S, S]``, the true boxes ``[n, 4]``, what was found, the heat maps ``[10, S, S]``.
    """
    canvases = list(canvases)
    figure = Figure(figsize=(3 * len(canvases), 6.3), layout="constrained", dpi=80)
    axes = figure.subplots(2, len(canvases), squeeze=False)
    palette = np.array(_palette())
    for column, (image, boxes, found, heat) in enumerate(canvases):
        above, below = axes[:, column]
        above.imshow(image, cmap="gray", vmin=0, vmax=255)
        for box in boxes.tolist():
            _outline(above, box, "white", 0.8, "--")
        for box, label in zip(found.boxes.tolist(), found.labels.tolist(), strict=True):
            _outline(above, box, palette[label], 1.6, "-")
            above.text(box[0], box[1] - 2, str(label), color=palette[label], fontsize=10, weight="bold")
        probability, label = heat.max(0)
        below.imshow(palette[label.numpy()] * probability.numpy()[:, :, None])
        for panel in (above, below):
            panel.set(xticks=[], yticks=[])
    axes[0, 0].set_ylabel("found (dashed: true)")
    axes[1, 0].set_ylabel("probability of a digit's centre")
    handles = [Rectangle((0, 0), 1, 1, color=color) for color in palette]
    figure.legend(handles, range(10), loc="outside lower center", ncols=10, frameon=False, title="class")
    return figure


def _palette():
    from matplotlib import colormaps

    return colormaps["tab10"].colors


def _outline(axes, box, color, width, style):
    x0, y0, x1, y1 = box
    # The middle of the first pixel is at 0 in imshow, its edge at -0.5.
    axes.add_patch(Rectangle((x0 - 0.5, y0 - 0.5), x1 - x0, y1 - y0, fill=False, ec=color, lw=width, ls=style))
