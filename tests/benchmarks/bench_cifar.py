"""Training on CIFAR-10 with this repository, against the usual loop, in turn: ResCNN depth 9 (ResNet-20), and FastCNN.

    python tests/benchmarks/bench_cifar.py               5 rounds of 20 steps at batch 128, and of 3 steps at batch 500
    python tests/benchmarks/bench_cifar.py --only resnet --rounds 9 --each

The network, the images, crop and flip and the batch size are the same everywhere; so is SGD with Nesterov momentum, but
for FastCNN, which learns by Muon on our side. Ours is all that a user of train_cnn.py or train_fast.py gets: its
Trainer with accuracy and checks of the loss, in the precision that it finds best. The usual loop is torchvision's
CIFAR10 with RandomCrop, RandomHorizontalFlip, ToTensor and Normalize for each image, a DataLoader (0 and 2 workers),
channels first, fp32, and reports nothing. With ``--each``, what ours is made of is timed too, one thing after the
other. Each round times all of them, in turn and each in a process of its own that has warmed up; a ratio is the median
over the rounds of that round's ratio.
"""

import argparse
import contextlib
import multiprocessing
import statistics
import tempfile
import time
from itertools import islice
from pathlib import Path

import report
import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import CIFAR10

from lab1 import train_fast
from lab1.engine.config import REPOSITORY
from lab1.engine.devices import find_precision
from lab1.images import datasets
from lab1.images.augment import crop_and_flip
from lab1.images.batches import Batches, about_data, pixel_statistics
from lab1.images.trainer import CNNTrainer
from lab1.models import FastCNN, ResCNN
from lab1.train_cnn import Config

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
WARM_UP = 4  # steps before the clock first starts


def channels_first(model: nn.Module) -> nn.Module:
    """The same network as most code has it in memory."""
    model.to(memory_format=torch.contiguous_format)
    model.features = model.body  # without the conversion of the images
    return model


def ours(batch_size: int, precision: str, first: bool = False):
    """An endless sequence of steps of the Trainer, as train_cnn.py makes them."""
    images = datasets.load_cifar10(REPOSITORY / "data", download=False)
    mean, std = pixel_statistics(images.train_images)
    batches = Batches(images.train_images, images.train_labels, batch_size, mean, std, seed=0, augment=crop_and_flip)
    settings = Config(epochs=1000, batch_size=batch_size, model_dir=Path(tempfile.mkdtemp()), precision=precision)
    trainer = CNNTrainer(channels_first(ResCNN(9)) if first else ResCNN(9), settings, about_data(images, batches))
    yield from steps_of(trainer, batches)


def ours_fast(batch_size: int, precision: str):
    """An endless sequence of steps of the Trainer, as train_fast.py makes them."""
    images = datasets.load_cifar10(REPOSITORY / "data", download=False)
    settings = train_fast.Config(
        epochs=1000, batch_size=batch_size, model_dir=Path(tempfile.mkdtemp()), precision=precision
    )
    trainer, (batches, *_) = train_fast.set_up(settings, images)
    yield from steps_of(trainer, batches)


def steps_of(trainer, batches):
    trainer.steps_per_epoch = len(batches)
    trainer.open()
    for number in range(trainer.epochs):
        for batch in batches.epoch(number):
            trainer.averages.add(trainer.train_step(batch), trainer.weight(batch))
            trainer.averages.read()
            yield


def usual(batch_size: int, workers: int, network: type[nn.Module] = ResCNN):
    """An endless sequence of steps of the plain loop."""
    crop = {"padding": 2, "padding_mode": "reflect"} if network is FastCNN else {"padding": 4}
    augmented = [transforms.RandomCrop(32, **crop), transforms.RandomHorizontalFlip()]
    transform = transforms.Compose([*augmented, transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    loader = DataLoader(
        CIFAR10(REPOSITORY / "data", transform=transform), batch_size, shuffle=True, num_workers=workers
    )
    model = channels_first(ResCNN(9) if network is ResCNN else FastCNN(without=("whitening",)))
    loss_function = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4)
    while True:
        for images, labels in loader:
            optimizer.zero_grad()
            loss_function(model(images), labels).backward()
            optimizer.step()
            yield


def work(connection, make, arguments) -> None:
    """The process of one way: makes as many steps as it is asked for and answers how many seconds they took."""
    steps = make(*arguments)
    for _ in islice(steps, WARM_UP):
        pass
    connection.send(None)
    with contextlib.suppress(EOFError):
        while True:
            count = connection.recv()
            began = time.perf_counter()
            for _ in islice(steps, count):
                pass
            connection.send(time.perf_counter() - began)


def measure(ways: dict, rounds: int, steps: int, batch_size: int, title: str) -> dict:
    """Time the ways in turn, print a line for each, and return what the JSON file says of them."""
    spawn = multiprocessing.get_context("spawn")
    processes = {}
    for name, (make, arguments) in ways.items():
        here, there = spawn.Pipe()
        process = spawn.Process(target=work, args=(there, make, arguments))
        process.start()
        there.close()
        here.recv()
        processes[name] = process, here
    seconds = {name: [] for name in ways}
    for _ in range(rounds):
        for name, (_, connection) in processes.items():
            connection.send(steps)
            seconds[name].append(connection.recv())
    for process, connection in processes.values():
        connection.close()
        process.join()
    protocol = f"median of {rounds} rounds of {steps} steps"
    print(f"{title}, batch {batch_size}, {torch.get_num_threads()} threads, {protocol}")
    print(f"{'':28s}{'images/s':>10s}{'min':>8s}{'max':>8s}{'s/epoch':>9s}{'ours is faster by':>20s}")
    for name, times in seconds.items():
        speeds = [batch_size * steps / each for each in times]
        ratio = report.ratio(seconds["ours"], times)
        speed = statistics.median(speeds)
        row = f"{speed:10.0f}{min(speeds):8.0f}{max(speeds):8.0f}{50_000 / speed:9.1f}{ratio:19.2f}x"
        print(f"{name:28s}{row}")
    return {"images": batch_size * steps, "seconds": seconds, "ratio": report.ratios(seconds)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("resnet", "fast"), help="one of the two networks alone")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20, help="steps of ResCNN in a round")
    parser.add_argument("--batch-size", type=int, default=128, help="of ResCNN")
    parser.add_argument("--each", action="store_true", help="time what ours is made of, too")
    flags = report.parse(parser)
    size, best, found = flags.batch_size, find_precision("auto", torch.device("cpu")), {}
    if flags.only != "fast":
        ways = {"ours": (ours, (size, best))}
        if flags.each:
            ways["ours in fp32"] = ours, (size, "fp32")
            ways["... and channels first"] = ours, (size, "fp32", True)
        ways |= {f"DataLoader, {workers} workers": (usual, (size, workers)) for workers in (0, 2)}
        found["training"] = measure(ways, flags.rounds, flags.steps, size, f"ResCNN depth 9, ours in {best}")
    if flags.only != "resnet":
        size, steps = train_fast.Config.batch_size, 3
        ways = {"ours": (ours_fast, (size, best)), "DataLoader, 0 workers": (usual, (size, 0, FastCNN))}
        found["fast"] = measure(ways, flags.rounds, steps, size, f"FastCNN, ours in {best}")
    report.write(__file__, flags, {"precision": best} | found)


if __name__ == "__main__":
    main()
