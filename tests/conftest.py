"""What several test files share."""

import contextlib
import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

import pytest

from lab1.engine.config import REPOSITORY

# Before torch is imported: tests run side by side, and threads that wait for each other slow them down many times.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def _has_another_checkout() -> bool:
    """Whether pip has set this environment up for another checkout of the labs."""
    with contextlib.suppress(metadata.PackageNotFoundError, TypeError):
        about = json.loads(metadata.distribution("deep-learning-applications-labs").read_text("direct_url.json"))
        return Path(url2pathname(urlparse(about["url"]).path)).resolve() != REPOSITORY.resolve()
    return False


if _has_another_checkout():  # and the processes that tests start would run its labs
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))


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
