"""Augmentation: random shifts, turns and sizes; crop and flip, beside torchvision's."""

import itertools
import math

import pytest
import torch
from torchvision.transforms.functional import crop, hflip, pad

from lab1.images.augment import NOISE, crop_and_flip, mirrored_and_shifted, random_affine

# Shift, turn and size: noise is angle, size, right, down; 0.5 is none of it.


STILL = torch.full((1, NOISE), 0.5)


def noise(**values: float) -> torch.Tensor:
    numbers = STILL.clone()
    for name, value in values.items():
        numbers[0, ("angle", "size", "right", "down").index(name)] = value
    return numbers


def lone_pixel(row: int, column: int, height: int = 28, width: int = 28) -> torch.Tensor:
    image = torch.zeros(1, 1, height, width)
    image[0, 0, row, column] = 1
    return image


def centre_of_mass(image: torch.Tensor) -> tuple[float, float]:
    """Row and column, counted from the centre of the image."""
    mass = image[0, 0] / image.sum()
    rows, columns = (torch.arange(size) - (size - 1) / 2 for size in mass.shape)
    return (mass.sum(1) @ rows).item(), (mass.sum(0) @ columns).item()


def test_noise_in_the_middle_changes_nothing():
    images = torch.rand(3, 2, 28, 28)
    assert torch.allclose(random_affine(images, STILL.expand(3, -1)), images, atol=1e-5)


@pytest.mark.parametrize("pixels", [1, 2, 3])
@pytest.mark.parametrize(("direction", "row", "column"), [("right", 0, 1), ("down", 1, 0)])
def test_a_shift_moves_a_pixel_by_the_stated_pixels(pixels, direction, row, column):
    reached = []
    for value in (0.0, 1.0):
        moved = random_affine(lone_pixel(14, 10), noise(**{direction: value}), pixels=pixels)
        assert moved.max().item() == pytest.approx(1, abs=1e-4)
        reached.append(divmod(moved.argmax().item(), 28))
    step = (pixels * row, pixels * column)
    assert sorted(reached) == [(14 - step[0], 10 - step[1]), (14 + step[0], 10 + step[1])]


@pytest.mark.parametrize("degrees", [12, 40])
@pytest.mark.parametrize(("height", "width"), [(28, 28), (28, 42)])
def test_a_rotation_moves_a_pixel_where_trigonometry_says(degrees, height, width):
    image = lone_pixel(8, 18, height, width)
    row, column = centre_of_mass(image)
    turn = math.radians(degrees)
    expected = [
        (row * math.cos(turn) + sign * column * math.sin(turn), column * math.cos(turn) - sign * row * math.sin(turn))
        for sign in (1, -1)
    ]
    reached = [centre_of_mass(random_affine(image, noise(angle=value), degrees=degrees)) for value in (0.0, 1.0)]
    for found, wanted in zip(sorted(reached), sorted(expected), strict=True):
        assert found == pytest.approx(wanted, abs=0.25)


def test_a_quarter_turn_is_exact():
    images = torch.rand(2, 3, 28, 28)
    turned = [random_affine(images, noise(angle=value).expand(2, -1), degrees=90) for value in (0.0, 1.0)]
    one, other = (torch.rot90(images, k, (2, 3)) for k in (1, -1))
    straight = torch.allclose(turned[0], one, atol=1e-4) and torch.allclose(turned[1], other, atol=1e-4)
    crossed = torch.allclose(turned[0], other, atol=1e-4) and torch.allclose(turned[1], one, atol=1e-4)
    assert straight != crossed


@pytest.mark.parametrize(("value", "factor"), [(0.0, 0.8), (1.0, 1.2)])
def test_scaling_moves_a_pixel_away_from_the_centre_by_the_stated_share(value, factor):
    image = lone_pixel(6, 20)
    scaled = centre_of_mass(random_affine(image, noise(size=value), scale=0.2))
    assert scaled == pytest.approx([factor * place for place in centre_of_mass(image)], abs=0.35)


def test_what_comes_from_outside_is_black():
    moved = random_affine(torch.ones(1, 1, 28, 28), noise(right=1.0, down=0.0), pixels=2)[0, 0]
    black = moved < 1e-4
    assert black.sum() == 28 * 28 - 26 * 26
    assert torch.allclose(moved[~black], torch.ones(26 * 26), atol=1e-4)


def test_each_image_is_treated_by_its_own_numbers_alone():
    images, numbers = torch.rand(4, 1, 28, 28), torch.rand(4, NOISE)
    together = random_affine(images, numbers)
    assert torch.equal(random_affine(images, numbers), together)
    for row in range(4):
        alone = random_affine(images[row : row + 1], numbers[row : row + 1])
        assert torch.allclose(alone[0], together[row], atol=1e-5)
    assert not torch.allclose(random_affine(images, numbers.flip(0)), together, atol=1e-2)


