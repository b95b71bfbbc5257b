"""The command line: every mistake is one line that says what would be right, and every script leaves as promised."""

import ast
import dataclasses
import errno
import importlib
import inspect
import itertools
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from lab1.engine.config import (
    REPOSITORY,
    Interrupted,
    RunConfig,
    RunFailed,
    TrainConfig,
    UsageError,
    find_run,
    folder_name,
)
from lab1.engine.devices import find_device
from lab1.engine.launch import launch, parse, prepare
from lab1.train_mlp import Config

SCRIPT = "lab1/train_mlp.py"


@pytest.fixture(autouse=True)
def own_excepthook(monkeypatch):
    """What ``launch`` sets for its process ends with the test."""
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)


def refusal(*arguments: object) -> str:
    """The one line with which these arguments are refused."""
    with pytest.raises(UsageError) as caught:
        parse(Config, [str(argument) for argument in arguments], "")
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def make_run(folder: Path, **changes: object) -> Path:
    """A run's folder, as far as a resume looks at it before training."""
    folder.mkdir(parents=True)
    settings = dataclasses.replace(Config(), model_dir=folder.parent).as_dict() | changes
    (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--epochs -1", ["--epochs -1", "at least 1"]),
        ("--epochs 0", ["--epochs 0", "at least 1"]),
        ("--epochs abc", ["--epochs abc", "a whole number is needed"]),
        ("--epochs 1.5", ["--epochs 1.5", "a whole number is needed"]),
        ("--epochs", ["--epochs", "a whole number is needed"]),
        ("--learning-rate nan", ["--learning-rate nan", "positive"]),
        ("--learning-rate inf", ["--learning-rate inf", "positive"]),
        ("--learning-rate 0", ["--learning-rate 0", "positive"]),
        ("--learning-rate -1", ["--learning-rate -1", "positive"]),
        ("--weight-decay -1", ["--weight-decay -1", "0 or a positive number"]),
        ("--weight-decay nan", ["--weight-decay nan", "0 or a positive number"]),
        ("--batch-size 0", ["--batch-size 0", "at least 1"]),
        ("--patience -1", ["--patience -1", "at least 0"]),
        ("--precision fp8", ["--precision fp8", "use fp32 or bf16"]),
        ("--seed -1", ["--seed -1", "from 0 to"]),
        (f"--seed {2**63}", [f"--seed {2**63}", "from 0 to"]),
        ("--name a/b", ["--name 'a/b'", "without slashes"]),
        ("--name ..", ["--name '..'", "one folder's name"]),
        ("--name=", ["--name ''", "one folder's name"]),
        ("--name a:b", ["--name 'a:b'", 'any of < > : " | ? *']),
        ("--name what?", ["--name 'what?'", 'any of < > : " | ? *']),
        ("--name end.", ["--name 'end.'", "a dot or space at its end"]),
        ("--name=a\\b", ["--name 'a\\\\b'", "without slashes"]),
        ("--name CON", ["--name CON", "Windows keeps this name"]),
        ("--name nul.txt", ["--name nul.txt", "Windows keeps this name"]),
        (f"--name {'x' * 121}", [f"--name {'x' * 20}...", "121 bytes are too many; at most 120 will do"]),
        ("--hidden", ["--hidden", "at least one width"]),
        ("--hidden 128 0", ["--hidden 128 0", "1 or more"]),
        ("--hidden -5", ["--hidden -5", "1 or more"]),
        ("--hidden 128 64 --residual", ["--hidden 128 64 --residual", "such as --hidden 128 128 128"]),
        ("--hidden wide", ["--hidden wide", "whole numbers are needed, such as 128 64"]),
        ("--dropout 1", ["--dropout 1", "from 0 to below 1"]),
        ("--dropout -0.1", ["--dropout -0.1", "from 0 to below 1"]),
        ("--dropout nan", ["--dropout nan", "from 0 to below 1"]),
        ("--epoch-count 3", ["--epoch-count", "--help"]),
        ("mnist", ["mnist", "--help"]),
        ("--resume", ["--resume", "a value is needed"]),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_in_one_line(arguments, says):
    message = refusal(*arguments.split())
    for part in says:
        assert part in message


@pytest.mark.parametrize("below", [".", "runs", "runs/of/today"])
def test_a_model_dir_that_is_no_folder_is_refused(tmp_path, below):
    (tmp_path / "notes.txt").write_text("here is a file", encoding="utf-8")
    message = refusal("--model-dir", tmp_path / "notes.txt" / below)
    assert f"--model-dir {tmp_path / 'notes.txt' / below}" in message
    assert f"{tmp_path / 'notes.txt'} is not a folder" in message


def scripts_with(field: str) -> list[str]:
    """The scripts of all labs that have this field in their Config."""
    paths = [
        path.relative_to(REPOSITORY) for lab in ("lab1", "lab2", "lab3") for path in (REPOSITORY / lab).glob("*.py")
    ]
    names = sorted(".".join(path.with_suffix("").parts) for path in paths)
    configs = {name: getattr(importlib.import_module(name), "Config", None) for name in names}
    return [name for name, config in configs.items() if config and field in config.__dataclass_fields__]


@pytest.mark.parametrize("script", scripts_with("data_dir"))
@pytest.mark.parametrize("below", [".", "train"])
def test_a_data_dir_that_is_no_folder_is_refused_before_anything_else(tmp_path, script, below):
    path = tmp_path / "archive.zip"
    path.write_text("here is a file", encoding="utf-8")
    config = importlib.import_module(script).Config
    with pytest.raises(UsageError) as refused:
        # A model that is nowhere, images that are none: the folder is complained of first.
        parse(config, ["--data-dir", str(path / below), "--device", "none"], "")
    assert str(refused.value) == f"--data-dir {path / below}: {path} is not a folder; name one that is"


def test_a_resumed_run_is_given_no_file_as_its_data_dir(tmp_path):
    folder = make_run(tmp_path / "run")
    (tmp_path / "notes.txt").touch()
    assert "notes.txt is not a folder" in refusal("--resume", folder, "--data-dir", tmp_path / "notes.txt")


def test_the_data_dir_of_a_script_is_checked_where_it_is_the_usual_one(tmp_path, monkeypatch):
    (tmp_path / "data").touch()
    monkeypatch.setattr("lab1.engine.config.REPOSITORY", tmp_path)
    assert refusal() == f"--data-dir {tmp_path / 'data'}: {tmp_path / 'data'} is not a folder; name one that is"


@pytest.mark.parametrize("flag", ["--model-dir", "--resume"])
def test_a_name_too_long_for_the_file_system_is_refused(tmp_path, monkeypatch, flag):
    monkeypatch.chdir(tmp_path)
    assert "x" * 300 in refusal("--model-dir", "runs", flag, "x" * 300)


def test_resuming_a_run_that_does_not_exist_lists_those_that_do(tmp_path):
    for name in ("mlp-a", "mlp-b"):
        make_run(tmp_path / name)
    message = refusal("--model-dir", tmp_path, "--resume", "mlp-c")
    assert "'mlp-c'" in message
    assert "there are: mlp-a, mlp-b" in message


def test_resuming_where_there_are_no_runs_says_so(tmp_path):
    message = refusal("--model-dir", tmp_path, "--resume", "mlp-c")
    assert "'mlp-c'" in message
    assert "holds no run" in message


def test_resuming_another_scripts_run_is_refused(tmp_path):
    message = refusal("--resume", make_run(tmp_path / "run", depth=9, width=16))
    assert f"{tmp_path / 'run' / 'config.json'} is of another script" in message
    assert "this one has no depth, width" in message
    (tmp_path / "run" / "results.json").write_text('{"script": "lab1/train_cnn.py"}', encoding="utf-8")
    assert "resume it with lab1/train_cnn.py" in refusal("--resume", tmp_path / "run")


@pytest.mark.parametrize("content", [b"", b'{"epochs": 3', b"[1, 2]", b"null", b"3", b"\xff\xfe\x00"])
def test_resuming_with_a_broken_config_file_names_the_file(tmp_path, content):
    (make_run(tmp_path / "run") / "config.json").write_bytes(content)
    assert str(tmp_path / "run" / "config.json") in refusal("--resume", tmp_path / "run")


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": "many"},
        {"seed": 1.5},
        {"hidden": ["wide"]},
        {"precision": "fp8"},
        {"init": "zero"},
    ],
    ids=str,
)
def test_resuming_with_a_value_of_the_wrong_kind_in_the_config_file_names_it(tmp_path, wrong):
    (name,) = wrong
    assert name in refusal("--resume", make_run(tmp_path / "run", **wrong)).replace("-", "_")


