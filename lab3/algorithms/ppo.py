"""Proximal policy optimisation (Schulman et al. 2017)."""

import math
from collections.abc import Iterator
from typing import Any

import gymnasium
import torch
import torch.nn.functional as F
from gymnasium.vector import VectorEnv
from torch import Tensor

from lab1.engine.config import require
from lab3.algorithms.buffers import RolloutBuffer
from lab3.models import ActorCritic, BetaActorCritic
from lab3.trainer import RLTrainer, clipped_loss, generalized_advantages, standardised


class PPOTrainer(RLTrainer):
    """Collects a rollout, learns from it for a few epochs of minibatches, and collects the next one."""

    title, continuous_actions = "PPO", True
    counted_by = ("--rollout", "--num-envs")

    @staticmethod
    def network(config, **sizes: Any) -> ActorCritic:
        bounds = [*sizes.get("low", [math.inf]), *sizes.get("high", [math.inf])]
        beta, bounded = config.policy == "beta", all(map(math.isfinite, bounds))
        # LunarLander-v3 has a twin with continuous actions.
        twin = config.env.replace("-v", "Continuous-v")
        hint = f", {twin} has them" if twin in gymnasium.registry else ""
        require(
            bounded or not beta,
            f"--policy beta: it is for continuous actions within bounds; {config.env} has others{hint}",
        )
        kind = BetaActorCritic if beta else ActorCritic
        return kind(**sizes, hidden=config.hidden, activation=config.activation)

    def __init__(self, model: ActorCritic, config, envs: VectorEnv):
        """``config``: see ``lab3/train_ppo.py``."""
        super().__init__(model, config, envs)
        self.rollouts = 0  # done
        self.remaining = 1.0  # share of the run that was left when this rollout began
        self.buffer: RolloutBuffer | None = None

    def train(self) -> list[dict[str, Any]]:
        """Train for as many rollouts as fit into ``config.steps``; returns the evaluations.

        Raises:
            Interrupted: after SIGINT or SIGTERM, once the update is finished and the run saved.
            Diverged: where a loss is not finite.
        """
        self.open()
        rollout = self.config.rollout * self.config.num_envs
        if self.config.steps < rollout:
            self.say(f"one rollout, the least to learn from, has {rollout:,} steps, not {self.config.steps:,}")
        with self.signals, self._progress() as bar:
            self.begin()
            while not self.finished():
                self.remaining = 1 - self.progress()
                rollout = self.estimate(self.collect())
                for _ in range(self.config.update_epochs):
                    for batch in self.minibatches(rollout):
                        metrics = self.train_step(batch)
                        self.averages.add(metrics, 1)
                    if self.config.target_kl is not None and self.compare(rollout)["approx_kl"] > self.config.target_kl:
                        break  # the policy has moved far enough from the one that collected the rollout
                self.shown |= self.compare(rollout)
                self.rollouts += 1
                self.look(bar)
        return self.history

    def collect(self) -> RolloutBuffer:
        """Play T steps in every environment with the actor alone."""
        model, length = self.model, self.config.rollout
        noise = model.noise(length, self.envs.num_envs)
        for step in range(length):
            actions = model.sample(self.outputs(self.observations), noise[step])
            if self.buffer is None:
                self.buffer = RolloutBuffer(length, self.envs.num_envs, self.observations, actions)
            self.buffer.put(step, observations=self.observations, valid=~self.ended, actions=actions)
            rewards, terminated, truncated = self.step_envs(model.clip(actions))
            self.buffer.put(step, rewards=rewards, terminated=terminated, truncated=truncated)
        self.buffer.put(length, observations=self.observations)
        return self.buffer

    @torch.no_grad()
    def estimate(self, buffer: RolloutBuffer) -> tuple[Tensor, ...]:
        """Observations, actions, their log-probabilities, advantages and returns ``[M, ...]`` of the M valid rows.

        All values and log-probabilities come from one pass over the T + 1 observations of every environment: the value
        of a row's true next observation is the next row's.
        """
        (length, count), config = buffer.rewards.shape, self.config
        observations = buffer.observations.flatten(0, 1).to(self.device)
        with self.autocast:
            outputs, values = (part.float() for part in self.model(observations))
        values = values.view(length + 1, count)
        steps = (buffer.rewards, buffer.terminated, buffer.truncated)
        rewards, terminated, truncated = (part.to(self.device) for part in steps)
        rewards = rewards * config.reward_scale
        advantages = generalized_advantages(
            rewards, values[:-1], values[1:], terminated, truncated, config.gamma, config.gae_lambda
        )
        actions = buffer.actions.flatten(0, 1).to(self.device)
        log_probs = self.model.log_probs(outputs[: len(actions)], actions)
        returns = advantages + values[:-1]
        rows = (observations[: len(actions)], actions, log_probs, advantages.flatten(), returns.flatten())
        valid = buffer.valid.flatten().nonzero().squeeze(1).to(self.device)
        rollout = tuple(part.index_select(0, valid) for part in rows)
        unexplained, spread = rollout[3].var(), rollout[4].var()  # returns - values = advantages
        self.shown = {"explained_variance": (1 - unexplained / spread.clamp(min=1e-8)).item(), "clip": self.clip()}
        return rollout

    def minibatches(self, rollout: tuple[Tensor, ...]) -> Iterator[tuple[Tensor, ...]]:
        """Every row once, in a new order each time, in minibatches of nearly ``batch_size`` rows."""
        rows = len(rollout[0])
        parts = max(1, round(rows / self.config.batch_size))
        order = torch.randperm(rows).to(self.device)
        return zip(*(part.index_select(0, order).tensor_split(parts) for part in rollout), strict=True)

    def loss(self, batch: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        """Clipped policy loss + value loss - entropy bonus; advantages are standardised within the minibatch."""
        observations, actions, old_log_probs, advantages, returns = batch
        with self.autocast:
            outputs, values = self.forward(observations)
        log_probs = self.model.log_probs(outputs.float(), actions)
        policy_loss = clipped_loss(log_probs, old_log_probs, standardised(advantages), self.clip())
        value_loss = F.mse_loss(values.float(), returns)
        loss = policy_loss + self.config.value_weight * value_loss
        if self.config.entropy > 0:
            loss = loss - self.config.entropy * self.model.entropy(outputs.float())
        return loss, {"policy_loss": policy_loss.detach(), "value_loss": value_loss.detach()}

    @torch.no_grad()
    def compare(self, rollout: tuple[Tensor, ...]) -> dict[str, float]:
        """How far the updates moved the policy from the one that collected the rollout, over all its rows."""
        observations, actions, old_log_probs, *_ = rollout
        with self.autocast:
            outputs = self.model.policy(observations).float()
        log_ratios = self.model.log_probs(outputs, actions) - old_log_probs
        ratios = log_ratios.exp()
        return {
            "approx_kl": (ratios - 1 - log_ratios).mean().item(),  # Schulman 2020, "Approximating KL divergence", k3
            "clip_fraction": ((ratios - 1).abs() > self.clip()).float().mean().item(),
            "entropy": self.model.entropy(outputs).item(),
        }

    def done(self) -> int:
        """The rows of all rollouts so far, the few in which an environment only reset among them."""
        return self.rollouts * self.config.rollout * self.envs.num_envs

    def total(self) -> int:
        rows = self.config.rollout * self.envs.num_envs
        return max(1, self.config.steps // rows) * rows

    def more_state(self) -> dict[str, Any]:
        return super().more_state() | {"rollouts": self.rollouts}

    def restore_more(self, content: dict[str, Any]) -> None:
        super().restore_more(content)
        self.rollouts = content["rollouts"]

    def clip(self) -> float:
        """The clipping range; it shrinks to zero over the run with ``anneal_clip``."""
        return self.config.clip * (self.remaining if self.config.anneal_clip == "linear" else 1)

    def learning_rate(self, step: int) -> float:
        """Constant, or falling linearly; the same for all updates from one rollout."""
        return self.config.learning_rate * (self.remaining if self.config.anneal == "linear" else 1)
