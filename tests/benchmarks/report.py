"""What the scripts of this folder share: ``--json FILE``, the ratio, and the file that README.md's tables come from."""

import argparse
import os
import statistics
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from lab1.engine import logbook

PEERS = ("lightning", "transformers", "stable-baselines3")


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The flags of a script, and ``--json FILE``, which every script has."""
    shown = "write what was measured to this file, too; README.md's tables come from results/*.json"
    parser.add_argument("--json", type=Path, metavar="FILE", help=shown)
    flags = parser.parse_args()
    if flags.json is not None:
        flags.json.parent.mkdir(parents=True, exist_ok=True)
    return flags


def ratio(ours: Sequence[float], other: Sequence[float]) -> float:
    """How many times as long the other way takes: the median over the rounds of that round's ratio."""
    return statistics.median(theirs / own for own, theirs in zip(ours, other, strict=True))


def ratios(seconds: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """``ratio`` of each way to the first one, which is ours."""
    ours, *others = seconds
    return {other: ratio(seconds[ours], seconds[other]) for other in others}


def placeless(value: Any) -> Any:
    """A flag's value, and of a folder only its last two names: where it lies on one machine is nothing to others."""
    if isinstance(value, str) and Path(value).is_absolute():
        return "/".join(Path(value).parts[-2:])
    return value


def write(script: str, flags: argparse.Namespace, workloads: dict[str, Any]) -> None:
    """Write what was measured where ``--json`` says, if it does: the processor and the versions; the flags; and of each
    workload the ``seconds`` of every round by way, the ``ratio`` of each other way to ours, and what else there is."""
    if flags.json is None:
        return
    versions = {}
    for name in PEERS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    about = logbook.environment(torch.device("cpu")) | {"cores": os.cpu_count(), "peers": versions}
    settings = {name: placeless(value) for name, value in vars(flags).items() if isinstance(value, int | float | str)}
    content = {"script": f"tests/benchmarks/{Path(script).name}", "flags": settings} | workloads
    logbook.write_results(content | {"environment": about}, flags.json)
    print(f"{flags.json} holds it all")
