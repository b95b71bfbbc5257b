"""Data sets: from the disk, from the network, or embedded, each turned into the same thing, an ``ImageData``.

``@register_dataset`` puts one on the list of ``--dataset``; one of your own goes to the end of this file (README.md,
"Changing it"). What is done with one, splits and batches, is in ``lab1.images.batches``.
"""

import inspect
import sys
import warnings
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from lab1.engine.config import UsageError, require
from lab1.engine.distributed import first_process_first, rank
from lab1.engine.download import fetch, fetching, md5_of, whole
from lab1.engine.network import Unavailable, require_network
from lab1.engine.randomness import stratified_split
from lab1.images.batches import ImageData

# torchvision checks the archives; these are the files inside them, which it would read unchecked ever after.
MNIST_MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
# What auto stands for, by channels (1: grey, 3: colour): a published data set, and the embedded one that is taken where
# it cannot be had.
AUTO = {
    1: ("mnist", "digits", "scikit-learn's 1,797 handwritten digits"),
    3: ("cifar10", "shapes", "10,000 images of ten drawn shapes"),
}
DATASETS: dict[str, tuple[Callable[..., ImageData], int | None]] = {}  # by name, with their channels


def register_dataset(name: str, channels: int | None = None):
    """Function decorator: ``--dataset name`` takes the ``ImageData`` that this function returns.

    The function gets those of these that it has parameters for: ``data_dir``, the folder of ``--data-dir``;
    ``download``, whether it may use the network; ``channels`` and ``size``, how many channels and pixels the script
    would like, where it can choose.

    Args:
        channels: of its images: 1, grey, for the scripts that train an MLP; 3, colour, for those that train a CNN; None
            for both.

    Raises:
        TypeError: where there is a data set of this name already.
    """

    def register(load_it: Callable[..., ImageData]) -> Callable[..., ImageData]:
        if name == "auto" or name in DATASETS:
            raise TypeError(f"@register_dataset: there is a data set {name} already; give yours another name")
        DATASETS[name] = load_it, channels
        return load_it

    return register


def load(name: str, data_dir: Path, channels: int, size: int, download: bool = True) -> ImageData:
    """Load a registered data set by name, or with ``auto`` the one that ``AUTO`` has for so many channels.

    ``channels`` and ``size`` (pixels) say what a folder's images are turned into; the others have their own size.

    Raises:
        UsageError: where its files are missing, incomplete or damaged; the message says what to do.
    """
    fitting = [known for known, (_, its_channels) in DATASETS.items() if its_channels in (channels, None)]
    require(name in ("auto", *fitting), f"--dataset {name}: use {', '.join(['auto', *fitting[:-1]])} or {fitting[-1]}")
    offered = {"data_dir": Path(data_dir), "download": download, "channels": channels, "size": size}
    with first_process_first():
        if name != "auto":
            return _load(name, offered)
        published, embedded, title = AUTO[channels]
        try:
            return _load(published, offered)
        except Unavailable as error:
            if rank() == 0:
                print(f"{error}. Taking {title} instead.", file=sys.stderr)
            return _load(embedded, offered)


def _load(name: str, offered: dict) -> ImageData:
    load_it, channels = DATASETS[name]
    taken = inspect.signature(load_it).parameters
    data = load_it(**{key: value for key, value in offered.items() if key in taken})
    data.name = name  # what a run says of its data must load it again
    for part in ("train", "test"):
        images, labels = getattr(data, f"{part}_images"), getattr(data, f"{part}_labels")
        whole = images.dtype == torch.uint8 and images.ndim == 4 and len(images) > 0
        require(
            whole and channels in (images.shape[1], None),
            f"--dataset {name}: its {part}_images must be uint8 [N, {channels or 'C'}, H, W], not {_kind(images)}",
        )
        require(
            labels.dtype == torch.int64 and labels.shape == images.shape[:1],
            f"--dataset {name}: its {part}_labels must be int64 [{len(images)}], not {_kind(labels)}",
        )
        classes = len(data.classes)
        require(
            labels.min() >= 0 and labels.max() < classes,
            f"--dataset {name}: its {part}_labels must be from 0 to {classes - 1}, as it names {classes} classes",
        )
    learned, tested = (set(labels.unique().tolist()) for labels in (data.train_labels, data.test_labels))
    unseen = _some(str(data.classes[label]) for label in sorted(tested - learned))
    require(not unseen, f"--dataset {name}: its test_labels have what its train_labels lack: {unseen}")
    untested = _some(str(data.classes[label]) for label in range(len(data.classes)) if label not in tested)
    if untested and rank() == 0:
        print(f"--dataset {name}: no test image is of {untested}", file=sys.stderr)
    return data


