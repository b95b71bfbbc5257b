"""The networks of lab 3: a policy, a policy with a value beside it, and action values, each for vectors and for frames.

Every network takes observations ``[B, D]`` (floats) or stacked grey frames ``[B, C, H, W]`` (uint8, 0 .. 255). It
learns in torch and acts in NumPy: what ``acting(model)`` makes of observations, ``greedy``, or ``sample`` where there
is a policy, turns into actions.
"""

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lab1.engine.registry import register

ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU}


def orthogonal(layer: nn.Module, gain: float) -> nn.Module:
    """Initialise a layer's weights as an orthogonal matrix times ``gain``, its biases as zero (Saxe et al. 2014)."""
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer


class Frames(nn.Module):
    """The convolutions of Mnih et al. (2015): frames ``[B, C, H, W]`` in 0 .. 255 -> features ``[B, F]``."""

    def __init__(self, shape: Sequence[int]):
        super().__init__()
        self.layers = nn.Sequential(
            orthogonal(nn.Conv2d(shape[0], 32, 8, stride=4), math.sqrt(2)),
            nn.ReLU(),
            orthogonal(nn.Conv2d(32, 64, 4, stride=2), math.sqrt(2)),
            nn.ReLU(),
            orthogonal(nn.Conv2d(64, 64, 3), math.sqrt(2)),
            nn.ReLU(),
            nn.Flatten(),
        )
        with torch.no_grad():
            self.features = self.layers(torch.zeros(1, *shape)).shape[1]

    def forward(self, frames: Tensor) -> Tensor:
        return self.layers(frames / 255)


def trunk(shape: Sequence[int]) -> tuple[nn.Module, int]:
    """What comes before the fully connected layers, and the number of features that leave it."""
    if len(shape) == 3:
        frames = Frames(shape)
        return frames, frames.features
    return nn.Identity(), shape[0]


def mlp(inputs: int, hidden: Sequence[int], outputs: int, activation: str, gain: float) -> nn.Sequential:
    """Fully connected layers with the activation between them; orthogonal weights, sqrt 2 and ``gain`` at the end."""
    sizes, layers = [inputs, *hidden], []
    for before, after in itertools.pairwise(sizes):
        layers += [orthogonal(nn.Linear(before, after), math.sqrt(2)), ACTIVATIONS[activation]()]
    return nn.Sequential(*layers, orthogonal(nn.Linear(sizes[-1], outputs), gain))


