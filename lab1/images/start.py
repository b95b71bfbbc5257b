"""How the scripts that train a classifier of images begin: a data set by its name, the batches of it, and a first layer
that whitens them."""

from collections.abc import Callable

import torch

from lab1.images import datasets
from lab1.images.batches import Batches, ImageData, split_batches
from lab1.models import FastCNN

WHITENED = 2000  # images that whitening looks at


def load_batches(
    config,
    device: torch.device,
    augment: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    channels: int,
    size: int,
    images: ImageData | None = None,
    alternate: bool = False,
    validation_count: int | None = None,
) -> tuple[ImageData, tuple[Batches, Batches, Batches]]:
    """The data set that ``config.dataset`` names, and its training, validation and test batches on the device.

    Args:
        config: the flags of the script. Its ``use`` takes down what data set it has become, and fills in what depends
            on it.
        augment: of training images, where ``config.augment`` asks for it (see ``lab1.images.augment``).
        channels, size: what a folder's images are turned into.
        images: the data set, if it is loaded already.
        alternate: see ``Batches``.
        validation_count: see ``split_batches``.

    Raises:
        UsageError: where the data set cannot be had, or has too few images.
    """
    if images is None:
        images = datasets.load(config.dataset, config.data_folder(), channels, size, download=not config.dry_run)
    config.use(images.name)
    batches = split_batches(
        images,
        config.batch_size,
        config.seed,
        device,
        augment=augment if config.augment else None,
        limit=3 if config.dry_run else None,
        train_count=config.train_images,
        alternate=alternate,
        validation_count=validation_count,
    )
    return images, batches


def whiten(model: FastCNN, train: Batches) -> None:
    """Give the first layer of a FastCNN its weights, from the first of the images that are learned from; where these
    are not of all classes, as in a folder of one class after the other, from some all over."""
    count, device = len(train.labels), train.labels.device
    chosen = torch.arange(min(WHITENED, count), device=device)
    if len(train.labels[chosen].unique()) < len(train.labels.unique()):
        chosen = torch.linspace(0, count - 1, len(chosen), device=device).long()
    model.whiten(train.take(chosen)[0].cpu())
