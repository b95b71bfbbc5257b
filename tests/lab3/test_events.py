"""The curves of a run that was stopped or killed: point for point those of one that was not."""

import signal
from itertools import pairwise
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lab1.engine import checkpoint
from lab1.engine.config import Interrupted
from lab1.engine.launch import parse
from lab3 import train_dqn
from lab3.algorithms.start import set_up

# A tick every 5 steps; updates at 30, 37, 44, ... steps, so that some ticks have one before them and some have none.
FLAGS = (
    "--steps 1000 --learning-starts 30 --train-every 7 --gradient-steps 1 --batch-size 8 --hidden 4 --evaluations 2"
    " --evaluation-episodes 1 --test-episodes 1 --target-every 50"
).split()


class Killed(BaseException):
    """Stands for SIGKILL: nothing is saved or written any more."""


def train(*arguments: object, stop_at: int | None = None, strike: signal.Signals = signal.SIGTERM):
    trainer = set_up(parse(train_dqn.Config, list(map(str, arguments)), ""))
    step_envs = trainer.step_envs

    def struck(actions):
        found = step_envs(actions)
        if trainer.env_steps == stop_at:
            if strike == signal.SIGKILL:
                raise Killed
            trainer.signals.received = strike
        return found

    trainer.step_envs = struck
    try:
        trainer.train()
        trainer.log.close()
    except (Interrupted, Killed):
        pass
    trainer.envs.close()
    return trainer


def points(folder: Path) -> dict[str, list]:
    shown = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    shown.Reload()
    tags = shown.Tags()
    found = {tag: [(point.step, point.value) for point in shown.Scalars(tag)] for tag in tags["scalars"]}
    found["speed/steps per second"] = [step for step, _ in found["speed/steps per second"]]
    return found | {tag: [point.step for point in shown.Tensors(tag)] for tag in tags["tensors"]}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> dict[str, list]:
    return points(train(*FLAGS, "--model-dir", tmp_path_factory.mktemp("whole")).folder)


def test_an_uninterrupted_run(uninterrupted):
    ticks, updates = [step for step, _ in uninterrupted["update/epsilon"]], range(35, 1001, 7)
    assert len(ticks) == 200
    learned = [now for before, now in pairwise([0, *ticks]) if any(before < step <= now for step in updates)]
    assert [step for step, _ in uninterrupted["update/loss"]] == learned
    assert 130 <= len(learned) < 200
    assert uninterrupted["configuration/text_summary"] == [0]


# After an update that the next tick shows: in the last step before it, and earlier; right after a tick.
@pytest.mark.parametrize("stop_at", [329, 336, 338, 341])
def test_stopped_between_an_update_and_its_tick(tmp_path, uninterrupted, stop_at):
    folder = train(*FLAGS, "--model-dir", tmp_path, stop_at=stop_at).folder
    train("--resume", folder)
    assert points(folder) == uninterrupted


@pytest.mark.parametrize("stop_at", [20, 733])  # before the first checkpoint, and after it
def test_killed(tmp_path, uninterrupted, stop_at):
    killed = train(*FLAGS, "--model-dir", tmp_path, stop_at=stop_at, strike=signal.SIGKILL)
    train("--resume", killed.folder)
    assert points(killed.folder) == uninterrupted


def test_what_was_logged_is_written_before_a_checkpoint(tmp_path, monkeypatch):
    trainer, order = set_up(parse(train_dqn.Config, [*FLAGS, "--model-dir", str(tmp_path)], "")), []
    trainer.open()
    monkeypatch.setattr(trainer.log, "flush", lambda: order.append("events"))
    monkeypatch.setattr(checkpoint, "save_newest", lambda content, folder: order.append("checkpoint"))
    trainer.save()
    assert order == ["events", "checkpoint"]
    trainer.log.close()
    trainer.envs.close()
