"""Ten shapes drawn on cluttered backgrounds: a data set that needs no download, with a known box around each object.

One object in each 32 x 32 image, of random size, place, angle and colour, on a background of two kinds of clutter:
soft patches of colour, and streaks and corners in the colours of objects, one of them perhaps across the object.
"""

import numpy as np
import torch

SIZE = 32  # pixels of an image's side
FINE = 4  # masks are drawn this many times as large and scaled down, which makes their edges smooth
RADIUS = (5, 8)  # pixels; so small that pointing at the middle of the image hits only half of the boxes
CONTRAST = 90  # least distance in RGB, of 0 .. 255 each, between the object and the mean colour behind it


def _regular(corners: int, turn: float = 0.0) -> np.ndarray:
    """A regular polygon in the unit circle, ``[corners, 2]``, its first corner up."""
    angles = 2 * np.pi * np.arange(corners) / corners - np.pi / 2 + turn
    return np.stack([np.cos(angles), np.sin(angles)], 1)


def _outlines() -> dict[str, list[np.ndarray]]:
    """The outlines of each shape, in the unit circle; a second outline is a hole."""
    circle = _regular(60)
    star = _regular(10) * np.where(np.arange(10) % 2 == 0, 1.0, 0.42)[:, None]
    third = 1 / 3
    cross = [(third, 1), (third, third), (1, third), (1, -third), (third, -third), (third, -1)]
    cross = np.array(cross + [(-x, -y) for x, y in cross]) * 0.92
    arrow = np.array([(0, -1), (0.75, -0.1), (0.28, -0.1), (0.28, 0.95), (-0.28, 0.95), (-0.28, -0.1), (-0.75, -0.1)])
    # A crescent: most of the unit circle, and back along a smaller circle that is shifted to the right.
    horn = np.linspace(0.30 * np.pi, 1.70 * np.pi, 40)
    back = np.linspace(1.62 * np.pi, 0.38 * np.pi, 40)
    inner = np.stack([0.42 + 0.76 * np.cos(back), 0.76 * np.sin(back)], 1)
    crescent = np.concatenate([np.stack([np.cos(horn), np.sin(horn)], 1), inner])
    t = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    heart = np.stack([16 * np.sin(t) ** 3, -13 * np.cos(t) + 5 * np.cos(2 * t) + 2 * np.cos(3 * t) + np.cos(4 * t)], 1)
    return {
        "circle": [circle],
        "square": [_regular(4)],
        "triangle": [_regular(3)],
        "star": [star],
        "cross": [cross],
        "ring": [circle, 0.55 * circle],
        "diamond": [_regular(4) * (0.5, 1.0)],
        "crescent": [crescent],
        "arrow": [arrow],
        "heart": [heart / 17],
    }


OUTLINES = _outlines()
CLASSES = list(OUTLINES)


def draw(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Draw ``count`` images, as many of each class as can be; the same ones for the same seed.

    Returns:
        images uint8 ``[N, 3, 32, 32]``, labels int64 ``[N]``, boxes int64 ``[N, 4]``: x0, y0, x1, y1 in pixels, the
        first column and row of the object and the first ones beyond it.
    """
    random = np.random.default_rng(seed)
    labels = random.permutation(np.arange(count) % len(CLASSES))
    images = np.empty((count, SIZE, SIZE, 3), np.uint8)
    boxes = np.empty((count, 4), np.int64)
    for row, label in enumerate(labels):
        images[row], mask = draw_one(OUTLINES[CLASSES[label]], random)
        boxes[row] = box_of(mask)
    images = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    return images, torch.from_numpy(labels), torch.from_numpy(boxes)


def draw_one(outlines: list[np.ndarray], random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """One image, RGB ``[32, 32, 3]`` uint8, of the shape with these outlines; and its mask ``[32, 32]`` in 0 .. 1, the
    share of each pixel that the object covers."""
    image = background(random)
    mask = place(outlines, random)
    behind = (image * mask[:, :, None]).sum((0, 1)) / mask.sum()
    color = random.uniform(0, 255, 3)
    while np.linalg.norm(color - behind) < CONTRAST:
        color = random.uniform(0, 255, 3)
    image += mask[:, :, None] * (color - image)
    image = np.ascontiguousarray(image)
    streak(image, random)  # one more, which may lie across the object
    image += random.normal(0, 6, image.shape)
    return image.clip(0, 255).astype(np.uint8), mask


def place(outlines: list[np.ndarray], random: np.random.Generator) -> np.ndarray:
    """The mask ``[32, 32]`` in 0 .. 1 of a shape at a random size, angle and place, wholly inside the image."""
    radius = random.uniform(*RADIUS)
    angle = random.uniform(0, 2 * np.pi)
    centre = random.uniform(radius, SIZE - radius, 2)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    import cv2

    fine = np.zeros((SIZE * FINE, SIZE * FINE), np.uint8)
    # Filled together, an outline inside another one is a hole.
    corners = [np.floor((outline @ turn * radius + centre) * FINE).astype(np.int32) for outline in outlines]
    cv2.fillPoly(fine, corners, 255)
    return cv2.resize(fine, (SIZE, SIZE), interpolation=cv2.INTER_AREA).astype(np.float64) / 255


def background(random: np.random.Generator) -> np.ndarray:
    """Clutter, RGB ``[32, 32, 3]`` in 0 .. 255: soft patches of colour under streaks and corners."""
    import cv2

    patches = random.uniform(50, 205, (4, 4, 3))
    image = cv2.resize(patches, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)
    for _ in range(random.integers(2, 5)):
        streak(image, random)
    for _ in range(random.integers(1, 3)):
        corner(image, random)
    return image


def streak(image: np.ndarray, random: np.random.Generator) -> None:
    """Draw a thin line of a random colour from anywhere to anywhere, in place."""
    import cv2

    (x0, y0), (x1, y1) = random.integers(0, SIZE, (2, 2)).tolist()
    cv2.line(image, (x0, y0), (x1, y1), random.uniform(0, 255, 3).tolist(), 1)


def corner(image: np.ndarray, random: np.random.Generator) -> None:
    """Draw a small bent stroke of a random colour, like a piece of some shape's edge, in place."""
    import cv2

    points = random.integers(0, SIZE, 2) + random.integers(-6, 7, (3, 2))
    cv2.polylines(image, [points.astype(np.int32)], False, random.uniform(0, 255, 3).tolist(), 2)


def box_of(mask: np.ndarray) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 of the pixels of a mask ``[H, W]`` that are not 0; x1 and y1 lie just beyond them."""
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
