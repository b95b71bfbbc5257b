"""How a script complains, what its --help shows, and how it stops while it starts."""

import dataclasses
import importlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Literal

import pytest

from lab1.engine import signals
from lab1.engine.complaints import complaint, groups
from lab1.engine.config import REPOSITORY, Real, UsageError, Whole, flag
from lab1.engine.launch import launch, parse
from tests.posix import posix


@dataclasses.dataclass
class Flags:
    """One flag of each kind; not a RunConfig."""

    epochs: int = 3
    learning_rate: Real = None
    steps: Whole = None
    norm: Literal["batch", "none"] = "batch"
    loss: Annotated[Literal["mean", "sum", "max"] | None, flag("{mean,sum,max}")] = None
    augment: bool = False
    env: str = "CartPole-v1"
    name: Annotated[str | None, flag("NAME")] = None
    output: Annotated[Path | None, flag("FILE")] = None
    depths: tuple[int, ...] = (5, 20)
    rates: Annotated[tuple[float, ...], flag("FLOAT ...")] = ()
    methods: tuple[Literal["tfidf", "lora"], ...] = ("lora",)


LISTED = "(--help lists the flags)"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epoch", "3"], f"unknown flag --epoch; did you mean --epochs? {LISTED}"),
        (["-epochs", "3"], f"unknown flag -epochs; did you mean --epochs? {LISTED}"),
        (["--learnign_rate=3"], f"unknown flag --learnign-rate; did you mean --learning-rate? {LISTED}"),
        (["--lr", "3"], f"unknown flag --lr; did you mean --learning-rate? {LISTED}"),
        (["--environment", "x"], f"unknown flag --environment; did you mean --env? {LISTED}"),
        (["--no-augmentation"], f"unknown flag --no-augmentation; did you mean --no-augment? {LISTED}"),
        (["--epochs", "3", "-lr", "4"], f"unknown flag -lr; did you mean --learning-rate? {LISTED}"),
        (["--batch-size", "3"], f"unknown flag --batch-size {LISTED}"),
        (["x"], f"x: which flag is it for? {LISTED}"),
        (["--epochs", "abc"], "--epochs abc: a whole number is needed, such as 3"),
        (["--epochs", "1.5"], "--epochs 1.5: a whole number is needed, such as 3"),
        (["--epochs"], "--epochs: a whole number is needed, such as 3"),
        (["--epochs", "--augment"], "--epochs: a whole number is needed, such as 3"),
        (["--epochs", "3", "4"], "--epochs 3 4: one value is needed"),
        (["--steps", "1e5"], "--steps 1e5: a whole number is needed, such as 10"),
        (["--learning-rate", "abc"], "--learning-rate abc: a number is needed, such as 0.001"),
        (["--learning-rate"], "--learning-rate: a number is needed, such as 0.001"),
        (["--norm", "bach"], "--norm bach: use batch or none"),
        (["--norm"], "--norm: use batch or none"),
        (["--loss", "x"], "--loss x: use mean, sum or max"),
        (["--augment", "True"], "--augment True: this flag takes no value"),
        (["--augment=yes"], "--augment yes: this flag takes no value"),
        (["--no-augment", "1"], "--no-augment 1: this flag takes no value"),
        (["--name"], "--name: a value is needed"),
        (["--name", "my", "run"], "--name my run: one value is needed; write quotes around one with spaces"),
        (["--output", "a", "b.gif"], "--output a b.gif: one value is needed; write quotes around one with spaces"),
        (["--depths", "5", "x", "y"], "--depths x y: whole numbers are needed, such as 5 20"),
        (["--rates", "x"], "--rates x: numbers are needed, such as 1 2"),
        (["--methods", "lora", "bert"], "--methods bert: use tfidf or lora"),
    ],
)
def test_what_cannot_be_parsed_is_refused_with_what_is_right(arguments, message):
    with pytest.raises(UsageError) as caught:
        parse(Flags, arguments, "")
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("arguments", "changed"),
    [
        ([], {}),
        (["--epochs=4", "--learning_rate", "-1e-3", "--no-augment"], {"epochs": 4, "learning_rate": -0.001}),
        (["--depths", "1", "-2", "--augment"], {"depths": (1, -2), "augment": True}),
        (["--name=--epochs", "--output", "a b.gif"], {"name": "--epochs", "output": Path("a b.gif")}),
        (["--loss", "None", "--steps", "None"], {}),
        (["--depths", "--methods", "tfidf", "lora"], {"depths": (), "methods": ("tfidf", "lora")}),
    ],
    ids=str,
)
def test_nothing_is_said_of_what_can_be_parsed(arguments, changed):
    assert parse(Flags, arguments, "") == dataclasses.replace(Flags(), **changed)
    assert complaint(Flags, arguments) is None