def _some(names: Iterable[str]) -> str:
    """The first three of several names."""
    names = list(names)
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _kind(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def _check_files(md5s: dict[Path, str]) -> None:
    for path, md5 in md5s.items():
        try:
            found = md5_of(path)
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror}") from None
        require(found == md5, f"{path} is damaged (its MD5 is not the published one): delete it and run again")


@register_dataset("mnist", channels=1)
def load_mnist(data_dir: Path, download: bool = True) -> ImageData:
    """MNIST (LeCun et al. 1998): 60,000 + 10,000 grey images of 28 x 28 pixels, in torchvision's layout on the disk.

    Raises:
        Unavailable: where it is neither in ``data_dir`` nor to be had from the network.
        UsageError: where a file is cut short or changed.
    """
    from torchvision.datasets import MNIST
    from torchvision.datasets.mnist import read_image_file, read_label_file
    from torchvision.datasets.utils import extract_archive

    raw = Path(data_dir) / "MNIST" / "raw"
    extracted = {raw / name: md5 for name, md5 in MNIST_MD5.items()}
    archives = {raw / name: md5 for name, md5 in MNIST.resources}
    if not all(path.exists() for path in extracted):
        if not all(path.exists() for path in archives):
            require_network(MNIST.mirrors, "MNIST", raw, download, written=True)
            print(f"Downloading MNIST into {data_dir} ...", file=sys.stderr)
            with fetching("MNIST", raw), whole(raw, Path(data_dir)) as temporary:
                for name, md5 in MNIST.resources:
                    addresses = [f"{mirror}{name}" for mirror in MNIST.mirrors]
                    fetch(addresses, temporary / "MNIST" / "raw" / name, md5)
                MNIST(temporary, download=True)  # finds the archives good, downloads nothing, extracts them
        else:
            _check_files(archives)
            for path in archives:
                extract_archive(str(path))
    _check_files(extracted)
    # Just these files: torchvision's data set would prefer what an old version of it left in "processed".
    parts = [
        part
        for name in ("train", "t10k")
        for part in (
            read_image_file(str(raw / f"{name}-images-idx3-ubyte")).unsqueeze(1),
            read_label_file(str(raw / f"{name}-labels-idx1-ubyte")),
        )
    ]
    return ImageData("mnist", [str(digit) for digit in range(10)], *parts)


@register_dataset("cifar10", channels=3)
def load_cifar10(data_dir: Path, download: bool = True) -> ImageData:
    """CIFAR-10 (Krizhevsky 2009): 50,000 + 10,000 colour images of 32 x 32 pixels, in torchvision's layout on the disk.

    Raises:
        Unavailable: where it is neither in ``data_dir`` nor to be had from the network.
        UsageError: where a file is cut short or changed.
    """
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.utils import extract_archive

    folder, archive = Path(data_dir) / CIFAR10.base_folder, Path(data_dir) / CIFAR10.filename
    files = [*CIFAR10.train_list, *CIFAR10.test_list, (CIFAR10.meta["filename"], CIFAR10.meta["md5"])]
    extracted = {folder / name: md5 for name, md5 in files}
    if not all(path.exists() for path in extracted):
        there = archive.exists()
        if not there:
            require_network([CIFAR10.url], "CIFAR-10", folder, download, written=True)
            print(f"Downloading CIFAR-10 into {data_dir} ...", file=sys.stderr)
            with fetching("CIFAR-10", folder):
                fetch([CIFAR10.url], archive, CIFAR10.tgz_md5)
        _check_files({archive: CIFAR10.tgz_md5})
        with fetching("CIFAR-10", folder), whole(folder, Path(data_dir)) as temporary:
            extract_archive(str(archive), str(temporary))
        if not there:
            archive.unlink()
    _check_files(extracted)  # the files are pickles, which could run code: nothing but the published ones is opened
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy on how these pickles of 2009 spell their types
        train, test = CIFAR10(data_dir, train=True), CIFAR10(data_dir, train=False)

    def tensors(part):
        return torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(part.targets)

    return ImageData("cifar10", train.classes, *tensors(train), *tensors(test))


