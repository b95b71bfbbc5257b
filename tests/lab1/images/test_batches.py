"""Batches whose order is a function of seed and epoch, their normalisation, and the three sets of them."""

import itertools
import re
import zlib

import pytest
import torch

from lab1.engine.config import UsageError
from lab1.engine.distributed import StandIn
from lab1.images.augment import NOISE, random_affine
from lab1.images.batches import Batches, ImageData, about_data, pixel_statistics, split_batches


def numbered(count: int, size: int = 1, **options) -> Batches:
    """Batches of images of which each pixel, and each label, is the number of its row."""
    rows = torch.arange(count)
    images = rows.to(torch.uint8).reshape(-1, 1, 1, 1).expand(count, 1, 4, 4).contiguous()
    return Batches(images, rows, size, torch.tensor([0.0]), torch.tensor([1.0]), **options)


def rows_of(batches) -> list[list[int]]:
    """The rows of each batch; its images are those of its labels."""
    rows = []
    for images, labels in batches:
        assert torch.equal((images * 255).round().long(), labels.reshape(-1, 1, 1, 1).expand(images.shape))
        rows.append(labels.tolist())
    return rows


@pytest.mark.parametrize(
    ("count", "size", "limit", "sizes"),
    [
        (10, 5, None, [5, 5]),
        (10, 4, None, [4, 4, 2]),
        (3, 8, None, [3]),
        (10, 4, 2, [4, 4]),
        (10, 4, 9, [4, 4, 2]),
        (0, 4, None, []),
    ],
)
@pytest.mark.parametrize("seed", [None, 0])
def test_the_count_of_batches_and_their_sizes_are_exact(count, size, limit, sizes, seed):
    batches = numbered(count, size, limit=limit, seed=seed)
    assert len(batches) == len(sizes)
    assert [len(rows) for rows in rows_of(batches)] == sizes


def test_without_a_seed_images_come_in_order():
    batches = numbered(7, 3)
    assert rows_of(batches) == rows_of(batches.epoch(5)) == [[0, 1, 2], [3, 4, 5], [6]]


def test_with_a_seed_an_epoch_holds_each_image_once_in_an_order_of_its_own():
    batches = numbered(50, 8, seed=0)
    orders = [list(itertools.chain(*rows_of(batches.epoch(epoch)))) for epoch in range(3)]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len({tuple(order) for order in [*orders, range(50)]}) == 4


def test_the_order_is_a_function_of_seed_and_epoch_alone():
    torch.manual_seed(0)
    one = rows_of(numbered(50, 8, seed=4).epoch(2))
    torch.manual_seed(1)
    batches = numbered(50, 8, seed=4)
    rows_of(batches.epoch(0))
    assert rows_of(batches.epoch(2)) == one
    assert rows_of(numbered(50, 8, seed=5).epoch(2)) != one
    assert rows_of(numbered(50, 8, seed=2).epoch(4)) != one


def test_drawing_batches_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    list(numbered(50, 8, seed=4, augment=random_affine))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("start", [0, 1, 3, 6, 7])
@pytest.mark.parametrize("augment", [None, random_affine])
def test_an_epoch_begun_in_the_middle_is_the_tail_of_the_whole(start, augment):
    batches = numbered(50, 8, seed=4, augment=augment)
    whole, tail = list(batches.epoch(1)), list(batches.epoch(1, start))
    assert len(whole) == 7
    assert len(tail) == 7 - start
    for (images, labels), (tail_images, tail_labels) in zip(whole[start:], tail, strict=True):
        assert torch.equal(labels, tail_labels)
        assert torch.equal(images, tail_images)


