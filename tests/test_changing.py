"""README.md's section "Changing it", as somebody types it who has read only that."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lab1.engine.config import REPOSITORY


def section() -> str:
    """The section's Markdown, without its heading, up to the next heading of its level or above."""
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    heading = re.search(r"^(#+) Changing it\n", readme, re.M)
    rest = readme[heading.end() :]
    code = [block.span() for block in re.finditer(r"^```.*?^```$", rest, re.M | re.S)]
    for following in re.finditer(rf"^#{{1,{len(heading[1])}}} ", rest, re.M):
        if not any(start < following.start() < end for start, end in code):  # else it is a comment of Python's
            return rest[: following.start()]
    return rest


def blocks(language: str, title: str) -> list[str]:
    """The blocks of code in this language under a heading of the section."""
    (part,) = re.findall(rf"^#+ {title}\n(.*?)(?=^###* [A-Z]|\Z)", section(), re.M | re.S)
    return re.findall(rf"^```{language}\n(.*?)^```$", part, re.M | re.S)


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    """A copy of the repository's tracked files, without the published runs and figures."""
    copy = tmp_path_factory.mktemp("changing")
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    for name in filter(None, tracked.stdout.split("\0")):
        if not {"published", "figures"} & set(Path(name).parts) and (REPOSITORY / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, copy / name)
    return copy


def run(repository: Path, *command: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *command]
    return subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True, timeout=120)


def follow(repository: Path, title: str) -> list[str]:
    """Do what stands under a heading: put the code where its first line says, run the commands; what they print."""
    for code in blocks("python", title):
        place, body = code.split("\n", 1)
        with (repository / place.removeprefix("# ")).open("a", encoding="utf-8") as file:
            file.write(f"\n\n{body}" if file.tell() else body)
    said = []
    for line in "".join(blocks("bash", title)).splitlines():
        program, *command = shlex.split(line)
        assert program == "python"
        done = run(repository, *command)
        assert done.returncode == 0, done.stderr
        said.append(done.stdout)
    return said


def results(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def test_add_a_model(repository):
    follow(repository, "Add a model")
    name = "mynet-width32-500images-shapes-seed0"
    assert f"lab1/model/{name}`" in section()
    folder = repository / "lab1" / "model" / name
    assert results(folder)["config"]["network"] == "MyNet"
    assert results(folder)["parameters"] == 32 * (3 * 5 * 5 + 1) + 10 * (32 + 1)
    code = f"from lab1 import models; model, about = models.load({str(folder / 'best.pt')!r}); "
    done = run(repository, "-c", code + "print(type(model).__name__, model.arguments, about['dataset'])")
    assert done.stdout == "MyNet {'classes': 10, 'in_channels': 3, 'width': 32} shapes\n", done.stderr


def test_add_a_data_set(repository):
    follow(repository, "Add a data set")
    (folder,) = (repository / "lab1" / "model").glob("cnn1-16-stripes-seed0")
    assert results(folder)["dataset"] == "stripes"
    assert results(folder)["test"]["accuracy"] == 1
    assert "All 200 test images are told apart" in section()


def test_add_an_environment(repository):
    _, played = follow(repository, "Add an environment")
    folder = repository / "lab3" / "model" / "ppo-Corridor-v0-seed0"
    assert results(folder)["config"]["env"] == "Corridor-v0"  # without the module
    assert results(folder)["test"]["return"] == pytest.approx(-5, abs=0.5)
    assert played.splitlines()[0] == "ppo-Corridor-v0-seed0 plays Corridor-v0"
    assert len(played.splitlines()) == 22
    assert "which returns -5 on average" in section()


def test_add_a_flag(repository):
    follow(repository, "Add a flag")
    usage = run(repository, "lab1/train_equal.py", "--help").stdout
    assert "--layers INT" in usage
    assert "Number of hidden layers, of 64 units each." in usage
    name = "mlp-64-64-64-digits-seed0"
    assert f"lab1/model/{name}`" in section()
    found = results(repository / "lab1" / "model" / name)
    assert found["script"] == "lab1/train_equal.py"
    assert found["config"]["layers"] == 3
    (keys,) = re.findall(r"`results.json` has (.*?)\. ", section(), re.S)
    assert set(re.findall(r"`(\w+)`", keys)) == found.keys()
