"""Images in memory: data sets as uint8 tensors, splits, batches by index.

Every data set becomes the same thing, an ``ImageData``; a batch is an index into its tensors. So there are no worker
processes, and an epoch of MNIST costs less than the usual per-image loop spends on starting one.
"""

import dataclasses
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from lab1 import shapes
from lab1.augment import NOISE, crop_and_flip, random_affine
from lab1.config import UsageError, require
from lab1.distributed import first_process_first, rank, world_size
from lab1.download import Unavailable, check_files, download_into, require_network

__all__ = [
    "NOISE",
    "Batches",
    "ImageData",
    "Unavailable",
    "about",
    "crop_and_flip",
    "load",
    "load_cifar10",
    "load_digits",
    "load_folder",
    "load_mnist",
    "load_shapes",
    "pixel_statistics",
    "random_affine",
    "random_generator",
    "split_batches",
    "stratified_split",
]

# torchvision checks the archives; these are the files inside them, which it would read unchecked ever after.
MNIST_MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}

EMBEDDED = {"digits": "scikit-learn's 1,797 handwritten digits", "shapes": "10,000 drawn images of ten shapes"}


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


def load(name: str, data_dir: Path, channels: int, size: int, download: bool = True) -> ImageData:
    """Load a data set by name: ``mnist``, ``cifar10``, ``digits``, ``shapes``, ``folder``, or ``auto``: MNIST (grey
    images) or CIFAR-10 (colour), or where it cannot be had the embedded digits or shapes.

    ``channels`` and ``size`` (pixels) say what a folder's images are turned into; the others have their own.

    Raises:
        UsageError: where its files are missing, incomplete or damaged; the message says what to do.
    """
    loaders = {
        "mnist": lambda: load_mnist(data_dir, download),
        "cifar10": lambda: load_cifar10(data_dir, download),
        "digits": load_digits,
        "shapes": load_shapes,
        "folder": lambda: load_folder(data_dir, channels, size),
    }
    with first_process_first():
        if name == "auto":
            name, embedded = ("mnist", "digits") if channels == 1 else ("cifar10", "shapes")
            try:
                return loaders[name]()
            except Unavailable as error:
                if rank() == 0:
                    print(f"{error}. Taking {EMBEDDED[embedded]} instead.", file=sys.stderr)
                name = embedded
        require(name in loaders, f"--dataset {name}: use auto, {', '.join(loaders)}")
        return loaders[name]()


def load_mnist(data_dir: Path, download: bool = True) -> ImageData:
    """MNIST (LeCun et al. 1998): 60,000 + 10,000 grey images of 28 x 28 pixels, in torchvision's layout on the disk.

    Raises:
        Unavailable: where it is neither in ``data_dir`` nor to be had from the network.
        UsageError: where a file is cut short or changed.
    """
    from torchvision.datasets import MNIST

    raw = Path(data_dir) / "MNIST" / "raw"
    extracted = {raw / name: md5 for name, md5 in MNIST_MD5.items()}
    archives = {raw / name: md5 for name, md5 in MNIST.resources}
    if not all(path.exists() for path in extracted):
        if not all(path.exists() for path in archives):
            require_network(MNIST.mirrors, "MNIST", raw, download)
            download_into(lambda root: MNIST(root, download=True), "MNIST", Path(data_dir), raw)
        else:
            check_files(archives)
            MNIST(data_dir, download=True)  # finds the archives good, downloads nothing, extracts them
    check_files(extracted)
    train, test = MNIST(data_dir, train=True), MNIST(data_dir, train=False)
    return ImageData(
        "mnist",
        [str(digit) for digit in range(10)],
        train.data.unsqueeze(1),
        train.targets,
        test.data.unsqueeze(1),
        test.targets,
    )


