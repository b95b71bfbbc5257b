"""Command lines with right, wrong and absurd flags and values: thousands of them are parsed and checked in this
process, some are real processes that run to their end."""

import dataclasses
import importlib
import json
import os
import subprocess
import sys
import types
import typing
from pathlib import Path
from typing import Any, Literal, Union

import pytest
from hypothesis import assume
from hypothesis import strategies as st

from lab1.engine.config import REPOSITORY, RunConfig, UsageError
from lab1.engine.launch import parse
from tests.faults.campaign import check_line, ends_cleanly, inputs, snapshot, try_all
from tests.posix import posix

SCRIPTS = sorted(
    path.relative_to(REPOSITORY).with_suffix("").as_posix()
    for lab in ("lab1", "lab2", "lab3")
    for path in (REPOSITORY / lab).glob("*.py")
    if 'if __name__ == "__main__":' in path.read_text(encoding="utf-8")
)

# An argument of a process is any text without the character 0; what is not UTF-8 comes as lone surrogates.
TEXTS = st.text(st.characters(exclude_characters="\0"), max_size=12)
ABSURD = st.sampled_from(
    "0 -1 -0 1 2 3 7 0.5 1e-9 1e999 -1e999 nan inf -inf 1_000 0x10 1.0 None True False [] {} () * . .. / ./x ~ "
    "~nosuchuser/x /dev/null /dev/null/x /proc/self/mem /no/such/folder C:\\x CON nul.txt a:b a/b a\\b 'a' -- - --- = "
    "x=y http://[::1 http://x:99999/ file:///etc/passwd auto cpu cuda cuda:99 mps folder mnist digits shapes fp32 bf16 "
    "linear none greedy sampled CartPole-v1 NoSuch-v0 os:Maze-v0 a.b:C-v1 no_such_module:X-v0 bpe-0 bpe--1 bpe-x "
    "bpe-1024 characters 99999999999 9223372036854775807 9223372036854775808 1e308".split()
) | st.sampled_from(["", " ", "\n", "\t", "a\nb", "a b", "\udcff", "é", "١٢", "🙂", "9" * 5000, "a" * 300, "é" * 200])


def right_values(annotation: Any) -> st.SearchStrategy[list[str]]:
    """The words of a value that suits a flag of this type."""
    if typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    if typing.get_origin(annotation) in (Union, types.UnionType):
        annotation = next(each for each in typing.get_args(annotation) if each is not type(None))
    if typing.get_origin(annotation) is tuple:
        return st.lists(right_values(typing.get_args(annotation)[0]).map(lambda words: words[0]), max_size=4)
    if typing.get_origin(annotation) is Literal:
        return st.sampled_from([[str(value)] for value in typing.get_args(annotation)])
    kinds = {
        int: st.integers(0, 300).map(str),
        float: st.floats(0, 1, width=32).map(str),
        bool: st.nothing(),
    }
    return kinds.get(annotation, TEXTS).map(lambda word: [word])


@st.composite
def command_lines(draw, config_class: type, without: frozenset[str] = frozenset()) -> list[str]:
    """Up to six flags of a script: with right values, with wrong ones, misspelt, or in the other spelling."""
    annotations = typing.get_type_hints(config_class)
    names = [field.name for field in dataclasses.fields(config_class) if field.name not in without]
    absurd = ABSURD | TEXTS
    words: list[str] = []
    for name in draw(st.lists(st.sampled_from(names), max_size=6)):
        flag = "--" + name.replace("_", "-")
        way = draw(st.integers(0, 9))
        if annotations[name] is bool and way < 8:
            words.append(draw(st.sampled_from([flag, flag.replace("--", "--no-", 1)])))
        elif way < 5:
            words += [flag, *draw(right_values(annotations[name]))] if annotations[name] is not bool else [flag]
        elif way < 8:
            words += [flag, *draw(st.lists(absurd, max_size=3))]
        elif way == 8:
            words.append(f"{flag}={draw(absurd)}")
        else:
            words.append(draw(st.sampled_from([flag[:-1], flag + "x", f"--{name}", flag[1:], f"--no-{name}"]) | absurd))
    return words


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """An empty folder to be in, and another as home: nothing may be written to either."""
    here, home = tmp_path_factory.mktemp("here"), tmp_path_factory.mktemp("home")
    before, old = os.getcwd(), {name: os.environ.get(name) for name in ("HOME", "USERPROFILE")}
    os.chdir(here)
    os.environ.update(dict.fromkeys(old, str(home)))
    yield here, home
    os.chdir(before)
    for name, value in old.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value


