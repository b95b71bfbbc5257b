"""The scripts of lab 3: what they write, what they refuse, and that a killed run goes on as if nothing had happened."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lab1.engine import checkpoint
from lab1.engine.config import Interrupted, RunFailed, UsageError
from lab1.engine.finished import changed_flags
from lab1.engine.launch import parse
from lab3 import train_dqn, train_ppo, train_reinforce
from lab3.algorithms.start import set_up
from lab3.environments import vector
from lab3.environments.agent import Agent
from lab3.models import ActorCritic, QNetwork
from lab3.trainer import RLTrainer, load_agent
from tests.exactness import assert_equal
from tests.posix import posix

SCRIPTS = {"ppo": train_ppo, "dqn": train_dqn, "reinforce": train_reinforce}
# Small runs in which everything that has a state is used.
SMALL = {
    "ppo": "--steps 1500 --num-envs 4 --rollout 32 --batch-size 32 --update-epochs 2".split(),
    "dqn": "--steps 600 --learning-starts 100 --train-every 4 --gradient-steps 1 --n-step 3 --double --dueling "
    "--buffer-size 300 --target-every 70".split(),
    "reinforce": "--episodes 40 --num-envs 2".split(),
}
# What TensorBoard shows of the updates beside the loss and the learning rate.
UPDATE = {
    "ppo": {
        *("update/policy loss", "update/value loss", "update/approx kl", "update/clip", "update/clip fraction"),
        *("update/entropy", "update/explained variance"),
    },
    "dqn": {"update/q", "update/epsilon"},
    "reinforce": {"update/policy loss", "update/value loss", "update/entropy"},
}
CLOCKS = ("seconds", "cpu_seconds")
COMMON = "--evaluations 4 --evaluation-episodes 3 --test-episodes 3 --hidden 16".split()

# The script, with one call in its life struck: the process sends itself a real signal.
STRUCK = """
import os, sys
import lab1.trainer
from lab1.engine.launch import launch
from lab3 import {module}

call, strike = int(sys.argv[1]), int(sys.argv[2])
del sys.argv[1:3]
original, calls = lab1.trainer.Trainer.train_step, 0

def struck(*arguments):
    global calls
    calls += 1
    if calls == call:
        os.kill(os.getpid(), strike)
    return original(*arguments)