@pytest.mark.parametrize("how", ["by path", "by name"])
def test_a_resumed_run_takes_its_own_flags(tmp_path, monkeypatch, how):
    monkeypatch.chdir(tmp_path)
    own = {"epochs": 7, "hidden": [5, 5, 5], "learning_rate": 0.25, "residual": True, "name": "mine"}
    folder = make_run(tmp_path / "runs" / "mine", **own)
    where = ["--resume", str(folder)] if how == "by path" else ["--model-dir", str(folder.parent), "--resume", "mine"]
    config = parse(Config, where, "")
    assert config.as_dict() | own == config.as_dict()
    assert config.hidden == (5, 5, 5)
    assert Path(config.resume) == folder


@pytest.mark.parametrize(
    ("given", "changed"),
    [
        (["--epochs", "40"], {"epochs": 40}),
        (["--hidden", "9", "9", "9"], {"hidden": [9, 9, 9]}),
        (["--no-residual"], {"residual": False}),
        (["--epochs", str(Config().epochs)], {"epochs": Config().epochs}),
    ],
)
def test_a_flag_beside_resume_changes_that_one_thing(tmp_path, given, changed):
    folder = make_run(tmp_path / "run", epochs=7, hidden=[5, 5, 5], residual=True, dropout=0.3)
    before = parse(Config, ["--resume", str(folder)], "").as_dict()
    after = parse(Config, ["--resume", str(folder), *given], "").as_dict()
    assert after == before | changed


