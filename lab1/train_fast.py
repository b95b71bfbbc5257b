"""Exercise 1.2. In how little computation can CIFAR-10 be learned?

Command:  python lab1/train_fast.py
Time:     9 minutes with AMX, 8 seconds on a GPU
Expect:   92.9 % test accuracy on CIFAR-10, 93.9 % looking six times at each image

    python lab1/train_fast.py --validation-images 0 --epochs 11  learn from all 50,000 images, as the speed runs do
    python lab1/train_fast.py --width 32                         a quarter of the operations
    python lab1/train_fast.py --width 32 --without averaging     leave out one of the tricks
    python lab1/ablate_fast.py --width 32 --goal 0.9             what each trick is worth

A wide, shallow network and a dozen passes over the data, after the published speed runs (Page 2018; Jordan 2024, arXiv
2404.00498). Each trick is a few lines: the network's in FastCNN of lab1/models.py, those of training in FastTrainer of
lab1/images/trainer.py.
"""

import dataclasses
from functools import partial
from typing import Annotated, Literal

from lab1.engine.config import TrainConfig, Whole, flag, require
from lab1.engine.devices import find_precision
from lab1.engine.launch import launch, prepare

# What the speed runs do, in the order in which ablate_fast.py adds it.
Trick = Literal[
    "whitening", "identity", "frozen-scales", "fast-shifts", "smoothing", "averaging", "shifting", "alternating"
]
TRICKS: tuple[str, ...] = Trick.__args__
SMOOTHING = 0.2


@dataclasses.dataclass
class Config(TrainConfig):
    """The flags of this script."""

    epochs: int = 12
    batch_size: int = 500
    """Images in one step of the optimiser, over all processes."""
    learning_rate: float = 0.75
    """Peak learning rate, per step: reached after 23 % of the steps, on a straight line from a fifth of it, and left on
    one to 7 % of it."""
    weight_decay: float = 1.3e-3
    """Weight decay, as a term of the loss."""
    patience: int = 0
    """Epochs without a better validation loss before training stops; 0 never stops early."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Number format of matrix products and convolutions; bf16 is autocast, the weights stay fp32. auto: bf16 where
    this device is faster in it, else fp32."""
    dataset: Annotated[str, flag("{auto,cifar10,shapes,folder,...}")] = "auto"
    """auto: CIFAR-10, or drawn shapes where it cannot be had; folder: your images under --data-dir, at 32 x 32."""
    width: int = 64
    """Channels in the first stage; the other two have four times as many."""
    optimizer: Literal["muon", "sgd"] = "muon"
    """How convolutions learn: by Muon, or like the rest by SGD with Nesterov momentum."""
    without: tuple[Trick, ...] = ()
    """Tricks to leave out. whitening: the first layer is learned like the others; identity: convolutions begin at
    random; frozen-scales: norms learn their scales, too; fast-shifts: their shifts learn no faster than the rest;
    smoothing: labels are not smoothed; averaging: no averaged weights; shifting: images are not shifted; alternating:
    they are mirrored at random, not in turn."""
    train_images: Whole = None
    """Learn from this many images, with the same class shares (default: all that validation does not hold out)."""
    validation_images: Whole = None
    """Hold out this many images, which choose the epoch whose weights are tested (default: 5,000, or a tenth of a
    smaller set). 0 holds out none: all are learned from, and the last weights are tested."""
    augment: bool = True
    """Shift and mirror the training images."""

    def check(self) -> None:
        super().check()
        require(self.width >= 1, f"--width {self.width}: at least 1 channel is needed")
        count = self.train_images
        require(count is None or count >= 1, f"--train-images {count}: at least 1 is needed")
        held_out = self.validation_images
        require(held_out is None or held_out >= 0, f"--validation-images {held_out}: it cannot be negative")
        watched = held_out != 0 or self.patience == 0
        require(watched, f"--patience {self.patience}: with --validation-images 0 nothing says when to stop")
        require(len(set(self.without)) == len(self.without), f"--without {' '.join(self.without)}: one is there twice")
        needless = not self.augment and {"shifting", "alternating"} & set(self.without)
        require(not needless, f"--without {' '.join(needless or ())}: --no-augment leaves it out already")

    def uses(self, trick: str) -> bool:
        """Whether this trick is in."""
        return trick not in self.without

    @property
    def label_smoothing(self) -> float:
        return SMOOTHING if self.uses("smoothing") else 0.0

    def use(self, dataset: str) -> None:
        """Take down what data set is used, whatever was asked for: it goes into the name and the results."""
        self.dataset = dataset

    def describe(self) -> str:
        parts = ["fast", str(self.width)]
        parts += ["sgd"] if self.optimizer == "sgd" else []
        parts += [f"no-{trick}" for trick in TRICKS if trick in self.without]
        parts += ["noaugment"] if not self.augment else []
        parts += [f"{self.train_images}images"] if self.train_images is not None else []
        parts += [f"{self.validation_images}held-out"] if self.validation_images is not None else []
        parts += [self.dataset] if self.dataset != "cifar10" else []
        return "-".join([*parts, f"seed{self.seed}"])


def set_up(config: Config, images=None):
    """The network in its Trainer, and what to train, validate and test it on: ``(trainer, (train, validation, test))``.

    images: the ``ImageData``, if it is loaded already; by default the one that ``config.dataset`` names.
    """
    # Imported here, not above: torch takes seconds to import, and --help should not wait for it.
    from lab1.images.augment import crop_and_flip
    from lab1.images.batches import about_data
    from lab1.images.start import load_batches, whiten
    from lab1.images.trainer import FastTrainer
    from lab1.models import FastCNN

    device = prepare(config)
    config.precision = find_precision(config.precision, device)
    if config.dry_run:  # batches of 500 at full width would take half a minute
        config.batch_size = min(config.batch_size, 50)
    augment = partial(crop_and_flip, pixels=2 if config.uses("shifting") else 0, border="reflect")
    images, batches = load_batches(
        config,
        device,
        augment,
        channels=3,
        size=32,
        images=images,
        alternate=config.uses("alternating"),
        validation_count=config.validation_images,
    )
    model = FastCNN(config.width, images.train_images.shape[1], len(images.classes), config.without)
    if config.uses("whitening"):
        whiten(model, batches[0])
    return FastTrainer(model, config, about_data(images, batches[0])), batches


def main(config: Config) -> dict:
    """Train, validate, test; returns the test metrics."""
    trainer, (train, validation, test) = set_up(config)
    trainer.train(train, validation)
    return trainer.test(test)


if __name__ == "__main__":
    launch(main, Config)
