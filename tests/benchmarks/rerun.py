"""Do published results come out again on another machine?

    python tests/benchmarks/rerun.py                     half an hour on one core
    python tests/benchmarks/rerun.py --only mlp gpt      some of the rows
    python tests/benchmarks/rerun.py --short             two seeds of the first row, to see that it works

Each row is one command of a README, with the seeds of the published runs, in a folder that is thrown away. What it
finds is set beside the published mean and its 95 % interval over seeds (Student's t; from ten seeds on the
interquartile mean and its bootstrap interval). Rows that were published from a processor of the same kind run without
vector instructions in torch's own kernels (``ATEN_CPU_CAPABILITY=default``), which rounds otherwise. Of a dozen means
that differ by chance alone, one or two fall outside such an interval: it is as wide as the published mean is uncertain,
and the new one is as uncertain.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import report

from lab1.engine.config import REPOSITORY
from lab1.engine.finished import PLACES
from lab1.engine.metrics import over_runs

ASIDE = (*PLACES, "precision", "seed", "seeds", "depths", "kinds", "agents")  # may differ from the published run


@dataclasses.dataclass
class Row:
    """A published mean, and the command that makes it again; of a series, ``cell`` says which of its runs count.

    ``metric`` is where a run has its number, ``test.accuracy``; ``scalar``: without vector instructions.
    """

    command: str
    published: str
    metric: str
    cell: dict[str, Any] = dataclasses.field(default_factory=dict)
    factor: float = 1.0
    scalar: bool = False


MLPS = "lab1/sweep_depth.py --family mlp"
CNNS = "lab1/sweep_depth.py --tuned depth-cnn-10000images-rates"
CARTPOLE = "lab3/compare_agents.py"
ACCURACY, LAST, RETURN = "test.accuracy", "history.-1.return", "test.return"
PLAIN, RESIDUAL = {"residual": False}, {"residual": True}
ROWS = {
    "mlp": Row("lab1/train_mlp.py", "mlp-128-64", ACCURACY, factor=100, scalar=True),
    "digits": Row("lab1/train_mlp.py --dataset digits", "mlp-128-64-digits", ACCURACY, factor=100, scalar=True),
    "detector": Row("lab1/detect_digits.py --network mlp", "detect-mlp", "test.f1", scalar=True),
    "deep": Row(
        f"{MLPS} --init he --depths 20 --kinds plain", "depth-mlp-he", ACCURACY, PLAIN | {"depth": 20}, 100, scalar=True
    ),
    "zero": Row(
        f"{MLPS} --init he-zero --depths 50 --kinds residual",
        "depth-mlp-he-zero",
        ACCURACY,
        RESIDUAL | {"depth": 50},
        factor=100,
    ),
    "scaled": Row(
        f"{MLPS} --init he-scaled --depths 50 --kinds residual",
        "depth-mlp-he-scaled",
        ACCURACY,
        RESIDUAL | {"depth": 50},
        factor=100,
    ),
    "cnn": Row(f"{CNNS} --depths 1 --kinds plain", "depth-cnn-tuned", ACCURACY, PLAIN | {"depth": 1}, factor=100),
    "gpt": Row("lab2/train_gpt.py --preset nano --steps 900 --eval-interval 180", "gpt-4x128-900steps", "test.loss"),
    "reinforce": Row(
        f"{CARTPOLE} --agents reinforce-none", "compare-CartPole-v1-intel", LAST, {"agent": "reinforce-none"}
    ),
    "ppo": Row(f"{CARTPOLE} --agents ppo", "compare-CartPole-v1-intel", LAST, {"agent": "ppo"}),
    "acrobot": Row("lab3/train_ppo.py --env Acrobot-v1", "ppo-Acrobot-v1", RETURN, scalar=True),
    "navigation": Row("lab3/train_ppo.py --env NavigationGoal-v0", "ppo-NavigationGoal-v0", RETURN, scalar=True),
}


def read(path: Path) -> dict[str, Any]:
    """A ``results.json``."""
    return json.loads(path.read_text(encoding="utf-8"))


def number(run: dict[str, Any], row: Row) -> float:
    """What a row measures of one run."""
    found: Any = run
    for key in row.metric.split("."):
        found = found[int(key) if isinstance(found, list) else key]
    return row.factor * found


def of_seed(results: list[dict[str, Any]], row: Row) -> dict[int, float]:
    """A row's numbers by seed, of the ``results.json`` of single runs or of one series."""
    runs: Iterator[tuple[int, dict[str, Any]]] = (
        (run.get("seed", result["config"]["seed"]), run) for result in results for run in result.get("runs", [result])
    )
    fits = {seed: run for seed, run in runs if all(run[key] == value for key, value in row.cell.items())}
    return {seed: number(fits[seed], row) for seed in sorted(fits)}


def run(row: Row, seeds: list[int], folder: Path) -> list[dict[str, Any]]:
    """Give a row's command for these seeds; returns what its runs wrote."""
    words = row.command.split()
    environment = os.environ | ({"ATEN_CPU_CAPABILITY": "default"} if row.scalar else {})
    series = bool(row.cell)
    for more in [["--seeds", *seeds, "--workers", 1]] if series else [["--seed", seed] for seed in seeds]:
        command = [sys.executable, *words, *map(str, more), "--model-dir", str(folder)]
        done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return [read(path) for path in sorted(folder.glob("*/results.json"))]


def require_same_flags(row: Row, ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Leave where a command has other flags than the published run: it would be another experiment."""
    shared = (ours["config"].keys() & theirs["config"].keys()) - set(ASIDE)
    differ = {key for key in shared if ours["config"][key] != theirs["config"][key]}
    if differ:
        raise SystemExit(f"{row.command}: {', '.join(sorted(differ))} differ from those of {row.published}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--short", action="store_true", help="two seeds of the first row, to see that it works")
    flags = report.parse(parser)
    found: dict[str, Any] = read(flags.json) if flags.json is not None and flags.json.is_file() else {}
    found = {name: found[name] for name in ROWS if name in found}  # rows that were measured before stay
    print(f"{'':70s}{'n':>4s}{'published':>12s}{'95 % interval':>20s}{'here':>10s}")
    for name in flags.only[:1] if flags.short else flags.only:
        row = ROWS[name]
        lab = REPOSITORY / row.command.split("/")[0] / "model" / "published"
        folders = [lab / row.published] if row.cell else sorted(lab.glob(f"{row.published}-seed*"))
        before = [read(folder / "results.json") for folder in folders]
        published = of_seed(before, row)
        seeds = list(published)[: 2 if flags.short else None]
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            results = run(row, seeds, Path(folder))
        require_same_flags(row, results[0], before[0])
        here = of_seed(results, row)
        middle, low, high = map(float, over_runs(np.array(list(published.values()))))
        again = float(over_runs(np.array(list(here.values())))[0])
        took = round(time.perf_counter() - began, 1)
        found[name] = dataclasses.asdict(row) | {"seeds": seeds, "here": list(here.values()), "seconds": took}
        interval = f"[{low:.4g}, {high:.4g}]"
        print(f"{row.command:70s}{len(seeds):4d}{middle:12.4g}{interval:>20s}{again:10.4g}", flush=True)
        report.write(__file__, flags, found)  # after each row, as half an hour is long


if __name__ == "__main__":
    main()
