"""A run that is killed or stopped at random moments and resumed ends like one that nothing happened to: weights,
results and every point of TensorBoard, for each script that trains. Real signals, in real processes."""

import dataclasses
import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab1.engine.config import REPOSITORY
from tests.exactness import EVENTS, assert_same_end
from tests.posix import posix

AGENTS = "--evaluations 4 --evaluation-episodes 3 --test-episodes 3 --hidden 16"
# Each trains for a few seconds, and everything that is random or has a state is in it.
RUNS = {
    "lab1/train_mlp.py": "--dataset digits --hidden 32 16 --batch-size 32 --epochs 12 --dropout 0.2 --augment",
    "lab1/train_cnn.py": "--dataset shapes --depth 1 --width 4 --batch-size 64 --epochs 3 --train-images 2000",
    "lab1/train_fast.py": "--dataset shapes --width 4 --batch-size 50 --epochs 3 --train-images 1500",
    "lab1/detect_digits.py": "--dataset digits --train-canvases 40 --canvases 5 --epochs 2",
    "lab1/sweep_depth.py": "--family mlp --dataset digits --depths 2 4 --seeds 0 --width 16 --epochs 4",
    "lab2/train_gpt.py": "--text {data}/rhymes.txt --layers 1 --heads 2 --width 16 --context 16 --steps 200 "
    "--eval-interval 40 --dropout 0.1",
    "lab2/classify_text.py": "--method finetune --dataset mood --model bert --epochs 6 --batch-size 8",
    "lab2/answer_questions.py": "--dataset endings --model bert --epochs 6 --batch-size 8",
    "lab2/retrieve.py": "--finetune --dataset deeds --model bert --epochs 12 --batch-size 4",
    "lab3/train_reinforce.py": f"--episodes 200 --num-envs 2 {AGENTS}",
    "lab3/train_dqn.py": "--steps 3000 --learning-starts 200 --train-every 8 --gradient-steps 4 --target-every 100 "
    f"--batch-size 16 {AGENTS}",
    "lab3/train_ppo.py": f"--steps 4000 --num-envs 2 --rollout 32 --batch-size 16 {AGENTS}",
    "lab3/compare_agents.py": "--agents ppo dqn reinforce --seeds 0 --steps 1200 --episodes 24",
}
STRIKES = 5  # of each script

