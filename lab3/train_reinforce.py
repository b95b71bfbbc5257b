"""Exercise 2. What does a baseline do for REINFORCE?

Command:  python lab3/train_reinforce.py
Time:     10 seconds on one core
Expect:   a test return of 495 on CartPole-v1 in the mean of 40 seeds, with a learned value as the baseline

    python lab3/train_reinforce.py --baseline none           457 in the mean of forty seeds
    python lab3/train_reinforce.py --baseline standardise    487
    python lab3/train_reinforce.py --baseline value-raw      494; a learned value, not standardised
    tensorboard --logdir lab3/model

1,000 episodes. Hyperparameters: the table in lab3/config.py. The algorithm: lab3/algorithms/reinforce.py.
"""

import dataclasses
from typing import Literal

from lab1.engine.config import Real, Whole
from lab1.engine.launch import launch
from lab3.algorithms.start import main
from lab3.config import RLConfig


@dataclasses.dataclass
class Config(RLConfig):
    """The flags of this script."""

    algorithm = "reinforce"

    episodes: Whole = None
    """Episodes to learn from."""
    num_envs: Whole = None
    """Episodes that are played side by side and make up one step of the optimiser."""
    baseline: Literal["none", "standardise", "value-raw", "value"] = "value"
    """What a return is judged against: none, nothing; standardise, the other steps' returns; value-raw, a learned V(s);
    value, V(s), and the differences are standardised."""
    entropy: Real = None
    """Weight of the entropy bonus."""
    value_weight: float = 0.5
    """Weight of the value's squared error."""
    activation: Literal["tanh", "relu"] = "tanh"
    """What stands between the layers."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dry_run:
            self.episodes, self.num_envs = min(self.episodes, 8), min(self.num_envs, 2)

    def check(self) -> None:
        super().check()
        self.check_counts("episodes")

    def describe(self) -> str:
        return self.describe_run(self.baseline)


if __name__ == "__main__":
    launch(main, Config)
