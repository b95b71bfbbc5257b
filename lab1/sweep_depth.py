"""Exercise 1.2. How deep can a network be, with and without residual connections?

Command:  python lab1/sweep_depth.py --family mlp
Time:     30 minutes
Expect:   97.7 % test accuracy at depth 50 with residual connections, 11.4 % without

    python lab1/sweep_depth.py --family mlp --init he      the same from the initial weights of He et al. (2015)
    python lab1/sweep_depth.py                             CNN and ResCNN of depth 1 to 25 on CIFAR-10
    python lab1/sweep_depth.py --train-images 10000        the same on a part of the images, 3 hours
    python lab1/sweep_depth.py --train-images 10000 --rates 0.03 0.1 0.3 --seeds 100   which rate suits which network
    python lab1/sweep_depth.py --tuned depth-cnn-10000images-rates                     each at the rate that suits it
    python lab1/sweep_depth.py --resume depth-mlp          resume: what is done is skipped, the rest continues exactly
    tensorboard --logdir lab1/model/depth-mlp

A plain network and its residual twin have the same parameters, initial weights, batches and hyperparameters, whatever
their depth; with --tuned, all but the learning rate, which one rule chooses for each (chosen_rates). Each network is a
run of its own in the sweep's folder. One whose loss is not finite counts as failed to train. --resume with further
--depths or --seeds extends a sweep.
"""

import dataclasses
import itertools
import math
import statistics
from collections import defaultdict
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any, Literal

from lab1.engine.config import Diverged, Real, TrainConfig, Whole, find_run, flag, require
from lab1.engine.files import read_object
from lab1.engine.finished import changed_flags
from lab1.engine.launch import launch
from lab1.engine.unfinished import runs_of_this_name
from lab1.engine.workers import SeriesConfig

KINDS = ("plain", "residual")  # by whether a network is residual
SETTINGS = {
    "cnn": dict(
        depths=(1, 5, 10, 20, 25),
        norm="batch",
        width=16,
        precision="auto",
        epochs=12,
        batch_size=128,
        learning_rate=0.1,
        weight_decay=5e-4,
    ),
    "mlp": dict(
        depths=(2, 4, 6, 10, 20, 50, 100),
        norm="none",
        width=64,
        precision="fp32",
        epochs=5,
        batch_size=256,
        learning_rate=1e-3,
        weight_decay=0.01,
    ),
}