@pytest.mark.parametrize("own", [{"name": "-best-"}, {"name": "--epochs"}, {"data_dir": "-data"}], ids=str)
def test_a_value_that_looks_like_a_flag_survives_a_resume(tmp_path, own):
    ((name, value),) = own.items()
    assert parse(Config, [f"--{name.replace('_', '-')}={value}"], "").as_dict()[name] == value
    assert parse(Config, ["--resume", str(make_run(tmp_path / "run", **own))], "").as_dict()[name] == value


def test_a_run_that_was_moved_can_be_resumed_where_it_is_now(tmp_path):
    (tmp_path / "old").write_text("the disk that the run was made on has become something else", encoding="utf-8")
    folder = make_run(tmp_path / "new" / "run", model_dir=str(tmp_path / "old" / "runs"))
    assert Path(parse(Config, ["--resume", str(folder)], "").resume) == folder


def test_a_flag_beside_resume_is_checked(tmp_path):
    assert "--epochs 0" in refusal("--resume", make_run(tmp_path / "run"), "--epochs", 0)


def test_defaults_pass_their_own_check():
    config = parse(Config, [], "")
    assert config == Config()
    assert config.run_name() == "mlp-128-64-auto-seed0"


def test_a_configuration_survives_json():
    config = parse(Config, ["--hidden", "3", "4", "--model-dir", "runs", "--seed", "5"], "")
    settings = json.loads(json.dumps(config.as_dict()))
    assert "resume" not in settings
    assert settings["hidden"] == [3, 4]
    assert settings["model_dir"] == "runs"
    assert settings["seed"] == 5


@pytest.mark.parametrize("name", ["tpu", "banana", "", "cuda:x", "meta", "CPU"])
def test_an_unknown_device_is_refused(name):
    with pytest.raises(UsageError) as caught:
        find_device(name)
    assert str(caught.value).startswith(f"--device {name}: ")
    assert "use auto, cpu, cuda" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_gpu_that_is_not_there_is_refused():
    with pytest.raises(UsageError, match=r"^--device cuda:99: (there are \d+ GPUs|.*use auto or cpu$)"):
        find_device("cuda:99")


