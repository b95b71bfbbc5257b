"""Every script as a newcomer types it, in a process of its own: it takes steps and writes what it promises."""

import json
import subprocess
import sys
from importlib import import_module

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lab1 import models
from lab1.engine.config import REPOSITORY


def assert_a_whole_run(folder, steps: int) -> dict:
    """The files that every run promises, and that it took the steps it should have."""
    assert json.loads((folder / "config.json").read_text(encoding="utf-8"))["dry_run"] is True
    last = torch.load(folder / "last.pt", weights_only=True)
    assert last["step"] == steps
    moments = [state["exp_avg"] for state in last["optimizer"]["state"].values()]
    assert moments
    assert all(moment.abs().sum() > 0 for moment in moments)  # every parameter had a gradient
    shown = EventAccumulator(str(folder))
    shown.Reload()
    assert [point.step for point in shown.Scalars("loss/train")] == [1, 2]
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert 0 <= results["test"]["accuracy"] <= 1
    return results


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        ([], "dry-run-mlp-128-64"),
        (["--hidden", "32", "32", "32", "--residual", "--augment"], "dry-run-residual-mlp-32-32-32-augment"),
    ],
)
def test_train_mlp(run_script, tmp_path, flags, name):
    # An empty data folder: in a dry run nothing is downloaded, so it takes the embedded digits and says so.
    done = run_script(
        "lab1/train_mlp.py",
        *("--dry-run", "--model-dir", tmp_path / "model", "--data-dir", tmp_path / "data", *flags),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    (line,) = done.stderr.splitlines()
    assert "1,797 handwritten digits" in line
    folder = tmp_path / "model" / f"{name}-digits-seed0"
    results = assert_a_whole_run(folder, steps=6)
    assert results["script"] == "lab1/train_mlp.py"
    assert results["dataset"] == results["config"]["dataset"] == "digits"
    model, about = models.load(folder / "best.pt")
    assert sum(parameter.numel() for parameter in model.parameters()) == results["parameters"]
    assert about["classes"] == [str(digit) for digit in range(10)]


def test_train_mlp_reaches_what_the_readme_says_of_the_digits(run_script, tmp_path):
    done = run_script("lab1/train_mlp.py", "--dataset", "digits", "--model-dir", tmp_path)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "mlp-128-64-digits-seed0" / "results.json").read_text(encoding="utf-8"))
    assert results["test"]["accuracy"] >= 0.97


def test_plot(run_script, tmp_path):
    done = run_script("lab1/train_mlp.py", "--dry-run", "--dataset", "digits", "--model-dir", tmp_path / "runs")
    assert done.returncode == 0, done.stderr
    done = run_script("lab1/plot.py", "--runs", tmp_path / "runs", "--figures", tmp_path / "figures")
    assert done.returncode == 0, done.stderr
    (figure,) = (tmp_path / "figures").iterdir()
    assert figure.name == "dry-run-mlp-128-64-digits.png"
    assert figure.stat().st_size > 10_000
    done = run_script("lab1/plot.py", "--runs", tmp_path / "nowhere")
    assert done.returncode == 2
    assert "holds no finished run" in done.stderr


def test_every_published_run_can_be_read_and_every_figure_of_the_readme_is_there():
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    figures = [word.split(")")[0] for word in readme.split("](")[1:] if ".png" in word.split(")")[0]]
    assert figures
    for figure in figures:
        assert (REPOSITORY / figure).is_file(), figure
    published = sorted((REPOSITORY / "lab1" / "model" / "published").glob("*/results.json"))
    assert published
    for path in published:
        results = json.loads(path.read_text(encoding="utf-8"))
        if "runs" in results:  # a comparison of several networks: its summary is made from its runs
            script = import_module(results["script"].removesuffix(".py").replace("/", "."))
            summary = script.summary(results["runs"])
            assert json.loads(json.dumps(summary)) == results["summary"]
        elif "history" in results:  # the others trained nothing
            assert results["validation"] == results["history"][results["best_epoch"] - 1]["validation"]


@pytest.mark.parametrize("module", ["lab1", "lab2", "lab3"])
def test_the_labs_are_installed_and_import_from_anywhere(tmp_path, module):
    code = f"import {module}; print({module}.__file__)"
    found = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert found.stdout.strip() == str(REPOSITORY / module / "__init__.py")