@dataclasses.dataclass
class Config(SeriesConfig, TrainConfig):
    """The flags of this script. Those without a default take it from SETTINGS, by family."""

    family: Literal["cnn", "mlp"] = "cnn"
    """cnn: CNN and ResCNN, depth counts blocks of two convolutions; mlp: depth counts hidden layers after the first,
    two to a block."""
    depths: Annotated[tuple[int, ...], flag("INT ...")] = ()
    """Depths to train, each plain and residual (default: 1 5 10 20 25; for mlp 2 4 6 10 20 50 100)."""
    norm: Annotated[Literal["batch", "none"] | None, flag("{batch,none}")] = None
    """What follows each convolution (default: batch); an MLP has none."""
    kinds: tuple[Literal["plain", "residual"], ...] = ("plain", "residual")
    """Networks to train at each depth."""
    init: Literal["default", "he", "he-zero", "he-scaled"] = "default"
    """Initial weights: an MLP's are PyTorch's by default, a CNN's those of He et al. (2015). In residual networks
    without norm the last layer of each branch may begin at zero, or divided by the square root of their number."""
    width: Whole = None
    """Channels in a CNN's first stage (default: 16), units in an MLP's layers (default: 64)."""
    dataset: Annotated[str, flag("{auto,cifar10,shapes,mnist,digits,folder,...}")] = "auto"
    """auto: CIFAR-10, for mlp MNIST; or what is embedded where these cannot be had."""
    train_images: Whole = None
    """Learn from this many images, with the same class shares (default: all that validation does not hold out)."""
    epochs: Whole = None
    """Passes over the training set (default: 12, or 10 with --train-images; for mlp 5)."""
    batch_size: Whole = None
    """Examples in one step of the optimiser (default: 128; for mlp 256)."""
    learning_rate: Real = None
    """Peak learning rate (default: 0.1, without norm 0.01; for mlp 0.001)."""
    rates: tuple[float, ...] = ()
    """Train each network at each of these peak learning rates."""
    tuned: Annotated[str | None, flag("SWEEP")] = None
    """Take each network's learning rate from this sweep with --rates: that of the highest validation accuracy."""
    weight_decay: Real = None
    """Weight decay (default: 0.0005; for mlp 0.01)."""
    patience: int = 0
    """Epochs without a better validation loss before training stops; 0 never stops early."""
    precision: Annotated[Literal["auto", "fp32", "bf16"] | None, flag("{auto,fp32,bf16}")] = None
    """Number format of products (default: auto, bf16 where this device is faster in it; for mlp fp32)."""
    dry_run: bool = False
    """See that everything works: two depths, one seed, 2 epochs of 3 batches; nothing downloaded."""

    def __post_init__(self) -> None:
        settings = SETTINGS[self.family]
        self.depths = self.depths or settings["depths"]
        if self.family == "cnn":
            settings = settings | ({"epochs": 10} if self.train_images is not None else {})
            settings |= {"learning_rate": 0.01} if self.norm == "none" else {}
            self.init = "default" if self.init == "he" else self.init
        self.fill(settings)
        if self.dry_run:
            self.depths, self.seeds = self.depths[:2], self.seeds[:1]

    def check(self) -> None:
        super().check()
        depths = self.depths
        require(len(set(depths)) == len(depths), f"--depths {' '.join(map(str, depths))}: one is there twice")
        require(self.family == "cnn" or self.norm == "none", f"--norm {self.norm}: an MLP has none")
        for name, values in (("kinds", self.kinds), ("rates", self.rates)):
            require(len(set(values)) == len(values), f"--{name} {' '.join(map(str, values))}: one is there twice")
        require(len(self.kinds) > 0, "--kinds: plain, residual, or both are needed")
        require(not (self.rates and self.tuned), "--rates finds rates and --tuned takes them: give one of the two")
        for run in networks(self):
            pairs = self.family == "cnn" or (run["depth"] >= 2 and run["depth"] % 2 == 0)
            require(pairs, f"--depths {run['depth']}: an MLP needs an even depth from 2 on, two layers to a block")
            require(run["depth"] >= 1, f"--depths {run['depth']}: at least 1 block is needed")
            run_config(self, self.runs_folder(), **run).check()

    def describe(self) -> str:
        parts = ["depth", self.family] + (["nonorm"] if self.family == "cnn" and self.norm == "none" else [])
        parts += [self.init] if self.init != "default" else []
        parts += [f"{self.train_images}images"] if self.train_images is not None else []
        parts += ["rates"] if self.rates else ["tuned"] if self.tuned else []
        return "-".join(parts + ([self.dataset] if self.dataset not in ("cifar10", "mnist") else []))


def networks(config: Config) -> list[dict[str, Any]]:
    """What to train, in this order: ``{"depth", "residual", "seed"}``, and with --rates or --tuned "learning_rate"; a
    first seed of everything comes first."""
    order = itertools.product(config.seeds, config.depths, [kind == "residual" for kind in sorted(config.kinds)])
    plan = [{"depth": depth, "residual": residual, "seed": seed} for seed, depth, residual in order]
    if config.tuned is not None:
        chosen = chosen_rates(config)
        return [one | {"learning_rate": chosen(one["depth"], one["residual"])} for one in plan]
    return [one | {"learning_rate": rate} for one in plan for rate in config.rates] if config.rates else plan


