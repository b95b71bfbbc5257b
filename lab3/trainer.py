"""What the three algorithms share: targets and losses as plain functions, and the Trainer over an environment's steps.

Greedy evaluation chooses the weights; a test from other starts, once, ends the run.
"""

import math
import statistics
import time
from typing import Any

import gymnasium
import numpy as np
import torch
import torch.nn.functional as F
from gymnasium.vector import VectorEnv
from torch import Tensor, nn
from tqdm import tqdm

from lab1.engine import checkpoint
from lab1.engine.config import Diverged, Interrupted
from lab1.engine.finished import shown
from lab1.engine.metrics import Averages, in_words
from lab1.engine.optimizer import FlatAdam
from lab1.engine.registry import describe, load_weights
from lab1.trainer import SAVE_SECONDS, Trainer
from lab3.config import TICKS, RLConfig
from lab3.environments import vector
from lab3.environments.agent import Agent, play_episodes
from lab3.environments.agent import load_agent as load_agent
from lab3.models import acting

RECENT = 20  # training episodes in a running mean
CURVE_POINTS = 1000  # points of the learning curve in results.json, at most


def td_targets(rewards: Tensor, next_q: Tensor, terminated: Tensor, gamma: float | Tensor) -> Tensor:
    """What Q(s, a) should be: r + gamma Q(s', a'), but r alone where the episode terminated (Mnih et al. 2015). A
    truncated step is one like any other: its s' is the true successor.

    All ``[B]``; ``next_q`` is the value of the best action in s', or of the one that double DQN chooses; ``gamma`` may
    differ by row, as it does for n-step returns.
    """
    return rewards + gamma * next_q * ~terminated


def generalized_advantages(
    rewards: Tensor,
    values: Tensor,
    next_values: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    gamma: float,
    lam: float,
) -> Tensor:
    """Generalised advantage estimates (Schulman et al. 2016, eq. 16), all ``[T, N]``, backwards in time:

    delta = r + gamma V(s') (1 - terminated) - V(s);   A = delta + gamma lam (1 - terminated or truncated) A'.

    ``next_values`` are those of the true next observations: what follows a terminated step is worth nothing, what
    follows a truncated one is worth V(s'), and no advantage flows from one episode into another.
    """
    deltas = rewards + gamma * next_values * ~terminated - values
    decay = gamma * lam * (~(terminated | truncated)).to(deltas.dtype)
    advantages = torch.empty_like(deltas)
    following = torch.zeros_like(deltas[0])
    for delta, factor, advantage in zip(*(reversed(x.unbind()) for x in (deltas, decay, advantages)), strict=True):
        following = torch.addcmul(delta, factor, following, out=advantage)
    return advantages


def discounted_returns(rewards: Tensor, gamma: float) -> Tensor:
    """G_t = r_t + gamma G_{t+1}, of rewards ``[T]`` or ``[T, N]`` that are 0 after an episode's end."""
    returns = rewards.clone()
    steps = returns.unbind()
    for now, following in zip(reversed(steps[:-1]), reversed(steps[1:]), strict=True):
        now.add_(following, alpha=gamma)
    return returns


def clipped_loss(log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, clip: float) -> Tensor:
    """PPO's policy loss, to be minimised (Schulman et al. 2017, eq. 7): minus the mean of min(rho A, clip(rho) A),
    where rho = pi(a | s) / pi_old(a | s) is clipped to 1 - clip .. 1 + clip. All ``[B]``."""
    ratios = (log_probs - old_log_probs).exp()
    return -torch.min(ratios * advantages, ratios.clamp(1 - clip, 1 + clip) * advantages).mean()


def standardised(x: Tensor) -> Tensor:
    """``x`` ``[B]`` with mean 0 and standard deviation 1, in one kernel."""
    return F.layer_norm(x, x.shape, eps=1e-8)