def load_cifar10(data_dir: Path, download: bool = True) -> ImageData:
    """CIFAR-10 (Krizhevsky 2009): 50,000 + 10,000 colour images of 32 x 32 pixels, in torchvision's layout on the disk.

    Raises:
        Unavailable: where it is neither in ``data_dir`` nor to be had from the network.
        UsageError: where a file is cut short or changed.
    """
    from torchvision.datasets import CIFAR10

    folder, archive = Path(data_dir) / CIFAR10.base_folder, Path(data_dir) / CIFAR10.filename
    files = [*CIFAR10.train_list, *CIFAR10.test_list, (CIFAR10.meta["filename"], CIFAR10.meta["md5"])]
    extracted = {folder / name: md5 for name, md5 in files}
    if not all(path.exists() for path in extracted):
        if not archive.exists():
            require_network([CIFAR10.url], "CIFAR-10", folder, download)
            download_into(lambda root: CIFAR10(root, download=True), "CIFAR-10", Path(data_dir), folder)
        else:
            check_files({archive: CIFAR10.tgz_md5})
            CIFAR10(data_dir, download=True)  # finds the archive good, downloads nothing, extracts it
    check_files(extracted)  # the files are pickles, which could run code: nothing but the published ones is opened
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy on how these pickles of 2009 spell their types
        train, test = CIFAR10(data_dir, train=True), CIFAR10(data_dir, train=False)

    def tensors(part):
        return torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(part.targets)

    return ImageData("cifar10", train.classes, *tensors(train), *tensors(test))


def load_shapes() -> ImageData:
    """The ten drawn shapes of ``lab1.shapes``, 8,000 + 2,000 colour images of 32 x 32 pixels, the same ones always."""
    train_images, train_labels, _ = shapes.draw(8000, seed=0)
    test_images, test_labels, test_boxes = shapes.draw(2000, seed=1)
    return ImageData("shapes", shapes.CLASSES, train_images, train_labels, test_images, test_labels, test_boxes)


