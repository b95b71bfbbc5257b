"""The comparison of agents: its statistics by hand, exact counts, resuming after a real signal, what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import trim_mean

from lab1.engine.config import UsageError
from lab1.engine.launch import parse
from lab1.engine.metrics import interquartile_mean, interquartile_mean_interval, on_common_steps
from lab3 import compare_agents, train_ppo
from tests.posix import posix
from tests.struck import run_struck

FLAGS = "--agents ppo reinforce --seeds 0 1 --steps 2100 --episodes 40 --device cpu --workers 1".split()


def compare(*arguments: object) -> list[dict]:
    return compare_agents.main(parse(compare_agents.Config, [str(argument) for argument in arguments], ""))


def results(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def without_seconds(content):
    """The same results without what depends on the machine's speed."""
    if isinstance(content, dict):
        return {name: without_seconds(value) for name, value in content.items() if "seconds" not in name}
    return [without_seconds(value) for value in content] if isinstance(content, list) else content


def test_interquartile_mean_by_hand():
    assert interquartile_mean(np.array([1000.0, 10, 30, 20, 0])) == 20  # without 0 and 1000
    assert interquartile_mean(np.array([3.0, 1, 5])) == 3  # a quarter of three is no whole run
    assert interquartile_mean(np.array([-99.0, 1, 2, 3, 4, 5, 6, 99])) == 3.5  # without two at either end
    curves = np.array([[0.0, 9], [1, 0], [2, 5], [3, 1]])
    assert interquartile_mean(curves).tolist() == [1.5, 3]  # each column by itself
    values = np.random.default_rng(0).normal(size=(11, 3))
    assert interquartile_mean(values) == pytest.approx(trim_mean(values, 0.25))  # as rliable has it


def test_bootstrap_interval_by_hand():
    # Of 0 and 1 two are drawn: both 0, or both 1, each with probability 1/4, more than the 2.5 % that are cut off.
    assert interquartile_mean_interval(np.array([0.0, 1])) == (0, 1)
    # Of 0, 0, 0, 0, 1 five are drawn. The middle three are all 1 where four or five are 1, with probability 0.7 %; at
    # least two are 1 where three or more are 1, with 5.8 %: 97.5 % of the interquartile means are 2/3 or less.
    low, high = interquartile_mean_interval(np.array([0.0, 0, 0, 0, 1]))
    assert (low, high) == (0, pytest.approx(2 / 3))
    assert interquartile_mean_interval(np.array([7.0])) == (7, 7)
    # Rows are drawn whole: of two curves that mirror each other, the sum stays what it is.
    curves = np.array([[0.0, 1], [1, 0], [0, 1], [1, 0]])
    low, high = interquartile_mean_interval(curves)
    assert (low + high).tolist() == [1, 1]
    many = np.random.default_rng(1).normal(5, 1, 400)
    low, high = interquartile_mean_interval(many)
    assert low < interquartile_mean(many) < high
    # The interquartile mean of a normal sample has the standard error 1.09 / sqrt(n), within the bootstrap's own noise.
    assert high - low == pytest.approx(2 * 1.96 * 1.09 / 20, rel=0.2)


def test_curves_at_common_steps_by_hand():
    one = [{"step": 10, "return": 0.0}, {"step": 30, "return": 20.0}, {"step": 50, "return": 0.0}]
    two = [{"step": 20, "return": 5.0}, {"step": 60, "return": 45.0}]
    steps, values = on_common_steps([one, two], points=4)
    assert steps.tolist() == [20, 30, 40, 50]
    assert values.tolist() == [[10, 20, 10, 0], [5, 15, 25, 35]]
    steps, values = on_common_steps([one, two], points=5, to_the_last=True)
    assert steps.tolist() == [20, 30, 40, 50, 60]
    assert values.tolist() == [[10, 20, 10, 0, 0], [5, 15, 25, 35, 45]]


