"""Exercise 1.2. How well does one convolutional network, plain or residual, tell what is on a photograph?

Command:  python lab1/train_cnn.py --residual --epochs 60 --learning-rate 0.2
Time:     2 hours
Expect:   91.4 % test accuracy on CIFAR-10

    python lab1/train_cnn.py --depth 20 --norm none                        plain, without batch normalisation
    python lab1/train_cnn.py --residual --depth 3 --dataset shapes         no download, a few minutes
    tensorboard --logdir lab1/model

Depth 9 is the default, and comparable to ResNet-20. Without a network and without CIFAR-10 on the disk it draws its own
images, ten shapes on cluttered backgrounds. The networks and what they cost: lab1/models.py.
"""

import dataclasses
from typing import Annotated, Literal

from lab1.engine.config import TrainConfig, UsageError, Whole, flag, require
from lab1.engine.devices import find_precision
from lab1.engine.launch import launch, prepare


@dataclasses.dataclass
class Config(TrainConfig):
    """The flags of this script."""

    epochs: int = 30
    learning_rate: float = 0.1
    """Peak learning rate, per step of SGD with Nesterov momentum 0.9: reached after a fifth of the steps, zero at the
    last. A deep residual network without norm needs far less, such as 0.001 at depth 20 (see ResCNN in models.py)."""
    weight_decay: float = 5e-4
    """Weight decay, as a term of the loss."""
    patience: int = 0
    """Epochs without a better validation loss before training stops; 0 never stops early. The loss falls most in the
    last epochs, as the learning rate goes to zero, and stopping early would miss them; the test takes the weights of
    the best epoch in any case."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Number format of matrix products and convolutions; bf16 is autocast, the weights stay fp32. auto: bf16 where
    this device is faster in it, else fp32."""
    dataset: Annotated[str, flag("{auto,cifar10,shapes,folder,...}")] = "auto"
    """auto: CIFAR-10, or drawn shapes where it cannot be had; folder: your images under --data-dir, at 32 x 32."""
    network: Annotated[str | None, flag("CLASS")] = None
    """Train this registered class of lab1/models.py (default: CNN, or ResCNN with --residual). It is made with classes,
    and with those of in_channels, depth, width, norm and init that it takes."""
    depth: int = 9
    """Number of two-convolution blocks."""
    residual: bool = False
    """Put the identity around each block."""
    norm: Literal["batch", "none"] = "batch"
    """What follows each convolution: batch normalisation, or nothing."""
    init: Literal["he", "he-zero", "he-scaled"] = "he"
    """Initial weights: those of He et al. (2015); without norm the last layer of each residual branch may begin at
    zero, or divided by the square root of their number."""
    width: int = 16
    """Channels in the first stage; the second has twice, the third four times as many."""
    optimizer: Literal["sgd", "muon"] = "sgd"
    """How convolutions learn: like the rest by SGD with Nesterov momentum, or by Muon."""
    label_smoothing: float = 0.0
    """Share of each training label that is spread over all classes; validation and test do without."""
    train_images: Whole = None
    """Learn from this many images, with the same class shares (default: all that validation does not hold out)."""
    augment: bool = True
    """Shift each training image by up to 4 pixels and mirror half of them."""
    alternate: bool = False
    """Mirror each image in every other epoch, not at random."""

    def check(self) -> None:
        super().check()
        require(self.depth >= 1, f"--depth {self.depth}: at least 1 block is needed")
        require(self.width >= 1, f"--width {self.width}: at least 1 channel is needed")
        count = self.train_images
        require(count is None or count >= 1, f"--train-images {count}: at least 1 is needed")
        smoothing = self.label_smoothing
        require(0 <= smoothing < 1, f"--label-smoothing {smoothing}: a share from 0 to below 1 is needed, such as 0.1")
        scalable = self.init == "he" or (self.norm == "none" and (self.residual or self.network is not None))
        require(scalable, f"--init {self.init}: it is for residual networks without norm; add --residual --norm none")
        network = self.network
        require(self.augment or not self.alternate, "--alternate: without --augment nothing is mirrored")
        require(network is None or not self.residual, f"--network {network}: --residual goes without; it means ResCNN")

    def use(self, dataset: str) -> None:
        """Take down what data set is used, whatever was asked for: it goes into the name and the results."""
        self.dataset = dataset

    def describe(self) -> str:
        parts = [f"{'rescnn' if self.residual else 'cnn'}{self.depth}", str(self.width)]
        if self.network is not None:
            parts = [self.network.lower()]
            parts += [f"depth{self.depth}"] if self.depth != Config.depth else []
            parts += [f"width{self.width}"] if self.width != Config.width else []
        parts += ["nonorm"] if self.norm == "none" else []
        parts += [self.init] if self.init != "he" else []
        parts += [self.optimizer] if self.optimizer != "sgd" else []
        parts += [f"smooth{self.label_smoothing:g}"] if self.label_smoothing > 0 else []
        parts += ["noaugment"] if not self.augment else []
        parts += ["alternate"] if self.alternate else []
        parts += [f"{self.train_images}images"] if self.train_images is not None else []
        parts += [self.dataset] if self.dataset != "cifar10" else []
        return "-".join([*parts, f"seed{self.seed}"])


def set_up(config: Config, images=None):
    """The network in its Trainer, and what to train, validate and test it on: ``(trainer, (train, validation, test))``.

    images: the ``ImageData``, if it is loaded already; by default the one that ``config.dataset`` names.
    """
    # Imported here, not above: torch takes seconds to import, and --help should not wait for it.
    import torch

    from lab1 import models
    from lab1.engine.files import reason
    from lab1.images.augment import crop_and_flip
    from lab1.images.batches import about_data
    from lab1.images.start import load_batches, whiten
    from lab1.images.trainer import CNNTrainer

    device = prepare(config)
    config.precision = find_precision(config.precision, device)
    name = config.network or ("ResCNN" if config.residual else "CNN")
    known = ", ".join(models.NETWORKS)
    require(
        name in models.NETWORKS, f"--network {name}: use one of {known}, or put @register on yours in lab1/models.py"
    )
    images, batches = load_batches(
        config, device, crop_and_flip, channels=3, size=32, images=images, alternate=config.alternate
    )
    model = models.make(
        models.NETWORKS[name],
        depth=config.depth,
        width=config.width,
        norm=config.norm,
        init=config.init,
        in_channels=images.train_images.shape[1],
        classes=len(images.classes),
    )
    for given in ("depth", "width", "norm", "init"):
        value, default = getattr(config, given), getattr(Config, given)
        require(given in model.arguments or value == default, f"--{given} {value}: {name} takes no {given}")
    if config.network is not None:
        try:
            with torch.no_grad():
                model.eval()(batches[0].take(torch.tensor([0], device=device))[0].cpu())
        except (RuntimeError, TypeError, ValueError) as error:
            raise UsageError(f"--network {name}: it cannot take these images: {reason(error)}") from None
        model.train()
    if isinstance(model, models.FastCNN):
        whiten(model, batches[0])
    return CNNTrainer(model, config, about_data(images, batches[0])), batches


def main(config: Config) -> dict:
    """Train, validate, test; returns the test metrics."""
    trainer, (train, validation, test) = set_up(config)
    trainer.train(train, validation)
    return trainer.test(test)


if __name__ == "__main__":
    launch(main, Config)
