"""Exercise 1.2. Which tricks make train_fast.py fast, and how much is each worth?

Command:  python lab1/ablate_fast.py --width 32 --goal 0.9
Time:     16 minutes on a GPU, hours without
Expect:   what each trick is worth, 3.3 points all together

    python lab1/ablate_fast.py                      at full size
    python lab1/ablate_fast.py --kinds left-out     each trick left out alone, not added
    python lab1/ablate_fast.py --resume ablate-fast-32             go on with it

Every variant is trained for the same steps on the same batches. "added": the tricks one after the other, each on top
of those before it, Muon last. "left-out": all of them but one. Paired differences, seed by seed, say what a trick is
worth.
"""

import dataclasses
import statistics
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any, Literal

from lab1.engine.config import Diverged, TrainConfig, Whole, flag, require
from lab1.engine.launch import launch
from lab1.engine.workers import SeriesConfig
from lab1.train_fast import TRICKS
from lab1.train_fast import Config as Fast

LADDER = (*TRICKS, "muon")


@dataclasses.dataclass
class Config(SeriesConfig, TrainConfig):
    """The flags of this script."""

    kinds: tuple[Literal["added", "left-out"], ...] = ("added", "left-out")
    """Tricks added one after the other, each left out alone, or both."""
    goal: float = 0.92
    """Validation accuracy to count the steps to."""
    epochs: int = Fast.epochs
    batch_size: int = Fast.batch_size
    learning_rate: float = Fast.learning_rate
    weight_decay: float = Fast.weight_decay
    patience: int = 0
    """Epochs without a better validation loss before training stops; 0 never stops early."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Number format of products (auto: bf16 where this device is faster in it)."""
    dataset: Annotated[str, flag("{auto,cifar10,shapes,folder,...}")] = "auto"
    """auto: CIFAR-10, or drawn shapes where it cannot be had; folder: your images under --data-dir, at 32 x 32."""
    width: int = Fast.width
    """Channels in the first stage; the other two have four times as many."""
    train_images: Whole = None
    """Learn from this many images, with the same class shares (default: all that validation does not hold out)."""
    dry_run: bool = False
    """See that everything works: no trick and one trick, one seed, 2 epochs of 3 batches; nothing downloaded."""

    def __post_init__(self) -> None:
        if self.dry_run:
            self.kinds, self.seeds = ("added",), self.seeds[:1]

    def check(self) -> None:
        super().check()
        require(0 < len(set(self.kinds)) == len(self.kinds), "--kinds: added, left-out, or both are needed")
        require(0 < self.goal < 1, f"--goal {self.goal}: an accuracy between 0 and 1 is needed, such as 0.92")
        for one in networks(self):
            run_config(self, self.runs_folder(), **one).check()

    def describe(self) -> str:
        parts = ["ablate-fast", str(self.width)]
        parts += [f"{self.train_images}images"] if self.train_images is not None else []
        return "-".join(parts + ([self.dataset] if self.dataset != "cifar10" else []))


def variants(config: Config) -> dict[str, tuple[str, ...]]:
    """What each variant does without, by its name: ``none``, ``+ whitening``, ..., ``all``, ``- whitening``, ..."""
    added = {"none": LADDER} | {f"+ {trick}": LADDER[place:] for place, trick in enumerate(LADDER[:-1], start=1)}
    left_out = {f"- {trick}": (trick,) for trick in LADDER[:-1]}  # all but Muon are those up to it
    chosen = (added if "added" in config.kinds else {}) | {"all": ()} | (left_out if "left-out" in config.kinds else {})
    return dict(list(chosen.items())[:2]) if config.dry_run else chosen


def networks(config: Config) -> list[dict[str, Any]]:
    """What to train: ``{"variant", "seed"}``; a first seed of everything comes first."""
    return [{"variant": variant, "seed": seed} for seed in config.seeds for variant in variants(config)]


def run_config(config: Config, folder: Path, variant: str, seed: int) -> Fast:
    """The configuration of one network's run, as train_fast.py has it."""
    without = variants(config)[variant]
    shared = {field.name for field in dataclasses.fields(Fast)} & {field.name for field in dataclasses.fields(config)}
    values = {name: getattr(config, name) for name in shared}
    optimizer = "sgd" if "muon" in without else "muon"
    name = variant.replace("+ ", "up-to-").replace("- ", "all-but-") + f"-seed{seed}"
    values |= {"seed": seed, "name": name, "model_dir": folder, "resume": None, "optimizer": optimizer}
    return Fast(**values, without=tuple(trick for trick in without if trick != "muon"))


