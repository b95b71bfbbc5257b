"""An epoch of MNIST with this repository's Trainer, against the usual ways, in one process and in turn.

    python tests/benchmarks/bench_mnist.py               median of 5 rounds at batch 128
    python tests/benchmarks/bench_mnist.py --rounds 9 --batch-size 64
    python tests/benchmarks/bench_mnist.py --only user    train_mlp.py --epochs 8 as it comes, a seed a round

The network (784-128-64-10), the 60,000 images, the batch size and Adam are the same everywhere. Ours is all that a user
gets: accuracy, progress bar, TensorBoard, the checkpoint at the end of the epoch. The usual way is torchvision's MNIST
with ToTensor and Normalize, a DataLoader (0 and 2 workers) and the plain loop, which reports nothing. Lightning runs
with its defaults where it is installed (pip install lightning). The matrix products alone, without anything else, say
how fast any of them could be. Each round times one epoch of each, in turn; a ratio is the median over the rounds of
that round's ratio. Peak memory is measured in a process of its own for each.
"""

import argparse
import contextlib
import itertools
import logging
import multiprocessing
import os
import resource
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import report
import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import MNIST

from lab1 import train_mlp
from lab1.engine.config import REPOSITORY
from lab1.images import datasets
from lab1.images.batches import Batches, about_data, pixel_statistics
from lab1.models import MLP
from lab1.train_mlp import Config
from lab1.trainer import Trainer

SIZES = (784, 128, 64, 10)


def ours(batch_size: int, precision: str = "fp32"):
    """A function that trains one epoch with the Trainer, logging and checkpoint included."""
    images = datasets.load_mnist(REPOSITORY / "data")
    mean, std = pixel_statistics(images.train_images)
    batches = Batches(images.train_images, images.train_labels, batch_size, mean, std, seed=0)
    folder = tempfile.mkdtemp()
    config = Config(epochs=1000, batch_size=batch_size, patience=0, model_dir=Path(folder), precision=precision)
    config.use("mnist")
    trainer = Trainer(MLP(SIZES), config, about_data(images, batches))
    trainer.steps_per_epoch = len(batches)
    trainer.open()

    def epoch() -> None:
        with trainer._progress() as bar:
            trainer.train_epoch(batches, bar)
        trainer.end_epoch({"loss": 1.0, "accuracy": 0.5})

    return epoch


def usual_loader(batch_size: int, workers: int) -> DataLoader:
    """MNIST the way most tutorials load it."""
    normalised = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])
    images = MNIST(REPOSITORY / "data", train=True, transform=normalised)
    return DataLoader(images, batch_size, shuffle=True, num_workers=workers)


def usual(batch_size: int, workers: int):
    """A function that trains one epoch with a DataLoader and the plain loop."""
    loader = usual_loader(batch_size, workers)
    model, loss_function = MLP(SIZES), nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def epoch() -> None:
        for images, labels in loader:
            optimizer.zero_grad()
            loss_function(model(images), labels).backward()
            optimizer.step()

    return epoch


def lightning(batch_size: int):
    """A function that trains one epoch with Lightning's Trainer, as it comes."""
    import lightning as L

    class Module(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = MLP(SIZES)

        def training_step(self, batch, _):
            images, labels = batch
            loss = nn.functional.cross_entropy(self.model(images), labels)
            self.log("loss", loss)
            return loss

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=1e-3)

    class Clock(L.Callback):
        def on_train_epoch_start(self, *_):
            self.began = time.perf_counter()

        def on_train_epoch_end(self, *_):
            self.seconds = time.perf_counter() - self.began

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    loader, folder = usual_loader(batch_size, 0), tempfile.mkdtemp()

    def epoch() -> float:
        clock = Clock()
        # Its progress bar is drawn, but out of sight, as ours is.
        with (
            open(os.devnull, "w", encoding="utf-8") as nowhere,
            contextlib.redirect_stdout(nowhere),
            contextlib.redirect_stderr(nowhere),
        ):
            trainer = L.Trainer(max_epochs=1, default_root_dir=folder, callbacks=[clock], enable_model_summary=False)
            trainer.fit(Module(), loader)
        return clock.seconds  # of the epoch alone, without Lightning's start

    return epoch


