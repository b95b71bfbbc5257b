"""Exercise 3.4. Which algorithm is better, and is the difference more than chance?

Command:  python lab3/compare_agents.py
Time:     4 minutes on one core
Expect:   a mean test return of 495 to 500 for PPO, DQN and REINFORCE on CartPole-v1

    python lab3/compare_agents.py --agents reinforce reinforce-standardise reinforce-none --learning-rate 0.024
    python lab3/compare_agents.py --agents ppo dqn --env LunarLander-v3 --steps 300000     at the same steps
    python lab3/compare_agents.py --resume compare-CartPole-v1       resume; what is done is skipped
    tensorboard --logdir lab3/model/compare-CartPole-v1

Each agent and seed is a run of its own, as its own script makes it, with the hyperparameters of lab3/config.py. The
first table shows, over the seeds: mean ± standard deviation of the test returns, with a 95 % interval (of the mean, by
Student's t; of ten seeds or more of the interquartile mean, by a bootstrap: Agarwal et al. 2021); the last evaluations;
and the median of the steps and seconds until the mean of the last 20 training episodes reached the environment's
threshold, where a seed that never did counts as infinitely many. The second shows differences between agents with the
same seed. plot.py draws the learning curves. --resume with further --agents or --seeds extends a comparison.
"""

import dataclasses
import itertools
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from lab1.engine.config import Diverged, Real, Whole, require
from lab1.engine.launch import launch
from lab1.engine.workers import SeriesConfig

# What each agent is: its script, and the flags that make it what it is.
AGENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "ppo": ("ppo", {}),
    "dqn": ("dqn", {}),
    "double-dqn": ("dqn", {"double": True}),
    "dueling-dqn": ("dqn", {"dueling": True}),
    "dqn-1step": ("dqn", {"n_step": 1}),
    "reinforce": ("reinforce", {"baseline": "value"}),
    "reinforce-value-raw": ("reinforce", {"baseline": "value-raw"}),
    "reinforce-standardise": ("reinforce", {"baseline": "standardise"}),
    "reinforce-none": ("reinforce", {"baseline": "none"}),
}
Agent = Literal[tuple(AGENTS)]
MANY = 10  # seeds from which on their quarters, and a bootstrap, mean something


@dataclasses.dataclass
class Config(SeriesConfig):
    """The flags of this script."""

    agents: tuple[Agent, ...] = ("ppo", "dqn", "reinforce")
    """Agents to compare; reinforce has a learned value as its baseline."""
    env: str = "CartPole-v1"
    """The environment's id in gymnasium, or NavigationGoal-v0; your own with the module that registers it, as
    my_envs:Maze-v0."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Seeds of everything random; each makes all runs."""
    steps: Whole = None
    """Steps of the environment for PPO and DQN (default: each one's own, as its script's --help shows)."""
    episodes: Whole = None
    """Episodes for REINFORCE (default: as train_reinforce.py --help shows)."""
    learning_rate: Real = None
    """Adam's step size, for all agents alike (default: each one's own, as its script's --help shows)."""
    dry_run: bool = False
    """See that everything works: two agents, one seed, a few hundred steps."""

    def __post_init__(self) -> None:
        if self.dry_run:
            self.agents, self.seeds = self.agents[:2], self.seeds[:1]

    @property
    def dataset(self) -> str:
        """What results.json names as the data set."""
        return self.env

    def check(self) -> None:
        super().check()
        agents = self.agents
        require(len(agents) > 0, "--agents: at least one is needed, such as --agents ppo dqn")
        require(len(set(agents)) == len(agents), f"--agents {' '.join(agents)}: one is there twice")
        by_episodes = {AGENTS[agent][0] == "reinforce" for agent in agents}
        extended = self.resume not in (None, "auto")  # and the lengths of agents that are done are kept
        for name, value, taken in (("steps", self.steps, False), ("episodes", self.episodes, True)):
            fits = value is None or extended or taken in by_episodes
            require(fits, f"--{name} {value}: it is not for --agents {' '.join(agents)}")
        for agent, seed in itertools.product(self.agents, self.seeds):
            run_config(self, self.runs_folder(), agent, seed).check()

    def describe(self) -> str:
        rate = "" if self.learning_rate is None else f"-lr{self.learning_rate:g}"
        return f"compare-{self.env.replace('/', '-')}{rate}"


def scripts() -> dict[str, Any]:
    """The scripts that train."""
    from lab3 import train_dqn, train_ppo, train_reinforce

    return {"ppo": train_ppo, "dqn": train_dqn, "reinforce": train_reinforce}