def test_words_belong_to_the_flag_before_them():
    assert groups(["a", "--epochs=3", "--hidden_sizes", "128", "-64"]) == [
        (None, ["a"]),
        ("--epochs", ["3"]),
        ("--hidden-sizes", ["128", "-64"]),
    ]


def test_scripts_with_and_without_a_run_complain_alike(run_script):
    for script, flag_name, right in (("lab1/train_mlp.py", "--epoch", "--epochs"), ("lab3/plot.py", "--run", "--runs")):
        done = run_script(script, flag_name, "3")
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == f"error: unknown flag {flag_name}; did you mean {right}? {LISTED}\n"


def shown_defaults(script: str, arguments: list[str], capsys) -> dict[str, str]:
    """What --help shows as the default of each flag."""
    config_class = importlib.import_module(script).Config
    with pytest.raises(SystemExit) as stop:
        parse(config_class, arguments, "")
    assert stop.value.code == 0
    words = " ".join(line.strip("│ ") for line in capsys.readouterr().out.splitlines())
    return {
        part.split()[0]: part.partition("(default: ")[2].partition(")")[0]
        for part in words.split(" --")
        if "(default: " in part
    }


@pytest.mark.parametrize(
    ("script", "arguments", "shown"),
    [
        ("lab3.train_ppo", [], {"steps": "50000", "gamma": "0.98", "hidden": "64 64", "anneal-clip": "linear"}),
        ("lab3.train_ppo", ["--env", "LunarLander-v3"], {"steps": "1000000", "gamma": "0.999", "entropy": "0.01"}),
        ("lab3.train_ppo", ["--num-envs", "3", "--dry-run"], {"num-envs": "16", "steps": "50000", "evaluations": "20"}),
        ("lab3.train_dqn", ["--env=CarRacing-v3"], {"hidden": "512", "buffer-size": "20000", "actions": "greedy"}),
        ("lab3.train_reinforce", [], {"episodes": "1000", "num-envs": "8", "vectorization": "native"}),
    ],
)
def test_help_shows_what_the_table_says_of_the_environment(script, arguments, shown, capsys):
    found = shown_defaults(script, [*arguments, "--help"], capsys)
    assert {name: found[name] for name in shown} == shown
    assert not {value for value in found.values() if "see" in value or value in ("None", "")}


def test_help_shows_no_default_where_there_is_none(capsys):
    found = shown_defaults("lab3.train_ppo", ["--help"], capsys)
    assert not {"resume"} & set(found)
    assert found["target-kl"] == "never"


def test_help_of_a_wrong_environment_says_what_is_missing():
    from lab3.train_ppo import Config

    with pytest.raises(UsageError, match=r"^--env: a value is needed$"):
        parse(Config, ["--env", "--help"], "")


@pytest.mark.parametrize("lab", ["lab1", "lab2", "lab3"])
def test_help_of_the_plots_keeps_their_commands_apart(run_script, lab):
    done = run_script(f"{lab}/plot.py", "--help")
    lines = [line.strip() for line in done.stdout.splitlines()]
    (command,) = [line for line in lines if f"python {lab}/plot.py --runs {lab}/model " in line]
    assert command.startswith("python ")
    assert command.count("python ") == 1


def test_help_answers_at_once():
    """Without importing torch, and in a time that nobody notices; the best of three, as others use the machine."""
    seconds = []
    for _ in range(3):
        begun = time.perf_counter()
        subprocess.run(
            [sys.executable, str(REPOSITORY / "lab3/train_ppo.py"), "--help"], check=True, capture_output=True
        )
        seconds.append(time.perf_counter() - begun)
    assert min(seconds) < 1