def test_without_a_gpu_cuda_is_refused_and_auto_is_the_processor(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for name in ("cuda", "mps"):
        with pytest.raises(UsageError, match=rf"^--device {name}: .*; use auto or cpu$"):
            find_device(name)
    assert find_device("auto") == find_device("cpu") == torch.device("cpu")


def test_prepare_seeds_every_global_generator():
    import random

    import numpy

    def draw():
        return random.random(), numpy.random.rand(), torch.rand(()).item()

    draws = []
    for seed in (5, 5, 6):
        assert prepare(RunConfig(seed=seed, device="cpu")) == torch.device("cpu")
        draws.append(draw())
    assert draws[0] == draws[1]
    assert all(one != other for one, other in zip(draws[0], draws[2], strict=True))


@pytest.mark.parametrize("arguments", ["--epochs -1", "--no-such-flag", "--dataset digits --device banana"])
def test_a_mistake_leaves_the_process_with_2_one_line_and_no_folder(run_script, tmp_path, arguments):
    done = run_script(SCRIPT, *arguments.split(), "--model-dir", tmp_path / "runs", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert re.fullmatch(r"error: .+\n", done.stderr)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_data_set_leaves_the_process_before_anything_is_loaded(run_script, tmp_path):
    folders = ("--model-dir", tmp_path / "runs", "--data-dir", tmp_path / "data")
    done = run_script(SCRIPT, "--dataset", "cifar", *folders, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: --dataset cifar: use auto, mnist, digits or folder\n"
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def help_text(run_script):
    done = run_script(SCRIPT, "--help")
    assert done.returncode == 0
    assert done.stderr == ""
    return squeeze(done.stdout)


def squeeze(text: str) -> str:
    """The text without the box that is drawn around it and without its line breaks."""
    return re.sub(r"[│╭╮╰╯─\s]", "", text)


def field_docstrings(config_class: type) -> dict[str, str]:
    """The text under each field of a dataclass, of the nearest class that gives one."""
    found = {}
    for owner in reversed([c for c in config_class.__mro__ if dataclasses.is_dataclass(c)]):
        body = ast.parse(inspect.getsource(owner)).body[0].body
        for field, text in itertools.pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                found[field.target.id] = ast.literal_eval(text.value)
    return found


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Config)])
def test_help_shows_every_flag_with_its_one_line(help_text, name):
    text = field_docstrings(Config)[name]
    assert len(text.splitlines()) == 1
    assert squeeze(text) in help_text
    assert f"--{name.replace('_', '-')}" in help_text


def test_help_begins_with_what_the_script_is_and_how_it_is_called(help_text):
    assert squeeze("Exercise 1.1. How well does a small network read handwritten digits?") in help_text
    assert squeeze("python lab1/train_mlp.py --hidden 128 128 128 --residual") in help_text


@pytest.mark.parametrize("arguments", [["--help"], ["--epochs", "-1"]])
def test_help_and_a_mistyped_flag_answer_without_importing_torch(arguments):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", str(REPOSITORY / SCRIPT), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
    )
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines() if "|" in line}
    assert "tyro" in imported
    assert not imported & {"torch", "torchvision", "tensorboard", "sklearn", "matplotlib"}


@pytest.mark.parametrize(
    ("raised", "status", "line"),
    [
        (UsageError("--epochs 0: at least 1 is needed"), 2, "error: --epochs 0: at least 1 is needed"),
        (RunFailed("the loss is nan at step 3"), 1, "error: the loss is nan at step 3"),
        (Interrupted(2, Path("runs/a")), 130, "stopped and saved; go on with: --resume runs/a"),
        (Interrupted(15, Path("runs/a")), 143, "stopped and saved; go on with: --resume runs/a"),
        (KeyboardInterrupt(), 130, "stopped"),
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs/a/last.pt"),
            1,
            "error: cannot write runs/a/last.pt: No space left on device; make room, then --resume it",
        ),
        (
            OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
            1,
            f"error: cannot write the run: {os.strerror(errno.EDQUOT)}; make room, then --resume it",
        ),
    ],
    ids=lambda value: f"{type(value).__name__}" if isinstance(value, BaseException) else None,
)
def test_a_script_leaves_with_the_promised_status_and_one_line(monkeypatch, capsys, raised, status, line):
    def main(config):
        raise raised

    monkeypatch.setattr(sys, "argv", ["script"])
    with pytest.raises(SystemExit) as stop:
        launch(main, TrainConfig)
    assert stop.value.code == status
    assert capsys.readouterr() == ("", line + "\n")


def test_who_stops_a_script_is_told_the_whole_command(monkeypatch, capsys):
    def main(config):
        raise Interrupted(2, Path("my runs/a"))

    for processes, command in ((None, "python lab1/train_mlp.py --resume 'my runs/a'"), ("1", "--resume 'my runs/a'")):
        monkeypatch.setattr(sys, "argv", ["lab1/train_mlp.py"])
        if processes is not None:
            monkeypatch.setenv("WORLD_SIZE", processes)
        with pytest.raises(SystemExit):
            launch(main, TrainConfig)
        assert capsys.readouterr().err == f"stopped and saved; go on with: {command}\n"