@register_dataset("shapes", channels=3)
def load_shapes() -> ImageData:
    """The ten drawn shapes of ``lab1.images.shapes``: 10,000 colour images of 32 x 32 pixels, always the same."""
    from lab1.images import shapes

    train_images, train_labels, _ = shapes.draw(8000, seed=0)
    test_images, test_labels, test_boxes = shapes.draw(2000, seed=1)
    return ImageData("shapes", shapes.CLASSES, train_images, train_labels, test_images, test_labels, test_boxes)


@register_dataset("digits", channels=1)
def load_digits() -> ImageData:
    """The 1,797 handwritten digits that scikit-learn carries (UCI Optical Recognition, 1998), 8 x 8 pixels scaled to
    28 x 28. Every fifth of each class, the same ones always, is the test set."""
    # Read as sklearn.datasets.load_digits reads them, from the same file: its imports take a second.
    rows = np.loadtxt(Path(find_spec("sklearn").origin).parent / "datasets" / "data" / "digits.csv.gz", delimiter=",")
    images, labels = rows[:, :-1], rows[:, -1].astype(np.int64)
    images = torch.tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8) * (255 / 16)
    images = F.interpolate(images, size=(28, 28), mode="bilinear").round().to(torch.uint8)
    train, test = stratified_split(torch.tensor(labels), len(labels) // 5, seed=0)
    labels = torch.tensor(labels, dtype=torch.int64)
    return ImageData(
        "digits", [str(digit) for digit in range(10)], images[train], labels[train], images[test], labels[test]
    )


@register_dataset("folder")
def load_folder(data_dir: Path, channels: int, size: int) -> ImageData:
    """Your own images: ``train/<class>/*`` and ``test/<class>/*``, of any size, scaled to ``size`` x ``size`` pixels.
    How they are read: ``lab1.images.files``.

    Raises:
        UsageError: where a folder is missing or empty, the classes differ, or a file cannot be read as an image.
    """
    from PIL import Image

    from lab1.images.files import SUFFIXES, find_images, read_image

    mode = {1: "L", 3: "RGB"}[channels]
    found, left_out = {}, []
    for part in ("train", "test"):
        folder = Path(data_dir) / part
        require(folder.is_dir(), f"--dataset folder: no folder {folder}; images go into {folder}/<class>/")
        found[part], others = find_images(folder)
        left_out += others
        require(len(found[part]) > 0, f"--dataset folder: {folder} holds no folders; images go into {folder}/<class>/")
        for name, paths in found[part].items():
            require(len(paths) > 0, f"--dataset folder: {folder / name} holds no image ({', '.join(SUFFIXES)})")
    classes = list(found["train"])
    lacking = {
        part: ", ".join(name for name in found[other] if name not in found[part])
        for part, other in (("train", "test"), ("test", "train"))
    }
    differences = "; ".join(f"{Path(data_dir) / part} lacks {names}" for part, names in lacking.items() if names)
    require(not differences, f"--dataset folder: train and test must have the same classes, but {differences}")
    require(len(classes) > 1, f"--dataset folder: {data_dir}/train holds one class; at least two are needed")
    if left_out and rank() == 0:
        names = _some(path.name for path in left_out)
        count = "1 file" if len(left_out) == 1 else f"{len(left_out)} files"
        print(f"Left out {count}, no images by their names or in no class's folder: {names}", file=sys.stderr)

    def tensors(part):
        rows = [(path, label) for label, name in enumerate(classes) for path in found[part][name]]
        images = np.empty((len(rows), channels, size, size), dtype=np.uint8)
        for row, (path, _) in enumerate(rows):
            pixels = np.asarray(read_image(path).convert(mode).resize((size, size), Image.Resampling.BILINEAR))
            images[row] = pixels.reshape(size, size, channels).transpose(2, 0, 1)
        return torch.from_numpy(images), torch.tensor([label for _, label in rows])

    return ImageData("folder", classes, *tensors("train"), *tensors("test"))