def test_summary_by_hand():
    def run(agent, value, solved, seconds):
        made = {"agent": agent, "parameters": 9, "seconds": seconds}
        if value is None:
            return made | {"failed": "the loss is nan"} | solved
        history = [{"step": 1, "return": 9.0}, {"step": 2, "return": value / 2}]
        return made | {"test": {"return": value}, "history": history} | solved

    def at(step, seconds):
        return {"solved": {"threshold": 475.0, "step": step, "seconds": seconds}}

    never = {"solved": None}
    ppo = [run("ppo", 400.0, never, 1.0), run("ppo", 500.0, at(90, 0.9), 2.0), run("ppo", 480.0, at(50, 0.7), 3.0)]
    dqn = [run("dqn", 300.0, at(10, 0.1), 1.0), run("dqn", None, {}, 3.0), run("dqn", 200.0, never, 2.0)]
    first, second = compare_agents.summary(ppo + dqn)
    assert (first["agent"], first["runs"], first["trained"], first["solved"]) == ("ppo", 3, 3, 2)
    sd = np.sqrt((60**2 + 40**2 + 20**2) / 2)
    assert (first["mean"], first["sd"], first["iqm"]) == (460, pytest.approx(sd), None)
    # Student's t with 2 degrees of freedom: 4.3027.
    half = pytest.approx(4.3027 * sd / np.sqrt(3), abs=1e-2)
    assert (460 - first["low"], first["high"] - 460) == (half, half)
    assert (first["last_mean"], first["last_sd"]) == (230, pytest.approx(sd / 2))
    # All evaluations: 9 and half the test's return, so that their mean is 4.5 and a quarter of it.
    assert (first["all_mean"], first["all_sd"]) == (119.5, pytest.approx(sd / 4))
    assert (first["step_to_threshold"], first["seconds_to_threshold"]) == (90, 0.9)  # the median of 50, 90, infinity
    assert (second["runs"], second["trained"], second["mean"], second["solved"]) == (3, 2, 250, 1)
    assert second["step_to_threshold"] is None
    assert second["seconds"] == 2
    header, above, below, note = compare_agents.table([first, second]).splitlines()
    assert "460.0 ± 52.9" in above
    assert "328.6 to 591.4" in above
    assert "230.0 ± 26.5      119.5 ± 13.2" in above
    assert note == "± is the standard deviation over seeds; 95 % is of the mean, by Student's t"
    assert "2 of 3" in above
    assert below.index("never") + len("never") == above.index(" 90 ") + 3 == header.index("median step") + 11
    (row,) = compare_agents.summary([run("dqn", None, {}, 1.0)])
    assert (row["iqm"], row["mean"], row["last_mean"], row["low"], row["trained"]) == (None, None, None, None, 0)
    assert "failed" in compare_agents.table([row])
    (row,) = compare_agents.summary(dqn[:1])  # a single run has no spread
    assert (row["mean"], row["sd"], row["low"], row["last_mean"], row["last_sd"]) == (300, None, None, 150, None)
    # Ten seeds: the interquartile mean of 2 .. 7, and its bootstrap.
    values = [0.0, 1, 2, 3, 4, 5, 6, 7, 8, 90]
    (row,) = compare_agents.summary([run("ppo", value, never, 1.0) for value in values])
    assert (row["mean"], row["iqm"]) == (12.6, 4.5)
    assert (row["low"], row["high"]) == interquartile_mean_interval(np.array(values))
    interval = f"IQM 4.5, {row['low']:.1f} to {row['high']:.1f}"
    assert f"12.6 ± {row['sd']:.1f}       {interval:>26s}" in compare_agents.table([row])
    assert compare_agents.table([row]).endswith("of the interquartile mean (IQM), by a bootstrap")


def test_differences_by_hand():
    def run(agent, seed, test, last):
        return {"agent": agent, "seed": seed, "test": {"return": test}, "history": [{"return": 0.0}, {"return": last}]}

    runs = [run("ppo", 0, 10.0, 5.0), run("ppo", 1, 20.0, 5.0), run("ppo", 2, 30.0, 5.0), run("dqn", 1, 18.0, 1.0)]
    # Seeds are told by their number and not by their place; one that only one of the two has, or that failed, is out.
    runs += [run("dqn", 0, 14.0, 3.0), {"agent": "dqn", "seed": 2, "failed": "the loss is nan"}]
    (row,) = compare_agents.differences(runs, ("ppo", "dqn"))
    assert (row["agents"], row["seeds"]) == (("ppo", "dqn"), 2)
    # -4 and 2: mean -1, sd 4.2426; t with one degree of freedom 12.706: 12.706 x 4.2426 / sqrt(2) = 38.119.
    assert row["test"] == (-1, pytest.approx(-39.119, abs=1e-2), pytest.approx(37.119, abs=1e-2))
    assert row["last"] == (3, pytest.approx(3 - 12.706, abs=1e-2), pytest.approx(3 + 12.706, abs=1e-2))
    _, line = compare_agents.table_of_differences([row]).splitlines()
    assert line.split("  ")[0] == "ppo less dqn"
    assert row["all"] == tuple(value / 2 for value in row["last"])  # as the first evaluation is 0
    assert line.endswith("-1.0 [-39.1, 37.1]        3.0 [-9.7, 15.7]          1.5 [-4.9, 7.9]")
    assert compare_agents.differences(runs[:4], ("ppo", "dqn")) == []  # one pair has no spread


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A comparison that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    compare(*FLAGS, "--model-dir", folder)
    return folder / "compare-CartPole-v1"


