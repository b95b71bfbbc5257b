"""One's own environment, by the module that registers it: imported where a user types it, never by a run's file."""

import json
import re
import sys
from pathlib import Path

import gymnasium
import pytest

from lab1.engine.config import UsageError
from lab1.engine.launch import parse
from lab3 import compare_agents, play, train_ppo
from lab3.algorithms.start import environment, set_up
from lab3.config import hyperparameters
from lab3.environments import vector

# Ends after three steps, and is worth a point for each 1.
OWN = """
import gymnasium
import numpy as np

class Ones(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(0, 3, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.steps += 1
        return np.full(1, self.steps, np.float32), float(action), self.steps == 3, False, {}

gymnasium.register("Ones-v0", Ones)
"""
SMALL = "--steps 512 --num-envs 4 --rollout 32 --evaluations 2 --evaluation-episodes 2 --test-episodes 2".split()


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The current folder holds ``own_envs.py``, which nothing has imported yet."""
    (tmp_path / "own_envs.py").write_text(OWN, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    forget()


def forget() -> None:
    """What a new process would not know."""
    sys.modules.pop("own_envs", None)
    gymnasium.registry.pop("Ones-v0", None)


def train(*flags) -> Path:
    trainer = set_up(parse(train_ppo.Config, [str(flag) for flag in flags], ""))
    trainer.train()
    trainer.test()
    return trainer.folder


def refusal(call, *arguments) -> str:
    """The one line with which a call is refused."""
    with pytest.raises(UsageError) as error:
        call(*arguments)
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


def test_an_id_alone_imports_nothing(own):
    assert vector.find_id("Ones-v0") == "Ones-v0"
    assert vector.find_id("ALE/Pong-v5") == "ALE/Pong-v5"
    assert "own_envs" not in sys.modules
    assert str(own) not in sys.path


def test_a_module_is_found_in_the_current_folder_and_its_id_stays(own):
    assert vector.find_id("own_envs:Ones-v0") == "Ones-v0"
    assert vector.find_id("own_envs:Ones-v0") == "Ones-v0"
    assert sys.path.count(str(own)) == 1
    assert sys.path[-1] == str(own)  # it comes after what is installed
    assert vector.make_single("Ones-v0").spec.max_episode_steps == vector.MAX_EPISODE_STEPS


def test_what_is_not_there_is_said_in_one_line(own):
    assert refusal(vector.find_id, "nowhere:Ones-v0") == "--env nowhere:Ones-v0: No module named 'nowhere'"
    line = refusal(vector.find_id, "own_envs:Twos-v0")
    assert line.startswith(f"--env own_envs:Twos-v0: {own / 'own_envs.py'} registers no such environment")
    assert "`Twos` doesn't exist" in line
    (own / "own_envs.py").write_text("import no_such_package", encoding="utf-8")
    forget()
    assert refusal(vector.find_id, "own_envs:Ones-v0") == "--env own_envs:Ones-v0: No module named 'no_such_package'"
    for mistyped in (":Ones-v0", "own_envs:", "folder/own_envs:Ones-v0", ".own_envs:Ones-v0"):
        line = refusal(vector.find_id, mistyped)
        assert line == f"--env {mistyped}: a module and an id are needed, such as my_envs:Maze-v0"


def test_a_mistake_in_ones_own_module_keeps_its_traceback(own):
    (own / "own_envs.py").write_text("1 / 0", encoding="utf-8")
    with pytest.raises(ZeroDivisionError):
        vector.find_id("own_envs:Ones-v0")


ODD = """
import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete, Sequence

class Odd(gymnasium.Env):
    action_space = Discrete(2)

    def __init__(self, space):
        self.observation_space = space

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 0.0, False, False, {}

for name, space in {
    "Grey": Box(0, 255, (80, 80, 1), np.uint8),
    "ChannelsFirst": Box(0, 255, (3, 80, 80), np.uint8),
    "Sequence": Sequence(Box(0, 1, (2,), np.float32)),
    "Plain": Box(0, 1, (2,), np.float32),
}.items():
    gymnasium.register(f"{name}-v0", Odd, kwargs={"space": space})