def chosen_rates(config: Config) -> Callable[[int, bool], float]:
    """The rule of --tuned, as a function of depth and residual: the learning rate with the highest mean validation
    accuracy of this kind at this depth in the sweep with --rates, or at the nearest depth that it has (by ratio). In a
    series that is resumed, networks of which some are done keep their rate, even where that sweep would now choose
    another.

    Raises:
        UsageError: where that sweep is none with --rates, is of another family, or lacks a kind of network.
    """
    from lab1.engine.series import read_entries

    read = partial(read_entries, script="lab1/sweep_depth.py", summary=summary)
    resumed = [Path(config.resume)] if config.resume not in (None, "auto") else []
    if config.resume == "auto":
        resumed = [folder for folder in runs_of_this_name(config) if not changed_flags(config, folder)][:1]
    done = [run for folder in resumed for run in read(folder / "results.json")]
    kept = {(run["depth"], run["residual"]): run["learning_rate"] for run in done if "learning_rate" in run}

    @cache
    def tried() -> dict[tuple[bool, int, float], list[float]]:
        sweep = find_run(config.tuned, config.runs_folder(), config.published_folder())
        runs = read(sweep / "results.json")
        require(all("learning_rate" in run for run in runs), f"--tuned {config.tuned}: it is no sweep with --rates")
        same = read_object(sweep / "config.json").get("family") == config.family
        found = defaultdict(list)
        for run in runs if same else ():
            accuracy = run["validation"]["accuracy"] if "validation" in run else 0.0  # of one that failed to train
            found[run["residual"], run["depth"], run["learning_rate"]].append(accuracy)
        return found

    def rate(depth: int, residual: bool) -> float:
        if (depth, residual) in kept:
            return kept[depth, residual]
        depths = {known for kind, known, _ in tried() if kind is residual}
        require(len(depths) > 0, f"--tuned {config.tuned}: it has no {KINDS[residual]} network of this family")
        nearest = min(depths, key=lambda known: abs(math.log(known / depth)))
        return max((statistics.fmean(tried()[each]), each[2]) for each in tried() if each[:2] == (residual, nearest))[1]

    return rate


def run_config(config: Config, folder: Path, depth: int, residual: bool, seed: int, learning_rate: float | None = None):
    """The configuration of one network's run, as its own script has it."""
    from lab1 import train_cnn, train_mlp

    if config.family == "cnn":
        init = "he" if config.init == "default" else config.init
        script, own = train_cnn, {"depth": depth, "norm": config.norm, "width": config.width, "init": init}
    else:
        script, own = train_mlp, {"hidden": (config.width,) * (depth + 1), "dropout": 0.0}
    shared = {field.name for field in dataclasses.fields(script.Config)}
    values = {field: getattr(config, field) for field in shared if hasattr(config, field)}
    name = f"{KINDS[residual]}-depth{depth}" + (f"-rate{in_short(learning_rate)}" if config.rates else "")
    places = {"name": f"{name}-seed{seed}", "model_dir": folder, "resume": None}
    own |= {"learning_rate": learning_rate} if learning_rate is not None else {}
    return script.Config(**values | own | places | {"residual": residual, "seed": seed})


def in_short(number: float) -> str:
    """A number with the digits that tell it from others, and no more: ``1`` for 1.0."""
    short = f"{number:g}"
    return short if float(short) == number else repr(number)


@cache
def load_images(family: str, dataset: str, data_folder: Path, download: bool = False):
    """The data set of a sweep: loaded once in each process."""
    from lab1.images import datasets

    kind = {"channels": 3, "size": 32} if family == "cnn" else {"channels": 1, "size": 28}
    return datasets.load(dataset, data_folder, **kind, download=download)


def train(config, tested: bool = True) -> dict[str, Any]:
    """Train, validate and, unless it only helps to choose a learning rate, test one network; returns its entry in the
    sweep's results."""
    from lab1 import train_cnn, train_mlp
    from lab1.engine.series import begin_or_resume
    from lab1.models import count_macs

    begin_or_resume(config)
    script, family = (train_cnn, "cnn") if isinstance(config, train_cnn.Config) else (train_mlp, "mlp")
    images = load_images(family, config.dataset, config.data_folder())
    trainer, (train_batches, validation, test) = script.set_up(config, images)
    entry = {
        "name": config.name,
        "parameters": sum(parameter.numel() for parameter in trainer.model.parameters()),
        "macs": count_macs(trainer.model, images.train_images.shape[1:]),
    }
    try:
        trainer.train(train_batches, validation)
        metrics = trainer.test(test) if tested else None
    except Diverged as error:
        trainer.log.close()
        print(f"failed to train: {error}")
        return entry | {"failed": str(error), "epochs": trainer.epoch, "seconds": round(trainer.seconds, 2)}
    trainer.log.close()
    best = trainer.history[trainer.best_epoch - 1]
    entry |= {"epochs": trainer.epoch, "best_epoch": trainer.best_epoch, "seconds": round(trainer.seconds, 2)}
    entry |= {part: best[part] for part in ("train", "validation")}
    return entry | ({"test": {name: metrics[name] for name in ("loss", "accuracy")}} if tested else {})


