"""The drawn shapes: a function of their seed, with boxes that hold all of the object."""

import math

import numpy as np
import pytest
import torch

from lab1.images import datasets, shapes

IMAGE = (3, 32, 32)


@pytest.fixture(scope="module")
def drawn():
    return shapes.draw(300, seed=5)


def test_shapes_have_the_form_of_a_data_set(drawn):
    images, labels, boxes = drawn
    assert (images.shape, images.dtype) == ((300, *IMAGE), torch.uint8)
    assert (labels.shape, labels.dtype) == ((300,), torch.int64)
    assert (boxes.shape, boxes.dtype) == ((300, 4), torch.int64)
    assert labels.bincount().tolist() == [30] * 10
    assert len(set(shapes.CLASSES)) == 10


def test_shapes_are_a_function_of_their_seed(drawn):
    again, other = shapes.draw(300, seed=5), shapes.draw(300, seed=6)
    for one, same, different in zip(drawn, again, other, strict=True):
        assert torch.equal(one, same)
        assert not torch.equal(one, different)


def test_boxes_lie_in_the_image_and_are_neither_specks_nor_the_whole(drawn):
    x0, y0, x1, y1 = drawn[2].unbind(1)
    assert min(x0.min(), y0.min()) >= 0
    assert max(x1.max(), y1.max()) <= 32
    sides = torch.stack([x1 - x0, y1 - y0])
    assert sides.min() >= 5
    assert sides.max() <= 17
    # What the pointing game is measured against: a random pixel, and the middle of the image.
    assert 0.1 < (sides.prod(0) / 32**2).mean() < 0.2
    assert ((x0 <= 16) & (x1 > 16) & (y0 <= 16) & (y1 > 16)).float().mean() < 0.55


@pytest.mark.parametrize("name", shapes.CLASSES)
def test_the_box_is_the_smallest_that_holds_all_of_the_object(name):
    random = np.random.default_rng(0)
    for _ in range(20):
        mask = shapes.place(shapes.OUTLINES[name], random)
        x0, y0, x1, y1 = shapes.box_of(mask)
        for edge in (mask[y0], mask[y1 - 1], mask[:, x0], mask[:, x1 - 1]):
            assert edge.any()
        mask[y0:y1, x0:x1] = 0
        assert not mask.any()


def test_a_box_by_hand():
    mask = np.zeros((32, 32))
    mask[3:5, 7] = 0.1
    mask[10, 2] = 1
    assert shapes.box_of(mask) == (2, 3, 8, 11)


@pytest.mark.parametrize("name", shapes.CLASSES)
def test_the_object_is_seen_where_the_mask_says_and_differs_from_what_is_behind(name):
    for seed in range(5):
        image, mask = shapes.draw_one(shapes.OUTLINES[name], np.random.default_rng(seed))
        behind = shapes.background(np.random.default_rng(seed))  # the same random numbers draw the same background
        inside, outside = mask == 1, mask == 0
        # Noise and one streak lie over both; the medians do not see them.
        changed = np.abs(image - behind).sum(2)
        assert np.median(changed[outside]) < 40 < np.median(changed[inside])
        object_colors = image[inside].astype(float)
        assert np.median(np.abs(object_colors - np.median(object_colors, 0))) < 10  # of one colour


def test_areas_are_those_of_geometry():
    # In the unit circle: a circle pi, a square 2, a triangle 3 sqrt(3) / 4, a ring pi (1 - 0.55^2), a diamond 1.
    areas = {"circle": math.pi, "square": 2, "triangle": 1.299, "ring": math.pi * (1 - 0.55**2), "diamond": 1}
    for name, area in areas.items():
        random = np.random.default_rng(3)
        radius = np.random.default_rng(3).uniform(*shapes.RADIUS)
        # Filling includes the outline itself, about half a fine pixel beyond it.
        assert shapes.place(shapes.OUTLINES[name], random).sum() == pytest.approx(area * radius**2, rel=0.12)


def test_the_data_set_of_shapes():
    loaded = datasets.load("shapes", "there is no such folder", channels=3, size=32)
    assert loaded.name == "shapes"
    assert loaded.train_images.shape == (8000, *IMAGE)
    assert loaded.test_images.shape == (2000, *IMAGE)
    assert loaded.test_boxes.shape == (2000, 4)
    assert loaded.train_labels.bincount().tolist() == [800] * 10
    assert loaded.test_labels.bincount().tolist() == [200] * 10
    test_set = {image.numpy().tobytes() for image in loaded.test_images}
    assert not any(image.numpy().tobytes() in test_set for image in loaded.train_images)