def run_config(config: Config, folder: Path, agent: str, seed: int):
    """The configuration of one run, as its own script has it."""
    algorithm, flags = AGENTS[agent]
    length = {"episodes": config.episodes} if algorithm == "reinforce" else {"steps": config.steps}
    name = f"{agent}-seed{seed}"
    shared = {
        field: getattr(config, field)
        for field in ("env", "learning_rate", "device", "precision", "compile", "dry_run", "threads")
    }
    places = {"name": name, "model_dir": folder, "resume": None}
    return scripts()[algorithm].Config(**shared | flags | length | places | {"seed": seed})


def train(config) -> dict[str, Any]:
    """Train and test one agent; returns its entry in the comparison's results."""
    from lab1.engine.series import begin_or_resume
    from lab3.algorithms.start import set_up

    begin_or_resume(config)
    trainer = set_up(config)
    entry = {"name": config.name, "parameters": sum(parameter.numel() for parameter in trainer.model.parameters())}
    try:
        trainer.train()
        test = trainer.test()
    except Diverged as error:
        trainer.log.close()
        print(f"failed to train: {error}")
        return entry | {"failed": str(error), "seconds": round(trainer.seconds, 2)}
    kept = ("step", "episodes", "return", "seconds", "cpu_seconds")
    history = [{name: point[name] for name in kept} for point in trainer.history]
    entry |= {"steps": trainer.env_steps, "best_step": trainer.best_step, "seconds": round(trainer.seconds, 2)}
    return entry | {"solved": trainer.solved, "test": test, "history": history}


