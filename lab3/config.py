"""The flags that the scripts of lab 3 share, and one table of hyperparameters: what each algorithm takes where.

Nothing here imports torch at the top: ``--help`` answers at once.
"""

import dataclasses
import math
import os
from typing import Annotated, Any, ClassVar, Literal

from lab1.engine.config import Anneal, Real, RunConfig, Whole, flag, require
from lab1.engine.launch import prepare

THREADS_PER_CORE = 16  # at most; more only wait for each other, and the system may refuse them
TICKS = 200  # how often in a run its progress is logged and looked after; no more evaluations can be
MOST_COPIES = 100_000  # of an environment; its episodes of evaluation are played side by side

# The table: for each algorithm "any" environment's values, and what an environment has of its own. A flag that is given
# takes precedence. Most begin from those of RL Baselines3 Zoo, and were changed where validation episodes said so.
SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "reinforce": {
        "any": {
            "episodes": 1000,
            "num_envs": 8,
            "learning_rate": 8e-3,
            "anneal": "linear",
            "vectorization": "sync",
            "gamma": 0.99,
            "hidden": (128, 128),
            "entropy": 0.0,
            "actions": "greedy",
        },
        "CartPole-v1": {"vectorization": "native"},
        "NavigationGoal-v0": {"actions": "sampled"},
    },
    "dqn": {
        "any": {
            "steps": 200_000,
            "num_envs": 1,
            "learning_rate": 5e-4,
            "anneal": "linear",
            "vectorization": "sync",
            "gamma": 0.99,
            "hidden": (128, 128),
            "batch_size": 128,
            "buffer_size": 100_000,
            "learning_starts": 1_000,
            "train_every": 4,
            "gradient_steps": 4,
            "target_every": 500,
            "exploration": 0.15,
            "final_epsilon": 0.04,
            "n_step": 1,
            "actions": "greedy",
        },
        "CartPole-v1": {
            "steps": 100_000,
            "learning_rate": 2.3e-3,
            "hidden": (64, 64),
            "batch_size": 64,
            "train_every": 256,
            "gradient_steps": 128,
            "target_every": 256,
            "exploration": 0.16,
            "n_step": 10,
        },
        "Acrobot-v1": {"steps": 100_000, "hidden": (256, 256)},
        "LunarLander-v3": {
            "steps": 300_000,
            "learning_rate": 6.3e-4,
            "hidden": (256, 256),
            "buffer_size": 100_000,
            "target_every": 500,
            "exploration": 0.12,
            "final_epsilon": 0.05,
            "n_step": 5,
        },
        "CarRacing-v3": {
            "steps": 500_000,
            "hidden": (512,),
            "learning_rate": 1e-4,
            "batch_size": 32,
            "buffer_size": 20_000,
            "learning_starts": 5_000,
            "gradient_steps": 1,
            "target_every": 2_000,
        },
    },
    "ppo": {
        "any": {
            "steps": 500_000,
            "num_envs": 16,
            "rollout": 128,
            "batch_size": 256,
            "update_epochs": 6,
            "learning_rate": 1e-3,
            "anneal": "linear",
            "vectorization": "sync",
            "gamma": 0.99,
            "gae_lambda": 0.95,
            "clip": 0.2,
            "anneal_clip": "none",
            "entropy": 0.0,
            "value_weight": 0.5,
            "reward_scale": 1.0,
            "hidden": (64, 64),
            "actions": "greedy",
        },
        "CartPole-v1": {
            "steps": 50_000,
            "rollout": 64,
            "learning_rate": 2e-3,
            "anneal_clip": "linear",
            "gamma": 0.98,
            "gae_lambda": 0.9,
            "vectorization": "native",
        },
        "Acrobot-v1": {"steps": 150_000, "update_epochs": 10, "gae_lambda": 0.9, "entropy": 0.01},
        "LunarLander-v3": {
            "steps": 1_000_000,
            "rollout": 256,
            "update_epochs": 10,
            "gamma": 0.999,
            "gae_lambda": 0.98,
            "entropy": 0.01,
        },
        "NavigationGoal-v0": {"learning_rate": 3e-3, "gae_lambda": 0.9, "entropy": 0.01, "actions": "sampled"},
        "Pendulum-v1": {"steps": 200_000, "num_envs": 4, "rollout": 512, "gamma": 0.9},
        "CarRacing-v3": {
            "steps": 250_000,
            "num_envs": 8,
            "rollout": 128,
            "learning_rate": 5e-4,
            "update_epochs": 10,
            "target_kl": 0.03,
            "entropy": 0.01,
            "reward_scale": 0.02,  # returns of hundreds, and convolutions that policy and value share
            "hidden": (512,),
        },
    },
}


def hyperparameters(algorithm: str, env: str) -> dict[str, Any]:
    """The table's values for an algorithm in an environment."""
    table = SETTINGS[algorithm]
    return table["any"] | table.get(env.split(":")[-1], {})  # without the module that --env may name


