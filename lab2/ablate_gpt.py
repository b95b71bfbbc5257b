"""Exercise 1. What is each part of the modern preset of train_gpt.py worth?

Command:  python lab2/ablate_gpt.py
Time:     half an hour
Expect:   a row for GPT-2, the modern preset, and the modern preset without each of its tricks

    python lab2/ablate_gpt.py --seeds 0 1 2              paired differences with their intervals
    python lab2/ablate_gpt.py --preset modern            the large network, a day without a GPU
    python lab2/ablate_gpt.py --resume ablate-gpt-4x128  go on with it

Every variant takes the same steps at the same learning rate. Processor seconds say what a step costs; what else the
computer does changes them less than the time on the clock.
"""

import dataclasses
import statistics
from functools import partial
from pathlib import Path
from typing import Any, Literal

from lab1.engine.config import Diverged, Real, Whole, require
from lab1.engine.launch import launch
from lab1.engine.workers import SeriesConfig
from lab2.train_gpt import TRICKS, find_text
from lab2.train_gpt import Config as GPTConfig


@dataclasses.dataclass
class Config(SeriesConfig):
    """The flags of this script."""

    text: str = "auto"
    """What to learn from, as of train_gpt.py."""
    preset: Literal["modern", "modern-nano"] = "modern-nano"
    """Size of the network and length of training, as of train_gpt.py."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of everything random; each makes all runs."""
    steps: Whole = None
    """Steps of the optimiser (default: the preset's)."""
    eval_interval: Whole = None
    """Steps between two validations (default: the preset's)."""
    learning_rate: Real = None
    """Peak learning rate of all variants (default: the preset's)."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Number format of products (auto: bf16 where this device is faster in it)."""
    dry_run: bool = False
    """See that everything works: GPT-2 and the modern preset, one seed, 6 steps; nothing downloaded."""

    def __post_init__(self) -> None:
        if self.dry_run:
            self.seeds = self.seeds[:1]

    def check(self) -> None:
        super().check()
        run_config(self, self.runs_folder(), "all", self.seeds[0]).check()

    @property
    def dataset(self) -> str:
        """The text, as results name it."""
        return Path(self.text).stem

    def describe(self) -> str:
        one = run_config(self, Path(), "all", 0)
        parts = ["ablate-gpt", f"{one.layers}x{one.width}"]
        return "-".join(parts + ([self.dataset] if self.text != "divina_commedia" else []))


def variants(config: Config) -> dict[str, tuple[str, ...]]:
    """What each variant does without, by its name: ``none``, ``all``, ``- rotary``, ..."""
    ends: dict[str, tuple[str, ...]] = {"none": TRICKS, "all": ()}
    return ends if config.dry_run else ends | {f"- {trick}": (trick,) for trick in TRICKS}


def networks(config: Config) -> list[dict[str, Any]]:
    """What to train: ``{"variant", "seed"}``; a first seed of everything comes first."""
    return [{"variant": variant, "seed": seed} for seed in config.seeds for variant in variants(config)]


def run_config(config: Config, folder: Path, variant: str, seed: int) -> GPTConfig:
    """The configuration of one network's run, as train_gpt.py has it."""
    shared = {field.name for field in dataclasses.fields(GPTConfig)} & {f.name for f in dataclasses.fields(config)}
    values = {name: getattr(config, name) for name in shared}
    name = variant.replace("- ", "all-but-") + f"-seed{seed}"
    values |= {"seed": seed, "name": name, "model_dir": folder, "resume": None, "without": variants(config)[variant]}
    return GPTConfig(**values)


def train(config: GPTConfig) -> dict[str, Any]:
    """Train, validate and test one variant; returns its entry in the results. Seconds are of training and validation;
    those of a run that was stopped and resumed count from there on."""
    import time

    from lab1.engine.series import begin_or_resume
    from lab2 import train_gpt

    begin_or_resume(config)
    trainer, (train_batches, validation, test) = train_gpt.set_up(config)
    entry = {"name": config.name, "parameters": sum(p.numel() for p in trainer.model.parameters())}
    began = time.process_time()
    try:
        trainer.train(train_batches, validation)
        spent = time.process_time() - began
        metrics = trainer.test(test)
    except Diverged as error:
        trainer.log.close()
        print(f"failed to train: {error}")
        return entry | {"failed": str(error), "cpu_seconds": round(time.process_time() - began, 1)}
    curves = {part: [epoch[part]["loss"] for epoch in trainer.history] for part in ("train", "validation")}
    return entry | {
        "cpu_seconds": round(spent, 1),
        "steps": trainer.step,
        "train_loss": curves["train"],
        "validation_loss": curves["validation"],
        "validation": {"loss": min(curves["validation"])},
        "test": {name: metrics[name] for name in ("loss", "accuracy")},
    }


def summary(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each variant over the seeds: losses and processor seconds, and by how much its test loss is above that
    of the modern preset, seed by seed."""
    rows, found = [], {}
    for run in runs:
        found.setdefault(run["variant"], {})[run["seed"]] = run
    for variant, by_seed in found.items():
        trained = {seed: run for seed, run in by_seed.items() if "test" in run}
        row = {"variant": variant, "runs": len(by_seed), "trained": len(trained)}
        for part in ("validation", "test"):
            losses = [run[part]["loss"] for run in trained.values()]
            row[part] = statistics.fmean(losses) if losses else None
            row[f"{part}_sd"] = statistics.stdev(losses) if len(losses) > 1 else None
        row["cpu_seconds"] = statistics.fmean(run["cpu_seconds"] for run in by_seed.values())
        pairs = [(run, found.get("all", {}).get(seed, {})) for seed, run in trained.items() if variant != "all"]
        row["above_all"] = [run["test"]["loss"] - best["test"]["loss"] for run, best in pairs if "test" in best]
        rows.append(row)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """The summary as people read it."""
    from lab1.engine.metrics import mean_interval

    lines = [f"{'variant':16s}{'validation':>12s}{'test loss':>17s}  runs  CPU s  above all (95 %)"]
    for row in rows:
        losses = ["failed" if row[part] is None else f"{row[part]:.3f}" for part in ("validation", "test")]
        losses[1] += f" ± {row['test_sd']:.3f}" if row["test_sd"] is not None else ""
        above = ""
        if row["above_all"]:
            mean, low, high = mean_interval(row["above_all"])
            above = f"{mean:+.3f}" + (f" [{low:+.3f}, {high:+.3f}]" if len(row["above_all"]) > 1 else "")
        numbers = f"{losses[0]:>12s}{losses[1]:>17s}{row['runs']:6d}{row['cpu_seconds']:7.0f}  {above}"
        lines.append(f"{row['variant']:16s}{numbers}".rstrip())
    return "\n".join(lines)


def main(config: Config) -> list[dict[str, Any]]:
    """Train every variant that is not done yet; returns the summary."""
    from lab1.engine import distributed
    from lab1.engine.series import make_all, prepare_series
    from lab2 import ablate_gpt  # by the name under which other processes import it

    device = prepare_series(config)
    require(distributed.world_size() == 1, "an ablation runs in one process, without torchrun")
    find_text(config, not config.dry_run)
    job = partial(run_config, config)
    folder, runs, _ = make_all(config, device, networks, ablate_gpt.train, job, summary)
    print(table(summary(runs)))
    print(f"{folder} holds the ablation; curves: tensorboard --logdir {folder}")
    return summary(runs)


if __name__ == "__main__":
    launch(main, Config)