@cache
def load_images(dataset: str, data_folder: Path, download: bool = False):
    """The data set: loaded once in each process."""
    from lab1.images import datasets

    return datasets.load(dataset, data_folder, channels=3, size=32, download=download)


def train(config: Fast, goal: float) -> dict[str, Any]:
    """Train, validate and test one variant; returns its entry in the results."""
    from lab1 import train_fast
    from lab1.engine.series import begin_or_resume

    begin_or_resume(config)
    images = load_images(config.dataset, config.data_folder())
    trainer, (train_batches, validation, test) = train_fast.set_up(config, images)
    entry = {"name": config.name, "parameters": sum(p.numel() for p in trainer.model.parameters())}
    try:
        trainer.train(train_batches, validation)
        metrics = trainer.test(test)
    except Diverged as error:
        trainer.log.close()
        print(f"failed to train: {error}")
        return entry | {"failed": str(error), "seconds": round(trainer.seconds, 2)}
    curve = [epoch["validation"]["accuracy"] for epoch in trainer.history]
    reached = next((epoch for epoch, accuracy in enumerate(curve, start=1) if accuracy >= goal), None)
    return entry | {
        "seconds": round(trainer.seconds, 2),
        "steps": trainer.step,
        "steps_to_goal": reached and reached * trainer.steps_per_epoch,
        "validation_accuracy": curve,
        "test": {name: metrics[name] for name in ("loss", "accuracy", "accuracy_with_views")},
    }


def summary(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each variant over the seeds: test accuracy, and what its trick is worth: the mean of the paired
    differences from the variant before it (added) or from all tricks less it (left out)."""
    rows, found = [], {}
    for run in runs:
        found.setdefault(run["variant"], {})[run["seed"]] = run["test"]["accuracy"] if "test" in run else None
    for variant, by_seed in found.items():
        accuracies = [accuracy for accuracy in by_seed.values() if accuracy is not None]
        row = {"variant": variant, "runs": len(by_seed), "trained": len(accuracies)}
        row["accuracy"] = statistics.fmean(accuracies) if accuracies else None
        row["sd"] = statistics.stdev(accuracies) if len(accuracies) > 1 else None
        with_it, without_it = compared(variant)
        pairs = [(found.get(with_it, {}).get(seed), found.get(without_it, {}).get(seed)) for seed in by_seed]
        row["worth"] = [ours - theirs for ours, theirs in pairs if ours is not None and theirs is not None]
        rows.append(row)
    return rows


def compared(variant: str) -> tuple[str, str]:
    """The two variants whose difference is what a variant's trick is worth: (with it, without it)."""
    names = ["none", *(f"+ {trick}" for trick in LADDER[:-1]), "all"]
    if variant.startswith("- "):
        return "all", variant
    return variant, names[max(0, names.index(variant) - 1)]


def table(rows: list[dict[str, Any]]) -> str:
    """The summary as people read it."""
    from lab1.engine.metrics import mean_interval

    lines = [f"{'variant':18s}{'test accuracy (mean ± sd)':>27s}  runs  its trick is worth, in points (95 %)"]
    for row in rows:
        accuracy = "failed" if row["accuracy"] is None else f"{row['accuracy']:.2%}"
        accuracy += f" ± {row['sd']:.2%}" if row["sd"] is not None else ""
        worth = ""
        if row["worth"] and row["variant"] != "none":
            mean, low, high = mean_interval([100 * each for each in row["worth"]])
            worth = f"{mean:+.2f}" + (f" [{low:+.2f}, {high:+.2f}]" if len(row["worth"]) > 1 else "")
        lines.append(f"{row['variant']:18s}{accuracy:>27s}  {row['runs']:4d}  {worth}")
    return "\n".join(lines)


def main(config: Config) -> list[dict[str, Any]]:
    """Train every variant that is not done yet; returns the summary."""
    from lab1 import ablate_fast  # by the name under which other processes import it
    from lab1.engine import distributed
    from lab1.engine.series import make_all, prepare_series

    device = prepare_series(config)
    require(distributed.world_size() == 1, "an ablation runs in one process, without torchrun")
    config.dataset = load_images(config.dataset, config.data_folder(), not config.dry_run).name
    do = partial(ablate_fast.train, goal=config.goal)
    folder, runs, _ = make_all(config, device, networks, do, partial(run_config, config), summary)
    print(table(summary(runs)))
    print(f"{folder} holds the ablation; curves: tensorboard --logdir {folder}")
    return summary(runs)


if __name__ == "__main__":
    launch(main, Config)
