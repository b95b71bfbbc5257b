"""Large canvases of handwritten digits, with a box around each: on a grid, or at random among clutter.

A box is a digit's frame: the 20 x 20 pixels in the middle of its 28 x 28 image, into which MNIST scales every digit,
scaled with it. So it is a square, and wider than the ink of a 1. Boxes are x0, y0, x1, y1 in pixels from the top left
corner; x1 and y1 lie just beyond.
"""

import dataclasses

import numpy as np
import torch

SIDE = 160  # pixels of a canvas's side
WINDOW = 28  # pixels of a digit's image, and of what a classifier sees
MARGIN = 4  # pixels between the window and the box, on each side
SCALES = (0.7, 1.5)  # smallest and largest digit on a random canvas, as multiples of its image
BACKGROUND = 10  # the class of a window that shows no digit, or none in its middle


@dataclasses.dataclass
class Canvases:
    """Grey images uint8 ``[N, SIDE, SIDE]``; of each, the boxes ``[n, 4]`` float32 and the classes ``[n]`` int64."""

    images: np.ndarray
    boxes: list[torch.Tensor]
    labels: list[torch.Tensor]

    def __len__(self) -> int:
        return len(self.images)


def draw(kind: str, digits: np.ndarray, labels: np.ndarray, count: int, seed: int) -> Canvases:
    """Draw ``count`` canvases, the same ones for the same seed.

    Args:
        kind: ``grid``, 4 x 4 digits of their own size on black; or ``random``, 3 to 8 digits of random size at random
            places, whose boxes do not overlap, among lines, pieces of other digits and noise.
        digits: uint8 ``[M, 28, 28]`` to choose from. labels: ``[M]``.
    """
    random = np.random.default_rng(seed)
    one = {"grid": _draw_grid, "random": _draw_random}[kind]
    images, boxes, classes = zip(*(one(digits, labels, random) for _ in range(count)), strict=True)
    return Canvases(
        np.stack(images),
        [torch.tensor(np.array(each), dtype=torch.float32).reshape(-1, 4) for each in boxes],
        [torch.tensor(np.array(each), dtype=torch.int64) for each in classes],
    )