# Crop and flip.


IMAGE = (3, 32, 32)


def crop_noise(top: int, left: int, flip: bool, pixels: int) -> list[float]:
    """The random numbers that make ``crop_and_flip`` choose this crop."""
    return [(top + 0.5) / (2 * pixels + 1), (left + 0.5) / (2 * pixels + 1), 0.25 if flip else 0.75, 0.5]


def test_a_crop_by_hand():
    image = torch.tensor([[[[1.0, 2], [3, 4]]]]).repeat(5, 1, 1, 1)
    crops = [(1, 1, False), (1, 1, True), (0, 1, False), (2, 2, False), (0, 1, True)]
    expected = [
        [[1, 2], [3, 4]],  # as it was
        [[2, 1], [4, 3]],  # mirrored
        [[0, 0], [1, 2]],  # the frame one up, the image one down
        [[4, 0], [0, 0]],
        [[0, 0], [2, 1]],
    ]
    numbers = torch.tensor([crop_noise(*choice, pixels=1) for choice in crops])
    assert crop_and_flip(image, numbers, pixels=1).squeeze(1).tolist() == expected


def test_crop_and_flip_are_those_of_torchvision():
    choices = list(itertools.product((0, 3, 4, 8), (0, 1, 4, 8), (False, True)))
    images = torch.rand(len(choices), *IMAGE)
    ours = crop_and_flip(images, torch.tensor([crop_noise(*choice, pixels=4) for choice in choices]))
    for image, own, (top, left, flip) in zip(images, ours, choices, strict=True):
        cropped = crop(pad(image, [4]), top, left, 32, 32)
        assert torch.equal(own, hflip(cropped) if flip else cropped)


def test_every_crop_is_as_likely_as_any_other():
    marked = torch.zeros(1, 1, 9, 9)
    marked[..., 4, 3] = 1
    count = 20_000
    numbers = torch.rand(count, NOISE, generator=torch.Generator().manual_seed(0))
    seen = crop_and_flip(marked.expand(count, -1, -1, -1), numbers, pixels=1).sum(0).squeeze()
    # Column 3 goes to 2, 3, 4; its mirror image, 5, to 4, 5, 6.
    share = torch.zeros(9, 9)
    share[3:6, 2:7] = torch.tensor([1, 1, 2, 1, 1]) / 18
    assert (seen / count - share).abs().max() < 5 * math.sqrt(1 / 9 / count)


def test_crop_keeps_type_and_shape_of_oblong_images():
    image = torch.arange(2 * 3 * 4 * 6.0).reshape(2, 3, 4, 6)
    numbers = torch.tensor([crop_noise(4, 4, False, 4), crop_noise(4, 4, True, 4)])
    kept, mirrored = crop_and_flip(image, numbers)
    assert torch.equal(kept, image[0])
    assert torch.equal(mirrored, image[1].flip(-1))


def test_a_reflected_border_by_hand():
    image = torch.arange(9.0).reshape(1, 1, 3, 3)
    shifted = crop_and_flip(image, torch.tensor([crop_noise(0, 2, False, 1)]), pixels=1, border="reflect")
    # Of [4 3 4 5 4 / 1 0 1 2 1 / 4 3 4 5 4 / 7 6 7 8 7 / 4 3 4 5 4] the three first rows and last columns.
    assert shifted[0, 0].tolist() == [[4, 5, 4], [1, 2, 1], [4, 5, 4]]


def test_without_a_border_images_are_mirrored_alone():
    images = torch.rand(2, 3, 5, 5)
    noise = torch.tensor([crop_noise(0, 0, False, 0), crop_noise(0, 0, True, 0)])
    assert torch.equal(
        crop_and_flip(images, noise, pixels=0, border="reflect"), torch.stack([images[0], images[1].flip(2)])
    )


def test_six_views_and_their_weights():
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    views = mirrored_and_shifted(image)
    assert [weight for weight, _ in views] == [0.25, 0.25, 0.125, 0.125, 0.125, 0.125]
    plain, mirrored, up_left, _, down_right, _ = (view for _, view in views)
    assert torch.equal(plain, image)
    assert torch.equal(mirrored, image.flip(3))
    assert up_left[0, 0].tolist() == [[5, 4, 5, 6], [1, 0, 1, 2], [5, 4, 5, 6], [9, 8, 9, 10]]
    assert down_right[0, 0].tolist() == [[5, 6, 7, 6], [9, 10, 11, 10], [13, 14, 15, 14], [9, 10, 11, 10]]
    for (_, straight), (_, turned) in zip(views[::2], views[1::2], strict=True):
        assert torch.equal(turned, straight.flip(3))
