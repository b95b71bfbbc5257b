"""Images in memory: splits, and batches by index.

A data set is an ``ImageData``, a few uint8 tensors, and a batch is an index into them. So there are no worker
processes, and an epoch of MNIST costs less than the usual per-image loop spends on starting one.
"""

import dataclasses
import zlib
from collections.abc import Callable, Iterator

import torch

from lab1.engine.config import require
from lab1.engine.distributed import StandIn, has_share, own_share
from lab1.engine.randomness import random_generator, stratified_split
from lab1.images.augment import NOISE


@dataclasses.dataclass
class ImageData:
    """A data set in memory. Images are uint8 ``[N, C, H, W]``, labels int64 ``[N]``.

    ``test_boxes``, where it is known what is where: the object of each test image, ``[N, 4]`` as x0, y0, x1, y1 in
    pixels from the top left corner; x1 and y1 are the first column and row beyond it.
    """

    name: str
    classes: list[str]
    train_images: torch.Tensor
    train_labels: torch.Tensor
    test_images: torch.Tensor
    test_labels: torch.Tensor
    test_boxes: torch.Tensor | None = None


class Batches:
    """Batches of images that already lie on the device. Yields ``(images [B, C, H, W] float32, labels [B])``.

    With a ``seed`` they are shuffled, and their order is a function of (seed, epoch): a place in training is two
    integers. Without, they come in order. Under torchrun each process gets its share of every batch; where a shuffled
    one has fewer images than there are processes, those left over get a ``StandIn``.
    """

    def __init__(
        self,
        images: torch.Tensor,
        labels: torch.Tensor,
        batch_size: int,
        mean: torch.Tensor,
        std: torch.Tensor,
        seed: int | None = None,
        augment: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
        limit: int | None = None,
        alternate: bool = False,
    ):
        """Args:
        images: uint8 ``[N, C, H, W]``. labels: int64 ``[N]``.
        batch_size: images in a batch, over all processes.
        mean, std: ``[C]``, of the pixels scaled to 0 .. 1; what leaves is ``(pixels / 255 - mean) / std``.
        augment: maps images in 0 .. 1 and uniform random numbers ``[B, NOISE]`` to images.
        limit: at most this many batches.
        alternate: let each image's third number lie below 1/2 in every other epoch and above in the rest, in turn, so
            that what is mirrored by it shows both sides in two epochs (Jordan 2024, section 3.6).
        """
        self.images, self.labels, self.batch_size = images, labels, batch_size
        self.mean, self.std = mean.tolist(), std.tolist()
        self.scale = (1 / (255 * std)).reshape(-1, 1, 1).to(images.device)
        self.shift = (-mean / std).reshape(-1, 1, 1).to(images.device)
        self.seed, self.augment, self.limit, self.alternate = seed, augment, limit, alternate

    def __len__(self) -> int:
        count = -(-len(self.labels) // self.batch_size)
        return count if self.limit is None else min(count, self.limit)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return self.epoch(0)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The batches of one epoch, from number ``start`` on."""
        device, count = self.images.device, len(self.labels)
        if self.seed is None:
            order = torch.arange(count, device=device)
        else:
            order = torch.randperm(count, generator=random_generator(self.seed, epoch)).to(device)
        if self.alternate:  # a number of each image, whatever the epoch: another stream than any (seed, epoch, batch)
            sides = torch.rand(count, generator=random_generator(self.seed or 0, 0, 0, 1)).to(device)
        for number in range(start, len(self)):
            rows, noise = order[number * self.batch_size : (number + 1) * self.batch_size], None
            share, has_own = own_share(len(rows)), has_share(len(rows))
            if self.augment is not None:
                # Drawn for the whole batch, so that an image is treated alike however many processes share it.
                generator = random_generator(self.seed or 0, epoch, number, device=device)
                noise = torch.rand(len(rows), NOISE, generator=generator, device=device)
                if self.alternate:
                    noise[:, 2] = (sides[rows] + epoch % 2 / 2) % 1
                noise = noise[share]
            if has_own:
                yield self.take(rows[share], noise)
            elif self.seed is not None:
                yield StandIn(self.take(rows[share], noise))

    def take(self, rows: torch.Tensor, noise: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """The images and labels of these rows ``[B]``, normalised, augmented where there is noise ``[B, NOISE]``."""
        images = self.images.index_select(0, rows).float()
        if noise is not None:
            images = self.augment(images.div_(255), noise).mul_(255)
        return images.mul_(self.scale).add_(self.shift), self.labels.index_select(0, rows)


def pixel_statistics(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation ``[C]`` of uint8 images ``[N, C, H, W]``, of pixels scaled to 0 .. 1."""
    values = torch.arange(256, dtype=torch.float64) / 255
    means, deviations = [], []
    for channel in images.unbind(1):
        share = torch.bincount(channel.reshape(-1), minlength=256).cpu().double() / channel.numel()
        mean = (share * values).sum()
        means.append(mean)
        deviations.append((share * (values - mean) ** 2).sum().sqrt().clamp(min=1e-3))
    return torch.stack(means).float(), torch.stack(deviations).float()


def split_batches(
    data: ImageData,
    batch_size: int,
    seed: int,
    device: torch.device | str = "cpu",
    augment: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
    limit: int | None = None,
    train_count: int | None = None,
    alternate: bool = False,
    validation_count: int | None = None,
) -> tuple[Batches, Batches, Batches]:
    """Training, validation and test batches of a data set.

    Validation is a stratified random part of the training set: 5,000 images of one as large as MNIST, a tenth of a
    smaller one, and at least as many as there are classes; or ``validation_count``; with 0 there is none. With
    ``train_count``, a stratified part of so many images of the rest is learned from, else all of it. Pixels are
    normalised by the statistics of what is learned from. ``augment`` and ``alternate`` are for training.

    Raises:
        UsageError: where there are too few images for these parts, or what is learned from lacks a class.
    """
    classes = len(data.train_labels.unique())
    for flag, count in (("--train-images", train_count), ("--validation-images", validation_count)):
        enough = count in (None, 0) or count >= classes
        require(enough, f"{flag} {count}: at least {classes} are needed, one of each class")
    if validation_count is None:
        validation_count = max(classes, min(5000, len(data.train_labels) // 10))
    rest, held_out = torch.arange(len(data.train_labels)), torch.arange(0)
    if validation_count > 0:
        rest, held_out = stratified_split(data.train_labels, validation_count, seed)
    if train_count is not None and train_count != len(rest):
        require(train_count < len(rest), f"--train-images {train_count}: {data.name} has {len(rest)} to learn from")
        most = len(rest) - classes
        all_of_them = f"without it all {len(rest)} that validation leaves are learned from"
        require(train_count <= most, f"--train-images {train_count}: {most} at most; {all_of_them}")
        rest = rest[stratified_split(data.train_labels[rest], train_count, seed)[1]]
    learned = data.train_labels[rest].unique().tolist()
    lacking = [data.classes[label] for label in data.train_labels.unique().tolist() if label not in learned]
    too_few = (
        f"--train-images {train_count}: too few of {data.name} for one of class {', '.join(lacking[:1])}; use more"
    )
    require(not lacking, too_few)
    train_images = data.train_images[rest]
    mean, std = pixel_statistics(train_images)

    def batches(images, labels, size, **kind):
        return Batches(images.to(device), labels.to(device), size, mean, std, limit=limit, **kind)

    evaluation_size = batch_size if limit else max(batch_size, 1000)  # few batches are to be quick, too
    return (
        batches(train_images, data.train_labels[rest], batch_size, seed=seed, augment=augment, alternate=alternate),
        batches(data.train_images[held_out], data.train_labels[held_out], evaluation_size),
        batches(data.test_images, data.test_labels, evaluation_size),
    )


# The types of what a network needs of ``about_data`` to be used.
ABOUT = {"dataset": str, "classes": [str], "mean": [float], "std": [float]}


def about_data(data: ImageData, batches: Batches) -> dict:
    """What a checkpoint must say of its data for the network to be used later: names, normalisation, height and width;
    and a checksum of the training labels, by which it is noticed that images came or went."""
    about = {"dataset": data.name, "classes": data.classes, "mean": batches.mean, "std": batches.std}
    size = list(data.train_images.shape[-2:])
    return about | {"size": size, "checksum": zlib.crc32(data.train_labels.cpu().contiguous().numpy())}