def load_digits() -> ImageData:
    """The 1,797 handwritten digits that scikit-learn carries (UCI Optical Recognition, 1998), 8 x 8 pixels scaled to
    28 x 28. Every fifth of each class, the same ones always, is the test set."""
    from sklearn.datasets import load_digits as embedded

    images, labels = embedded(return_X_y=True)
    images = torch.tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8) * (255 / 16)
    images = F.interpolate(images, size=(28, 28), mode="bilinear").round().to(torch.uint8)
    train, test = stratified_split(torch.tensor(labels), len(labels) // 5, seed=0)
    labels = torch.tensor(labels, dtype=torch.int64)
    return ImageData(
        "digits", [str(digit) for digit in range(10)], images[train], labels[train], images[test], labels[test]
    )


def load_folder(data_dir: Path, channels: int, size: int) -> ImageData:
    """Your own images: ``train/<class>/*`` and ``test/<class>/*``, of any size, scaled to ``size`` x ``size`` pixels.

    Raises:
        UsageError: where a folder is missing or empty, the classes differ, or a file is no image.
    """
    from PIL import Image
    from torchvision.datasets import ImageFolder

    mode = {1: "L", 3: "RGB"}[channels]
    parts = {}
    for part in ("train", "test"):
        folder = Path(data_dir) / part
        require(folder.is_dir(), f"--dataset folder: no folder {folder}; images go into {folder}/<class>/")
        try:
            files = ImageFolder(str(folder))
        except FileNotFoundError as error:
            raise UsageError(f"--dataset folder: {str(error).splitlines()[0]}") from None
        images = np.empty((len(files.samples), channels, size, size), dtype=np.uint8)
        for row, (path, _) in enumerate(files.samples):
            try:
                with Image.open(path) as image:
                    pixels = np.asarray(image.convert(mode).resize((size, size), Image.Resampling.BILINEAR))
            except (OSError, ValueError, Image.DecompressionBombError) as error:
                raise UsageError(f"--dataset folder: {path} cannot be read as an image: {error}") from None
            images[row] = pixels.reshape(size, size, channels).transpose(2, 0, 1)
        parts[part] = files.classes, torch.from_numpy(images), torch.tensor(files.targets)
    (classes, train_images, train_labels), (test_classes, test_images, test_labels) = parts["train"], parts["test"]
    require(
        classes == test_classes,
        f"--dataset folder: train has the classes {', '.join(classes)} and test {', '.join(test_classes)}; "
        "they must be the same",
    )
    require(len(classes) > 1, f"--dataset folder: {data_dir}/train holds one class; at least two are needed")
    return ImageData("folder", classes, train_images, train_labels, test_images, test_labels)


def stratified_split(labels: torch.Tensor, held_out: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices of the two parts of a random split with the same class shares in both: (the rest, ``held_out`` rows).

    Raises:
        UsageError: where a class has too few examples to be in both.
    """
    from sklearn.model_selection import train_test_split

    try:
        rest, part = train_test_split(
            np.arange(len(labels)), test_size=held_out, random_state=seed % 2**32, stratify=labels.numpy()
        )
    except ValueError as error:
        raise UsageError(f"the data set is too small to hold out {held_out} of {len(labels)}: {error}") from None
    return torch.from_numpy(np.sort(rest)), torch.from_numpy(np.sort(part))


def random_generator(*numbers: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator that is a function of the numbers alone, such as (seed, epoch): there is no state to save."""
    seed = np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(seed >> np.uint64(1)))


class Batches:
    """Batches of images that already lie on the device. Yields ``(images [B, C, H, W] float32, labels [B])``.

    With a ``seed`` they are shuffled, and their order is a function of (seed, epoch): a place in training is two
    integers. Without, they come in order. Under torchrun each process gets its share of every batch.
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
    ):
        """Args:
        images: uint8 ``[N, C, H, W]``. labels: int64 ``[N]``.
        batch_size: images in a batch, over all processes.
        mean, std: ``[C]``, of the pixels scaled to 0 .. 1; what leaves is ``(pixels / 255 - mean) / std``.
        augment: maps images in 0 .. 1 and uniform random numbers ``[B, NOISE]`` to images.
        limit: at most this many batches.
        """
        self.images, self.labels, self.batch_size = images, labels, batch_size
        self.mean, self.std = mean.tolist(), std.tolist()
        self.scale = (1 / (255 * std)).reshape(-1, 1, 1).to(images.device)
        self.shift = (-mean / std).reshape(-1, 1, 1).to(images.device)
        self.seed, self.augment, self.limit = seed, augment, limit

    def __len__(self) -> int:
        whole, rest = divmod(len(self.labels), self.batch_size)
        # A last batch that cannot give every process an image is left out of training.
        count = whole + (rest >= (1 if self.seed is None else world_size()))
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
        share = slice(rank(), None, world_size())
        for number in range(start, len(self)):
            rows = order[number * self.batch_size : (number + 1) * self.batch_size]
            noise = None
            if self.augment is not None:
                # Drawn for the whole batch, so that an image is treated alike however many processes share it.
                generator = random_generator(self.seed or 0, epoch, number, device=device)
                noise = torch.rand(len(rows), NOISE, generator=generator, device=device)[share]
            if len(rows[share]) > 0:
                yield self.take(rows[share], noise)

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
        share = torch.bincount(channel.reshape(-1), minlength=256).double() / channel.numel()
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
) -> tuple[Batches, Batches, Batches]:
    """Training, validation and test batches of a data set.

    Validation is a stratified random part of the training set: 5,000 images of one as large as MNIST, a tenth of a
    smaller one. Pixels are normalised by the statistics of what is left to learn from.
    """
    rest, held_out = stratified_split(data.train_labels, min(5000, len(data.train_labels) // 10), seed)
    train_images = data.train_images[rest]
    mean, std = pixel_statistics(train_images)

    def batches(images, labels, size, **kind):
        return Batches(images.to(device), labels.to(device), size, mean, std, limit=limit, **kind)

    evaluation_size = max(batch_size, 1000)
    return (
        batches(train_images, data.train_labels[rest], batch_size, seed=seed, augment=augment),
        batches(data.train_images[held_out], data.train_labels[held_out], evaluation_size),
        batches(data.test_images, data.test_labels, evaluation_size),
    )


def about(data: ImageData, batches: Batches) -> dict:
    """What a checkpoint must say of its data for the network to be used later: names and normalisation."""
    return {"dataset": data.name, "classes": data.classes, "mean": batches.mean, "std": batches.std}
