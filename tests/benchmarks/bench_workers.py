"""Comparisons and sweeps with one worker and with two: how much sooner they are done on two idle cores.

    python tests/benchmarks/bench_workers.py             five minutes or so

Each series is one command, as a user types it, in a folder of its own that is thrown away: first with ``--workers 1``,
then with ``--workers 2``, from the start of Python to its end. Every run in it has one thread.
"""

import argparse
import subprocess
import sys
import tempfile
import time

import report

from lab1.engine.config import REPOSITORY

SERIES = {
    "compare_agents": "lab3/compare_agents.py --agents ppo dqn reinforce --seeds 0 1 2 3",
    "sweep_depth": "lab1/sweep_depth.py --family mlp --depths 2 10 20 50 --seeds 0 1",
}
SHORT = {
    "compare_agents": "lab3/compare_agents.py --agents ppo reinforce --seeds 0 --steps 3000 --episodes 20",
    "sweep_depth": "lab1/sweep_depth.py --family mlp --depths 2 --seeds 0 --epochs 1",
}


def seconds(command: str, workers: int) -> float:
    """How long a series takes."""
    with tempfile.TemporaryDirectory() as folder:
        flags = ["--workers", str(workers), "--model-dir", folder, "--device", "cpu"]
        began = time.perf_counter()
        words = [sys.executable, *command.split(), *flags]
        done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True)
        spent = time.perf_counter() - began
    if done.returncode != 0:
        raise SystemExit(f"{command} failed:\n{done.stdout}{done.stderr}")
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--short", action="store_true", help="a few seconds of each, to see that it works")
    flags = report.parse(parser)
    found = {}
    print(f"{'':16s}{'1 worker':>10s}{'2 workers':>11s}{'faster by':>11s}")
    for name, command in (SHORT if flags.short else SERIES).items():
        spent: dict[str, list[float]] = {"2 workers": [], "1 worker": []}
        for _ in range(flags.rounds):
            spent["1 worker"].append(seconds(command, 1))
            spent["2 workers"].append(seconds(command, 2))
        found[name] = {"command": command, "seconds": spent, "ratio": report.ratios(spent)}
        one, two = (min(spent[workers]) for workers in ("1 worker", "2 workers"))
        print(f"{name:16s}{one:9.0f}s{two:10.0f}s{found[name]['ratio']['1 worker']:10.2f}x", flush=True)
    report.write(__file__, flags, found)


if __name__ == "__main__":
    main()
