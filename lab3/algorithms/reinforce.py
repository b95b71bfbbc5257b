"""REINFORCE (Williams 1992): the policy gradient from whole episodes, with four ways to judge their returns."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lab1.engine.optimizer import remaining
from lab3.models import ActorCritic, Policy
from lab3.trainer import RLTrainer, discounted_returns, standardised

LEARNED = ("value", "value-raw")  # baselines that learn V(s)
STANDARDISED = ("standardise", "value")  # baselines whose advantages are standardised


class ReinforceTrainer(RLTrainer):
    """Plays whole episodes, one in each environment, and takes one step of the optimiser from them.

    The baseline, by ``config.baseline``: ``none``, the returns as they are; ``standardise``, returns with mean 0 and
    standard deviation 1 over all steps of the episodes; ``value-raw``, returns less a learned V(s); ``value``, these
    standardised.
    """

    title = "REINFORCE"
    plays_on = False  # a checkpoint falls between episodes: resuming is exact in every environment

    @staticmethod
    def network(config, **sizes: Any) -> Policy:
        kind = ActorCritic if config.baseline in LEARNED else Policy
        return kind(**sizes, hidden=config.hidden, activation=config.activation)

    def train(self) -> list[dict[str, Any]]:
        """Train for ``config.episodes`` episodes; returns the evaluations.

        Raises:
            Interrupted: after SIGINT or SIGTERM, once the update is finished and the run saved.
            Diverged: where a loss is not finite.
        """
        self.open()
        least, asked = self.config.num_envs, self.config.episodes
        if asked < least:
            self.say(f"one step, the least to learn from, has {least} episodes, one of each copy, not {asked}")
        with self.signals, self._progress() as bar:
            self.begin()
            while not self.finished():
                batch = self.play()
                metrics = self.train_step(batch)
                self.averages.add(metrics, 1)
                self.look(bar)
        return self.history

    def play(self) -> tuple[Tensor, Tensor, Tensor]:
        """One episode in each environment: observations, actions and discounted returns ``[M, ...]`` of its M steps.

        Where a time limit cut an episode short, what was still to come is estimated by V of its last observation if
        there is a learned value, and counts as nothing if there is none.
        """
        envs, model = self.envs, self.model
        observations, _ = envs.reset()
        rows: list[tuple[np.ndarray, ...]] = []
        playing, totals = np.ones(envs.num_envs, bool), np.zeros(envs.num_envs)
        while playing.any():
            seen = observations
            actions = model.sample(self.outputs(seen), model.noise(envs.num_envs))
            observations, rewards, terminated, truncated, _ = envs.step(actions)
            rewards = rewards * playing
            totals += rewards
            if truncated.any() and self.config.baseline in LEARNED:
                with torch.no_grad():
                    following = model.value(torch.from_numpy(observations).to(self.device)).cpu().numpy()
                rewards = rewards + self.config.gamma * following * (truncated & ~terminated & playing)
            rows.append((seen, actions, rewards, playing))
            self.env_steps += int(playing.sum())
            playing = playing & ~(terminated | truncated)
        for total in totals:
            self.end_episode(float(total))
        seen, actions, rewards, valid = (torch.from_numpy(np.stack(parts)) for parts in zip(*rows, strict=True))
        returns = discounted_returns(rewards.float(), self.config.gamma)
        return tuple(part[valid].to(self.device) for part in (seen, actions, returns))

    def loss(self, batch: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Minus the mean of log pi(a | s) times how good the return was, less an entropy bonus; plus the value's
        squared error where there is one. As is usual, the factor gamma^t of the exact gradient is left out."""
        observations, actions, returns = batch
        with self.autocast:
            outputs = self.forward(observations)
        metrics = {}
        if isinstance(self.model, ActorCritic):
            outputs, values = outputs
            advantages, value_loss = returns - values.detach(), (values.float() - returns).square().mean()
            metrics["value_loss"] = value_loss.detach()
        else:
            advantages, value_loss = returns, 0.0
        if self.config.baseline in STANDARDISED:
            advantages = standardised(advantages)
        policy_loss = -(self.model.log_probs(outputs.float(), actions) * advantages).mean()
        entropy = self.model.entropy(outputs.float())
        metrics |= {"policy_loss": policy_loss.detach(), "entropy": entropy.detach()}
        return policy_loss + self.config.value_weight * value_loss - self.config.entropy * entropy, metrics

    def clip_gradients(self, norm: float) -> None:
        """Scale the gradients of the policy and of the value down to this norm, each by itself: the value's can be
        thousands of times as large, and would decide how far the policy steps. Convolutions that both share count as
        the policy's."""
        if not isinstance(self.model, ActorCritic):
            return super().clip_gradients(norm)
        values = list(self.model.critic.parameters())
        for part in (remaining(self.model.parameters(), values), values):
            nn.utils.clip_grad_norm_(part, norm)

    def done(self) -> int:
        return len(self.curve)

    def lasted(self) -> tuple[str, int]:
        return "episodes", self.done()

    def total(self) -> int:
        return self.config.episodes