def test_every_agent_and_seed_is_a_run_of_its_own_script(whole):
    content = results(whole)
    runs = content["runs"]
    assert content["dataset"] == "CartPole-v1"
    assert json.loads(json.dumps(compare_agents.summary(runs))) == content["summary"]
    wanted = [(agent, seed) for seed in (0, 1) for agent in ("ppo", "reinforce")]
    assert [(run["agent"], run["seed"]) for run in runs] == wanted
    for run in runs:
        own = results(whole / run["name"])
        assert own["script"] == f"lab3/train_{run['agent']}.py"
        assert own["config"]["seed"] == run["seed"]
        assert run["test"] == own["test"]
        assert run["history"] == [
            {name: point[name] for name in ("step", "episodes", "return", "seconds", "cpu_seconds")}
            for point in own["history"]
        ]
        spent = [point["cpu_seconds"] for point in run["history"]]
        assert 0 < spent[0] <= spent[-1]
        if run["agent"] == "ppo":
            # Two rollouts of 64 steps in each of 16 environments, less the steps that only reset.
            assert own["config"]["steps"] == 2100
            assert 1900 < run["steps"] <= 2 * 1024
            fields = ("rollout", "num_envs", "learning_rate", "gamma", "clip")
            alone = train_ppo.Config()
            assert [own["config"][name] for name in fields] == [getattr(alone, name) for name in fields]
        else:
            assert own["episodes"] == 40
            assert own["config"]["baseline"] == "value"


def test_a_run_of_a_comparison_is_the_run_that_its_script_makes_alone(whole, tmp_path):
    train_ppo.main(parse(train_ppo.Config, f"--steps 2100 --seed 1 --device cpu --model-dir {tmp_path}".split(), ""))
    (alone,) = tmp_path.iterdir()
    ours, theirs = (torch.load(run / "best.pt", weights_only=True)["weights"] for run in (whole / "ppo-seed1", alone))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@posix
def test_interrupted_by_a_signal_and_resumed_it_ends_as_if_nothing_had_happened(whole, tmp_path):
    steps = torch.load(whole / "ppo-seed0" / "last.pt", weights_only=True)["step"]
    # Struck in the second run, REINFORCE with an update every 8 episodes.
    done = run_struck("lab3.compare_agents", steps + 3, *FLAGS, "--model-dir", tmp_path)
    folder = tmp_path / "compare-CartPole-v1"
    assert done.returncode == 143, done.stderr
    assert done.stderr.splitlines()[-1] == f"stopped and saved; go on with: --resume {folder}"
    assert len(results(folder)["runs"]) == 1
    finished = folder / "ppo-seed0" / "last.pt"
    before = finished.stat().st_mtime_ns
    compare("--resume", folder)
    assert finished.stat().st_mtime_ns == before
    assert without_seconds(results(folder)["runs"]) == without_seconds(results(whole)["runs"])
    for name in ("ppo-seed0", "reinforce-seed0", "ppo-seed1", "reinforce-seed1"):
        ours, theirs = (torch.load(place / name / "last.pt", weights_only=True)["weights"] for place in (folder, whole))
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_resuming_a_finished_comparison_trains_what_was_added_alone(whole, monkeypatch, capsys):
    trained, train = [], compare_agents.train
    monkeypatch.setattr(compare_agents, "train", lambda one: trained.append(one.name) or train(one))
    before = (whole / "results.json").read_bytes(), (whole / "config.json").read_bytes()
    untouched = {path: path.stat().st_mtime_ns for path in (whole, *whole.rglob("*"))}
    compare("--resume", whole, "--device", "cpu")
    assert trained == []
    assert {path: path.stat().st_mtime_ns for path in (whole, *whole.rglob("*"))} == untouched
    capsys.readouterr()
    rows = compare("--resume", whole, "--agents", "ppo", "reinforce-none", "--seeds", 1)
    assert trained == ["reinforce-none-seed1"]
    assert [row["agent"] for row in rows] == ["ppo", "reinforce", "reinforce-none"]
    assert "\nppo less reinforce  " in capsys.readouterr().out  # though this time it was asked for others
    assert results(whole / "reinforce-none-seed1")["config"]["baseline"] == "none"
    (whole / "results.json").write_bytes(before[0])  # as the other tests expect it
    (whole / "config.json").write_bytes(before[1])
    with pytest.raises(UsageError, match=r"^--steps: changed since .* was begun.*start anew$"):
        compare("--resume", whole, "--steps", 3100)