def test_a_script_beside_the_labs_of_another_checkout_is_refused(monkeypatch, capsys, tmp_path):
    for name in ("lab1/engine/launch.py", "lab1/train_mlp.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "lab1/train_mlp.py")])
    with pytest.raises(SystemExit) as stop:
        launch(lambda config: None, TrainConfig)
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"this environment runs the labs of {REPOSITORY}; in {tmp_path.resolve()} run: pip install -r" in line


def test_under_torchrun_one_process_speaks_for_all(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(sys, "argv", ["script", "--seed", "-1"])
    with pytest.raises(SystemExit) as stop:
        launch(print, TrainConfig)
    assert stop.value.code == 2
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("raised", [ZeroDivisionError("a bug"), FileNotFoundError(errno.ENOENT, "a bug", "a.txt")])
def test_a_bug_keeps_its_traceback(monkeypatch, raised):
    def main(config):
        raise raised

    monkeypatch.setattr(sys, "argv", ["script"])
    with pytest.raises(type(raised)) as caught:
        launch(main, TrainConfig)
    assert caught.value is raised


def test_main_gets_the_configuration_of_the_command_line(monkeypatch):
    got = []
    monkeypatch.setattr(sys, "argv", ["script", "--seed", "4", "--epochs", "3"])
    launch(lambda config: got.append(config), TrainConfig)
    assert got == [TrainConfig(seed=4, epochs=3)]


def test_a_published_run_is_found_by_its_name_where_it_is_only_read(tmp_path):
    folder = make_run(tmp_path / "published" / "reference")
    assert find_run("reference", tmp_path / "mine", tmp_path / "published") == folder
    with pytest.raises(UsageError, match="no run 'reference'"):
        find_run("reference", tmp_path / "mine")


def test_a_run_that_is_not_there_gets_the_nearest_name_and_one_of_each_experiment(tmp_path):
    for name in ("ppo-seed0", "ppo-seed1", "dqn-seed0", "dqn-seed1", "a", "b", "c", "d"):
        make_run(tmp_path / "published" / name)
    with pytest.raises(UsageError) as caught:
        find_run("ppo-sed0", tmp_path / "mine", tmp_path / "published")
    known = "it holds no run yet; published are: a, b, c, d, dqn-seed0, ..."
    assert str(caught.value) == f"no run 'ppo-sed0' here or in {tmp_path / 'mine'}; did you mean ppo-seed0? ({known})"
    make_run(tmp_path / "mine" / "other")
    with pytest.raises(UsageError) as caught:
        find_run("nope", tmp_path / "mine", tmp_path / "published")
    known = "it holds no run with a best.pt yet; published are: b"
    (tmp_path / "published" / "b" / "best.pt").touch()
    with pytest.raises(UsageError) as caught:
        find_run("nope", tmp_path / "mine", tmp_path / "published", offer="best.pt")
    assert str(caught.value) == f"no run 'nope' here or in {tmp_path / 'mine'} ({known})"
    with pytest.raises(UsageError) as caught:
        find_run("nope", tmp_path / "mine", tmp_path / "published")
    known = "there are: other; published are: a, b, c, d, dqn-seed0, ..."
    assert str(caught.value) == f"no run 'nope' here or in {tmp_path / 'mine'} ({known})"


def test_a_long_automatic_name_fits_a_folder_and_its_seeds_share_the_rest(tmp_path):
    many = ["--hidden", *["128"] * 100]
    names = [parse(Config, [*many, "--seed", seed], "").run_name() for seed in ("0", "17")]
    other = parse(Config, [*many, "64"], "").run_name()
    assert [len(name) for name in [*names, other]] == [120, 120, 120]
    assert re.fullmatch(r"mlp-128(-128)+(-1?2?)?-[0-9a-f]{8}-seed0", names[0])
    assert names[1].endswith("-seed17")
    assert other != names[0]
    for name in names:
        (tmp_path / name).mkdir()


def test_a_long_name_is_measured_in_bytes():
    name = folder_name("é" * 100 + "-seed3")
    assert len(name.encode()) <= 120
    assert re.fullmatch(r"é{52}-[0-9a-f]{8}-seed3", name)
    assert folder_name("é" * 60) == "é" * 60


def test_an_automatic_name_has_dashes_for_what_a_folder_cannot_be_called():
    assert folder_name("ppo-package.module:Id/v0-seed1") == "ppo-package.module-Id-v0-seed1"
