"""Probe environments: so small that the value and the policy that each algorithm must find are known.

After Andy Jones, "Debugging RL, Without the Agonizing Pain" (2021).
"""

import gymnasium
import numpy as np
import pytest
import torch

from lab3 import train_dqn, train_ppo, train_reinforce
from lab3.algorithms.start import set_up
from lab3.models import acting

GAMMA = 0.5


class Probe(gymnasium.Env):
    """Two actions; observations of one number."""

    observation_space = gymnasium.spaces.Box(-10, 10, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    seen = 0.0

    def see(self, value: float) -> np.ndarray:
        self.seen = float(value)
        return np.array([value], np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.see(self.first()), {}

    def first(self) -> float:
        return 0.0


class ConstantReward(Probe):
    """One step, reward 1."""

    def step(self, action):
        return self.see(0.0), 1.0, True, False, {}


class ObservedReward(ConstantReward):
    """One step, and the reward is what was observed: 1 or -1."""

    def first(self):
        return float(self.np_random.choice([-1, 1]))

    def step(self, action):
        reward = self.seen
        return self.see(0.0), reward, True, False, {}


class DelayedReward(Probe):
    """Two steps, and the second is rewarded with 1."""

    def step(self, action):
        over = self.seen == 1
        return self.see(1.0), float(over), over, False, {}


class ActionReward(Probe):
    """One step; action 1 is rewarded with 1, action 0 with -1."""

    def step(self, action):
        return self.see(0.0), 1.0 if action == 1 else -1.0, True, False, {}


class MatchReward(ObservedReward):
    """One step; rewarded with 1 if the action is 1 where 1 is observed and 0 where -1 is, else with -1."""

    def step(self, action):
        right = (action == 1) == (self.seen == 1)
        return self.see(0.0), 1.0 if right else -1.0, True, False, {}


class TimeLimit(Probe):
    """Reward 1 for ever, until a time limit of three steps, which nothing observed announces."""

    def step(self, action):
        return self.see(0.0), 1.0, False, False, {}


PROBES = {each.__name__: each for each in (ConstantReward, ObservedReward, DelayedReward, ActionReward, MatchReward)}
for name, probe in PROBES.items():
    gymnasium.register(f"{name}-v0", probe, max_episode_steps=10)
gymnasium.register("TimeLimit-v0", TimeLimit, max_episode_steps=3)

# What is to be found: the value, and the action if it matters, by observation.
KNOWN = {
    "ConstantReward": {0.0: (1.0, None)},
    "ObservedReward": {1.0: (1.0, None), -1.0: (-1.0, None)},
    "DelayedReward": {0.0: (GAMMA, None), 1.0: (1.0, None)},
    "ActionReward": {0.0: (1.0, 1)},
    "MatchReward": {1.0: (1.0, 1), -1.0: (1.0, 0)},
    "TimeLimit": {0.0: (1 / (1 - GAMMA), None)},  # not 1 + 1/2 + 1/4: the time limit is no end of the world
}


def learned(algorithm, env, folder):
    shared = {"env": f"{env}-v0", "model_dir": folder, "gamma": GAMMA, "evaluations": 1, "evaluation_episodes": 2}
    if algorithm == "ppo":
        flags = {"steps": 4096, "num_envs": 8, "rollout": 16, "batch_size": 64, "update_epochs": 4, "hidden": (32,)}
        script, flags = train_ppo, flags | {"learning_rate": 0.01, "anneal": "linear"}
    elif algorithm == "dqn":
        flags = {"steps": 1500, "learning_starts": 100, "train_every": 2, "gradient_steps": 2, "target_every": 20}
        script, flags = (
            train_dqn,
            flags | {"learning_rate": 0.005, "anneal": "linear", "hidden": (32,), "batch_size": 32},
        )
    else:
        flags = {"episodes": 3200, "num_envs": 8, "learning_rate": 0.01, "anneal": "linear", "hidden": (32,)}
        script = train_reinforce
    trainer = set_up(script.Config(**shared | flags))
    trainer.train()
    return trainer.model


@pytest.mark.parametrize("env", KNOWN)
@pytest.mark.parametrize("algorithm", ["reinforce", "dqn", "ppo"])
def test_what_is_known_is_found(algorithm, env, tmp_path):
    model = learned(algorithm, env, tmp_path)
    for observation, (value, action) in KNOWN[env].items():
        seen = torch.tensor([[observation]])
        with torch.no_grad():
            found = model(seen).amax(1) if algorithm == "dqn" else model.value(seen)
            assert found.item() == pytest.approx(value, abs=0.1)
            if action is not None:
                assert model.greedy(acting(model)(seen.numpy())).item() == action
                if algorithm != "dqn":
                    assert model.policy(seen).softmax(1)[0, action] > 0.9
