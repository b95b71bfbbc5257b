"""Exercise 2.2. Can a classifier of single digits find every digit on a large canvas?

Command:  python lab1/detect_digits.py
Time:     5 minutes
Expect:   F1 of 0.97 on random canvases, 0.99 on grids

    python lab1/detect_digits.py --network mlp             an MLP, 784-256-128-11, in place of a LeNet
    python lab1/detect_digits.py --run mlp-128-64-seed0    detect with the classifier of exercise 1.1, as it is
    tensorboard --logdir lab1/model

Trained here, the classifier has an eleventh class, background. Digits to learn from, for validation and for the test
are different ones; the threshold is chosen on validation canvases. How linear layers become convolutions is in
lab1/detection/detector.py, the canvases are beside it.
"""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

from lab1.engine.config import TrainConfig, find_run, flag, require
from lab1.engine.devices import find_precision
from lab1.engine.files import read_object
from lab1.engine.launch import launch, prepare

# Flags that say how a detector is trained: with --run none is.
TRAINING = (
    *("epochs", "batch_size", "learning_rate", "weight_decay", "patience"),
    *("network", "train_canvases", "precision", "compile"),
)


@dataclasses.dataclass
class Config(TrainConfig):
    """The flags of this script."""

    epochs: int = 4
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    patience: int = 0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Number format of training; bf16 is autocast. auto: bf16 where this device is faster in it."""
    dataset: Literal["auto", "mnist", "digits"] = "auto"
    """auto: MNIST, or scikit-learn's digits where it cannot be had."""
    network: Literal["lenet", "mlp"] = "lenet"
    """The classifier to train and to make convolutional."""
    run: Annotated[str | None, flag("RUN")] = None
    """Train nothing: detect with this run's network; a folder, or a name under --model-dir or of a published run."""
    train_canvases: int = 6000
    """Canvases to cut training windows from, and an eighth as many grids: some 30 windows for each of them."""
    canvases: int = 500
    """Canvases of each kind to test on."""

    def check(self) -> None:
        super().check()
        require(self.train_canvases >= 8, f"--train-canvases {self.train_canvases}: at least 8 are needed")
        require(self.canvases >= 1, f"--canvases {self.canvases}: at least 1 is needed")
        if self.run is not None:
            require(self.resume is None, "--resume: with --run nothing is trained, so there is nothing to resume")
            changed = [name for name in TRAINING if getattr(self, name) != getattr(Config, name)]
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in changed)
            require(
                not changed,
                f"{flags}: with --run nothing is trained; leave {'it' if len(changed) == 1 else 'them'} out",
            )

    def describe(self) -> str:
        if self.run is not None:
            return f"detect-{Path(self.run).resolve().name}"
        parts = ["detect", self.network, *([self.dataset] if self.dataset != "mnist" else [])]
        return "-".join([*parts, f"seed{self.seed}"])


def draw(images, config: Config, split_seed: int = 0) -> dict[str, dict]:
    """Canvases of each kind from the digits of each part: ``["test"]["grid"]`` and so on. Those of validation and test
    are the same for every seed, so that detectors can be compared; digits of validation are held out with
    ``split_seed``."""
    from lab1.detection import canvases
    from lab1.engine.randomness import stratified_split

    held_out = min(5000, len(images.train_labels) // 10)
    rest, validation = stratified_split(images.train_labels, held_out, seed=split_seed)
    parts = {
        "train": (images.train_images[rest], images.train_labels[rest], config.train_canvases, 1000 + config.seed),
        "validation": (images.train_images[validation], images.train_labels[validation], 200, 1),
        "test": (images.test_images, images.test_labels, config.canvases, 2),
    }
    drawn = {}
    for part, (digits, labels, count, seed) in parts.items():
        # What is learned from is random for the most part: a grid is the easier kind.
        numbers = {"random": count, "grid": count // 8 if part == "train" else count}
        drawn[part] = {
            kind: canvases.draw(kind, digits[:, 0].numpy(), labels.numpy(), min(n, 16) if config.dry_run else n, seed)
            for kind, n in numbers.items()
            if part != "train" or config.run is None
        }
    return drawn


def detect_with(config: Config, images, device) -> dict:
    """Detect with the network of a run, as it is; writes a run of its own."""
    from lab1 import models
    from lab1.detection.trainer import evaluate
    from lab1.engine import distributed, logbook
    from lab1.images.batches import ABOUT

    require(distributed.world_size() == 1, "with --run digits are detected in one process, without torchrun")
    source = find_run(config.run, config.runs_folder(), config.published_folder(), "best.pt")
    model, about = models.load(source / "best.pt", device, **ABOUT)
    classes = about["classes"][:10]
    require(classes == images.classes, f"--run {config.run}: it was trained on {about['dataset']}, not on digits")
    # The threshold is chosen on digits that were not learned from: each seed of train_mlp.py holds out others.
    detector = "background" in about["classes"]  # those of this script held out the same digits, whatever their seed
    seed = 0 if detector else read_object(source / "config.json").get("seed", 0)
    drawn = draw(images, config, seed if isinstance(seed, int) else 0)
    test, draw_figure = evaluate(model, about, drawn["validation"]["random"], drawn["test"], device)
    settings = {name: value for name, value in config.as_dict().items() if name not in TRAINING}
    folder = logbook.new_run_folder(config.runs_folder(), config.run_name(), settings)
    results = {
        "script": logbook.script_name(config),
        "config": settings,
        "dataset": images.name,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "test": test,
        "environment": logbook.environment(device),
    }
    logbook.write_results(results, folder / "results.json")
    figure, log = draw_figure(), logbook.Logbook(folder)
    figure.savefig(folder / "detections.png")
    log.figure("detections/test", figure, 0)
    log.scalars({f"{name}/test": test[name] for name in ("f1", "precision", "recall")}, 0)
    log.close()
    print(f"{folder} holds the run")
    return test


def main(config: Config) -> dict:
    """Train a classifier of windows, or take one that is trained; detect; returns the test metrics."""
    # Imported here, not above: torch takes seconds to import, and --help should not wait for it.
    import torch

    from lab1.detection import canvases
    from lab1.detection.trainer import DetectorTrainer
    from lab1.images import datasets
    from lab1.images.batches import Batches, about_data, pixel_statistics
    from lab1.models import MLP, LeNet

    device = prepare(config)
    config.precision = find_precision(config.precision, device)
    images = datasets.load(config.dataset, config.data_folder(), channels=1, size=28, download=not config.dry_run)
    config.dataset = images.name
    if config.run is not None:
        return detect_with(config, images, device)

    drawn = draw(images, config)
    windows = {}
    for part, kinds in drawn.items():
        cut = [canvases.windows(each, config.seed) for each in kinds.values()]
        windows[part] = tuple(torch.cat(parts).to(device) for parts in zip(*cut, strict=True))
    mean, std = pixel_statistics(windows["train"][0].cpu())
    limit = 3 if config.dry_run else None
    train = Batches(*windows["train"], config.batch_size, mean, std, seed=config.seed, limit=limit)
    validation, test = (Batches(*windows[part], 1000, mean, std, limit=limit) for part in ("validation", "test"))
    classes = [*images.classes, "background"]
    about = about_data(images, train) | {"classes": classes}

    model = LeNet(len(classes)) if config.network == "lenet" else MLP((784, 256, 128, len(classes)))
    trainer = DetectorTrainer(model, config, about, drawn["validation"]["random"], drawn["test"])
    trainer.train(train, validation)
    return trainer.test(test)


if __name__ == "__main__":
    launch(main, Config)
