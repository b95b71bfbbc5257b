"""Exercise 3.2. How far does proximal policy optimisation get in harder environments?

Command:  python lab3/train_ppo.py --env LunarLander-v3
Time:     2 minutes on one core
Expect:   a test return of 262 on LunarLander-v3, the mean of five seeds between 229 and 275

    python lab3/train_ppo.py                             CartPole-v1: 50,000 steps, a few seconds: 498
    python lab3/train_ppo.py --env NavigationGoal-v0     exercise 3.3: 500,000 steps, a minute: 90
    python lab3/train_ppo.py --env Pendulum-v1           continuous actions, normally distributed
    python lab3/train_ppo.py --env Pendulum-v1 --policy beta     between their bounds (Chou et al. 2017)
    python lab3/train_ppo.py --env CarRacing-v3          from frames, three quarters of an hour: 838
    tensorboard --logdir lab3/model

TensorBoard shows the returns of training and of greedy evaluation, and how the updates go: approx kl and clip fraction
(how far a rollout's updates moved the policy), entropy, explained variance (1: the value predicts the returns; 0: no
better than their mean). Hyperparameters: the table in lab3/config.py. The algorithm: lab3/algorithms/ppo.py.
"""

import dataclasses
import math
from typing import ClassVar, Literal

from lab1.engine.config import Anneal, Real, Whole, require
from lab1.engine.launch import launch
from lab3.algorithms.start import main
from lab3.config import RLConfig


@dataclasses.dataclass
class Config(RLConfig):
    """The flags of this script."""

    algorithm = "ppo"
    older: ClassVar[dict[str, float]] = {"reward_scale": 1.0, "target_kl": math.inf}

    steps: Whole = None
    """Steps of the environment, over all copies, at most: whole rollouts."""
    rollout: Whole = None
    """Steps that every copy is played between updates."""
    batch_size: Whole = None
    """Rows in a minibatch, about."""
    update_epochs: Whole = None
    """How often every row is learned from."""
    gae_lambda: Real = None
    """Lambda of generalised advantage estimation."""
    clip: Real = None
    """How far the ratio of new to old probability may move from 1 before it no longer pays."""
    anneal_clip: Anneal = None
    """Lower the clipping range linearly to zero over the run, or keep it."""
    entropy: Real = None
    """Weight of the entropy bonus."""
    value_weight: Real = None
    """Weight of the value's squared error."""
    reward_scale: Real = None
    """What rewards are multiplied by before they are learned from: returns of hundreds make large gradients of the
    value. Returns are reported as the environment gives them."""
    target_kl: Real = None
    """End a rollout's updates once the approximate KL divergence passes this; inf is never (default: never)."""
    activation: Literal["tanh", "relu"] = "tanh"
    """What stands between the layers."""
    policy: Literal["gaussian", "beta"] = "gaussian"
    """Distribution of continuous actions: normal, and clipped to their bounds, or Beta between these."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.target_kl = None if self.target_kl == math.inf else self.target_kl  # never; JSON has no infinity
        if self.dry_run:
            self.steps, self.rollout = min(self.steps, 512), min(self.rollout, 16)

    def check(self) -> None:
        super().check()
        self.check_counts("steps", "rollout", "update_epochs")
        size, rows = self.batch_size, self.rollout * self.num_envs
        require(
            size >= 2, f"--batch-size {size}: at least 2 is needed, as advantages are standardised over a minibatch"
        )
        # The step after an episode's end only resets, and is no row: with two of a copy there is always one that is.
        require(self.rollout >= 2, f"--rollout {self.rollout}: at least 2 is needed")
        require(rows >= 4, f"--rollout {self.rollout}: {rows} steps, of all copies, are too few; at least 4 are needed")
        for name in ("gae_lambda", "clip"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"--{name.replace('_', '-')} {value}: a number from 0 to 1 is needed")
        scale = self.reward_scale
        fits = math.isfinite(scale) and scale > 0
        require(fits, f"--reward-scale {scale}: a positive number is needed, such as 0.01")
        require(
            self.target_kl is None or self.target_kl > 0, f"--target-kl {self.target_kl}: a positive number is needed"
        )

    def describe(self) -> str:
        return self.describe_run(*(["beta"] if self.policy == "beta" else []))


if __name__ == "__main__":
    launch(main, Config)