# What a script starts with, its imports, is done once: for each line a child is forked, which is the script from there.
NURSERY = """
import contextlib, importlib, io, json, os, sys, tempfile, traceback
from lab1.engine.launch import launch

name, flags = json.loads(sys.argv[1])
module = importlib.import_module(name)

def run(arguments):
    sys.argv = [name, *arguments]
    status = 0
    try:
        launch(module.main, module.Config)
    except SystemExit as stop:
        status = stop.code or 0
    except BaseException:
        traceback.print_exc()
        status = 99
    return status

with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
    assert run([*flags, "--dry-run", "--model-dir", folder]) == 0  # imports all that is ever needed
for line in sys.stdin:
    log, *arguments = json.loads(line)
    child = os.fork()
    if child == 0:
        for number, end in ((1, "out"), (2, "err")):
            os.dup2(os.open(log + "." + end, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        status = run(arguments)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT) if os.name == "posix" else ()


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """The data sets and the model that the runs of lab 2 take."""
    from lab2.tasks import tiny

    folder = tmp_path_factory.mktemp("data")
    tiny.write_texts(folder / "mood")
    tiny.write_choices(folder / "endings")
    tiny.write_search(folder / "deeds")
    tiny.write_model(folder / "bert")
    (folder / "rhymes.txt").write_text("\n".join(text for text, _ in tiny.sentences()) * 4, encoding="utf-8")
    return folder


@dataclasses.dataclass
class Undisturbed:
    """A run that nothing happened to: its folder, and for how many seconds it made itself ready and trained."""

    folder: Path
    begun: float
    trained: float


ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def start(script: str, *arguments: Any) -> subprocess.Popen:
    """A process of its own, from the first import on."""
    return subprocess.Popen(
        [sys.executable, str(REPOSITORY / script), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | ENVIRONMENT,
    )


class Nursery:
    """Starts a script again and again, each time in a process of its own that has imported all it needs."""

    def __init__(self, script: str, flags: list[str], folder: Path):
        what = json.dumps([script.removesuffix(".py").replace("/", "."), flags])
        self.process = subprocess.Popen(
            [sys.executable, "-c", NURSERY, what],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env=os.environ | ENVIRONMENT,
        )
        self.log = folder / "log"

    def __enter__(self) -> "Nursery":
        return self

    def __exit__(self, *error) -> None:
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(60)

    def start(self, *arguments: Any) -> "Child":
        self.process.stdin.write(json.dumps([str(self.log), *map(str, arguments)]).encode() + b"\n")
        return Child(int(self.process.stdout.readline()), self.process.stdout, self.log)


@dataclasses.dataclass
class Child:
    """What of ``subprocess.Popen`` is used here, of a process that another one forked."""

    pid: int
    answer: Any
    log: Path
    returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self.answer], [], [], 0)[0]:
            self.returncode = int(self.answer.readline())
        return self.returncode

    def wait(self, timeout: float) -> int:
        end = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() >= end:
                raise subprocess.TimeoutExpired("child", timeout)
            select.select([self.answer], [], [], max(0, end - time.monotonic()))
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def communicate(self, timeout: float) -> tuple[str, str]:
        self.wait(timeout)
        return tuple(Path(f"{self.log}.{end}").read_text(encoding="utf-8") for end in ("out", "err"))


def the_run(model_dir: Path) -> Path | None:
    """The folder of the one run there, if there is one already."""
    found = [path for path in model_dir.glob("*") if not path.name.startswith(".")]
    assert len(found) <= 1, f"several runs: {found}"
    return found[0] if found else None


def wait_for_events(process: subprocess.Popen | Child, model_dir: Path) -> float:
    """Wait until the process begins a file of events, as it does right before it trains, or ends; seconds from now."""
    begin, before = time.monotonic(), set(model_dir.rglob(EVENTS))
    while process.poll() is None and set(model_dir.rglob(EVENTS)) == before:
        time.sleep(0.02)
    return time.monotonic() - begin


def undisturbed(start: Callable[..., subprocess.Popen | Child], model_dir: Path, *arguments: str) -> Undisturbed:
    begin, process = time.monotonic(), start(*arguments, "--model-dir", model_dir)
    begun = wait_for_events(process, model_dir)
    said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    folder = the_run(model_dir)
    assert folder is not None
    return Undisturbed(folder, begun, time.monotonic() - begin - begun)


def struck(process: subprocess.Popen | Child, number: int, moment: float) -> bool:
    """Whether the process was still there to be struck after so many seconds; it ends as a struck one should."""
    try:
        process.wait(moment)
    except subprocess.TimeoutExpired:
        process.send_signal(number)
    _, complaint = process.communicate(timeout=120)
    if process.returncode == 0:
        return False
    # A signal that comes before Python listens to it ends the process by itself; a shell shows the same status.
    assert process.returncode in (-number, 128 + number), complaint
    assert "Traceback" not in complaint
    return True


def strike_and_resume(script: str, flags: list[str], strikes: int, folder: Path) -> None:
    """Strike runs of a script so many times, resume them until they are done, and compare each."""
    with Nursery(script, flags, folder) as nursery:
        # How long it takes from the first import on; and what the others are compared with, begun as they are: some
        # libraries draw from Python's random numbers when they are imported.
        begun = undisturbed(start, folder / "cold", script, *flags).begun
        whole = undisturbed(nursery.start, folder / "whole", *flags)
        strike_all(script, flags, strikes, folder, dataclasses.replace(whole, begun=begun), nursery)


def strike_all(script: str, flags: list[str], strikes: int, folder: Path, whole: Undisturbed, nursery: Nursery) -> None:
    chance = random.Random(script)
    done = runs = 0
    while done < strikes:
        runs += 1
        model_dir, history, finished = folder / f"struck-{runs}", [], False
        while not finished:
            run = the_run(model_dir)
            assert run is None or (run / "config.json").exists(), f"{run} is half made: {history}"
            arguments = [*flags, "--model-dir", model_dir] if run is None else ["--resume", run]
            number, early = chance.choice(SIGNALS), chance.random() < 0.2  # most strikes fall where it trains
            early = early and done < strikes
            process = start(script, *arguments) if early else nursery.start(*arguments)
            if done < strikes:
                moment = chance.uniform(0, whole.begun if early else whole.trained)
                begun = 0.0 if early else wait_for_events(process, model_dir)
                finished = not struck(process, number, moment)
                if early and run is None and list(model_dir.rglob("last.pt")):
                    shutil.rmtree(model_dir)  # struck too late: it was begun otherwise than what it is compared with
                    history, finished = [], False
                    continue
                done += not finished
                history.append(f"{signal.Signals(number).name} after {begun:.2f} + {moment:.2f} s")
            else:
                said = process.communicate(timeout=300)
                assert process.returncode == 0, (said, history)
                finished = True
        run = the_run(model_dir)
        assert run is not None
        try:
            assert_same_end(run, whole.folder)
        except AssertionError as error:
            raise AssertionError(f"{script} {' '.join(flags)}: {', '.join(history)}: {error}") from error


@posix
def test_a_struck_run_ends_as_if_nothing_had_happened(tmp_path):
    """Of the script whose runs have most to remember: weights, target network, transitions, environments."""
    strike_and_resume("lab3/train_dqn.py", RUNS["lab3/train_dqn.py"].split(), 3, tmp_path)


@posix
@pytest.mark.slow
@pytest.mark.parametrize("script", RUNS)
def test_struck_runs_of_every_script_end_as_if_nothing_had_happened(tmp_path, data, script):
    flags = RUNS[script].format(data=data).split() + ["--data-dir", str(data)]
    strike_and_resume(script, flags, STRIKES, tmp_path)