lab1.trainer.Trainer.train_step = struck
launch({module}.main, {module}.Config)
"""


def run(algorithm, *arguments):
    """A whole run in this process; its folder."""
    script = SCRIPTS[algorithm]
    trainer = set_up(parse(script.Config, list(map(str, arguments)), ""))
    trainer.train()
    trainer.test()
    return trainer.folder


def results(folder):
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def without_clocks(value):
    if isinstance(value, dict):
        return {key: without_clocks(item) for key, item in value.items() if key not in CLOCKS}
    return [without_clocks(item) for item in value] if isinstance(value, list) else value


def assert_same_end(ours, theirs):
    """Parameters, optimiser, random states, environments, buffer, curve and test: the same to the bit."""
    for name in ("last.pt", "best.pt"):
        assert_equal(*[without_clocks(torch.load(folder / name, weights_only=True)) for folder in (ours, theirs)])
    for key in ("test", "history", "curve", "solved", "steps", "episodes", "updates", "best_step"):
        assert without_clocks(results(ours)[key]) == without_clocks(results(theirs)[key]), key


@pytest.mark.parametrize("algorithm", SCRIPTS)
def test_a_dry_run_writes_what_every_run_promises(run_script, tmp_path, algorithm):
    done = run_script(f"lab3/train_{algorithm}.py", "--dry-run", "--model-dir", tmp_path, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    (folder,) = tmp_path.iterdir()
    assert folder.name.startswith(f"dry-run-{algorithm}-")
    assert folder.name.endswith("CartPole-v1-seed0")
    found = results(folder)
    assert found["script"] == f"lab3/train_{algorithm}.py"
    assert found["dataset"] == "CartPole-v1"
    last = torch.load(folder / "last.pt", weights_only=True)
    assert found["updates"] == last["step"] > 0
    assert all(state["exp_avg"].abs().sum() > 0 for state in last["optimizer"]["state"].values())
    assert [entry["step"] for entry in found["history"]] == sorted(entry["step"] for entry in found["history"])
    assert len(found["history"]) == 2
    assert found["validation"]["return"] == max(entry["return"] for entry in found["history"])
    assert found["test"]["return"] > 0
    assert found["curve"][-1][0] <= found["steps"]
    shown = EventAccumulator(str(folder))
    shown.Reload()
    tags = {"return/train", "return/validation", "return/validation episode length", "return/test"}
    tags |= {"speed/steps per second", "update/loss", "update/learning rate"} | UPDATE[algorithm]
    assert set(shown.Tags()["scalars"]) == tags
    copies = {
        "ppo": "PPO, 16 copies side by side",
        "dqn": "DQN, 1 copy",
        "reinforce": "REINFORCE, 2 copies side by side",
    }
    network = {"ppo": "ActorCritic", "dqn": "QNetwork", "reinforce": "ActorCritic"}[algorithm]
    network += f" with {found['parameters']:,} parameters"
    begins = f"{network} on CartPole-v1 ({copies[algorithm]}), cpu, fp32 -> {folder.name}"
    assert done.stdout.splitlines()[0] == begins
    best = torch.load(folder / "best.pt", weights_only=True)
    assert set(best) == {"model", "weights", "about", "step", "return"}
    agent = load_agent(folder)
    assert agent.env_id == "CartPole-v1"
    actions = agent.act(np.zeros((5, 4), np.float32))
    assert (actions.shape, actions.dtype) == ((5,), np.int64)


@posix
@pytest.mark.parametrize("algorithm", SCRIPTS)
def test_killed_or_stopped_a_run_goes_on_as_if_nothing_had_happened(tmp_path, algorithm):
    flags = [*SMALL[algorithm], *COMMON]
    uninterrupted = run(algorithm, *flags, "--model-dir", tmp_path / "whole")
    updates = results(uninterrupted)["updates"]
    assert run(algorithm, *flags, "--model-dir", tmp_path / "whole") != uninterrupted
    assert_same_end(*(tmp_path / "whole").iterdir())  # the same seed twice

    script = tmp_path / "struck.py"
    script.write_text(STRUCK.format(module=f"train_{algorithm}"), encoding="utf-8")

    def strike(call, number, *arguments):
        command = [sys.executable, script, call, int(number), *arguments]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120, env=environment)

    killed = strike(updates * 2 // 3, signal.SIGKILL, *flags, "--model-dir", tmp_path / "struck")
    assert killed.returncode == -signal.SIGKILL
    (folder,) = (tmp_path / "struck").iterdir()
    saved = torch.load(folder / "last.pt", weights_only=True)
    assert 0 < saved["step"] < updates * 2 // 3
    stopped = strike(2, signal.SIGTERM, "--resume", folder)
    assert stopped.returncode == 143, stopped.stderr
    (line,) = stopped.stderr.splitlines()
    assert line.startswith("stopped and saved; go on with: python ")
    assert line.endswith(f" --resume {folder}")
    assert run(algorithm, "--resume", folder) == folder
    assert_same_end(folder, uninterrupted)
    shown = EventAccumulator(str(folder))
    shown.Reload()
    steps = [point.step for point in shown.Scalars("return/validation")]
    assert steps == [entry["step"] for entry in results(folder)["history"]]  # none twice
    assert run(algorithm, "--resume", folder) == folder  # finished: only says so
    assert_same_end(folder, uninterrupted)


def test_a_finished_run_can_be_made_longer(tmp_path):
    folder = run("ppo", *SMALL["ppo"], *COMMON, "--model-dir", tmp_path)
    before = results(folder)
    assert run("ppo", "--resume", folder, "--steps", 2816) == folder
    after = results(folder)
    assert before["steps"] < 11 * 128 < after["steps"] < 22 * 128  # rollouts of 128 rows, some of which only reset
    assert without_clocks(after["history"])[:4] == without_clocks(before["history"])
    assert len(after["history"]) == 6  # four evaluations are spread over the whole, twice as long


@pytest.mark.parametrize(
    ("flag", "why"),
    [("--rollout 64", "has gone by another so far"), ("--num-envs 8", "was begun without --num-envs 8")],
)
@pytest.mark.parametrize("kind", ["sync", "native"])
def test_ppo_is_not_made_longer_by_other_rollouts(tmp_path, flag, why, kind):
    folder = run("ppo", *SMALL["ppo"], *COMMON, "--vectorization", kind, "--model-dir", tmp_path)
    before = (folder / "config.json").read_bytes()
    with pytest.raises(UsageError, match=why):
        run("ppo", "--resume", folder, "--steps", 9999, *flag.split())
    assert (folder / "config.json").read_bytes() == before
    run("ppo", "--resume", folder, "--steps", 2816)


def test_a_run_that_is_made_to_end_where_it_stands_is_evaluated_there(tmp_path):
    """Its last evaluation, and the weights that are tested, may not be older than it is."""
    flags = [*map(str, [*SMALL["dqn"], *COMMON]), "--model-dir", str(tmp_path)]
    trainer = set_up(parse(train_dqn.Config, flags, ""))
    step = trainer.train_step
    trainer.train_step = lambda batch: (setattr(trainer.signals, "received", int(trainer.step == 5) * 2), step(batch))[
        1
    ]
    with pytest.raises(Interrupted):
        trainer.train()
    assert not trainer.history
    folder = run("dqn", "--resume", trainer.folder, "--steps", trainer.env_steps)
    assert [entry["step"] for entry in results(folder)["history"]] == [trainer.env_steps]


def test_flags_that_an_older_run_lacks_are_what_they_were(tmp_path):
    """Since there is --reward-scale, and "never" of --target-kl need not be the default."""
    flags = ["--env", "CarRacing-v3", "--dry-run", "--num-envs", "1", "--model-dir", str(tmp_path)]
    new = parse(train_ppo.Config, flags, "")
    assert (new.reward_scale, new.target_kl) == (0.02, 0.03)
    never = parse(train_ppo.Config, [*flags, "--target-kl", "inf"], "")
    assert never.target_kl is None
    old = never.as_dict()
    del old["reward_scale"]
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "config.json").write_text(json.dumps(old), encoding="utf-8")
    again = parse(train_ppo.Config, ["--resume", str(tmp_path / "old")], "")
    assert (again.reward_scale, again.target_kl) == (1.0, None)
    assert changed_flags(again, tmp_path / "old") == []
    assert "Infinity" not in json.dumps(again.as_dict())


def test_the_processors_time_goes_on_over_a_resume_and_counts_from_zero_in_an_older_run(tmp_path):
    folder = run("reinforce", *SMALL["reinforce"], *COMMON, "--model-dir", tmp_path)
    before = [point["cpu_seconds"] for point in results(folder)["history"]]
    assert 0 < before[0] < before[-1] < 60
    saved = checkpoint.load(folder / "last.pt")
    del saved["cpu_seconds"]
    for known in (1000.0, None):
        checkpoint.save(saved | ({"cpu_seconds": known} if known else {}), folder / "last.pt")
        trainer = set_up(parse(train_reinforce.Config, ["--resume", str(folder), "--episodes", "60"], ""))
        trainer.train()
        assert 0 < trainer.history[-1]["cpu_seconds"] - (known or 0) < 60


def test_box2d_goes_on_at_an_episodes_beginning(tmp_path, monkeypatch):
    flags = ["--env", "LunarLander-v3", *SMALL["dqn"], *COMMON, "--model-dir", tmp_path]
    trainer = set_up(parse(train_dqn.Config, list(map(str, flags)), ""))
    step = trainer.train_step
    trainer.train_step = lambda batch: (setattr(trainer.signals, "received", int(trainer.step == 50) * 2), step(batch))[
        1
    ]
    with pytest.raises(Interrupted):
        trainer.train()
    (folder,) = tmp_path.iterdir()
    saved = torch.load(folder / "last.pt", weights_only=True)
    assert not saved["envs"]["whole"]
    assert saved["replay"]["pending"][0]
    resumed = set_up(parse(train_dqn.Config, ["--resume", str(folder)], ""))
    resumed.open()
    assert (resumed.env_steps, resumed.step, resumed.buffer.size) == (trainer.env_steps, 51, trainer.buffer.size)
    assert resumed.epsilon() == trainer.epsilon() < 1
    assert resumed.observations is None
    assert not resumed.buffer.pending[0]
    resumed.train()
    assert resumed.env_steps == 600


def test_reinforce_is_between_episodes_when_it_is_saved_and_so_exact_on_box2d_too(tmp_path):
    flags = ["--env", "LunarLander-v3", *SMALL["reinforce"], *COMMON]
    uninterrupted = run("reinforce", *flags, "--model-dir", tmp_path / "whole")
    flags = [*map(str, flags), "--model-dir", str(tmp_path / "stopped")]
    trainer = set_up(parse(train_reinforce.Config, flags, ""))
    step = trainer.train_step
    trainer.train_step = lambda batch: (setattr(trainer.signals, "received", int(trainer.step == 8) * 2), step(batch))[
        1
    ]
    with pytest.raises(Interrupted):
        trainer.train()
    assert trainer.step == 9
    assert_same_end(run("reinforce", "--resume", trainer.folder), uninterrupted)


def test_the_car_learns_from_frames_with_ppo_and_with_dqn(tmp_path):
    shared = {"env": "CarRacing-v3", "model_dir": tmp_path, "hidden": (16,), "num_envs": 1}
    ppo = set_up(train_ppo.Config(rollout=4, batch_size=4, **shared))
    ppo.open()
    ppo.begin()
    for batch in ppo.minibatches(ppo.estimate(ppo.collect())):
        ppo.train_step(batch)
    assert ppo.step == 1
    dqn = set_up(train_dqn.Config(learning_starts=4, buffer_size=8, batch_size=2, **shared))
    dqn.open()
    dqn.begin()
    for _ in range(4):
        observations = dqn.observations
        actions = dqn.explore(observations)
        rewards, terminated, truncated = dqn.step_envs(actions)
        dqn.buffer.add(observations, actions, rewards, dqn.observations, terminated, truncated, np.array([True]))
    assert dqn.buffer.observations.dtype == torch.uint8
    dqn.train_step(next(dqn.batches()))
    assert all(parameter.grad.abs().sum() > 0 for parameter in dqn.model.trunk.parameters())


@pytest.mark.parametrize("policy", ["gaussian", "beta"])
def test_continuous_actions_with_ppo(tmp_path, policy):
    flags = ["--env", "Pendulum-v1", "--policy", policy, *SMALL["ppo"], *COMMON]
    folder = run("ppo", *flags, "--model-dir", tmp_path)
    assert folder.name == {"gaussian": "ppo-Pendulum-v1-seed0", "beta": "ppo-beta-Pendulum-v1-seed0"}[policy]
    actions = load_agent(folder).act(np.array([[1, 0, 0], [-1, 0, 8]], np.float32))
    assert actions.shape == (2, 1)
    assert np.abs(actions).max() <= 2
    sampled = load_agent(folder, actions="sampled").act(np.zeros((500, 3), np.float32))
    assert 1 < np.abs(sampled).max() <= 2
    assert (np.abs(sampled) == 2).any() == (policy == "gaussian")  # which is clipped to the bounds


def test_the_beta_policy_learns_from_what_it_did(tmp_path):
    # Ratios of new to old probability are 1 before the first update: actions survive the buffer unchanged.
    config = train_ppo.Config(env="Pendulum-v1", policy="beta", model_dir=tmp_path, steps=64, rollout=16, num_envs=4)
    trainer = set_up(config)
    trainer.open()
    trainer.begin()
    rollout = trainer.estimate(trainer.collect())
    found = trainer.compare(rollout)
    assert found["approx_kl"] == pytest.approx(0, abs=1e-6)
    assert found["clip_fraction"] == 0


def test_the_best_evaluation_is_tested_not_the_last(tmp_path, monkeypatch):
    evaluations = iter([(30.0, 0.1), (50.0, 0.2), (50.0, 0.3), (40.0, 0.4), (45.0, None)])
    tested = []

    def evaluate(self, envs):
        value, mark = next(evaluations)
        if mark is None:
            tested.append(self.model.actor[-1].bias[0].item())
        else:
            self.model.actor[-1].bias.data.fill_(mark)
        return {"return": value, "return_sd": 0.0, "length": value}

    monkeypatch.setattr(RLTrainer, "evaluate", evaluate)
    folder = run("ppo", *SMALL["ppo"], *COMMON, "--model-dir", tmp_path)
    assert tested == [pytest.approx(0.3)]  # of the two equal ones, the later
    found = results(folder)
    assert found["test"]["return"] == 45.0
    assert found["validation"]["return"] == 50.0
    assert found["best_step"] == found["history"][2]["step"]


def test_evaluation_is_greedy_in_environments_of_its_own_and_always_the_same(tmp_path):
    trainer = set_up(train_ppo.Config(model_dir=tmp_path))
    trainer.open()
    trainer.begin()
    before = vector.state(trainer.envs)
    found = [trainer.evaluate(trainer.make_envs("validation", 5)) for _ in range(2)]
    assert found[0] == found[1]
    assert found[0]["return"] == found[0]["length"]
    assert found[0] != trainer.evaluate(trainer.make_envs("test", 5))
    assert_equal(before, vector.state(trainer.envs))
    assert trainer.model.training
    assert (trainer.env_steps, trainer.curve) == (0, [])


def test_sampled_actions_are_drawn_from_the_policy_and_disturb_no_other_random_numbers(tmp_path):
    torch.manual_seed(0)
    model = ActorCritic([4], 3)
    model.actor[-1].bias.data = torch.tensor([0.5, 0.0, -1.0])  # the last layer's weights are nearly 0
    observations, before = np.zeros((20_000, 4), np.float32), torch.get_rng_state()
    drawn = Agent(model, "Any-v0", actions="sampled", seed=1).act(observations)
    assert torch.equal(torch.get_rng_state(), before)
    expected = model.policy(torch.zeros(1, 4)).softmax(1)[0].detach().numpy()
    assert np.bincount(drawn, minlength=3) / 20_000 == pytest.approx(expected, abs=0.015)  # four standard errors
    assert np.array_equal(Agent(model, "Any-v0", actions="sampled", seed=1).act(observations), drawn)
    assert not np.array_equal(Agent(model, "Any-v0", actions="sampled", seed=2).act(observations), drawn)
    assert set(Agent(model, "Any-v0").act(observations)) == {0}
    with pytest.raises(UsageError, match="--actions sampled"):
        Agent(QNetwork([4], 3), "Any-v0", actions="sampled")

    assert train_ppo.Config(env="NavigationGoal-v0").actions == "sampled"
    trainer = set_up(train_ppo.Config(model_dir=tmp_path, actions="sampled"))
    assert trainer.about["actions"] == "sampled"
    one, two = (trainer.evaluate(trainer.make_envs("validation", 20)) for _ in range(2))
    assert one == two
    trainer.config.actions = "greedy"
    assert trainer.evaluate(trainer.make_envs("validation", 20)) != one


def test_solved_is_when_twenty_training_episodes_reach_the_threshold(tmp_path):
    trainer = set_up(train_ppo.Config(model_dir=tmp_path))
    for value in [0.0] + [500.0] * 19:  # a mean of 475 over the last 20
        assert trainer.solved is None
        trainer.env_steps += 10
        trainer.end_episode(value)
    assert (trainer.solved["step"], trainer.solved["threshold"]) == (200, 475.0)
    trainer.env_steps += 10
    trainer.end_episode(500.0)
    assert trainer.solved["step"] == 200


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    with pytest.raises(RunFailed, match=r"the loss is (nan|inf) at update"):
        run(
            "ppo",
            *SMALL["ppo"],
            *COMMON,
            "--learning-rate",
            "1e30",
            "--max-gradient-norm",
            "1e30",
            "--model-dir",
            tmp_path,
        )


@pytest.mark.parametrize(
    ("script", "arguments", "words"),
    [
        ("train_ppo", ["--env", "NoSuchThing-v0"], ["--env NoSuchThing-v0", "NoSuchThing"]),
        ("train_dqn", ["--env", "Pendulum-v1"], ["--env Pendulum-v1", "continuous", "train_ppo.py"]),
        ("train_ppo", ["--policy", "beta"], ["--policy beta", "continuous actions within bounds", "CartPole-v1"]),
        ("train_ppo", ["--env", "LunarLander-v3", "--policy", "beta"], [", LunarLanderContinuous-v3 has them"]),
        ("train_reinforce", ["--env", "MountainCarContinuous-v0"], ["continuous", "REINFORCE"]),
        ("train_ppo", ["--env", "Acrobot-v1", "--vectorization", "native"], ["--vectorization native", "Acrobot-v1"]),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(run_script, tmp_path, script, arguments, words):
    done = run_script(f"lab3/{script}.py", *arguments, "--model-dir", tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert all(word in line for word in words)
    assert not list(tmp_path.iterdir())


def test_box2d_that_is_not_installed_is_said_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "Box2D", None)
    for module in [name for name in sys.modules if name.startswith("gymnasium.envs.box2d")]:
        monkeypatch.delitem(sys.modules, module)
    with pytest.raises(UsageError, match=r"LunarLander-v3.*gymnasium\[box2d\]"):
        set_up(train_ppo.Config(env="LunarLander-v3", model_dir=tmp_path))


@pytest.mark.parametrize(
    ("script", "flags", "word"),
    [
        ("ppo", {"steps": 0}, "--steps 0"),
        ("ppo", {"clip": 1.5}, "--clip 1.5"),
        ("ppo", {"gamma": 1.01}, "--gamma 1.01"),
        ("ppo", {"target_kl": 0.0}, "--target-kl 0.0"),
        ("ppo", {"reward_scale": 0.0}, "--reward-scale 0.0: a positive number is needed"),
        ("dqn", {"exploration": 0.0}, "--exploration 0.0"),
        ("dqn", {"final_epsilon": -0.1}, "--final-epsilon -0.1"),
        ("dqn", {"n_step": 0}, "--n-step 0"),
        ("dqn", {"learning_starts": 2, "n_step": 3}, "--learning-starts 2: at least 3 is needed, --n-step 3 in"),
        ("dqn", {"learning_starts": 47, "n_step": 3, "num_envs": 16}, "--learning-starts 47: at least 48 is needed"),
        ("dqn", {"evaluations": 201}, "--evaluations 201: at most 200 will do"),
        ("ppo", {"batch_size": 1}, "--batch-size 1: at least 2 is needed"),
        ("ppo", {"rollout": 1}, "--rollout 1: at least 2 is needed"),
        ("ppo", {"rollout": 3, "num_envs": 1}, "--rollout 3: 3 steps, of all copies, are too few"),
        ("ppo", {"entropy": -0.5}, "--entropy -0.5: 0 or a positive number is needed"),
        ("reinforce", {"entropy": float("nan")}, "--entropy nan: 0 or a positive number is needed"),
        ("reinforce", {"value_weight": -1.0}, "--value-weight -1.0: 0 or a positive number is needed"),
        ("reinforce", {"episodes": 0}, "--episodes 0"),
        ("reinforce", {"hidden": (0,)}, "--hidden 0"),
        ("dqn", {"actions": "sampled"}, "--actions sampled"),
    ],
)
def test_values_out_of_range(script, flags, word, tmp_path):
    with pytest.raises(UsageError, match=word):
        SCRIPTS[script].Config(model_dir=tmp_path, **flags).check()


def test_the_table_fills_in_what_no_flag_gives():
    config = train_ppo.Config(env="LunarLander-v3", rollout=64)
    assert (config.gamma, config.rollout, config.clip) == (0.999, 64, 0.2)
    assert train_ppo.Config(env="Some-v0").gamma == 0.99


def test_a_run_of_another_network_or_a_broken_file_is_no_agent(tmp_path):
    with pytest.raises(UsageError, match="no run"):
        load_agent(tmp_path)
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UsageError, match="first evaluation"):
        load_agent(tmp_path)
    (tmp_path / "best.pt").write_bytes(b"no checkpoint")
    with pytest.raises(UsageError, match="damaged"):
        load_agent(tmp_path)
