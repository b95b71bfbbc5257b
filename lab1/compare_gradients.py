"""Exercise 2.1. What do gradients look like in a plain network and in its residual twin?

Command:  python lab1/compare_gradients.py
Time:     20 minutes
Expect:   at the start the first layer's gradient is 171 times the last one's at depth 20, 0.85 times in its twin

    python lab1/compare_gradients.py --norm none                   without batch normalisation
    python lab1/compare_gradients.py --resume gradients-batch      resume after Ctrl-C, with the pair it was at
    tensorboard --logdir lab1/model/gradients-batch                both networks on one chart, a chart for each layer

For each depth and seed, a CNN and a ResCNN start from the same weights and see the same batches for 150 iterations.
Logged at every iteration: the norm of the gradient of each layer's weights. Measured before the first iteration and
after the last: how much input gradients at points on a line between two images have in common. The ratio of first to
last layer says whether gradients vanish, the latter whether they shatter (lab1/explanation/gradients.py).
"""

import dataclasses
import itertools
import math
import statistics
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from lab1.engine.config import Real, flag, require
from lab1.engine.launch import launch
from lab1.engine.workers import SeriesConfig

NETWORKS = {"plain": False, "residual": True}
WINDOW = 10  # last iterations that the norms "at the end" are means of; "at the start" is the first iteration alone
LINES, POINTS = 6, 33  # lines between two images each, at most, and points on one, both ends included


@dataclasses.dataclass
class Config(SeriesConfig):
    """The flags of this script."""

    depths: tuple[int, ...] = (5, 10, 20, 25)
    """Numbers of two-convolution blocks to compare at."""
    norm: Literal["batch", "none"] = "batch"
    """What follows each convolution: batch normalisation, or nothing."""
    width: int = 16
    """Channels in the first stage."""
    iterations: int = 150
    """Steps of the optimiser."""
    batch_size: int = 64
    """Images in one step."""
    learning_rate: Real = None
    """Peak learning rate of one cycle over the iterations (default: 0.1; without norm 0.001)."""
    dataset: Annotated[str, flag("{auto,cifar10,shapes,folder,...}")] = "auto"
    """auto: CIFAR-10, or drawn shapes where it cannot be had; folder: your images under --data-dir, at 32 x 32."""
    dry_run: bool = False
    """See that everything works: the first depth and seed, 3 iterations; nothing downloaded."""

    def __post_init__(self) -> None:
        if self.learning_rate is None:
            self.learning_rate = 0.1 if self.norm == "batch" else 0.001
        if self.dry_run:
            self.depths, self.seeds, self.iterations = self.depths[:1], self.seeds[:1], min(self.iterations, 3)

    def check(self) -> None:
        super().check()
        require(len(self.depths) > 0, "--depths: at least one is needed, such as --depths 5 20")
        depths = self.depths
        require(len(set(depths)) == len(depths), f"--depths {' '.join(map(str, depths))}: one is there twice")
        require(self.iterations >= 1, f"--iterations {self.iterations}: at least 1 is needed")
        for depth, seed in itertools.product(self.depths, self.seeds):
            require(depth >= 1, f"--depths {depth}: at least 1 block is needed")
            self.network(depth, seed, "plain").check()

    def network(self, depth: int, seed: int, network: str):
        """The configuration of one of the networks, as its own script has it."""
        from lab1 import train_cnn

        return train_cnn.Config(
            depth=depth,
            seed=seed,
            model_dir=self.model_dir,
            residual=NETWORKS[network],
            norm=self.norm,
            width=self.width,
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            dataset=self.dataset,
            device=self.device,
            precision=self.precision,
            compile=self.compile,
        )

    def describe(self) -> str:
        return f"gradients-{self.norm}" + (f"-{self.dataset}" if self.dataset != "cifar10" else "")


def train_side_by_side(trainers: dict[str, Any], batches: Iterable, logs: dict[str, Any]) -> dict[str, dict[str, list]]:
    """One step of every network on each batch. Returns for each network ``loss`` and ``norms``, a list over iterations:
    of the loss, and of the norms of the layers' gradients with which that step was made. A network whose loss is not
    finite takes no further step."""
    from lab1.explanation.gradients import gradient_norms

    taken = {name: {"loss": [], "norms": []} for name in trainers}
    for iteration, batch in enumerate(batches, start=1):
        for name, trainer in trainers.items():
            if taken[name]["loss"] and not math.isfinite(taken[name]["loss"][-1]):
                continue
            loss = trainer.train_step(batch)["loss"].item()
            norms = gradient_norms(trainer.model)
            taken[name]["loss"].append(loss)
            taken[name]["norms"].append(list(norms.values()))
            points = {f"gradient norm/{layer}": norm for layer, norm in norms.items()}
            logs[name].scalars(points | {"loss/train": loss}, iteration)
    return taken


def common_gradients(model, images) -> list[float]:
    """Mean correlation of input gradients by distance on the lines between images 0 and 1, 2 and 3, ... of a batch,
    for the first class's logit; ``POINTS`` numbers, from 1 at no distance to that of the two ends."""
    import torch

    from lab1.explanation.gradients import correlations, input_gradients, line, with_batch_statistics

    model = with_batch_statistics(model, images)
    ends = zip(images[0 : 2 * LINES : 2], images[1 : 2 * LINES : 2], strict=False)
    lines = (line(start, end, POINTS) for start, end in ends)
    return torch.stack([correlations(input_gradients(model, inputs)) for inputs in lines]).mean(0).tolist()