def summary(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each depth, plain and residual, and learning rate where these differ, over the seeds: the accuracy in
    the test, or in validation where nothing was tested. A run that failed to train has no accuracy: it counts in
    ``runs`` and not in ``trained``."""
    rows, groups = [], defaultdict(list)
    part = measured(runs)
    for run in runs:
        groups[run["depth"], run["residual"], run.get("learning_rate")].append(run)
    for (depth, residual, rate), same in sorted(groups.items(), key=lambda group: (*group[0][:2], group[0][2] or 0)):
        accuracies = [run[part]["accuracy"] for run in same if part in run]
        row = {"depth": depth, "residual": residual, "parameters": same[0]["parameters"], "macs": same[0]["macs"]}
        row |= {"learning_rate": rate} if rate is not None else {}
        row |= {"runs": len(same), "trained": len(accuracies)}
        row["accuracy"] = statistics.fmean(accuracies) if accuracies else None
        row["sd"] = statistics.stdev(accuracies) if len(accuracies) > 1 else None
        rows.append(row | {"seconds": statistics.fmean(run["seconds"] for run in same)})
    return rows


def measured(runs: list[dict[str, Any]]) -> str:
    """Where the accuracy of a sweep's runs is from: ``test``, or ``validation`` in one that only chooses rates."""
    untested = any("validation" in run and "test" not in run for run in runs)
    return "validation" if untested else "test"


def table(rows: list[dict[str, Any]], part: str = "test") -> str:
    """The summary as people read it."""
    rated = any("learning_rate" in row for row in rows)
    accuracy = f"{part} accuracy (mean ± sd)"
    lines = [f"depth  network {'     rate' * rated}  parameters         MACs  {accuracy:>25s}  counted  seconds a run"]
    for row in rows:
        accuracy = "failed" if row["accuracy"] is None else f"{row['accuracy']:.2%}"
        accuracy += f" ± {row['sd']:.2%}" if row["sd"] is not None else ""
        network = "residual" if row["residual"] else "plain"
        lines.append(
            f"{row['depth']:5d}  {network:8s}"
            + (f"{row['learning_rate']:9g}" if rated else "")
            + f"  {row['parameters']:10,}  {row['macs']:11,}  {accuracy:>25s}  "
            f"{row['trained']} of {row['runs']}  {row['seconds']:13.1f}"
        )
    return "\n".join(lines)


def main(config: Config) -> list[dict[str, Any]]:
    """Train every network that is not done yet; returns the summary."""
    from lab1 import sweep_depth  # by the name under which other processes import it
    from lab1.engine import distributed, logbook
    from lab1.engine.series import make_all, prepare_series

    device = prepare_series(config)
    require(distributed.world_size() == 1, "a sweep runs in one process, without torchrun")
    config.dataset = load_images(config.family, config.dataset, config.data_folder(), not config.dry_run).name
    do = partial(sweep_depth.train, tested=False) if config.rates else sweep_depth.train
    folder, runs, trained = make_all(config, device, networks, do, partial(run_config, config), summary)
    drawn = config.rates or (not trained and (folder / "summary").exists())
    for name in () if drawn else config.kinds:
        log = logbook.Logbook(folder / "summary" / name, purge_step=0)  # two runs of TensorBoard share a chart
        for row in summary(runs):
            if KINDS[row["residual"]] == name and row["accuracy"] is not None:
                log.scalars({"accuracy over depth/test": row["accuracy"]}, row["depth"])
        log.close()
    print(table(summary(runs), measured(runs)))
    print(f"{folder} holds the sweep; curves: tensorboard --logdir {folder}")
    return summary(runs)


if __name__ == "__main__":
    launch(main, Config)
