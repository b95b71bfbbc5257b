"""Exercise 1.1. How well does a small network read handwritten digits?

Command:  python lab1/train_mlp.py
Time:     40 seconds
Expect:   98.4 % test accuracy on MNIST

    python lab1/train_mlp.py --augment                         random rotation, shift and scale
    python lab1/train_mlp.py --hidden 128 128 128 --residual   the identity around each pair of hidden layers
    tensorboard --logdir lab1/model                            curves of training, validation and test

Without a network and without MNIST on the disk it takes the 1,797 digits that scikit-learn carries.
"""

import dataclasses
from typing import Annotated, Literal

from lab1.engine.config import Real, TrainConfig, Whole, flag, require
from lab1.engine.devices import find_precision
from lab1.engine.launch import launch, prepare

# What was chosen on validation, for each data set; a flag that is given takes precedence.
SETTINGS = {
    "mnist": {"epochs": 30, "batch_size": 128, "learning_rate": 4e-3, "patience": 5, "dropout": 0.1},
    "digits": {"epochs": 100, "batch_size": 32, "learning_rate": 2e-3, "patience": 20, "dropout": 0.3},
}


@dataclasses.dataclass
class Config(TrainConfig):
    """The flags of this script."""

    epochs: Whole = None
    """Passes over the training set, at most (default: 30; 100 for the digits)."""
    batch_size: Whole = None
    """Examples in one step of the optimiser, over all processes (default: 128; 32 for the digits)."""
    learning_rate: Real = None
    """Peak learning rate, per step: reached after the warm-up, zero at the last epoch (default: 0.004; 0.002)."""
    weight_decay: float = 0.2
    patience: Whole = None
    """Epochs without a better validation loss before training stops; 0 never stops early (default: 5; 20)."""
    dataset: Annotated[str, flag("{auto,mnist,digits,folder,...}")] = "auto"
    """auto: MNIST, or scikit-learn's digits where it cannot be had; folder: your images under --data-dir."""
    hidden: tuple[int, ...] = (128, 64)
    """Widths of the hidden layers."""
    residual: bool = False
    """Put the identity around each pair of hidden layers that keeps the width."""
    dropout: Real = None
    """Probability of dropping a hidden unit in training (default: 0.1; 0.3 for the digits; 0 with --augment)."""
    init: Literal["default", "he", "he-zero", "he-scaled"] = "default"
    """Initial weights: PyTorch's, or He et al.'s (2015), as they are or with residual branches that begin small."""
    train_images: Whole = None
    """Learn from this many images, with the same class shares (default: all that validation does not hold out)."""
    augment: bool = False
    """Rotate (12 degrees), shift (2 pixels) and scale (10 %) each training image at random, at most."""

    def check(self) -> None:
        super().check()
        count = self.train_images
        require(count is None or count >= 1, f"--train-images {count}: at least 1 is needed")
        require(len(self.hidden) > 0, "--hidden: at least one width is needed, such as --hidden 128 64")
        widths = self.hidden[:1] + self.hidden  # the images may have as many pixels as the first layer has units
        fits = any(len(set(widths[at : at + 3])) == 1 for at in range(len(widths) - 2))
        require(
            fits or not self.residual,
            f"--hidden {' '.join(map(str, self.hidden))} --residual: an identity fits around two hidden layers that "
            "keep the width of the one before; use three equal ones or more, such as --hidden 128 128 128",
        )
        require(
            self.residual or self.init in ("default", "he"),
            f"--init {self.init}: it is for residual networks, as it scales their branches; add --residual",
        )
        require(min(self.hidden) >= 1, f"--hidden {' '.join(map(str, self.hidden))}: each width must be 1 or more")
        require(
            self.dropout is None or 0 <= self.dropout < 1,
            f"--dropout {self.dropout}: a probability from 0 to below 1 is needed",
        )

    def use(self, dataset: str) -> None:
        """Take down what data set is used, whatever was asked for, and fill in its settings."""
        self.dataset = dataset
        self.fill(SETTINGS.get(dataset, SETTINGS["mnist"]) | ({"dropout": 0.0} if self.augment else {}))

    def describe(self) -> str:
        parts = ["residual-mlp" if self.residual else "mlp", *map(str, self.hidden)]
        parts += [self.init] if self.init != "default" else []
        parts += ["augment"] if self.augment else []
        parts += [f"{self.train_images}images"] if self.train_images is not None else []
        parts += [self.dataset] if self.dataset != "mnist" else []
        return "-".join([*parts, f"seed{self.seed}"])


def set_up(config: Config, images=None):
    """The network in its Trainer, and what to train, validate and test it on: ``(trainer, (train, validation, test))``.

    images: the ``ImageData``, if it is loaded already; by default the one that ``config.dataset`` names.
    """
    # Imported here, not above: torch takes seconds to import, and --help should not wait for it.
    from lab1.images.augment import random_affine
    from lab1.images.batches import about_data
    from lab1.images.start import load_batches
    from lab1.models import MLP
    from lab1.trainer import Trainer

    device = prepare(config)
    config.precision = find_precision(config.precision, device)  # a sweep may leave it to its jobs on a cluster
    images, batches = load_batches(config, device, random_affine, channels=1, size=28, images=images)
    pixels = images.train_images[0].numel()  # 784 of MNIST
    model = MLP((pixels, *config.hidden, len(images.classes)), config.residual, config.dropout, config.init)
    return Trainer(model, config, about_data(images, batches[0])), batches


def main(config: Config) -> dict:
    """Train, validate, test; returns the test metrics."""
    trainer, (train, validation, test) = set_up(config)
    trainer.train(train, validation)
    return trainer.test(test)


if __name__ == "__main__":
    launch(main, Config)