class RLTrainer(Trainer):
    """The Trainer over steps of an environment. An algorithm overrides ``train`` and ``loss``, and may override
    ``done``, ``learning_rate``, ``more_state`` and ``restore_more``.

    ``env_steps`` counts the actions that the environments took: what the run's length, the learning rate, exploration,
    target networks and TensorBoard go by. ``step`` counts the steps of the optimiser, as in the other labs.
    """

    title: str  # the algorithm's name
    continuous_actions = False  # whether it can act by numbers, not only by choice
    charted, counted_by = ("return",), ()
    plays_on = True  # an episode goes on over updates and checkpoints

    def __init__(self, model: nn.Module, config: RLConfig, envs: VectorEnv):
        about = {"dataset": config.env, "env": config.env, "algorithm": config.algorithm, "actions": config.actions}
        super().__init__(model, config, about)
        self.envs, self.max_gradient_norm = envs, config.max_gradient_norm
        self.outputs = acting(self.model)  # of observations, as arrays
        self.env_steps = 0
        self.curve: list[list[float]] = []  # of each training episode, [steps when it ended, return]
        self.solved: dict[str, float] | None = None  # when the recent returns first reached the task's threshold
        self.threshold = gymnasium.spec(config.env).reward_threshold
        self.observations: np.ndarray | None = None  # where the environments stand [N, ...]
        self.returns = np.zeros(envs.num_envs)  # so far, of the episodes that are being played
        self.ended = np.zeros(envs.num_envs, bool)  # whose next step only resets
        self.shown: dict[str, float] = {}  # the latest of further scalars for TensorBoard
        self.began, self.ticks, self.tick_steps, self.tick_seconds = time.monotonic(), 0, 0, 0.0
        self.cpu_began, self.cpu_seconds = 0.0, 0.0  # the processor's time for training, whatever ran beside it

    # What an algorithm may override.

    @staticmethod
    def network(config: RLConfig, **sizes: Any) -> nn.Module:
        """The network that it learns, for observations and actions of these sizes (see ``vector.sizes``)."""
        raise NotImplementedError

    def done(self) -> int:
        """How much of ``total`` is done."""
        return self.env_steps

    def total(self) -> int:
        """The length of the run in what ``done`` counts."""
        return self.config.steps

    def make_optimizer(self) -> torch.optim.Optimizer:
        """Adam with an epsilon of 1e-5, over all parameters at once."""
        return FlatAdam(self.model, self.config.learning_rate)

    def clip_gradients(self, norm: float) -> None:
        self.optimizer.clip(norm)

    def learning_rate(self, step: int) -> float:
        """Constant, or falling linearly with the share of the run that is done."""
        falling = self.config.anneal == "linear"
        return self.config.learning_rate * (max(0.0, 1 - self.progress()) if falling else 1)

    def weight(self, batch: Any) -> int:
        return 1

    def more_state(self) -> dict[str, Any]:
        content = {name: getattr(self, name) for name in PROGRESS}
        content |= {"returns": torch.from_numpy(self.returns), "ended": torch.from_numpy(self.ended)}
        observations = None if self.observations is None else torch.from_numpy(self.observations)
        return content | {"observations": observations, "envs": vector.state(self.envs)}

    def restore_more(self, content: dict[str, Any]) -> None:
        for name in PROGRESS:
            setattr(self, name, content.get(name, getattr(self, name)))  # older ones lack cpu_seconds
        if vector.restore(self.envs, content["envs"]) and content["observations"] is not None:
            self.observations = content["observations"].cpu().numpy()
            self.returns, self.ended = content["returns"].cpu().numpy(), content["ended"].cpu().numpy()

    # What the algorithms' loops are made of.

    def progress(self) -> float:
        """The share of the run that is done, 0 to 1 or a little more."""
        return self.done() / self.total()

    def finished(self) -> bool:
        return self.over or self.progress() >= 1

    def ticks_due(self) -> int:
        """How many of the run's ticks should have been."""
        return min(TICKS, int(self.progress() * TICKS))

    def clock(self) -> int:
        return self.env_steps

    def forget_best(self) -> None:
        super().forget_best()
        self.best_step, self.best_return = 0, -math.inf

    def lasted(self) -> tuple[str, int]:
        return "steps", self.env_steps

    def where(self) -> str:
        return f"after {self.env_steps} steps of the environment and {self.step} of the optimiser"

    def open(self) -> None:
        copies = "1 copy" if self.envs.num_envs == 1 else f"{self.envs.num_envs} copies side by side"
        super().open(f"{self.config.env} ({self.title}, {copies})")

    def begin(self) -> None:
        """Start the environments, or go on where a checkpoint left them; start the clock."""
        if self.plays_on and self.observations is None:
            self.observations, _ = self.envs.reset()
        if self.env_steps == 0:
            space = self.envs.single_observation_space
            self.log.graph(self.model, torch.from_numpy(np.zeros((1, *space.shape), space.dtype)).to(self.device))
        self.ticks = self.ticks_due()
        self.began, self.save_due = time.monotonic(), time.monotonic() + SAVE_SECONDS
        self.tick_steps, self.tick_seconds, self.cpu_began = self.env_steps, self.seconds, time.process_time()
        self.network.train()

    def step_envs(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One step of every environment: rewards, terminated, truncated, each ``[N]``; ``observations`` moves on.

        An environment that ``ended`` before this step ignored its action: its row is no transition.
        """
        self.env_steps += len(actions) - int(self.ended.sum())
        self.observations, rewards, terminated, truncated, _ = self.envs.step(actions)
        self.returns += rewards
        self.ended = terminated | truncated
        if self.ended.any():
            for env in self.ended.nonzero()[0]:
                self.end_episode(float(self.returns[env]))
            self.returns[self.ended] = 0
        return rewards, terminated, truncated

    def end_episode(self, episode_return: float) -> None:
        """Take down a training episode."""
        self.curve.append([self.env_steps, episode_return])
        if self.solved is None and self.threshold is not None and len(self.curve) >= RECENT:
            recent = statistics.fmean(point[1] for point in self.curve[-RECENT:])
            if recent >= self.threshold:
                seconds = round(self.seconds + time.monotonic() - self.began, 3)
                self.solved = {"threshold": self.threshold, "step": self.env_steps, "seconds": seconds}

    def look(self, bar: tqdm) -> None:
        """To be called between steps of the loop: log, evaluate, save and stop, each where it is due."""
        due = self.ticks_due() > self.ticks
        if not due and not self.signals.received:
            return
        self.seconds += time.monotonic() - self.began  # what follows is not training
        self.cpu_seconds += time.process_time() - self.cpu_began
        if due:
            before, self.ticks = self.ticks, self.ticks_due()
            self.log_progress(bar)
            count = self.config.evaluations
            if self.ticks * count // TICKS > before * count // TICKS:
                self.end_evaluation(self.evaluate(self.make_envs("validation", self.config.evaluation_episodes)))
                self.save()
                self.save_due = time.monotonic() + SAVE_SECONDS
        if self.signals.received or time.monotonic() > self.save_due:
            self.save()
            self.save_due = time.monotonic() + SAVE_SECONDS
        if self.signals.received:
            raise Interrupted(self.signals.received, self.folder)
        self.began, self.cpu_began = time.monotonic(), time.process_time()

    def log_progress(self, bar: tqdm) -> None:
        """Losses and returns since the last time, for TensorBoard and the progress bar."""
        losses = self.averages.read()
        for place, loss in enumerate(losses):
            if not math.isfinite(loss):
                number = self.step - len(losses) + place + 1
                raise Diverged(f"the loss is {loss} at update {number}; a lower --learning-rate often helps")
        update = {"learning_rate": self.learning_rate(self.step), **self.shown}
        update |= self.averages.means() if self.averages.weight > 0 else {}  # before a checkpoint, or since
        points = {f"update/{name.replace('_', ' ')}": value for name, value in update.items()}
        self.averages = Averages()
        recent = [point[1] for point in self.curve[-RECENT:]]
        if recent:
            points["return/train"] = statistics.fmean(recent)
        seconds = max(self.seconds - self.tick_seconds, 1e-9)
        points["speed/steps per second"] = (self.env_steps - self.tick_steps) / seconds
        self.tick_steps, self.tick_seconds = self.env_steps, self.seconds
        self.log.scalars(points, self.env_steps)
        if not bar.disable:
            bar.set_postfix_str(f"return {points.get('return/train', math.nan):.1f}", refresh=False)
            bar.update(self.done() - bar.n)

    # Evaluation and test.

    def make_envs(self, purpose: str, count: int) -> VectorEnv:
        """Environments to evaluate in: the same starts every time for one purpose, others for another."""
        return vector.make(self.config.env, count, self.config.seed, purpose, self.config.vectorization == "native")

    def evaluate(self, envs: VectorEnv) -> dict[str, float]:
        """Returns of one episode in each environment: mean, standard deviation, mean length. The environments are
        closed; the mode (training or evaluation) is what it was before."""
        config, training = self.config, self.model.training
        self.model.eval()
        returns, lengths = play_episodes(Agent(self.model, config.env, config.actions, config.seed).act, envs)
        self.model.train(training)
        envs.close()
        return {"return": float(returns.mean()), "return_sd": float(returns.std()), "length": float(lengths.mean())}

    def end_evaluation(self, found: dict[str, float]) -> None:
        """Take down one evaluation: history, best weights, TensorBoard."""
        entry = {"step": self.env_steps, "episodes": len(self.curve), "updates": self.step}
        clocks = {"seconds": round(self.seconds, 3), "cpu_seconds": round(self.cpu_seconds, 3)}
        self.history.append(entry | clocks | found)
        better = found["return"] >= self.best_return  # of equals, the one that learned longer
        if better:
            self.best_step, self.best_return = self.env_steps, found["return"]
            self._save_best()
        points = {"return/validation": found["return"], "return/validation episode length": found["length"]}
        self.log.scalars(points, self.env_steps)
        self.log.flush()
        words = f"{self.config.actions} return {found['return']:8.2f} ± {found['return_sd']:.2f}{'  *' * better}"
        self.say(f"step {self.env_steps:8d}  {words}")

    def test(self) -> dict[str, float]:
        """Play the best weights from the test's starts, once; writes ``results.json``. A run that was tested already
        and did not train since returns what was found then."""
        if (before := self.tested()) is not None:
            return before
        if self.best_return == -math.inf or self.history[-1]["step"] != self.env_steps:  # made to end where it stands
            self.end_evaluation(self.evaluate(self.make_envs("validation", self.config.evaluation_episodes)))
        load_weights(self.model, self.folder / "best.pt", self.device)
        episodes = self.config.test_episodes
        test = self.evaluate(self.make_envs("test", episodes)) | {"episodes": episodes}
        self.end(test, {"return/test": test["return"]})
        self.envs.close()
        self.say(f"best step {self.best_step}: test {in_words(test)}   ({self.seconds:.1f} s of training)")
        self.say(f"{shown(self.folder)} holds the run; curves: tensorboard --logdir {shown(self.folder.parent)}")
        return test

    def outcome(self) -> dict[str, Any]:
        validation = next(entry for entry in self.history if entry["step"] == self.best_step)
        return {
            "steps": self.env_steps,
            "episodes": len(self.curve),
            "updates": self.step,
            "best_step": self.best_step,
            "seconds": round(self.seconds, 2),
            "solved": self.solved,
            "validation": {name: validation[name] for name in ("return", "return_sd", "length")},
            "curve": thinned(self.curve, CURVE_POINTS),
        }

    def _save_best(self) -> None:
        content = {"model": describe(self.model), "weights": self.model.state_dict(), "about": self.about}
        checkpoint.save(content | {"step": self.best_step, "return": self.best_return}, self.folder / "best.pt")

    def _progress(self) -> tqdm:
        return self.bar(self.total(), self.done())


# What a checkpoint holds of the fields above.
PROGRESS = ("env_steps", "best_step", "best_return", "curve", "solved", "shown", "cpu_seconds")


def thinned(curve: list[list[float]], points: int) -> list[list[float]]:
    """A curve of at most so many points: means of successive episodes, each with the step of the last one."""
    group = math.ceil(len(curve) / points)
    parts = [curve[start : start + group] for start in range(0, len(curve), group or 1)]
    return [[part[-1][0], round(statistics.fmean(value for _, value in part), 3)] for part in parts]
