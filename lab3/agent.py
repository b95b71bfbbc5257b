"""Agents that play: a trained network behind one function."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from torch import nn

from lab1 import checkpoint
from lab1.config import UsageError, find_run
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
    """A network that plays: ``act(observations [B, ...]) -> actions``, its greedy ones."""

    def __init__(self, model: nn.Module, env_id: str, device: torch.device | str = "cpu"):
        self.model, self.env_id, self.device = model, env_id, device

    @torch.no_grad()
    def act(self, observations: np.ndarray) -> np.ndarray:
        return self.model.greedy(torch.from_numpy(observations).to(self.device)).cpu().numpy()


def load_agent(run: str | Path, device: torch.device | str = "cpu") -> Agent:
    """The best agent of a run, given by its folder or by its name under ``lab3/model``.

    Raises:
        UsageError: where there is none, or its file cannot be read.
    """
    path = find_run(str(run), Path(__file__).parent / "model", published=True) / "best.pt"
    try:
        content = checkpoint.load(path, device)
        model = models.build(content["model"])
        model.load_state_dict(content["weights"])
        return Agent(model.to(device).eval(), str(content["about"]["env"]), device)
    except FileNotFoundError:
        raise UsageError(f"{path.parent} has no best.pt: its first evaluation was not reached") from None
    except checkpoint.BrokenCheckpoint as error:
        raise UsageError(str(error)) from None
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(f"{path} holds no agent of this lab: {reason}") from None