@inputs(8, 400)
@pytest.mark.parametrize("script", SCRIPTS)
def test_any_command_line_is_a_configuration_or_one_line(elsewhere, capsys, tmp_path, script, count):
    config_class = importlib.import_module(script.replace("/", ".")).Config
    published = snapshot(REPOSITORY / script.split("/")[0] / "model")

    def check(words: list[str]) -> None:
        config = ends_cleanly(lambda: parse(config_class, words, "What a script is for."))
        capsys.readouterr()
        if isinstance(config, RunConfig) and config.resume is None:
            check_configuration(config, tmp_path)

    try_all(count, command_lines(config_class), check)
    assert snapshot(*elsewhere) == {}
    assert snapshot(REPOSITORY / script.split("/")[0] / "model") == published


def check_configuration(config: RunConfig, folder: Path) -> None:
    """It has a name that a folder can have, and a run of it can be resumed from its config.json."""
    name = config.run_name() if not isinstance(getattr(config, "method", None), tuple) else "several"
    (folder / name).mkdir(exist_ok=True)
    assert (folder / name).parent == folder
    (folder / name).rmdir()
    (folder / "config.json").write_text(json.dumps(config.as_dict()), encoding="utf-8")
    again = ends_cleanly(lambda: parse(type(config), ["--resume", str(folder)], ""))
    assert again is None or again.as_dict() == config.as_dict()


# Compiling takes half a minute, workers take memory, and both have their own tests; a screen is not there.
NOT_TRIED = frozenset("compile render resume model_dir data_dir dry_run workers cluster".split())
WIDEST = 128  # channels: six steps of a wider network take minutes, and are no fault
MEMORY = 8 * 2**30  # bytes of addresses that a process may take


def run(script: str, arguments: list[str], place: Path) -> subprocess.CompletedProcess:
    """A script in a process of its own, whose working, home and temporary folders are in ``place``."""
    places = {name: place / name for name in ("here", "home", "temporary")}
    for folder in places.values():
        folder.mkdir(exist_ok=True)
    variables = {"HOME": places["home"], "USERPROFILE": places["home"], "TMPDIR": places["temporary"]}
    # The list of fonts that Matplotlib makes once for every user.
    variables |= {"TEMP": places["temporary"], "TMP": places["temporary"], "MPLCONFIGDIR": place.parent / "matplotlib"}
    return subprocess.run(
        [sys.executable, str(REPOSITORY / f"{script}.py"), *arguments],
        capture_output=True,
        timeout=180,
        cwd=places["here"],
        env=os.environ | {name: str(path) for name, path in variables.items()} | {"OMP_NUM_THREADS": "1"},
        preexec_fn=limit_memory,
    )


def limit_memory() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


@posix
@pytest.mark.parametrize(
    ("script", "count"),
    [("lab1/train_mlp", 2), *(pytest.param(script, 5, marks=pytest.mark.slow) for script in SCRIPTS)],
)
def test_what_is_accepted_runs_to_its_end_or_says_why_not(elsewhere, tmp_path_factory, script, count):
    config_class = importlib.import_module(script.replace("/", ".")).Config
    is_run = issubclass(config_class, RunConfig)
    place = tmp_path_factory.mktemp("process") / "place"
    place.mkdir()
    written = {name: place.parent / name for name in ("runs", "data")}
    last = ["--figures", str(written["runs"])]
    if is_run:
        last = ["--dry-run", "--no-compile", "--model-dir", str(written["runs"]), "--data-dir", str(written["data"])]

    def check(words: list[str]) -> None:
        try:
            config = parse(config_class, [*words, *last], "")
        except (UsageError, SystemExit):
            assume(False)
        assume((getattr(config, "width", None) or 0) <= WIDEST)
        model = snapshot(REPOSITORY / script.split("/")[0])
        done = run(script, [*words, *last], place)
        said = done.stderr.decode("utf-8", "replace")
        assert "Traceback" not in said, said
        assert done.returncode in (0, 1, 2), (done.returncode, said)
        if done.returncode:
            assert said.splitlines()[-1].startswith("error: "), said
            check_line(said.splitlines()[-1])
        left = [path for path in snapshot(place) if Path(path).parent != place and "torchinductor" not in path]
        assert left == []  # but for the folder that torch makes as it is imported
        assert snapshot(REPOSITORY / script.split("/")[0]) == model

    words = command_lines(config_class, without=NOT_TRIED)
    try_all(count, words, check)