@dataclasses.dataclass
class RLConfig(RunConfig):
    """The further flags of a script that learns by acting in an environment."""

    algorithm: ClassVar[str]  # the part of SETTINGS that fills in what no flag gives
    epochs: ClassVar[int] = 1  # the shared Trainer counts epochs; here the whole run is one
    deciding = ("env",)

    seed: int = 0
    """Seed of everything random: initial weights, environments, actions, order of minibatches."""
    dry_run: bool = False
    """See that everything works: a few hundred steps, evaluations of 2 episodes."""
    env: str = "CartPole-v1"
    """The environment's id in gymnasium, or NavigationGoal-v0; your own with the module that registers it, such as
    my_envs:Maze-v0. --env ID --help shows the defaults there."""
    num_envs: Whole = None
    """Copies of the environment that are played side by side."""
    learning_rate: Real = None
    """Adam's step size, at the start where it is annealed."""
    gamma: Real = None
    """Discount factor."""
    hidden: Annotated[tuple[int, ...], flag("INT ...")] = ()
    """Widths of the hidden layers."""
    anneal: Anneal = None
    """Lower the learning rate linearly to zero over the run, or keep it."""
    vectorization: Annotated[Literal["sync", "native"] | None, flag("{sync,native}")] = None
    """How copies are stepped: one after the other, or by the environment's own vector implementation in NumPy where it
    has one, several times as fast."""
    max_gradient_norm: float = 0.5
    """Gradients are scaled down to this norm; of REINFORCE those of policy and value, each."""
    evaluations: int = 20
    """How often, evenly spread over the run, the policy is evaluated, at most once between two updates; the best of
    these is tested."""
    evaluation_episodes: int = 20
    """Episodes of each evaluation, always from the same starts, which no other part of the run sees."""
    test_episodes: int = 100
    """Episodes of the test at the end, from starts of their own."""
    actions: Annotated[Literal["greedy", "sampled"] | None, flag("{greedy,sampled}")] = None
    """How it acts in evaluations and the test: by the most probable action, the mean of a continuous one, the one of
    highest value; or by one drawn from the policy."""
    threads: int = 1
    """Threads that torch computes with; networks this small run slower on two."""

    def __post_init__(self) -> None:
        for name, value in hyperparameters(self.algorithm, self.env).items():
            if getattr(self, name) in (None, ()):
                setattr(self, name, value)
        if self.dry_run:
            self.evaluations = min(self.evaluations, 2)
            self.evaluation_episodes = self.test_episodes = 2

    def check(self) -> None:
        super().check()
        counts = ("num_envs", "evaluations", "evaluation_episodes", "test_episodes", "threads")
        self.check_counts(*counts)
        require(self.evaluations <= TICKS, f"--evaluations {self.evaluations}: at most {TICKS} will do")
        for name in ("num_envs", "evaluation_episodes", "test_episodes"):
            value = getattr(self, name)
            fits = f"at most {MOST_COPIES:,} copies of an environment fit in memory"
            require(value <= MOST_COPIES, f"--{name.replace('_', '-')} {value}: {fits}")
        require(
            math.isfinite(self.learning_rate) and self.learning_rate > 0,
            f"--learning-rate {self.learning_rate}: a positive number is needed, such as 0.001",
        )
        most = THREADS_PER_CORE * (os.cpu_count() or 1)
        require(self.threads <= most, f"--threads {self.threads}: at most {most} will do on this machine's cores")
        require(0 <= self.gamma <= 1, f"--gamma {self.gamma}: a number from 0 to 1 is needed, such as 0.99")
        require(min(self.hidden) >= 1, f"--hidden {' '.join(map(str, self.hidden))}: each width must be 1 or more")
        require(
            self.max_gradient_norm > 0, f"--max-gradient-norm {self.max_gradient_norm}: a positive number is needed"
        )

        for name in ("entropy", "value_weight"):
            value = getattr(self, name, 0.0)
            fits = math.isfinite(value) and value >= 0
            require(fits, f"--{name.replace('_', '-')} {value}: 0 or a positive number is needed")

    def check_counts(self, *names: str) -> None:
        """Require 1 or more of each of these flags."""
        for name in names:
            value = getattr(self, name)
            require(value >= 1, f"--{name.replace('_', '-')} {value}: at least 1 is needed")

    def describe_run(self, *parts: str) -> str:
        """The run's name from what matters in it."""
        return "-".join([self.algorithm, *parts, self.env.replace("/", "-"), f"seed{self.seed}"])


def prepare_torch(config: RLConfig) -> None:
    """Seed every global generator and set the number of threads, also those of NumPy's matrix products."""
    import torch
    from threadpoolctl import threadpool_limits

    from lab1.engine import distributed

    prepare(config)
    require(
        distributed.world_size() == 1,
        "lab 3 trains an agent in one process, without torchrun; for several agents side by side use "
        "lab3/compare_agents.py --workers 2",
    )
    torch.set_num_threads(config.threads)
    threadpool_limits(config.threads, user_api="blas")
