"""What several test files share."""

import os
import subprocess
import sys

import pytest

from lab1.engine.config import REPOSITORY

# Before torch is imported: tests run side by side, and threads that wait for each other slow them down many times.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def run_script():
    """Run a script of the repository in a process of its own: ``run_script("lab1/train_mlp.py", "--epochs", 3)``."""

    def run(script, *arguments, cwd=None, env=None) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, str(REPOSITORY / script), *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=120,
            cwd=cwd,
            env=os.environ | (env or {}),
        )

    return run
