"""Agents that play: a trained network behind one function."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from torch import nn

from lab1.engine import checkpoint
from lab1.engine.config import REPOSITORY, UsageError, find_run, require
from lab1.engine.registry import build
from lab3 import models


def play_episodes(act: Callable[[np.ndarray], np.ndarray], envs: VectorEnv) -> tuple[np.ndarray, np.ndarray]:
    """Play one episode in each environment; returns their raw, undiscounted returns and their lengths, both ``[N]``."""
    observations, _ = envs.reset()
    returns, lengths, playing = np.zeros(envs.num_envs), np.zeros(envs.num_envs, int), np.ones(envs.num_envs, bool)
    while playing.any():
        observations, rewards, terminated, truncated, _ = envs.step(act(observations))
        returns += rewards * playing
        lengths += playing
        playing &= ~(terminated | truncated)
    return returns, lengths


class Agent:
    """A network that plays: ``act(observations [B, ...]) -> actions``, its greedy ones, or drawn from its policy.

    Where an observation does not tell everything, a policy without memory can do better by chance: greedy, it repeats
    itself for ever in a state that looks as before (Singh, Jaakkola & Jordan 1994).
    """

    def __init__(self, model: nn.Module, env_id: str, actions: str = "greedy", seed: int = 0):
        """Args:
        model: of this lab. env_id: what it plays.
        actions: ``greedy`` or ``sampled``. seed: of the draws, which no other random numbers depend on.

        Raises:
            UsageError: for ``sampled`` where the network has action values and no policy.
        """
        sampled = actions == "sampled"
        require(not sampled or hasattr(model, "sample"), "--actions sampled: action values are no policy to draw from")
        self.model, self.env_id = model, env_id
        self.outputs = models.acting(model)
        self.generator = torch.Generator().manual_seed(seed) if sampled else None

    def act(self, observations: np.ndarray) -> np.ndarray:
        outputs = self.outputs(observations)
        if self.generator is None:
            return self.model.greedy(outputs)
        noise = self.model.noise(len(outputs), generator=self.generator)
        return self.model.clip(self.model.sample(outputs, noise))


def load_agent(run: str | Path, device: torch.device | str = "cpu", actions: str | None = None, seed: int = 0) -> Agent:
    """The best agent of a run, given by its folder or by its name under ``lab3/model``; it acts as in its evaluations,
    unless ``actions`` says otherwise.

    Raises:
        UsageError: where there is none, its file cannot be read, or it cannot act like that.
    """
    path = find_run(str(run), REPOSITORY / "lab3" / "model", REPOSITORY / "lab3" / "model" / "published") / "best.pt"
    try:
        content = checkpoint.load(path, device)
        model = build(content["model"])
        model.load_state_dict(content["weights"])
        about = content["about"]
        actions = actions or about.get("actions", "greedy")
        return Agent(model.to(device).eval(), str(about["env"]), actions, seed)
    except FileNotFoundError:
        why = "its first evaluation was not reached, or its weights are too large to be published: train it yourself"
        raise UsageError(f"{path.parent} has no best.pt: {why}") from None
    except checkpoint.BrokenCheckpoint as error:
        raise UsageError(str(error)) from None
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(f"{path} holds no agent of this lab: {reason}") from None
