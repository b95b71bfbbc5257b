"""Where experience is kept: a rollout for PPO, a replay memory with n-step returns for DQN. All of it is preallocated.

Steps are written through NumPy views of the tensors, which costs a tenth of writing to the tensors themselves.
"""

from collections import deque
from typing import Any

import numpy as np
import torch
from torch import Tensor


class RolloutBuffer:
    """T successive steps of N environments, overwritten by the next rollout.

    ``observations`` is ``[T + 1, N, ...]``, the last one that of after the rollout; ``actions``, ``rewards``,
    ``terminated``, ``truncated`` and ``valid`` are ``[T, N]`` (continuous actions ``[T, N, K]``). A row is not
    ``valid`` where the environment ignored the action, as the one before ended its episode.
    """

    def __init__(self, length: int, num_envs: int, observation: np.ndarray, action: np.ndarray):
        """``observation`` ``[N, ...]`` and ``action`` ``[N]`` or ``[N, K]`` are examples, for shape and type."""
        size = (length, num_envs)
        observation, action = torch.from_numpy(observation), torch.from_numpy(action)
        self.observations = torch.empty((length + 1, *observation.shape), dtype=observation.dtype)
        self.actions = torch.empty((length, *action.shape), dtype=action.dtype)
        self.rewards = torch.empty(size)
        self.terminated = torch.empty(size, dtype=torch.bool)
        self.truncated = torch.empty(size, dtype=torch.bool)
        self.valid = torch.empty(size, dtype=torch.bool)
        self.views = {name: tensor.numpy() for name, tensor in vars(self).items()}

    def put(self, step: int, **parts: np.ndarray) -> None:
        """Write parts of one step, each ``[N, ...]``."""
        for name, part in parts.items():
            self.views[name][step] = part


class ReplayBuffer:
    """The last ``capacity`` transitions, sampled evenly (Lin 1992; Mnih et al. 2015), of n-step returns (Sutton 1988).

    A transition is (observation, action, sum of the discounted rewards of up to n steps, true observation after them,
    whether the episode terminated there, the discount gamma ** steps of what comes after). An episode's last steps have
    returns of fewer steps; after a truncation they are bootstrapped like any others.
    """

    def __init__(self, capacity: int, num_envs: int, observation: np.ndarray, gamma: float, n_step: int = 1):
        """``observation`` ``[N, ...]`` is an example, for shape and type."""
        one = torch.from_numpy(observation[0])
        self.capacity, self.gamma, self.n_step = capacity, gamma, n_step
        self.size = self.next = 0  # transitions that are there; where the next one goes
        self.observations = torch.empty((capacity, *one.shape), dtype=one.dtype)
        self.next_observations = torch.empty_like(self.observations)
        self.actions = torch.empty(capacity, dtype=torch.int64)
        self.rewards, self.discounts = torch.empty(capacity), torch.empty(capacity)
        self.terminated = torch.empty(capacity, dtype=torch.bool)
        self.views = {name: getattr(self, name).numpy() for name in _COLUMNS}
        # Of each environment, the steps whose n-step returns are not complete: [observation, action, return so far].
        self.pending: list[deque] = [deque() for _ in range(num_envs)]

    def add(
        self,
        observations: np.ndarray,
        actions: np.ndarray,
        rewards: np.ndarray,
        next_observations: np.ndarray,
        terminated: np.ndarray,
        truncated: np.ndarray,
        valid: np.ndarray,
    ) -> None:
        """Take in one step of every environment, each argument ``[N, ...]``, but the rows that are not ``valid``."""
        for env in valid.nonzero()[0]:
            steps = self.pending[env]
            steps.append([observations[env].copy(), actions[env], 0.0])
            for age, step in enumerate(reversed(steps)):
                step[2] += self.gamma**age * float(rewards[env])
            done = terminated[env] or truncated[env]
            while steps and (done or len(steps) >= self.n_step):
                discount = self.gamma ** len(steps)
                self._write(*steps.popleft(), next_observations[env], terminated[env], discount)

    def _write(self, observation, action, reward, next_observation, terminated, discount) -> None:
        row = (observation, next_observation, action, reward, discount, terminated)
        for name, value in zip(_COLUMNS, row, strict=True):
            self.views[name][self.next] = value
        self.next = (self.next + 1) % self.capacity
        self.size = min(self.size + 1, self.capacity)

    def sample(self, batch_size: int) -> tuple[Tensor, ...]:
        """Observations, next observations, actions, rewards, discounts, terminated: each ``[batch_size, ...]``, drawn
        with replacement by torch's global generator."""
        chosen = torch.randint(self.size, (batch_size,))
        return tuple(getattr(self, name).index_select(0, chosen) for name in _COLUMNS)

    def forget_pending(self) -> None:
        """Drop the steps whose returns are not complete: their episodes will not be gone on with."""
        for steps in self.pending:
            steps.clear()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds: the transitions that are there, and the incomplete ones."""
        columns = {name: getattr(self, name) for name in _COLUMNS}
        if self.size < self.capacity:  # a part of a tensor would be saved with the whole of it
            columns = {name: column[: self.size].clone() for name, column in columns.items()}
        pending = [
            [[torch.from_numpy(observation), int(action), reward] for observation, action, reward in steps]
            for steps in self.pending
        ]
        return columns | {"next": self.next, "pending": pending}

    def load_state_dict(self, content: dict[str, Any]) -> None:
        """Put back what ``state_dict`` returned.

        Raises:
            ValueError: where the buffer's capacity is another, unless what was there fits.
        """
        size = len(content["actions"])
        if size > self.capacity or (size < self.capacity and content["next"] != size):
            raise ValueError(f"the saved replay buffer, of {size} transitions, is not one of {self.capacity}")
        for name in _COLUMNS:
            getattr(self, name)[:size] = content[name].cpu()
        self.size, self.next = size, content["next"] % self.capacity
        for steps, saved in zip(self.pending, content["pending"], strict=True):
            steps.clear()
            steps.extend([observation.cpu().numpy(), action, reward] for observation, action, reward in saved)


_COLUMNS = ("observations", "next_observations", "actions", "rewards", "discounts", "terminated")