"""


@pytest.fixture
def odd(own):
    (own / "odd_envs.py").write_text(ODD, encoding="utf-8")
    vector.find_id("odd_envs:Plain-v0")
    yield
    sys.modules.pop("odd_envs")
    for name in ("Grey", "ChannelsFirst", "Sequence", "Plain"):
        gymnasium.registry.pop(f"{name}-v0")


@pytest.mark.parametrize(
    ("env", "complaint"),
    [
        ("Grey-v0", r"--env Grey-v0: its images are \(80, 80, 1\); \(height, width, 3\) is needed"),
        ("ChannelsFirst-v0", r"--env ChannelsFirst-v0: its images are \(3, 80, 80\); \(height, width, 3\)"),
        ("Sequence-v0", "--env Sequence-v0: its observations are Sequence.*; they must be of one length"),
    ],
)
def test_observations_that_no_network_takes_are_refused(odd, env, complaint):
    assert re.match(complaint, refusal(vector.make_single, env))


@pytest.mark.filterwarnings("ignore:.*render_mode")  # gymnasium says so, too
def test_an_environment_that_cannot_draw_itself(odd):
    assert refusal(vector.make_single, "Plain-v0", "rgb_array") == (
        "--env Plain-v0: it cannot draw itself, as it takes no render_mode; leave out --output"
    )


def test_a_module_without_a_file_registers_nothing():
    assert refusal(vector.find_id, "sys:Nothing-v0").startswith(
        "--env sys:Nothing-v0: sys registers no such environment"
    )


def test_an_environment_within_another_is_not_plain_data(odd):
    envs = vector.make("Plain-v0", 2, seed=0)
    assert vector.state(envs)["whole"]
    envs.envs[1].unwrapped.env = vector.make_single("CartPole-v1")
    assert not vector.state(envs)["whole"]


def test_an_environment_named_with_its_module_has_its_own_hyperparameters():
    for algorithm in ("ppo", "dqn", "reinforce"):
        expected = hyperparameters(algorithm, "CartPole-v1")
        assert hyperparameters(algorithm, "gymnasium:CartPole-v1") == expected
        assert expected != hyperparameters(algorithm, "any")


def test_a_run_in_ones_own_environment_is_trained_played_and_resumed(own, capsys):
    folder = train("--env", "own_envs:Ones-v0", *SMALL, "--model-dir", own / "runs")
    assert folder == own / "runs" / "ppo-Ones-v0-seed0"
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["env"] == "Ones-v0"
    assert b"own_envs" not in (folder / "best.pt").read_bytes() + (folder / "last.pt").read_bytes()
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))

    forget()
    name_it = "(your own environment? name its module: --env my_envs:Ones-v0)"
    watch = ["--run", str(folder), "--episodes", "2"]
    assert refusal(play.main, parse(play.Config, watch, "")).endswith(name_it)
    assert refusal(train, "--resume", folder).endswith(name_it)
    assert "own_envs" not in sys.modules
    played = play.main(parse(play.Config, [*watch, "--env", "own_envs:Ones-v0"], ""))
    assert [episode["length"] for episode in played] == [3, 3]
    assert [episode["return"] for episode in played] == [results["test"]["return"]] * 2
    random = play.main(parse(play.Config, ["--random", "--env", "own_envs:Ones-v0", "--episodes", "2"], ""))
    assert [episode["length"] for episode in random] == [3, 3]
    other = parse(play.Config, [*watch, "--env", "gymnasium:CartPole-v1"], "")
    assert refusal(play.main, other) == "--env gymnasium:CartPole-v1: it plays Ones-v0"

    forget()
    assert train("--resume", folder, "--env", "own_envs:Ones-v0") == folder
    assert json.loads((folder / "config.json").read_text(encoding="utf-8")) == config
    assert json.loads((folder / "results.json").read_text(encoding="utf-8")) == results


@pytest.mark.parametrize("script", [train_ppo, compare_agents], ids=["train_ppo", "compare_agents"])
def test_a_module_that_a_runs_file_names_is_not_imported(own, script):
    folder = own / "run"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"env": "own_envs:Ones-v0"}), encoding="utf-8")
    config = parse(script.Config, ["--resume", str(folder)], "")
    line = refusal(environment, config)
    expected = f"{folder / 'config.json'} names a module, 'own_envs:Ones-v0': it must hold the environment's id alone"
    assert line == expected
    assert refusal(script.main, config) == expected
    assert "own_envs" not in sys.modules


def test_agents_are_compared_in_ones_own_environment_and_a_comparison_is_extended(own):
    flags = ["--agents", "ppo", "--steps", "2048", "--device", "cpu"]
    named = ["--env", "own_envs:Ones-v0"]
    start = parse(compare_agents.Config, [*flags, *named, "--seeds", "0", "--model-dir", str(own / "runs")], "")
    compare_agents.main(start)
    folder = own / "runs" / "compare-Ones-v0"
    for path in (folder / "config.json", folder / "ppo-seed0" / "config.json"):
        assert json.loads(path.read_text(encoding="utf-8"))["env"] == "Ones-v0"
    forget()
    more = parse(compare_agents.Config, ["--resume", str(folder), *named, "--seeds", "0", "1"], "")
    (row,) = compare_agents.main(more)
    assert row["runs"] == 2
