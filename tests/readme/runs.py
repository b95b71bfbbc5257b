"""The published runs as the READMEs speak of them: their results, means with deviations, paired differences."""

import json
import statistics
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from lab1.engine.config import REPOSITORY

Run = dict[str, Any]


USED: set[str] = set()  # the runs that were read; a table names those of its rows


def read(lab: str, name: str, file: str = "results.json") -> Run:
    """What a file of one published run holds."""
    USED.add(name)
    return _load(lab, name, file)


@cache
def _load(lab: str, name: str, file: str) -> Run:
    path = REPOSITORY / lab / "model" / "published" / name / file
    return json.loads(path.read_text(encoding="utf-8"))


def seeds(lab: str, name: str) -> list[Run]:
    """The runs ``NAME-seed0``, ``NAME-seed1``, ... in the order of their seeds."""
    folders = (REPOSITORY / lab / "model" / "published").glob(f"{name}-seed*")
    found = sorted(int(folder.name.rpartition("-seed")[2]) for folder in folders)
    if not found:
        raise FileNotFoundError(f"{lab}/model/published/{name}-seed*")
    return [read(lab, f"{name}-seed{seed}") for seed in found]


def each(runs: Iterable[Run], *path: str, times: float = 1) -> list[float]:
    """What stands under ``path`` in each run; 100 ``times`` an accuracy is a percentage."""
    found = []
    for value in runs:
        for key in path:
            value = value[key]
        found.append(times * value)
    return found


def percent(runs: Iterable[Run], part: str = "test") -> list[float]:
    """Accuracies in percent."""
    return each(runs, part, "accuracy", times=100)


def mean_sd(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation (n - 1)."""
    return statistics.fmean(values), statistics.stdev(values)


def significant(values: Iterable[float], digits: int = 3) -> list[float]:
    """Numbers rounded to this many digits that count: 1,138 becomes 1,140."""
    return [float(f"{value:.{digits}g}") for value in values]