@register
class Policy(nn.Module):
    """A policy pi(a | s): a categorical distribution over discrete actions, or a diagonal Gaussian over continuous ones
    whose standard deviations do not depend on the observation.

    ``policy(observations)`` gives the logits ``[B, K]``, or the means ``[B, K]``, from which the other methods work.
    """

    per_action = 1  # numbers that the network says of each action

    def __init__(
        self,
        shape: Sequence[int],
        actions: int,
        hidden: Sequence[int] = (64, 64),
        activation: str = "tanh",
        low: Sequence[float] | None = None,
        high: Sequence[float] | None = None,
    ):
        """Args:
        shape: of one observation.
        actions: how many discrete actions there are, or of how many numbers a continuous one consists.
        hidden: widths of the hidden layers.
        activation: ``tanh`` or ``relu``.
        low, high: the bounds ``[K]`` of continuous actions; None for discrete ones.
        """
        super().__init__()
        self.arguments = {"shape": list(shape), "actions": int(actions), "hidden": list(hidden)}
        self.arguments |= {"activation": activation, "low": low, "high": high}
        self.trunk, features = trunk(shape)
        self.actor = mlp(features, hidden, self.per_action * actions, activation, gain=0.01)
        self.continuous = low is not None
        if self.continuous:
            self.log_std = nn.Parameter(torch.zeros(actions))
            self.low, self.high = np.array(low, np.float32), np.array(high, np.float32)

    def policy(self, observations: Tensor) -> Tensor:
        """Observations -> logits or means ``[B, K]``."""
        return self.actor(self.trunk(observations))

    forward = policy

    def noise(self, *shape: int, generator: torch.Generator | None = None) -> np.ndarray:
        """Random numbers ``[*shape, K]`` for ``sample``: of a standard Gumbel distribution, or of a normal one with the
        policy's standard deviations."""
        numbers = torch.empty(*shape, self.arguments["actions"])
        if self.continuous:
            return numbers.normal_(generator=generator).mul_(self.log_std.detach().cpu().exp()).numpy()
        return numbers.exponential_(generator=generator).log_().neg_().numpy()

    def sample(self, outputs: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """Actions drawn from the policy with these outputs ``[B, K]``: ``[B]``, or ``[B, K]``, before they are clipped
        to the bounds.

        The largest of logits plus Gumbel noise is a draw from their softmax (Gumbel 1954): no probabilities needed.
        """
        return outputs + noise if self.continuous else (outputs + noise).argmax(-1)

    def clip(self, actions: np.ndarray) -> np.ndarray:
        """Actions as the environment takes them: continuous ones within their bounds."""
        return actions.clip(self.low, self.high) if self.continuous else actions

    def greedy(self, outputs: np.ndarray) -> np.ndarray:
        """The most probable action, or the mean: ``[B]`` or ``[B, K]``."""
        return self.clip(outputs) if self.continuous else outputs.argmax(-1)

    def log_probs(self, outputs: Tensor, actions: Tensor) -> Tensor:
        """log pi(a | s) ``[B]`` of the policy's outputs ``[B, K]`` and actions ``[B]`` or ``[B, K]``."""
        if self.continuous:
            scaled = (actions - outputs) * (-self.log_std).exp()
            return (-0.5 * scaled.square() - self.log_std - 0.5 * math.log(2 * math.pi)).sum(-1)
        return -F.cross_entropy(outputs, actions, reduction="none")

    def entropy(self, outputs: Tensor) -> Tensor:
        """The mean entropy, in nats, of the policies with these outputs ``[B, K]``."""
        if self.continuous:
            return (self.log_std + 0.5 + 0.5 * math.log(2 * math.pi)).sum()
        logs = outputs.log_softmax(-1)
        return -(logs.exp() * logs).sum(-1).mean()


@register
class ActorCritic(Policy):
    """A policy and a state value V(s): two networks of the same size, which share the convolutions if there are any."""

    def __init__(
        self,
        shape: Sequence[int],
        actions: int,
        hidden: Sequence[int] = (64, 64),
        activation: str = "tanh",
        low: Sequence[float] | None = None,
        high: Sequence[float] | None = None,
    ):
        super().__init__(shape, actions, hidden, activation, low, high)
        features = self.trunk.features if isinstance(self.trunk, Frames) else shape[0]
        self.critic = mlp(features, hidden, 1, activation, gain=1.0)

    def value(self, observations: Tensor) -> Tensor:
        """Observations -> V(s) ``[B]``."""
        return self.critic(self.trunk(observations)).squeeze(-1)

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Observations -> the policy's outputs ``[B, K]`` and V(s) ``[B]``."""
        features = self.trunk(observations)
        return self.actor(features), self.critic(features).squeeze(-1)


@register
class BetaActorCritic(ActorCritic):
    """A policy of continuous actions within bounds, each from a Beta distribution between them, and a state value.

    Nothing is drawn outside the bounds, where a clipped Gaussian piles up (Chou, Maturana & Scherer 2017). Of each
    action the network says two numbers ``[B, 2 K]``; alpha and beta are 1 + softplus of them, above 1, so that the
    density has one peak.
    """

    per_action = 2
    INSIDE = 1e-6  # how close to its bounds, in widths, an action may lie: at a bound itself the density is 0

    def __init__(
        self,
        shape: Sequence[int],
        actions: int,
        low: Sequence[float],
        high: Sequence[float],
        hidden: Sequence[int] = (64, 64),
        activation: str = "tanh",
    ):
        super().__init__(shape, actions, hidden, activation, low, high)
        del self.log_std  # the spread is part of what the network says
        self.register_buffer("lowest", torch.from_numpy(self.low), persistent=False)
        self.register_buffer("width", torch.from_numpy(self.high - self.low), persistent=False)

    def noise(self, *shape: int, generator: torch.Generator | None = None) -> np.ndarray:
        """Random numbers ``[*shape, K]``, uniform in 0 .. 1."""
        return torch.empty(*shape, self.arguments["actions"]).uniform_(generator=generator).numpy()

    def sample(self, outputs: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """Actions ``[B, K]`` drawn from the policy with these outputs ``[B, 2 K]``: quantiles of uniform numbers."""
        from scipy.special import betaincinv

        alpha, beta = np.split(1 + np.logaddexp(0, outputs), 2, axis=-1)
        shares = betaincinv(alpha, beta, noise).clip(self.INSIDE, 1 - self.INSIDE)
        return (self.low + (self.high - self.low) * shares).astype(np.float32)

    def greedy(self, outputs: np.ndarray) -> np.ndarray:
        """The means ``[B, K]``."""
        alpha, beta = np.split(1 + np.logaddexp(0, outputs), 2, axis=-1)
        return (self.low + (self.high - self.low) * alpha / (alpha + beta)).astype(np.float32)

    def distribution(self, outputs: Tensor) -> torch.distributions.Beta:
        """Of outputs ``[B, 2 K]``, the distributions ``[B, K]`` of where actions lie between their bounds, 0 .. 1."""
        alpha, beta = (1 + F.softplus(outputs)).chunk(2, dim=-1)
        return torch.distributions.Beta(alpha, beta, validate_args=False)

    def log_probs(self, outputs: Tensor, actions: Tensor) -> Tensor:
        shares = ((actions - self.lowest) / self.width).clamp(self.INSIDE, 1 - self.INSIDE)
        return (self.distribution(outputs).log_prob(shares) - self.width.log()).sum(-1)

    def entropy(self, outputs: Tensor) -> Tensor:
        return (self.distribution(outputs).entropy() + self.width.log()).sum(-1).mean()


@register
class QNetwork(nn.Module):
    """Action values Q(s, a) of discrete actions, ``[B, K]``.

    With ``dueling`` the last hidden layer feeds a state value and advantages, Q = V + A - mean A (Wang et al. 2016,
    eq. 9).
    """

    def __init__(
        self,
        shape: Sequence[int],
        actions: int,
        hidden: Sequence[int] = (128, 128),
        activation: str = "relu",
        dueling: bool = False,
    ):
        """Args: see ``Policy``."""
        super().__init__()
        self.arguments = {"shape": list(shape), "actions": int(actions), "hidden": list(hidden)}
        self.arguments |= {"activation": activation, "dueling": dueling}
        self.dueling = dueling
        self.trunk, features = trunk(shape)
        self.layers = mlp(features, hidden, actions + dueling, activation, gain=1.0)

    def forward(self, observations: Tensor) -> Tensor:
        return self.values(self.layers(self.trunk(observations)))

    def values(self, outputs: Tensor | np.ndarray) -> Tensor | np.ndarray:
        """The action values ``[B, K]`` of the last layer's outputs."""
        if not self.dueling:
            return outputs
        value, advantages = outputs[:, :1], outputs[:, 1:]
        return value + advantages - advantages.mean(-1, keepdims=True)

    def greedy(self, outputs: np.ndarray) -> np.ndarray:
        """The actions of the highest value ``[B]``."""
        return outputs.argmax(-1)


def acting(model: Policy | QNetwork) -> Callable[[np.ndarray], np.ndarray]:
    """The network as a function of observations ``[N, ...]``, without gradients: its outputs ``[N, K]``, a policy's or
    action values, as the weights stand when it is called.

    A vector's layers are computed in NumPy where the weights are on the CPU: for the few rows of one step of the
    environments, calling torch takes up to ten times as long as the arithmetic does.
    """
    actor = isinstance(model, Policy)
    layers, forward = (model.actor, model.policy) if actor else (model.layers, model.forward)
    device = next(layers.parameters()).device
    if device.type != "cpu" or isinstance(model.trunk, Frames):

        @torch.no_grad()
        def outputs(observations: np.ndarray) -> np.ndarray:
            return forward(torch.from_numpy(observations).to(device)).cpu().numpy()

        return outputs

    *hidden, last = [(each.weight.detach().numpy().T, each.bias.detach().numpy()) for each in layers[::2]]
    activation = model.arguments["activation"]

    def outputs(observations: np.ndarray) -> np.ndarray:
        x = observations
        for weight, bias in hidden:
            x = x @ weight
            x += bias
            x = np.tanh(x, out=x) if activation == "tanh" else np.maximum(x, 0, out=x)
        x = x @ last[0] + last[1]
        return x if actor else model.values(x)

    return outputs