def compare(config: Config, depth: int, seed: int, images, folder: Path) -> list[dict[str, Any]]:
    """Train the two networks of one depth and seed side by side; returns an entry of the results for each."""
    from lab1 import train_cnn
    from lab1.engine import logbook
    from lab1.explanation.gradients import weight_tensors

    set_ups = {network: train_cnn.set_up(config.network(depth, seed, network), images) for network in NETWORKS}
    trainers = {network: trainer for network, (trainer, _) in set_ups.items()}
    train, validation, _ = set_ups["plain"][1]
    for trainer in trainers.values():
        trainer.epochs, trainer.steps_per_epoch = 1, config.iterations  # one cycle of the learning rate
        trainer.model.train()
    reference = next(iter(validation))[0][:256]
    before = {network: common_gradients(trainer.model, reference) for network, trainer in trainers.items()}
    place = folder / f"depth{depth}-seed{seed}"
    logs = {network: logbook.Logbook(place / network, purge_step=0) for network in NETWORKS}
    every_epoch = itertools.chain.from_iterable(train.epoch(epoch) for epoch in itertools.count())
    taken = train_side_by_side(trainers, itertools.islice(every_epoch, config.iterations), logs)
    entries = []
    for network, trainer in trainers.items():
        logs[network].close()
        loss, norms = taken[network]["loss"], taken[network]["norms"]
        entry = {"depth": depth, "seed": seed, "network": network, "layers": list(weight_tensors(trainer.model))}
        entry["start"] = {"correlation": before[network], **means(loss[:1], norms[:1])}
        if math.isfinite(loss[-1]):
            after = common_gradients(trainer.model, reference)
            entry["end"] = {"correlation": after, **means(loss[-WINDOW:], norms[-WINDOW:])}
        else:
            entry["failed"] = f"the loss is {loss[-1]} at iteration {len(loss)}"
        entries.append(entry)
    return entries


@cache
def load_images(dataset: str, data_folder: Path, download: bool = False):
    """The data set of a comparison: loaded once in each process."""
    from lab1.images import datasets

    return datasets.load(dataset, data_folder, channels=3, size=32, download=download)


def compare_one(job: tuple[Config, dict[str, Any], Path]) -> list[dict[str, Any]]:
    """``compare`` for one depth and seed, as another process is given it: the flags, what the plan says, the folder."""
    config, pair, folder = job
    return compare(config, **pair, images=load_images(config.dataset, config.data_folder()), folder=folder)


def means(losses: list[float], norms: list[list[float]]) -> dict[str, Any]:
    """Means over some iterations: of the loss, of each layer's norm, and the first layer's as a multiple of the last's
    (None where either is 0 or not finite)."""
    layers = [statistics.fmean(layer) for layer in zip(*norms, strict=True)]
    ratio = layers[0] / layers[-1] if all(0 < norm < math.inf for norm in (layers[0], layers[-1])) else None
    return {"loss": statistics.fmean(losses), "norms": layers, "first_to_last": ratio}


def summary(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each depth, network and moment, over the seeds: the ratio of the norms of first and last layer, and the
    cosine of the input gradients of neighbours on a line, each as mean, low and high end of its 95 % interval:
    by Student's t, of ratios by way of their logarithms, of correlations by Fisher's z, so that none exceeds 1."""
    from lab1.engine.metrics import correlation_interval, mean_interval, ratio_interval

    rows = []
    for depth, network, moment in itertools.product(sorted({run["depth"] for run in runs}), NETWORKS, ("start", "end")):
        same = [run for run in runs if (run["depth"], run["network"]) == (depth, network)]
        measured = [run[moment] for run in same if moment in run]
        ratios = [one["first_to_last"] for one in measured if one["first_to_last"] is not None]
        row = {"depth": depth, "network": network, "moment": moment, "runs": len(same), "measured": len(measured)}
        if ratios:
            row["first_to_last"] = ratio_interval(ratios)
        if measured:
            row["loss"] = mean_interval([one["loss"] for one in measured])
            row["neighbours"] = correlation_interval([one["correlation"][1] for one in measured])
        rows.append(row)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """The summary as people read it; an interval where there are several seeds."""
    lines = ["depth  network   moment  seeds    loss  first / last layer [95 %]  cosine of neighbours [95 %]"]
    for row in rows:
        columns = []
        for key, digits in (("loss", ".2f"), ("first_to_last", ".3g"), ("neighbours", ".3f")):
            if key in row:
                mean, low, high = (format(number, digits) for number in row[key])
                columns.append(f"{mean} [{low}, {high}]" if row["measured"] > 1 and key != "loss" else mean)
            else:
                columns.append("-")
        seeds = f"{row['measured']} of {row['runs']}"
        start = f"{row['depth']:5d}  {row['network']:8s}  {row['moment']:6s}  {seeds}"
        lines.append("{}  {:>6s}  {:>25s}  {:>32s}".format(start, *columns))
    return "\n".join(lines)


def main(config: Config) -> list[dict[str, Any]]:
    """Compare at every depth and seed that is not done yet; returns the summary."""
    from lab1 import compare_gradients  # by the name under which other processes import it
    from lab1.engine import distributed
    from lab1.engine.series import make_all, prepare_series

    device = prepare_series(config)
    require(distributed.world_size() == 1, "a comparison runs in one process, without torchrun")
    config.dataset = load_images(config.dataset, config.data_folder(), not config.dry_run).name

    def planned(config: Config) -> list[dict[str, int]]:
        return [{"seed": seed, "depth": depth} for seed, depth in itertools.product(config.seeds, config.depths)]

    def job(folder: Path, **one: int):
        return config, one, folder

    folder, runs, _ = make_all(config, device, planned, compare_gradients.compare_one, job, summary)
    print(table(summary(runs)))
    print(f"{folder} holds the comparison; curves: tensorboard --logdir {folder}")
    return summary(runs)


if __name__ == "__main__":
    launch(main, Config)