def _draw_grid(digits, labels, random):
    canvas, boxes = np.zeros((SIDE, SIDE), np.uint8), []
    cell = SIDE // 4
    rows = random.integers(0, len(digits), 16)
    for place, row in enumerate(rows):
        y, x = (cell * part + (cell - WINDOW) // 2 for part in divmod(place, 4))
        canvas[y : y + WINDOW, x : x + WINDOW] = digits[row]
        boxes.append(frame(x, y, WINDOW))
    return canvas, boxes, labels[rows]


def _draw_random(digits, labels, random):
    import cv2

    canvas, boxes, classes = np.zeros((SIDE, SIDE), np.uint8), [], []
    for _ in range(random.integers(4, 11)):
        start, end = random.integers(0, SIDE, (2, 2)).tolist()
        cv2.line(canvas, start, end, int(random.integers(60, 220)), 1, cv2.LINE_AA)
    taken = []
    for row in random.integers(0, len(digits), random.integers(3, 9)):
        size = round(WINDOW * np.exp(random.uniform(*np.log(SCALES))))
        place = _free_place(taken, size, random)
        if place is not None:
            x, y = place
            _brighten(canvas, resize(digits[row], size), x, y)
            boxes.append(frame(x, y, size))
            classes.append(labels[row])
            taken.append(boxes[-1])
    for row in random.integers(0, len(digits), random.integers(2, 7)):
        # A piece of a digit: as bright and as thick as a whole one, but smaller than the smallest. It is no digit.
        length = random.integers(6, 11)
        top, left = random.integers(MARGIN, WINDOW - MARGIN - length + 1, 2)
        piece = digits[row, top : top + length, left : left + length]
        place = _free_place(taken, length + 2 * MARGIN, random)
        if place is not None:
            x, y = place[0] + MARGIN, place[1] + MARGIN
            _brighten(canvas, piece, x, y)
            taken.append((x, y, x + length, y + length))
    noisy = canvas + random.normal(0, 12, canvas.shape)
    return noisy.clip(0, 255).astype(np.uint8), boxes, classes


def frame(x: float, y: float, size: float) -> tuple[float, float, float, float]:
    """The box of a digit whose image of ``size`` pixels has its top left corner at x, y."""
    margin = MARGIN * size / WINDOW
    return x + margin, y + margin, x + size - margin, y + size - margin


def _free_place(taken, size, random):
    """A corner x, y for an image of ``size`` pixels whose box keeps 2 pixels from those taken; None if none is found
    in 50 attempts."""
    for _ in range(50):
        x, y = random.integers(0, SIDE - size + 1, 2)
        x0, y0, x1, y1 = frame(x, y, size)
        if all(x1 + 2 <= a0 or a1 + 2 <= x0 or y1 + 2 <= b0 or b1 + 2 <= y0 for a0, b0, a1, b1 in taken):
            return x, y
    return None


def _brighten(canvas, image, x, y):
    part = canvas[y : y + image.shape[0], x : x + image.shape[1]]
    np.maximum(part, image, out=part)


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """A square image ``[H, H]`` scaled to ``[size, size]``. Digits, training windows and the levels of the pyramid are
    all scaled in this way, so that a detector meets the kind of blur that it learned from."""
    import cv2

    shrinks = size < len(image)
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def windows(canvases: Canvases, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Windows of the canvases to learn from, labelled by what their frame overlaps: images uint8 ``[M, 1, 28, 28]``
    and labels ``[M]``.

    Around each digit two windows that nearly fit it and two that may not, and as many anywhere as digits. One whose
    box has an intersection over union (IoU) with a digit's of 0.55 or more is that digit, one below 0.35 is
    background, and what lies between is left out: so half and off-centre digits are background.
    """
    import cv2

    random = np.random.default_rng(seed)
    images, labels = [], []
    for canvas, boxes, classes in zip(canvases.images, canvases.boxes, canvases.labels, strict=True):
        truth = boxes.numpy()
        centres, sides = (truth[:, :2] + truth[:, 2:]) / 2, (truth[:, 2] - truth[:, 0]) * WINDOW / (WINDOW - 2 * MARGIN)
        candidates = []
        for shift, stretch in ((0.05, 0.05), (0.05, 0.05), (0.25, 0.2), (0.25, 0.2)):
            moved = centres + random.normal(0, 1, centres.shape) * shift * sides[:, None]
            candidates.append((moved, sides * np.exp(random.normal(0, stretch, len(sides)))))
        anywhere = np.exp(random.uniform(*np.log(np.array(SCALES) * WINDOW), len(sides)))
        candidates.append(
            (random.uniform(anywhere[:, None] / 2, SIDE - anywhere[:, None] / 2, centres.shape), anywhere)
        )
        middles, sizes = (np.concatenate(parts) for parts in zip(*candidates, strict=True))
        sizes = sizes.round().astype(int)
        corners = (middles - sizes[:, None] / 2).round().astype(int)
        margins = MARGIN * sizes[:, None] / WINDOW
        overlap = box_overlap(np.hstack([corners + margins, corners + sizes[:, None] - margins]), truth)
        best = overlap.argmax(1)
        overlap = overlap.max(1)
        padded = cv2.copyMakeBorder(canvas, SIDE, SIDE, SIDE, SIDE, cv2.BORDER_CONSTANT)
        for row in np.flatnonzero((overlap >= 0.55) | (overlap < 0.35)):
            (x, y), size = corners[row] + SIDE, sizes[row]
            images.append(resize(padded[y : y + size, x : x + size], WINDOW))
            labels.append(classes[best[row]].item() if overlap[row] >= 0.55 else BACKGROUND)
    return torch.from_numpy(np.stack(images))[:, None], torch.tensor(labels)


def box_overlap(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of each of the boxes ``[N, 4]`` with each of the others ``[M, 4]``: ``[N, M]``."""
    from torchvision.ops import box_iou

    return box_iou(torch.as_tensor(boxes).double(), torch.as_tensor(others).double()).numpy()
