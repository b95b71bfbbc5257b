"""Images in memory: data sets as uint8 tensors, splits, batches by index, augmentation of a whole batch at once.

Every data set becomes the same thing, an ``ImageData``; a batch is an index into its tensors. So there are no worker
processes, and an epoch of MNIST costs less than the usual per-image loop spends on starting one.
"""

import contextlib
import dataclasses
import hashlib
import os
import shutil
import socket
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from lab1.config import UsageError, require
from lab1.distributed import first_process_first, rank, world_size

NETWORK_SECONDS = 10  # at most this long to find out that there is no network
NOISE = 4  # uniform random numbers that an augmentation gets for each image

# torchvision checks the archives; these are the files inside them, which it would read unchecked ever after.
MNIST_MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


@dataclasses.dataclass
class ImageData:
    """A data set in memory. Images are uint8 ``[N, C, H, W]``, labels int64 ``[N]``."""

    name: str
    classes: list[str]
    train_images: torch.Tensor
    train_labels: torch.Tensor
    test_images: torch.Tensor
    test_labels: torch.Tensor


class Unavailable(UsageError):
    """A data set is neither on the disk nor to be had from the network."""


def load(name: str, data_dir: Path, channels: int, size: int, download: bool = True) -> ImageData:
    """Load a data set by name: ``mnist``, ``digits``, ``folder``, or ``auto`` (MNIST, else the embedded digits).

    ``channels`` and ``size`` (pixels) say what a folder's images are turned into; the others have their own.

    Raises:
        UsageError: where its files are missing, incomplete or damaged; the message says what to do.
    """
    with first_process_first():
        if name == "auto":
            try:
                return load_mnist(data_dir, download)
            except Unavailable as error:
                if rank() == 0:
                    print(f"{error}. Taking scikit-learn's 1,797 handwritten digits instead.", file=sys.stderr)
                return load_digits()
        if name == "mnist":
            return load_mnist(data_dir, download)
        if name == "digits":
            return load_digits()
        if name == "folder":
            return load_folder(data_dir, channels, size)
    raise UsageError(f"--dataset {name}: use mnist, digits or folder")


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
            _download(lambda root: MNIST(root, download=True), "MNIST", Path(data_dir), raw)
        else:
            _check_files(archives)
            MNIST(data_dir, download=True)  # finds the archives good, downloads nothing, extracts them
    _check_files(extracted)
    train, test = MNIST(data_dir, train=True), MNIST(data_dir, train=False)
    return ImageData(
        "mnist",
        [str(digit) for digit in range(10)],
        train.data.unsqueeze(1),
        train.targets,
        test.data.unsqueeze(1),
        test.targets,
    )


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


def require_network(addresses: list[str], title: str, place: Path, download: bool) -> None:
    """Return if one of the addresses answers within ten seconds.

    Raises:
        Unavailable: if none does, or if nothing may be downloaded.
    """
    reachable = threading.Event()

    def knock(address: str) -> None:
        # A server that answers with an error has answered: its files are asked for by their own names.
        with contextlib.suppress(OSError):
            with contextlib.suppress(urllib.error.HTTPError):
                urllib.request.urlopen(address, timeout=NETWORK_SECONDS).close()
            reachable.set()

    # In threads, since a name look-up heeds no time-out.
    knocking = [threading.Thread(target=knock, args=(address,), daemon=True) for address in addresses if download]
    for thread in knocking:
        thread.start()
    for _ in range(NETWORK_SECONDS * 20):
        if reachable.wait(0.05) or not any(thread.is_alive() for thread in knocking):
            break
    if not reachable.is_set():
        why = "cannot be reached on the network" if download else "is not downloaded in a dry run"
        raise Unavailable(f"{title} is not in {place} and {why}: put its files there")


def _download(fetch: Callable[[str], object], title: str, data_dir: Path, place: Path) -> None:
    """Fetch into a temporary folder and move what came into its place: a download cut short leaves nothing behind."""
    print(f"Downloading {title} into {data_dir} ...", file=sys.stderr)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(NETWORK_SECONDS)
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=data_dir, prefix="download-") as temporary:
            fetch(temporary)
            fetched = Path(temporary) / place.relative_to(data_dir)
            shutil.rmtree(place, ignore_errors=True)
            place.parent.mkdir(parents=True, exist_ok=True)
            os.replace(fetched, place)
    except (OSError, RuntimeError) as error:  # URLError is an OSError; torchvision raises RuntimeError
        raise Unavailable(
            f"{title} could not be downloaded ({str(error).splitlines()[0]}): put it in {place}"
        ) from None
    finally:
        socket.setdefaulttimeout(before)


def _check_files(md5s: dict[Path, str]) -> None:
    for path, md5 in md5s.items():
        try:
            found = hashlib.md5(path.read_bytes()).hexdigest()
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror}") from None
        require(found == md5, f"{path} is damaged (its MD5 is not the published one): delete it and run again")


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


def random_affine(
    images: torch.Tensor, noise: torch.Tensor, degrees: float = 12, pixels: float = 2, scale: float = 0.1
) -> torch.Tensor:
    """Rotate, shift and scale each image at random, about its centre, filling with 0 (black).

    Args:
        images: ``[B, C, H, W]``.
        noise: uniform in 0 .. 1, ``[B, NOISE]``.
        degrees, pixels, scale: the most in either direction.
    """
    angle, size, right, down = (2 * noise - 1).unbind(1)
    angle, size = angle * (degrees * torch.pi / 180), 1 + size * scale
    cosine, sine = torch.cos(angle) / size, torch.sin(angle) / size
    height, width = images.shape[-2:]
    # The grid runs from -1 to 1 across the image, so a pixel is 2 / width of it.
    matrix = torch.stack([cosine, -sine, right * (2 * pixels / width), sine, cosine, down * (2 * pixels / height)], 1)
    grid = F.affine_grid(matrix.reshape(-1, 2, 3), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="zeros", align_corners=False)
