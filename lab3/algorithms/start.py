"""How the three scripts that train an agent begin, and all that their ``main`` does.

Nothing here imports torch at the top: ``--help`` answers at once.
"""

import sys
from pathlib import Path
from typing import Any

from lab1.engine.config import RunConfig, require
from lab1.engine.files import read_object
from lab3.config import RLConfig, prepare_torch


def environment(config: RunConfig) -> str:
    """The id of the environment that ``--env`` names; where it names its module, too, that is imported.

    Raises:
        UsageError: where there is no such module or environment, or the module is named by a run's file and not by the
            user: opening a run imports nothing.
    """
    from lab3.environments import vector

    if ":" in config.env and config.resume is not None:
        file = Path(config.resume) / "config.json"
        saved = str(read_object(file).get("env")) if file.exists() else ""
        require(":" not in saved, f"{file} names a module, {saved!r}: it must hold the environment's id alone")
    return vector.find_id(config.env)


def set_up(config: RLConfig):
    """The network of ``config.algorithm`` in its Trainer, with its environments.

    Raises:
        UsageError: where there is no such environment, or the algorithm cannot act in it.
    """
    from lab3.algorithms.dqn import DQNTrainer
    from lab3.algorithms.ppo import PPOTrainer
    from lab3.algorithms.reinforce import ReinforceTrainer
    from lab3.environments import navigation, vector

    trainers = {"dqn": DQNTrainer, "ppo": PPOTrainer, "reinforce": ReinforceTrainer}
    prepare_torch(config)
    config.env = environment(config)  # what a run's files hold
    trainer = trainers[config.algorithm]
    envs = vector.make(config.env, config.num_envs, config.seed, native=config.vectorization == "native")
    if not trainer.continuous_actions:
        vector.require_discrete(envs, config.env, trainer.title)
    if config.env == navigation.ENV_ID and config.gamma != (shaped := envs.envs[0].unwrapped.gamma):
        print(f"{config.env} shapes its rewards for a discount of {shaped}, not of {config.gamma}", file=sys.stderr)
    return trainer(trainer.network(config, **vector.sizes(envs)), config, envs)


def main(config: RLConfig) -> dict[str, Any]:
    """Train, evaluating on the way; test the best; returns the test metrics."""
    trainer = set_up(config)
    trainer.train()
    return trainer.test()
