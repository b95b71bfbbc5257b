"""Deep Q-learning (Mnih et al. 2015), with double DQN (van Hasselt et al. 2016) and n-step returns (Sutton 1988)."""

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from gymnasium.vector import VectorEnv
from torch import Tensor

from lab3.algorithms.buffers import ReplayBuffer
from lab3.models import QNetwork
from lab3.trainer import RLTrainer, td_targets


class DQNTrainer(RLTrainer):
    """Acts epsilon-greedily, remembers every transition, learns from a random batch of them every few steps."""

    title = "DQN"

    @staticmethod
    def network(config, **sizes: Any) -> QNetwork:
        return QNetwork(**sizes, hidden=config.hidden, dueling=config.dueling)

    def __init__(self, model: QNetwork, config, envs: VectorEnv):
        """``config``: see ``lab3/train_dqn.py``."""
        super().__init__(model, config, envs)
        self.target = copy.deepcopy(self.model).requires_grad_(False)
        example = np.empty(envs.observation_space.shape, envs.observation_space.dtype)
        self.buffer = ReplayBuffer(config.buffer_size, envs.num_envs, example, config.gamma, config.n_step)

    def train(self) -> list[dict[str, Any]]:
        """Train for ``config.steps`` steps of the environment; returns the evaluations.

        Raises:
            Interrupted: after SIGINT or SIGTERM, once the step is finished and the run saved.
            Diverged: where a loss is not finite.
        """
        config = self.config
        self.open()
        if config.steps <= config.learning_starts:
            self.say(f"nothing is learned before step {config.learning_starts:,} (--learning-starts)")
        # Hidden units that are never active leave numbers in Adam's averages that get ever smaller, and the smallest
        # that there are, the denormal ones, slow arithmetic down several times.
        torch.set_flush_denormal(True)
        with self.signals, self._progress() as bar:
            self.begin()
            while not self.finished():
                observations, valid, before = self.observations, ~self.ended, self.env_steps
                actions = self.explore(observations)
                rewards, terminated, truncated = self.step_envs(actions)
                self.buffer.add(observations, actions, rewards, self.observations, terminated, truncated, valid)
                if self.env_steps >= config.learning_starts and self.buffer.size > 0:
                    for _ in range(self.passed(config.train_every, before)):
                        for batch in self.batches():
                            self.averages.add(self.train_step(batch), 1)
                if self.passed(config.target_every, before):
                    self.update_target()
                self.look(bar)
        return self.history

    def passed(self, every: int, before: int) -> int:
        """How many multiples of ``every`` the environments' steps passed since there were ``before`` of them: more than
        one where many copies are played side by side."""
        return self.env_steps // every - before // every

    def epsilon(self) -> float:
        """The share of random actions: from 1 down to ``final_epsilon``, linearly over the first part of the run."""
        share = min(1.0, self.progress() / self.config.exploration)
        return 1 + share * (self.config.final_epsilon - 1)

    def explore(self, observations: np.ndarray) -> np.ndarray:
        """Epsilon-greedy actions ``[N]``."""
        epsilon = self.shown["epsilon"] = self.epsilon()
        which, whether = np.random.random((2, len(observations)))
        actions = (which * self.model.arguments["actions"]).astype(np.int64)
        greedy = whether >= epsilon
        if greedy.any():
            actions[greedy] = self.model.greedy(self.outputs(observations[greedy]))
        return actions

    @torch.no_grad()
    def batches(self) -> Iterator[tuple[Tensor, ...]]:
        """Random batches for ``gradient_steps`` updates, and what the target network says of their next observations
        ``[B, K]``: it stays as it is over these updates, so that one pass does for all."""
        count = self.config.gradient_steps
        parts = [part.to(self.device) for part in self.buffer.sample(count * self.config.batch_size)]
        next_q = self.target(parts[1])
        return zip(*(part.chunk(count) for part in (*parts, next_q)), strict=True)

    @torch.no_grad()
    def update_target(self) -> None:
        """Copy the network into the target network."""
        for old, new in zip(self.target.parameters(), self.model.parameters(), strict=True):
            old.copy_(new)

    def loss(self, batch: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        """Huber loss between Q(s, a) and its target, which the target network gives."""
        observations, next_observations, actions, rewards, discounts, terminated, next_q = batch
        with torch.no_grad():
            if self.config.double:  # the network chooses the action, the target network says what it is worth
                next_q = next_q.gather(1, self.model(next_observations).argmax(1, keepdim=True)).squeeze(1)
            else:
                next_q = next_q.amax(1)
            targets = td_targets(rewards, next_q, terminated, discounts)
        with self.autocast:
            q = self.forward(observations).gather(1, actions.unsqueeze(1)).squeeze(1)
        loss = F.smooth_l1_loss(q.float(), targets)
        return loss, {"q": q.detach().mean()}

    def more_state(self) -> dict[str, Any]:
        return super().more_state() | {"target": self.target.state_dict(), "replay": self.buffer.state_dict()}

    def restore_more(self, content: dict[str, Any]) -> None:
        super().restore_more(content)
        self.target.load_state_dict(content["target"])
        self.buffer.load_state_dict(content["replay"])
        if self.observations is None:  # the episodes that were being played are not gone on with
            self.buffer.forget_pending()