def products(batch_size: int):
    """A function that multiplies an epoch's matrices, forwards and backwards, by the kernels that all of them use, and
    does nothing else: what is left if all the rest took no time."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch_size, SIZES[0], generator=generator)
    weights = [torch.randn(after, before, generator=generator) for before, after in itertools.pairwise(SIZES)]

    def epoch() -> None:
        for _ in range(-(-60_000 // batch_size)):
            inputs = [images]
            for weight in weights:
                inputs.append(inputs[-1] @ weight.T)
            gradient = inputs[-1]
            for number in reversed(range(len(weights))):
                gradient.T @ inputs[number]  # of the weights
                if number > 0:
                    gradient = gradient @ weights[number]  # of the layer before

    return epoch


def timed(epoch) -> float:
    """Seconds of one epoch."""
    began = time.perf_counter()
    own = epoch()
    return own if own is not None else time.perf_counter() - began


def peak_memory(make, *arguments) -> float:
    """Peak resident memory in MiB of a fresh process that trains one epoch."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak, (make, arguments))


def _peak(make, arguments) -> float:
    make(*arguments)()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def user(rounds: int, epochs: int = 8) -> list[dict[str, float]]:
    """train_mlp.py --epochs 8 as it comes: seconds of training and the test accuracy, printed and returned by seed."""
    images = datasets.load_mnist(REPOSITORY / "data")
    found = []
    for seed in range(rounds):
        config = Config(epochs=epochs, seed=seed, device="cpu", model_dir=Path(tempfile.mkdtemp()))
        config.use("mnist")
        trainer, (train, validation, test) = train_mlp.set_up(config, images)
        trainer.train(train, validation)
        accuracy = trainer.test(test)["accuracy"]
        print(f"seed {seed}: {100 * accuracy:.2f} % after {trainer.seconds:.1f} s of training")
        found.append({"seed": seed, "seconds": trainer.seconds, "accuracy": accuracy})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--only", choices=["epoch", "user"])
    arguments = report.parse(parser)
    found = {} if arguments.only == "user" else {"epoch": compare(arguments)}
    if arguments.only in (None, "user"):
        found["user"] = user(arguments.rounds)
    report.write(__file__, arguments, found)


def compare(arguments: argparse.Namespace) -> dict[str, dict]:
    """An epoch of every way, in turn; what each took, the ratios, and the peak memory of some."""
    size = arguments.batch_size
    memory = {"ours": peak_memory(ours, size), "DataLoader, 0 workers": peak_memory(usual, size, 0)}
    ways = {
        "ours": ours(size),
        "DataLoader, 0 workers": usual(size, 0),
        "DataLoader, 2 workers": usual(size, 2),
    }
    try:
        ways["Lightning"] = lightning(size)
    except ImportError:
        print("Lightning is not installed: left out")
    ways["matrix products alone"] = products(size)
    for epoch in ways.values():
        epoch()
    seconds = {name: [] for name in ways}
    for _ in range(arguments.rounds):
        for name, epoch in ways.items():
            seconds[name].append(timed(epoch))
    print(f"\n60,000 images, batch {size}, {torch.get_num_threads()} threads, median of {arguments.rounds} rounds")
    print(f"{'':24s}{'s/epoch':>9s}{'min':>8s}{'max':>8s}{'ours is faster by':>20s}{'peak MiB':>10s}")
    for name, times in seconds.items():
        ratio = report.ratio(seconds["ours"], times)
        peak = f"{memory[name]:10.0f}" if name in memory else ""
        print(f"{name:24s}{statistics.median(times):9.3f}{min(times):8.3f}{max(times):8.3f}{ratio:19.1f}x{peak}")
    return {"seconds": seconds, "ratio": report.ratios(seconds), "peak_mib": memory}


if __name__ == "__main__":
    main()