# Read by Python before a script: it sends the process a real SIGINT as a module is about to be imported.
STRIKE = """
import importlib.abc, signal, sys

class Strike(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == {module!r}:
            signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, Strike())
"""


@pytest.mark.parametrize(
    ("script", "module"),
    [
        ("lab1/train_mlp.py", "lab1.engine.config"),
        ("lab1/train_mlp.py", "tyro"),
        ("lab1/train_mlp.py", "torch"),
        ("lab1/train_mlp.py", "torch.nn"),
        ("lab1/train_mlp.py", "lab1.trainer"),
        ("lab2/train_gpt.py", "lab1.engine.launch"),
        ("lab3/train_ppo.py", "lab3.config"),
        ("lab1/plot.py", "matplotlib"),
    ],
)
def test_ctrl_c_during_an_import_is_one_line(tmp_path, run_script, script, module):
    (tmp_path / "sitecustomize.py").write_text(STRIKE.format(module=module), encoding="utf-8")
    place = ["--figures"] if script.endswith("plot.py") else ["--dry-run", "--model-dir"]
    path = f"{tmp_path}{os.pathsep}{REPOSITORY}"
    done = run_script(script, *place, tmp_path / "new", env={"PYTHONPATH": path})
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "stopped\n")
    assert not (tmp_path / "new").exists()


@posix
@pytest.mark.parametrize("wait", [0.0, 0.3, 0.8])
def test_ctrl_c_at_any_moment_after_the_first_line(tmp_path, wait):
    """From the first import of a library on."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, os\n"
        "def hook(event, arguments):\n"
        "    if event == 'import' and arguments[0] == 'tyro':\n"
        "        os.write(1, b'begun')\n"
        "sys.addaudithook(hook)\n",
        encoding="utf-8",
    )
    process = subprocess.Popen(
        [sys.executable, str(REPOSITORY / "lab1/train_mlp.py"), "--dry-run", "--model-dir", str(tmp_path / "runs")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{REPOSITORY}"},
    )
    assert process.stdout.read(5) == b"begun"
    time.sleep(wait)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Traceback" not in said
    assert said.decode().splitlines()[-1].startswith("stopped")


def test_ctrl_c_elsewhere_raises_and_other_programs_are_left_alone():
    before = signal.getsignal(signal.SIGINT)
    signals.stop_at_once_in_scripts()  # this program is pytest
    assert signal.getsignal(signal.SIGINT) is before
    with pytest.raises(KeyboardInterrupt):
        signals.stop_or_raise(signal.SIGINT, None)


def test_what_a_program_does_with_ctrl_c_itself_stays_so(monkeypatch):
    found = []
    monkeypatch.setattr(sys, "argv", ["script"])
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as nohup sets it
    try:
        launch(lambda config: found.append(signal.getsignal(signal.SIGINT)), Flags)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        launch(lambda config: found.append(signal.getsignal(signal.SIGINT)), Flags)
        assert found == [signal.SIG_IGN, signals.stop_or_raise]
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_console_without_a_character_shows_a_question_mark():
    """As Windows has them: code page 1252 knows ±, but no arrow."""
    program = (
        "import sys\n"
        "from lab1.engine.launch import launch\n"
        "from tests.lab1.engine.test_launch import Flags\n"
        "launch(lambda config: print('1 ± 2 → 3'), Flags)\n"
    )
    for encoding, line in (("cp1252", b"1 \xb1 2 ? 3"), ("ascii", b"1 ? 2 ? 3"), ("utf-8", "1 ± 2 → 3".encode())):
        done = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            cwd=REPOSITORY,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY), "PYTHONIOENCODING": encoding},
        )
        assert (done.returncode, done.stdout.strip(), done.stderr) == (0, line, b"")


def test_completions_for_a_shell_can_be_printed(capsys):
    with pytest.raises(SystemExit) as stop:
        parse(Flags, ["--tyro-print-completion", "bash"], "")
    assert not stop.value.code
    assert "--learning-rate" in capsys.readouterr().out