def summary(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each agent, over its seeds: of the test returns the mean, ``sd`` and the 95 % interval ``low`` to
    ``high``; of the last evaluations, and of the means of all evaluations, the same without an interval; the median way
    to the threshold.

    The interval is that of the mean by Student's t; from ``MANY`` seeds on that of the interquartile mean, ``iqm``, by
    a bootstrap. A run that failed to train has no return: it counts in ``runs`` and not in ``trained``, and never
    reached the threshold.
    """
    import numpy as np

    from lab1.engine.metrics import interquartile_mean, interquartile_mean_interval, mean_interval

    rows = []
    for agent in dict.fromkeys(run["agent"] for run in runs):
        same = [run for run in runs if run["agent"] == agent]
        trained = [run for run in same if "test" in run]
        tests, last, all_along = (np.array([of(run) for run in trained]) for of in (tested, ended, over_training))
        row = {"agent": agent, "parameters": same[0]["parameters"], "runs": len(same), "trained": len(trained)}
        row |= dict.fromkeys(("mean", "sd", "iqm", "low", "high"))
        row |= dict.fromkeys(("last_mean", "last_sd", "all_mean", "all_sd"))
        if trained:
            means = float(tests.mean()), float(last.mean()), float(all_along.mean())
            row["mean"], row["last_mean"], row["all_mean"] = means
        if len(trained) > 1:
            spreads = (float(values.std(ddof=1)) for values in (tests, last, all_along))
            row["sd"], row["last_sd"], row["all_sd"] = spreads
            _, row["low"], row["high"] = mean_interval(tests.tolist())
        if len(trained) >= MANY:
            row["iqm"] = float(interquartile_mean(tests))
            row["low"], row["high"] = map(float, interquartile_mean_interval(tests))
        solved = [run.get("solved") for run in same]
        row["solved"] = len([one for one in solved if one])
        for name in ("step", "seconds"):
            median = statistics.median(one[name] if one else math.inf for one in solved)
            row[f"{name}_to_threshold"] = median if math.isfinite(median) else None
        rows.append(row | {"seconds": statistics.fmean(run["seconds"] for run in same)})
    return rows


def tested(run: dict[str, Any]) -> float:
    """The return of a run's test, with its best weights."""
    return run["test"]["return"]


def ended(run: dict[str, Any]) -> float:
    """The return of a run's last evaluation, of its last weights, which nothing chose."""
    return run["history"][-1]["return"]


def over_training(run: dict[str, Any]) -> float:
    """The mean of a run's evaluations: the higher, the sooner it learned and the better it kept what it learned."""
    return statistics.fmean(point["return"] for point in run["history"])


def table(rows: list[dict[str, Any]]) -> str:
    """The summary as people read it."""
    columns = "{:21s}  {:>5s}  {:16s}  {:>26s}  {:16s}  {:16s}  {:>12s}  {:>11s}  {:>7s}  {:>13s}".format
    above = ("agent", "seeds", "test return", "95 %", "last evaluation", "all evaluations")
    lines = [columns(*above, "at threshold", "median step", "seconds", "seconds a run")]
    for row in rows:
        test, *others = (with_sd(row[f"{part}mean"], row[f"{part}sd"]) for part in ("", "last_", "all_"))
        interval = "" if row["low"] is None else f"{row['low']:.1f} to {row['high']:.1f}"
        if row["iqm"] is not None:
            interval = f"IQM {row['iqm']:.1f}, {interval}"
        step, seconds = row["step_to_threshold"], row["seconds_to_threshold"]
        reached = f"{row['solved']} of {row['runs']}", "never" if step is None else f"{step:,.0f}"
        when = "" if seconds is None else f"{seconds:.1f}"
        beginning = (row["agent"], str(row["runs"]), test, interval, *others)
        lines.append(columns(*beginning, *reached, when, f"{row['seconds']:.1f}"))
    lines.append("± is the standard deviation over seeds; 95 % is of the mean, by Student's t")
    if any(row["iqm"] is not None for row in rows):
        lines[-1] += f", and of {MANY} seeds or more of the interquartile mean (IQM), by a bootstrap"
    return "\n".join(lines)


def with_sd(mean: float | None, sd: float | None) -> str:
    """A mean as people read it, with its standard deviation where it has one."""
    if mean is None:
        return "failed"
    return f"{mean:.1f}" if sd is None else f"{mean:.1f} ± {sd:.1f}"


def differences(runs: list[dict[str, Any]], agents: Sequence[str]) -> list[dict[str, Any]]:
    """Each agent less each that comes after it, seed by seed: mean, low and high end of the 95 % interval by Student's
    t of the differences in the ``test``, in the ``last`` evaluation and in the mean of ``all``. Pairs with fewer than
    two seeds in common have none."""
    from lab1.engine.metrics import mean_interval

    by_seed = {agent: {run["seed"]: run for run in runs if run["agent"] == agent and "test" in run} for agent in agents}
    rows = []
    for one, other in itertools.combinations(agents, 2):
        pairs = [(by_seed[one][seed], by_seed[other][seed]) for seed in by_seed[one] if seed in by_seed[other]]
        if len(pairs) > 1:
            measured = {"test": tested, "last": ended, "all": over_training}
            intervals = {name: mean_interval([of(a) - of(b) for a, b in pairs]) for name, of in measured.items()}
            rows.append({"agents": (one, other), "seeds": len(pairs)} | intervals)
    return rows


def table_of_differences(rows: list[dict[str, Any]]) -> str:
    """The differences as people read them."""
    columns = "{:47s}  {:>5s}  {:24s}  {:24s}  {:24s}".format
    above = (
        "difference, seed by seed (95 %, Student's t)",
        "seeds",
        "test return",
        "last evaluation",
        "all evaluations",
    )
    lines = [columns(*above).rstrip()]
    for row in rows:
        shown = ("{:.1f} [{:.1f}, {:.1f}]".format(*row[name]) for name in ("test", "last", "all"))
        lines.append(columns(" less ".join(row["agents"]), str(row["seeds"]), *shown).rstrip())
    return "\n".join(lines)


def main(config: Config) -> list[dict[str, Any]]:
    """Train every agent that is not done yet; returns the summary."""
    from gymnasium.spaces import Discrete

    from lab1.engine.series import make_all, prepare_series
    from lab3 import compare_agents  # by the name under which other processes import it
    from lab3.algorithms.start import environment
    from lab3.environments import vector

    device = prepare_series(config)
    typed, config.env = config.env, environment(config)
    with vector.make_single(config.env) as env:  # what cannot be is said before anything is trained
        discrete = isinstance(env.action_space, Discrete)
    others = [agent for agent in config.agents if AGENTS[agent][0] != "ppo"]
    require(discrete or not others, f"--env {config.env}: its actions are continuous; use --agents ppo")

    def planned(config: Config) -> list[dict[str, Any]]:  # a first seed of everything comes first
        return [{"agent": agent, "seed": seed} for seed, agent in itertools.product(config.seeds, config.agents)]

    def job(folder: Path, **one: Any):
        # With its module, where it has one: other processes have to import it, too.
        return dataclasses.replace(run_config(config, folder, **one), env=typed)

    folder, runs, _ = make_all(config, device, planned, compare_agents.train, job, summary)
    print(table(summary(runs)))
    agents = dict.fromkeys([*config.agents, *(run["agent"] for run in runs)])  # also those that were there before
    if compared := differences(runs, list(agents)):
        print(table_of_differences(compared))
    curves = f"tensorboard --logdir {folder}, or python lab3/plot.py --runs {folder}"
    print(f"{folder} holds the comparison; curves: {curves}")
    return summary(runs)


if __name__ == "__main__":
    launch(main, Config)
