"""What is on the figure of a detector, by hand."""

import numpy as np
import torch

from lab1.detection import canvases, detector
from lab1.detection.figure import Example, detection_figure, missed
from lab1.detection.trainer import chosen


def found(boxes, labels):
    """Detections of one canvas, the most certain first."""
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return detector.Detections(boxes, torch.arange(len(boxes), 0, -1).float(), torch.tensor(labels))


TRUE = torch.tensor([[10.0, 10, 30, 30], [50, 50, 70, 70], [90, 90, 110, 110]]), torch.tensor([1, 2, 3])
# The first is right, the second of another class than what stands there, the third where there is nothing.
FOUND = found([[12.0, 10, 32, 30], [50, 50, 70, 70], [130, 130, 150, 150]], [1, 7, 5])


def test_what_is_right_wrong_and_missed_is_marked_apart():
    heat = torch.zeros(10, 160, 160)
    heat[4, 80, 80] = 0.75
    example = Example("a canvas", np.zeros((160, 160), np.uint8), *TRUE, FOUND, heat)
    figure = detection_figure([example])
    above, below, bar = figure.axes
    assert above.get_title() == "a canvas"
    marks = [(patch.get_xy(), patch.get_linewidth(), patch.get_linestyle()) for patch in above.patches]
    assert marks == [
        ((11.5, 9.5), 1.3, "-"),
        ((49.5, 49.5), 3, "-"),
        ((129.5, 129.5), 3, "-"),
        ((49.5, 49.5), 2, marks[3][2]),
        ((89.5, 89.5), 2, marks[3][2]),
    ]
    assert marks[3][2] != "-"
    assert [text.get_text() for text in above.texts] == ["1", "7", "5", "2", "3"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "right",
        "wrong: no such digit there",
        "missed digit",
    ]
    (image,) = below.images
    assert image.get_array().max() == image.get_array()[80, 80] == 0.75
    assert bar.get_ylabel() == "probability of the centre\nof any digit"


def test_missed_by_hand():
    boxes, labels = TRUE
    is_right = detector.right(FOUND, boxes, labels)
    assert is_right.tolist() == [True, False, False]
    assert missed(FOUND, is_right, boxes, labels).tolist() == [False, True, True]
    assert missed(found([], []), torch.zeros(0, dtype=torch.bool), boxes, labels).tolist() == [True, True, True]


def test_the_figure_shows_the_first_canvas_and_the_first_mistake():
    boxes, labels = TRUE
    good, bad = found(boxes.tolist(), labels.tolist()), FOUND
    drawn = canvases.Canvases(np.zeros((3, 160, 160), np.uint8), [boxes] * 3, [labels] * 3)
    assert chosen([good, good, bad], drawn, 0.0) == {0: "the first", 2: "the first with a mistake"}
    assert chosen([bad, good, bad], drawn, 0.0) == {0: "the first with a mistake"}
    assert chosen([good, good, good], drawn, 0.0) == {0: "the first"}
    extra = found([*boxes.tolist(), [130.0, 130, 150, 150]], [*labels.tolist(), 5])
    assert chosen([good, extra, bad], drawn, 0.0) == {0: "the first", 1: "the first with a mistake"}
