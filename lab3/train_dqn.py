"""Exercise 3.1. How well does deep Q-learning solve environments with discrete actions?

Command:  python lab3/train_dqn.py
Time:     half a minute on one core
Expect:   a test return of 500 on CartPole-v1

    python lab3/train_dqn.py --n-step 1                  targets of one step, as in Mnih et al. (2015): 385
    python lab3/train_dqn.py --double --dueling          any gymnasium environment with discrete actions
    python lab3/train_dqn.py --env LunarLander-v3        300,000 steps, ten minutes: 261
    tensorboard --logdir lab3/model

The last weights are not always the best: returns can fall from one evaluation to the next, so the run keeps the weights
of the best evaluation and tests those, from other starts. TensorBoard shows both returns, and q, the mean of the values
that were learned from. Hyperparameters: the table in lab3/config.py. The algorithm: lab3/algorithms/dqn.py.
"""

import dataclasses

from lab1.engine.config import Real, Whole, require
from lab1.engine.launch import launch
from lab3.algorithms.start import main
from lab3.config import RLConfig, hyperparameters


@dataclasses.dataclass
class Config(RLConfig):
    """The flags of this script."""

    algorithm = "dqn"

    max_gradient_norm: float = 10.0
    steps: Whole = None
    """Steps of the environment."""
    batch_size: Whole = None
    """Transitions in one step of the optimiser."""
    buffer_size: Whole = None
    """Transitions that the replay buffer keeps."""
    learning_starts: Whole = None
    """Steps that are only remembered, before learning begins."""
    train_every: Whole = None
    """Steps of the environment between two phases of learning."""
    gradient_steps: Whole = None
    """Steps of the optimiser in one phase of learning."""
    target_every: Whole = None
    """Steps of the environment between copies of the network into the target network."""
    exploration: Real = None
    """Share of the run over which the share of random actions falls."""
    final_epsilon: Real = None
    """Share of random actions from then on."""
    double: bool = False
    """Double DQN: the network chooses the next action, the target network values it."""
    dueling: bool = False
    """Dueling network: a state value and advantages instead of action values."""
    n_step: Whole = None
    """Rewards that are summed before the target network takes over."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dry_run:
            self.steps, self.learning_starts = min(self.steps, 400), min(self.learning_starts, 100)
            self.train_every, self.gradient_steps = min(self.train_every, 50), min(self.gradient_steps, 4)

    def check(self) -> None:
        super().check()
        self.check_counts(
            "steps", "batch_size", "buffer_size", "train_every", "gradient_steps", "target_every", "n_step"
        )
        require(self.actions == "greedy", "--actions sampled: action values are no policy to draw from")
        starts, least = self.learning_starts, self.n_step * self.num_envs
        why = f"at least {least} is needed, --n-step {self.n_step} in each of --num-envs {self.num_envs}"
        require(starts >= least, f"--learning-starts {starts}: {why}")
        require(0 < self.exploration <= 1, f"--exploration {self.exploration}: a share above 0, up to 1, is needed")
        require(0 <= self.final_epsilon <= 1, f"--final-epsilon {self.final_epsilon}: a share from 0 to 1 is needed")

    def describe(self) -> str:
        parts = ["double"] * self.double + ["dueling"] * self.dueling
        usual = hyperparameters(self.algorithm, self.env)["n_step"]
        return self.describe_run(*parts, *([f"{self.n_step}step"] if self.n_step != usual else []))


if __name__ == "__main__":
    launch(main, Config)