def random_images(count: int, channels: int = 3, size: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randint(0, 256, (count, channels, size, size), generator=generator, dtype=torch.uint8)


def test_normalisation_is_the_formula():
    images, mean, std = random_images(5), torch.tensor([0.2, 0.5, 0.7]), torch.tensor([0.1, 0.3, 0.9])
    before = images.clone()
    ((batch, labels),) = Batches(images, torch.arange(5), 5, mean, std)
    expected = (images.double() / 255 - mean.double().reshape(3, 1, 1)) / std.double().reshape(3, 1, 1)
    assert batch.dtype == torch.float32
    assert torch.allclose(batch.double(), expected, atol=1e-5)
    assert torch.equal(images, before)
    assert labels.tolist() == list(range(5))


def test_augmentation_gets_images_from_0_to_1_and_fresh_numbers_for_each_image_batch_and_epoch():
    seen = []

    def augment(images, noise):
        seen.append((images.clone(), noise.clone()))
        return images

    batches = Batches(random_images(8), torch.arange(8), 4, torch.zeros(3), torch.ones(3), seed=1, augment=augment)
    plain = Batches(random_images(8), torch.arange(8), 4, torch.zeros(3), torch.ones(3), seed=1)
    for epoch in (0, 1):
        for (images, _), (expected, _) in zip(batches.epoch(epoch), plain.epoch(epoch), strict=True):
            assert torch.allclose(images, expected, atol=1e-6)
    assert all(0 <= images.min() < 0.1 and 0.9 < images.max() <= 1 for images, _ in seen)
    noise = torch.cat([numbers for _, numbers in seen])
    assert noise.shape == (16, NOISE)
    assert noise.min() >= 0
    assert noise.max() < 1
    assert len(noise.unique()) == noise.numel()


@pytest.mark.parametrize("augment", [None, random_affine])
@pytest.mark.parametrize("count", [20, 23])
def test_the_shares_of_two_processes_make_up_the_batches_of_one(monkeypatch, count, augment):
    images, labels = random_images(count), torch.arange(count)

    def epoch():
        return list(Batches(images, labels, 5, torch.zeros(3), torch.ones(3), seed=1, augment=augment).epoch(3))

    alone = epoch()
    monkeypatch.setenv("WORLD_SIZE", "2")
    shares = []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        shares.append(epoch())
    for (whole, whole_labels), *parts in zip(alone, *shares, strict=True):
        for rank, (part, part_labels) in enumerate(parts):
            assert torch.equal(part_labels, whole_labels[rank::2])
            assert torch.allclose(part, whole[rank::2], atol=1e-6)


def test_every_process_gets_as_many_training_batches_and_evaluation_leaves_no_image_out(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    training, evaluation = [], []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        batches = list(numbered(9, 4, seed=0))
        training.append(rows_of(batches))
        evaluation += rows_of(numbered(9, 4))
        assert len(numbered(9, 4, seed=0)) == 3
        # The ninth image alone is the first process's; the other one takes it, too, but counts it for nothing.
        assert [isinstance(batch, StandIn) for batch in batches] == [False, False, rank == "1"]
    assert [len(rows) for rows in training[0]] == [len(rows) for rows in training[1]] == [2, 2, 1]
    assert sorted(itertools.chain(*training[0], *training[1][:2])) == list(range(9))
    assert sorted(itertools.chain(*evaluation)) == list(range(9))


def test_pixel_statistics_are_torchs():
    images = random_images(30)
    images[:, 1] //= 3
    mean, std = pixel_statistics(images)
    pixels = images.double() / 255
    assert mean.dtype == std.dtype == torch.float32
    assert torch.allclose(mean.double(), pixels.mean((0, 2, 3)), atol=1e-6)
    assert torch.allclose(std.double(), pixels.transpose(0, 1).flatten(1).std(1, correction=0), atol=1e-6)


def test_images_of_one_colour_can_be_normalised():
    images = torch.full((4, 1, 3, 3), 51, dtype=torch.uint8)
    mean, std = pixel_statistics(images)
    ((batch, _),) = Batches(images, torch.arange(4), 4, mean, std)
    assert mean.item() == pytest.approx(0.2)
    assert torch.allclose(batch, torch.zeros_like(batch), atol=1e-3)


def image_data(count: int, tests: int = 7) -> ImageData:
    """Tiny images of ten classes; the green and red of a training image spell its number."""
    numbers = torch.arange(count)
    images = torch.stack([numbers // 256, numbers % 256, numbers % 97], 1).to(torch.uint8)[:, :, None, None]
    return ImageData("tiny", list("0123456789"), images, numbers % 10, random_images(tests, 3, 1), torch.arange(tests))


@pytest.mark.parametrize(("count", "held_out"), [(60_000, 5000), (1438, 143), (200, 20)])
def test_validation_is_a_part_of_the_training_set_of_its_own(count, held_out):
    tiny = image_data(count)
    train, validation, test = split_batches(tiny, 32, seed=0)
    assert [len(part.labels) for part in (train, validation, test)] == [count - held_out, held_out, 7]
    codes = [part.images[:, 0].long() * 256 + part.images[:, 1] for part in (train, validation)]
    assert torch.equal(torch.cat(codes).flatten().sort().values, torch.arange(count))
    assert torch.equal(codes[1].flatten() % 10, validation.labels)
    assert validation.labels.bincount().max() - validation.labels.bincount().min() <= 1
    assert torch.equal(test.images, tiny.test_images)


def test_pixels_are_normalised_by_what_is_left_to_learn_from():
    tiny = image_data(2000)
    train, validation, test = split_batches(tiny, 32, seed=0)
    mean, std = pixel_statistics(train.images)
    for part in (train, validation, test):
        assert (part.mean, part.std) == (mean.tolist(), std.tolist())
    assert train.mean != pixel_statistics(tiny.train_images)[0].tolist()
    learned = torch.cat([images for images, _ in train])
    assert torch.allclose(learned.mean((0, 2, 3)), torch.zeros(3), atol=1e-4)
    assert torch.allclose(learned.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-4)


def test_only_training_is_shuffled_and_augmented_and_every_part_is_limited():
    train, validation, test = split_batches(image_data(60_000), 32, 0, augment=random_affine, limit=2)
    assert (train.seed, train.augment) == (0, random_affine)
    assert (validation.seed, validation.augment) == (test.seed, test.augment) == (None, None)
    assert [len(part) for part in (train, validation, test)] == [2, 2, 1]
    assert [len(next(iter(part))[0]) for part in (train, validation)] == [32, 32]
    _, validation, _ = split_batches(image_data(60_000), 32, 0)
    assert len(next(iter(validation))[0]) == 1000  # without a limit, what is quickest


def test_what_a_checkpoint_says_of_its_data():
    tiny = image_data(200)
    train, _, _ = split_batches(tiny, 32, seed=0)
    assert about_data(tiny, train) == {
        "dataset": "tiny",
        "classes": list("0123456789"),
        "mean": train.mean,
        "std": train.std,
        "size": [1, 1],
        "checksum": zlib.crc32(tiny.train_labels.numpy()),
    }


def test_an_image_more_changes_the_checksum():
    before, after = image_data(200), image_data(201)
    sums = [about_data(data, split_batches(data, 32, seed=0)[0])["checksum"] for data in (before, after, before)]
    assert sums[0] == sums[2] != sums[1]


def test_a_small_data_set_has_a_validation_image_of_each_class():
    train, validation, _ = split_batches(image_data(30), 32, seed=0)
    assert (len(train.labels), sorted(validation.labels.tolist())) == (20, list(range(10)))


@pytest.mark.parametrize(
    ("count", "complaint"),
    [
        (10, r"--train-images 10: too few of tiny for one of class \d; use more"),  # 82 % are of class 0
        (175, "--train-images 175: 170 at most; without it all 180 that validation leaves are learned from"),
        (181, "--train-images 181: tiny has 180 to learn from"),
    ],
)
def test_what_cannot_be_learned_from_is_refused(count, complaint):
    tiny = image_data(200)
    if count == 10:
        tiny.train_labels = torch.tensor([0] * 164 + [number for number in range(1, 10) for _ in range(4)])
    with pytest.raises(UsageError) as caught:
        split_batches(tiny, 32, seed=0, train_count=count)
    assert re.fullmatch(complaint, str(caught.value))


def sides(seed: int, epoch: int, start: int = 0) -> dict[int, tuple[float, bool]]:
    """Of each image, by its label: the number that it is mirrored by, and whether it is."""
    seen = []

    def augment(images, noise):
        seen.append(noise[:, 2].clone())
        return images

    batches = numbered(50, 8, seed=seed, augment=augment, alternate=True)
    labels = torch.cat([labels for _, labels in batches.epoch(epoch, start)]).tolist()
    return {label: (side, side < 0.5) for label, side in zip(labels, torch.cat(seen).tolist(), strict=True)}


def test_an_image_shows_its_other_side_in_the_next_epoch_and_the_same_one_after_that():
    first, second, third = (sides(3, epoch) for epoch in range(3))
    assert first.keys() == second.keys() == set(range(50))
    assert all(first[label][1] is not second[label][1] for label in first)
    assert first == third
    assert 10 < sum(mirrored for _, mirrored in first.values()) < 40
    assert {label: mirrored for label, (_, mirrored) in sides(4, 0).items()} != {
        label: mirrored for label, (_, mirrored) in first.items()
    }


def test_an_epoch_begun_in_the_middle_shows_the_same_sides():
    whole = sides(3, 1)
    tail = sides(3, 1, start=4)
    assert len(tail) == 18
    assert all(whole[label] == side for label, side in tail.items())


def test_processes_show_the_sides_that_one_shows(monkeypatch):
    alone, shared = sides(3, 1), {}
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        shared |= sides(3, 1)
    assert shared == alone
