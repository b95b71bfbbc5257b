"""A script whose process sends itself a real signal before one of its training steps."""

import os
import subprocess
import sys

STRUCK = """
import importlib, os, signal, sys
import lab1.trainer
from lab1.engine.launch import launch

module, call = importlib.import_module(sys.argv.pop(1)), int(sys.argv.pop(1))
calls, train_step = 0, lab1.trainer.Trainer.train_step

def struck(self, batch):
    global calls
    calls += 1
    if calls == call:
        os.kill(os.getpid(), signal.SIGTERM)
    return train_step(self, batch)

lab1.trainer.Trainer.train_step = struck
launch(module.main, module.Config)
"""


def run_struck(module: str, call: int, *arguments: object) -> subprocess.CompletedProcess:
    """Run a script, such as ``lab1.sweep_depth``, which gets SIGTERM before its training step of this number."""
    return subprocess.run(
        [sys.executable, "-c", STRUCK, module, str(call), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
