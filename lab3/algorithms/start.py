"""How the three scripts that train an agent begin, and all that their ``main`` does.

Nothing here imports torch at the top: ``--help`` answers at once.
"""

from typing import Any

from lab3.config import RLConfig, prepare_torch


def set_up(config: RLConfig):
    """The network of ``config.algorithm`` in its Trainer, with its environments.

    Raises:
        UsageError: where there is no such environment, or the algorithm cannot act in it.
    """
    from lab3.algorithms.dqn import DQNTrainer
    from lab3.algorithms.ppo import PPOTrainer
    from lab3.algorithms.reinforce import ReinforceTrainer
    from lab3.environments import vector

    trainers = {"dqn": DQNTrainer, "ppo": PPOTrainer, "reinforce": ReinforceTrainer}
    prepare_torch(config)
    trainer = trainers[config.algorithm]
    envs = vector.make(config.env, config.num_envs, config.seed, native=config.vectorization == "native")
    if not trainer.continuous_actions:
        vector.require_discrete(envs, config.env, trainer.title)
    return trainer(trainer.network(config, **vector.sizes(envs)), config, envs)


def main(config: RLConfig) -> dict[str, Any]:
    """Train, evaluating on the way; test the best; returns the test metrics."""
    trainer = set_up(config)
    trainer.train()
    return trainer.test()
