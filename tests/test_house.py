"""The house: every file in its place, imports that run one way, and no file too long to read."""

import ast
from pathlib import Path

import pytest

from lab1.engine.config import REPOSITORY

LONGEST = 350  # lines of a file: a longer one has two jobs
# The floors of each lab, the lowest first; a file may import what stands below it, and what is in its own folder.
FLOORS = {
    "lab1": ["engine", "models", "trainer", "images", "detection explanation", "SCRIPTS"],
    "lab2": ["hub", "language", "models", "trainer", "tasks", "SCRIPTS"],
    "lab3": ["config", "models", "environments", "trainer", "algorithms", "SCRIPTS"],
}
# What another lab may be used for: what all labs stand on, and the Trainer.
SHARED = ("lab1.engine", "lab1.trainer")
FILES = sorted(path.relative_to(REPOSITORY) for lab in FLOORS for path in (REPOSITORY / lab).rglob("*.py"))


def floor(lab: str, name: str) -> int:
    """The floor of a folder, or of a module at the top of a lab."""
    floors = [names.split() for names in FLOORS[lab]]
    return next((number for number, names in enumerate(floors) if name in names), len(floors) - 1)


def imported(path: Path) -> set[str]:
    """The modules of the labs that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse((REPOSITORY / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.split(".")[0] in FLOORS}


def upwards(path: Path, names: set[str]) -> list[str]:
    """Those of these modules that a file may not import."""
    lab, own = path.parts[0], path.with_suffix("").parts[1]
    wrong = []
    for name in sorted(names):
        parts = name.split(".")
        if parts[0] != lab:
            allowed = name.startswith(SHARED) and lab != "lab1"
        else:
            there, here, top = floor(lab, parts[1]), floor(lab, own), len(FLOORS[lab]) - 1
            allowed = there < here or parts[1] == own or here == top  # a script may use another one
        wrong += [] if allowed else [name]
    return wrong


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_run_one_way(path):
    assert upwards(path, imported(path)) == []


def test_an_import_that_runs_upwards_is_found():
    """What the test above would say of files that are not there."""
    engine, models, script = Path("lab1/engine/run.py"), Path("lab2/models.py"), Path("lab3/play.py")
    assert upwards(engine, {"lab1.engine.config", "lab1.trainer.Trainer"}) == ["lab1.trainer.Trainer"]
    assert upwards(engine, {"lab2.hub"}) == ["lab2.hub"]
    assert upwards(models, {"lab2.language.sampling", "lab1.engine.config"}) == []
    assert upwards(models, {"lab2.trainer", "lab2.tasks.encoders", "lab1.images.datasets"}) == [
        "lab1.images.datasets",
        "lab2.tasks.encoders",
        "lab2.trainer",
    ]
    assert upwards(script, {"lab3.algorithms.ppo", "lab2.models"}) == ["lab2.models"]
    assert upwards(Path("lab1/detection/figure.py"), {"lab1.explanation.cam"}) == ["lab1.explanation.cam"]


@pytest.mark.parametrize("path", FILES, ids=str)
def test_no_file_has_two_jobs(path):
    lines = (REPOSITORY / path).read_text(encoding="utf-8").count("\n")
    assert lines <= LONGEST, f"{path} has {lines} lines: split it by job"


@pytest.mark.parametrize("lab", FLOORS)
def test_the_top_of_a_lab_holds_what_one_runs(lab):
    """Scripts, the Trainer, the networks, the flags of lab 3 and the hub of lab 2; everything else has a folder."""
    for path in (REPOSITORY / lab).glob("*.py"):
        runs = 'if __name__ == "__main__":' in path.read_text(encoding="utf-8")
        assert runs or path.stem in ("__init__", "trainer", "models", "config", "hub"), path


def test_the_tests_mirror_the_tree():
    """Each test file stands where what it tests stands, or beside it."""
    for path in (REPOSITORY / "tests").rglob("test_*.py"):
        place = path.parent.relative_to(REPOSITORY / "tests")
        assert place == Path() or place.parts[0] == "faults" or (REPOSITORY / place).is_dir(), path