def test_a_run_that_fails_is_recorded_and_the_comparison_goes_on(tmp_path, monkeypatch):
    # A network that says NaN from its first update on, in the first run alone.
    from lab3.algorithms.ppo import PPOTrainer

    loss = PPOTrainer.loss

    def broken(self, batch):
        value, metrics = loss(self, batch)
        return (value * float("nan"), metrics) if self.config.seed == 0 else (value, metrics)

    monkeypatch.setattr(PPOTrainer, "loss", broken)
    flags = ["--agents", "ppo", "--seeds", 0, 1, "--steps", 1100, "--device", "cpu", "--workers", 1]
    (row,) = compare(*flags, "--model-dir", tmp_path)
    assert (row["runs"], row["trained"]) == (2, 1)
    first, second = results(tmp_path / "compare-CartPole-v1")["runs"]
    assert "the loss is nan" in first["failed"]
    assert second["test"]["return"] > 0


@pytest.mark.parametrize("agent", list(compare_agents.AGENTS))
def test_every_agent_has_its_own_configuration(agent):
    config = compare_agents.run_config(compare_agents.Config(steps=7, episodes=8), Path(), agent, 3)
    config.check()
    assert config.name == f"{agent}-seed3"
    assert (config.steps if config.algorithm != "reinforce" else config.episodes - 1) == 7
    described = config.describe()
    assert all(word in described for word in agent.split("-"))


def test_one_learning_rate_for_all_agents():
    config = compare_agents.Config(learning_rate=0.05)
    assert [compare_agents.run_config(config, Path(), agent, 0).learning_rate for agent in config.agents] == [0.05] * 3
    assert config.describe() == "compare-CartPole-v1-lr0.05"
    own = compare_agents.Config()
    assert own.describe() == "compare-CartPole-v1"
    rates = [compare_agents.run_config(own, Path(), agent, 0).learning_rate for agent in own.agents]
    assert rates == [2e-3, 2.3e-3, 8e-3]  # of lab3/config.py


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--agents", "a2c"], "--agents a2c: use ppo, dqn, double-dqn"),
        (["--agents", "ppo", "ppo"], "--agents ppo ppo: one is there twice"),
        (["--agents"], "--agents: at least one is needed"),
        (["--seeds"], "--seeds: at least one is needed"),
        (["--seeds", "2", "2"], "--seeds 2 2: one is there twice"),
        (["--seeds", "-3"], "--seed -3"),
        (["--seed", "3"], "--seed 3: use --seeds 3"),
        (["--steps", "0"], "--steps 0: at least 1 is needed"),
        (["--episodes", "0"], "--episodes 0: at least 1 is needed"),
        (["--episodes", "9", "--agents", "ppo", "dqn"], "--episodes 9: it is not for --agents ppo dqn"),
        (["--steps", "900", "--agents", "reinforce-none"], "--steps 900: it is not for --agents reinforce-none"),
        (["--learning-rate", "0"], "--learning-rate 0.0: a positive number is needed"),
        (["--env", "Chess-v0"], "--env Chess-v0"),
        (["--env", "Pendulum-v1"], "--env Pendulum-v1: its actions are continuous; use --agents ppo"),
        (["--resume", "nowhere"], "no run 'nowhere'"),
    ],
)
def test_what_is_refused(flags, line, tmp_path):
    with pytest.raises(UsageError) as refused:
        compare(*flags, "--model-dir", tmp_path)
    assert line in str(refused.value)
    assert "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_the_script(run_script, tmp_path):
    done = run_script("lab3/compare_agents.py", "--dry-run", "--model-dir", tmp_path, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "median step" in done.stdout
    content = results(tmp_path / "dry-run-compare-CartPole-v1")
    assert [run["agent"] for run in content["runs"]] == ["ppo", "dqn"]
    assert all(run["steps"] > 0 for run in content["runs"])
