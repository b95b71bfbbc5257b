"""What a run takes down of where it was made."""

import json
import os
import subprocess
import sys
from importlib import metadata

import numpy as np
import torch

from lab1.engine import logbook

SHOW = (
    "import json, torch; from lab1.engine import logbook; print(json.dumps(logbook.environment(torch.device('cpu'))))"
)


def test_where_a_run_was_made():
    found = logbook.environment(torch.device("cpu"))
    assert found["python"] == sys.version.split()[0]
    assert found["torch"] == torch.__version__
    assert found["threads"] == torch.get_num_threads()
    assert found["device"] == f"cpu: {found['processor']}"
    assert found["libraries"]["numpy"] == np.__version__
    assert found["libraries"]["gymnasium"] == metadata.version("gymnasium")
    assert list(found["libraries"]) == [name for name in logbook.LIBRARIES if name in found["libraries"]]
    assert found["instructions"] == torch.backends.cpu.get_cpu_capability()
    assert json.loads(json.dumps(found)) == found


def test_a_library_that_is_not_installed_is_left_out(monkeypatch):
    monkeypatch.setattr(logbook, "LIBRARIES", ("numpy", "no-such-library-at-all"))
    assert logbook.environment(torch.device("cpu"))["libraries"] == {"numpy": np.__version__}


def test_the_instructions_are_those_that_torch_was_told_to_use():
    told = os.environ | {"ATEN_CPU_CAPABILITY": "default"}
    shown = subprocess.run([sys.executable, "-c", SHOW], capture_output=True, text=True, env=told, timeout=60)
    assert json.loads(shown.stdout)["instructions"] == "DEFAULT", shown.stderr


def test_what_multiplies_numpys_matrices(monkeypatch):
    openblas = {"user_api": "blas", "internal_api": "openblas", "version": "0.3.31", "architecture": "Haswell"}
    others = [
        {"user_api": "openmp", "internal_api": "openmp", "version": None, "filepath": "/numpy.libs/libgomp.so"},
        openblas | {"architecture": "Prescott", "filepath": "/site-packages/opencv_python.libs/libopenblas.so"},
    ]
    ours = openblas | {"filepath": "/site-packages/numpy.libs/libscipy_openblas64_.so"}
    monkeypatch.setattr(logbook, "threadpool_info", lambda: [*others, ours])
    assert logbook.environment(torch.device("cpu"))["blas"] == "openblas 0.3.31 Haswell"
    monkeypatch.setattr(logbook, "threadpool_info", lambda: others)
    assert logbook.environment(torch.device("cpu"))["blas"] is None
