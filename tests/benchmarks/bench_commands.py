"""How long commands of the front page take whose runs do not tell it themselves.

    python tests/benchmarks/bench_commands.py            ten minutes or so
    python tests/benchmarks/bench_commands.py --short    their dry runs, to see that it works

Each is one command, as a user types it, from the start of Python to its end, in a folder that is thrown away.
"""

import argparse
import subprocess
import sys
import tempfile
import time

import report

from lab1.engine.config import REPOSITORY

COMMANDS = {
    "compare_gradients": "lab1/compare_gradients.py",
    "explain_cam": "lab1/explain_cam.py --run rescnn3-16-shapes-seed0 --evaluate",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="a few seconds of each, to see that it works")
    flags = report.parse(parser)
    found = {}
    for name, command in COMMANDS.items():
        words = [*command.split(), *(["--dry-run"] if flags.short else [])]
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            done = subprocess.run(
                [sys.executable, *words, "--model-dir", folder], cwd=REPOSITORY, capture_output=True, text=True
            )
            found[name] = {"command": command, "seconds": time.perf_counter() - began}
        if done.returncode != 0:
            raise SystemExit(f"{command} failed:\n{done.stdout}{done.stderr}")
        print(f"{command:70s}{found[name]['seconds']:8.0f} s", flush=True)
    report.write(__file__, flags, found)


if __name__ == "__main__":
    main()
