"""Targets and losses of reinforcement learning against numbers worked out by hand; what is counted, and on what."""

import copy
import math

import numpy as np
import pytest
import scipy.special
import torch

from lab1.engine.optimizer import FlatAdam
from lab3 import train_dqn, train_ppo, train_reinforce
from lab3.algorithms.dqn import DQNTrainer
from lab3.algorithms.start import set_up
from lab3.models import ActorCritic, BetaActorCritic, Policy, QNetwork, acting
from lab3.trainer import (
    clipped_loss,
    discounted_returns,
    generalized_advantages,
    standardised,
    td_targets,
    thinned,
)

F, T = False, True


def test_td_targets_by_hand():
    # A step, a truncated step (bootstrapped like any other), a terminated step (worth its reward and no more).
    targets = td_targets(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([10.0, 20.0, 30.0]), torch.tensor([F, F, T]), 0.5)
    assert targets.tolist() == [6.0, 12.0, 3.0]
    # Returns of three, two and one step: the discount differs by row.
    targets = td_targets(
        torch.ones(3), torch.full((3,), 8.0), torch.tensor([F, F, F]), torch.tensor([0.125, 0.25, 0.5])
    )
    assert targets.tolist() == [2.0, 3.0, 5.0]


def test_advantages_of_a_truncation_and_a_termination_by_hand():
    def column(*values):
        return torch.tensor(values).unsqueeze(1)

    advantages = generalized_advantages(
        rewards=column(1.0, 2.0, 3.0, 4.0),
        values=column(1.0, 2.0, 3.0, 4.0),
        next_values=column(2.0, 10.0, 4.0, 100.0),
        terminated=column(F, F, F, T),
        truncated=column(F, T, F, F),
        gamma=0.5,
        lam=0.5,
    )
    # deltas: 1 + 0.5 * 2 - 1 = 1;  2 + 0.5 * 10 - 2 = 5, bootstrapped;  3 + 0.5 * 4 - 3 = 2;  4 - 4 = 0, not so.
    # advantages: 1 + 0.25 * 5;  5, as nothing flows over the truncation;  2 + 0.25 * 0;  0.
    assert advantages.squeeze(1).tolist() == [2.25, 5.0, 2.0, 0.0]


def slow_advantages(rewards, values, next_values, terminated, truncated, gamma, lam):
    """The definition (Schulman et al. 2016, eq. 16): the sum of (gamma lam)^l delta_{t+l} up to the episode's end."""
    advantages = torch.zeros_like(rewards)
    for env in range(rewards.shape[1]):
        for start in range(len(rewards)):
            total, factor = 0.0, 1.0
            for step in range(start, len(rewards)):
                following = 0.0 if terminated[step, env] else next_values[step, env].item()
                total += factor * (rewards[step, env].item() + gamma * following - values[step, env].item())
                factor *= gamma * lam
                if terminated[step, env] or truncated[step, env]:
                    break
            advantages[start, env] = total
    return advantages


@pytest.mark.parametrize("seed", range(5))
def test_advantages_against_the_definition(seed):
    generator = torch.Generator().manual_seed(seed)
    rewards, values, next_values = torch.randn(3, 40, 6, dtype=torch.float64, generator=generator)
    terminated, truncated = torch.rand(2, 40, 6, generator=generator) < 0.15
    assert (terminated & truncated).any() or seed  # both at once happens, too
    arguments = (rewards, values, next_values, terminated, truncated, 0.97, 0.9)
    assert torch.allclose(generalized_advantages(*arguments), slow_advantages(*arguments), atol=1e-12)


def test_discounted_returns_by_hand():
    rewards = torch.tensor([[1.0, 4.0], [2.0, 8.0], [4.0, 0.0]])  # the second episode has two steps
    assert discounted_returns(rewards, 0.5).tolist() == [[3.0, 8.0], [4.0, 8.0], [4.0, 0.0]]
    assert rewards[0, 0] == 1.0


@pytest.mark.parametrize(
    ("ratio", "advantage", "objective"),
    [(1.5, 1.0, 1.2), (1.1, 1.0, 1.1), (0.5, 1.0, 0.5), (0.5, -1.0, -0.8), (0.9, -1.0, -0.9), (1.5, -1.0, -1.5)],
)
def test_clipped_loss_by_hand(ratio, advantage, objective):
    log_probs = torch.tensor([math.log(0.3 * ratio)], requires_grad=True)
    loss = clipped_loss(log_probs, torch.tensor([math.log(0.3)]), torch.tensor([advantage]), clip=0.2)
    assert loss.item() == pytest.approx(-objective)
    loss.backward()
    moved_too_far = (ratio > 1.2 and advantage > 0) or (ratio < 0.8 and advantage < 0)
    assert log_probs.grad.item() == pytest.approx(0.0 if moved_too_far else -ratio * advantage)


def test_standardised_and_thinned_by_hand():
    assert standardised(torch.tensor([1.0, 3.0])).tolist() == pytest.approx([-1.0, 1.0])
    assert standardised(torch.tensor([5.0, 5.0])).tolist() == [0.0, 0.0]
    assert thinned([[10, 1.0], [20, 3.0], [30, 8.0]], points=2) == [[20, 2.0], [30, 8.0]]
    assert thinned([], points=2) == []


def test_the_categorical_policy_against_torch():
    torch.manual_seed(0)
    policy, logits, actions = Policy([4], 3), torch.randn(5, 3), torch.tensor([0, 2, 1, 1, 0])
    reference = torch.distributions.Categorical(logits=logits)
    assert torch.allclose(policy.log_probs(logits, actions), reference.log_prob(actions))
    assert torch.allclose(policy.entropy(logits), reference.entropy().mean())
    drawn = np.bincount(policy.sample(logits[:1].numpy(), policy.noise(20_000)), minlength=3) / 20_000
    assert drawn == pytest.approx(reference.probs[0].numpy(), abs=0.015)  # four standard errors


def test_the_gaussian_policy_against_torch():
    torch.manual_seed(0)
    policy = ActorCritic([4], 2, low=[-1.0, -2.0], high=[1.0, 2.0])
    policy.log_std.data = torch.tensor([-0.5, 0.3])
    means, actions = torch.randn(5, 2), torch.randn(5, 2)
    reference = torch.distributions.Independent(torch.distributions.Normal(means, policy.log_std.exp()), 1)
    assert torch.allclose(policy.log_probs(means, actions), reference.log_prob(actions))
    assert torch.allclose(policy.entropy(means), reference.entropy().mean())
    drawn = policy.sample(means[:1].numpy(), policy.noise(20_000))
    assert drawn.mean(0) == pytest.approx(means[0].numpy(), abs=0.04)
    assert drawn.std(0) == pytest.approx(policy.log_std.exp().detach().numpy(), abs=0.04)
    assert policy.clip(np.array([[3.0, -3.0]])).tolist() == [[1.0, -2.0]]
    assert policy.greedy(np.array([[3.0, 0.5]])).tolist() == [[1.0, 0.5]]


def test_the_beta_policy_against_torch():
    torch.manual_seed(0)
    low, high = torch.tensor([-1.0, 2.0]), torch.tensor([1.0, 7.0])
    policy = BetaActorCritic([4], 2, low.tolist(), high.tolist())
    outputs = 2 * torch.randn(5, 4)
    alpha, beta = (1 + torch.nn.functional.softplus(outputs)).chunk(2, -1)
    between = torch.distributions.AffineTransform(low, high - low)
    reference = torch.distributions.TransformedDistribution(torch.distributions.Beta(alpha, beta), between)
    actions = reference.sample()
    assert torch.allclose(policy.log_probs(outputs, actions), reference.log_prob(actions).sum(-1), atol=1e-5)
    # The entropy of a transformed variable is that of the variable plus the mean log of the slope.
    entropies = torch.distributions.Beta(alpha, beta).entropy() + (high - low).log()
    assert torch.allclose(policy.entropy(outputs), entropies.sum(-1).mean())
    drawn = policy.sample(outputs[:1].numpy(), policy.noise(20_000))
    mean, sd = reference.base_dist.mean[0], reference.base_dist.stddev[0]
    assert drawn.dtype == np.float32
    assert drawn.mean(0) == pytest.approx((low + (high - low) * mean).numpy(), abs=0.05)
    assert drawn.std(0) == pytest.approx(((high - low) * sd).numpy(), abs=0.05)
    # A uniform number's quantile: half of the actions lie below that of 1/2.
    middle = torch.from_numpy(
        (policy.sample(outputs.numpy(), np.full((5, 2), 0.5)) - policy.low) / np.array([2.0, 5.0])
    )
    below = scipy.special.betainc(alpha.double().numpy(), beta.double().numpy(), middle.double().numpy())
    assert below == pytest.approx(0.5, abs=1e-5)
    assert policy.greedy(outputs.numpy()) == pytest.approx(
        (low + (high - low) * alpha / (alpha + beta)).numpy(), abs=1e-5
    )
    # The outermost numbers stay inside the bounds, where the density is not 0.
    ends = policy.sample(outputs.numpy(), np.array([[0.0, 1.0]] * 5))
    assert (ends > policy.low - 1e-6).all() and (ends < policy.high + 1e-6).all()
    assert torch.isfinite(policy.log_probs(outputs, torch.from_numpy(ends))).all()
    assert "log_std" not in dict(policy.named_parameters())
    assert set(policy.state_dict()) == set(dict(policy.named_parameters()))  # bounds are arguments, and no weights


def test_networks_begin_as_they_should():
    torch.manual_seed(0)
    model = ActorCritic([8], 4, hidden=(64, 64))
    observations = torch.randn(100, 8)
    outputs, values = model(observations)
    assert torch.equal(outputs, model.policy(observations))
    assert torch.equal(values, model.value(observations))
    assert outputs.softmax(-1).sub(0.25).abs().max() < 0.02  # a policy that prefers nothing yet
    first = model.actor[0].weight
    assert torch.allclose(first.T @ first, 2 * torch.eye(8), atol=1e-5)  # orthogonal, gain sqrt 2
    assert model.actor[-1].weight.norm(dim=1).tolist() == pytest.approx([0.01] * 4)
    assert model.critic[-1].weight.norm().item() == pytest.approx(1.0)


def test_a_dueling_network_is_value_plus_centred_advantages():
    torch.manual_seed(0)
    model = QNetwork([3], 2, hidden=(8,), dueling=True)
    model.layers[-1].weight.data.zero_()
    model.layers[-1].bias.data = torch.tensor([5.0, 1.0, 4.0])  # V, A of either action
    assert model(torch.zeros(1, 3)).tolist() == [[3.5, 6.5]]


def test_frames_go_through_every_network():
    frames = torch.randint(0, 256, (2, 4, 64, 64), dtype=torch.uint8)
    outputs, values = ActorCritic([4, 64, 64], 5, hidden=(16,))(frames)
    assert (outputs.shape, values.shape) == ((2, 5), (2,))
    assert QNetwork([4, 64, 64], 5, hidden=(16,), dueling=True)(frames).shape == (2, 5)


@pytest.mark.parametrize(
    "network",
    [
        lambda: Policy([4], 3, hidden=(8,), activation="relu"),
        lambda: ActorCritic([4], 2, low=[-1.0, -1.0], high=[1.0, 1.0]),
        lambda: BetaActorCritic([4], 2, low=[-1.0, -1.0], high=[1.0, 1.0]),
        lambda: ActorCritic([4, 64, 64], 5, hidden=(16,)),
        lambda: QNetwork([4], 3, hidden=(16, 8)),
        lambda: QNetwork([4], 3, dueling=True),
    ],
    ids=["policy", "continuous", "beta", "frames", "values", "dueling"],
)
def test_a_network_acts_by_what_it_says(network):
    torch.manual_seed(0)
    model = network()
    optimizer = FlatAdam(model, lr=0.1)
    outputs = acting(model)
    shape = model.arguments["shape"]
    observations = torch.randint(0, 256, (2, *shape), dtype=torch.uint8) if len(shape) == 3 else torch.randn(7, *shape)
    for _ in range(2):  # also after its weights moved
        with torch.no_grad():
            expected = model(observations) if isinstance(model, QNetwork) else model.policy(observations)
        found = outputs(observations.numpy())
        assert found.dtype == np.float32
        assert found == pytest.approx(expected.numpy(), abs=1e-5)
        before = expected
        optimizer.vector.grad.fill_(1.0)
        optimizer.step()
    assert not torch.allclose(before, torch.from_numpy(outputs(observations.numpy())))
    assert len(model.greedy(found)) == len(observations)


@pytest.mark.parametrize("network", [lambda: ActorCritic([4], 2), lambda: ActorCritic([3], 1, low=[-1.0], high=[1.0])])
def test_flat_adam_is_adam(network):
    torch.manual_seed(0)
    ours = network()
    theirs = copy.deepcopy(ours)
    flat = FlatAdam(ours, lr=0.01)
    plain = torch.optim.Adam(theirs.parameters(), lr=0.01, eps=1e-5, fused=True)
    for _ in range(5):
        observations = torch.randn(16, ours.arguments["shape"][0])
        for model, optimizer in ((ours, flat), (theirs, plain)):
            outputs, values = model(observations)
            optimizer.zero_grad()
            (outputs.square().mean() + (values - 3).square().mean()).backward()
        flat.clip(0.5)
        assert torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.5) > 0.5  # before
        assert flat.vector.grad.norm().item() == pytest.approx(0.5, abs=1e-4)
        flat.step(), plain.step()
    for mine, their in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(mine, their, atol=1e-6)
    saved = copy.deepcopy(ours.state_dict())
    ours.load_state_dict({name: torch.zeros_like(value) for name, value in saved.items()})
    vector = flat.vector
    assert vector.abs().sum() == 0  # loaded into the vector, not beside it


# What is counted, and on what.


def ppo(folder, **changes):
    flags = {"num_envs": 2, "rollout": 16, "batch_size": 8, "update_epochs": 3, "evaluation_episodes": 2}
    return set_up(train_ppo.Config(model_dir=folder, **flags | changes))


def dqn(folder, **changes):
    flags = {"hidden": (16,), "train_every": 4, "gradient_steps": 2, "batch_size": 8, "evaluation_episodes": 2}
    return set_up(train_dqn.Config(model_dir=folder, **flags | changes))


def test_ppo_counts_its_updates(tmp_path):
    # Pendulum-v1 never terminates and its episodes have 200 steps: 6 rollouts of 32 rows end before the first reset.
    trainer = ppo(tmp_path, env="Pendulum-v1", steps=192)
    trainer.train()
    assert trainer.env_steps == 192
    assert trainer.step == 6 * 3 * 4
    (state,) = trainer.optimizer.adam.state.values()
    assert state["step"] == 72


def test_too_few_steps_to_learn_from_are_said(tmp_path, capsys):
    ppo(tmp_path, steps=31).train()
    assert "one rollout, the least to learn from, has 32 steps, not 31" in capsys.readouterr().out
    ppo(tmp_path, steps=32).train()
    dqn(tmp_path, steps=51, learning_starts=50).train()
    out = capsys.readouterr().out
    assert "the least to learn from" not in out
    assert "nothing is learned" not in out
    dqn(tmp_path, steps=50, learning_starts=50).train()
    assert "nothing is learned before step 50 (--learning-starts)" in capsys.readouterr().out


def test_ppo_leaves_out_the_rows_in_which_an_environment_only_resets(tmp_path):
    trainer = ppo(tmp_path, steps=4_000, rollout=64, evaluations=1)
    trainer.open()
    trainer.begin()
    rows = 0
    for _ in range(3):
        rollout = trainer.estimate(trainer.collect())
        rows += len(rollout[0])
    assert trainer.curve  # episodes did end
    assert rows == trainer.env_steps == 3 * 64 * 2 - len(trainer.curve) + trainer.ended.sum()


def test_ppo_learns_from_scaled_rewards_and_reports_the_environments(tmp_path):
    found = {}
    for scale in (1.0, 0.25):
        trainer = ppo(tmp_path / str(scale), steps=4_000, rollout=64, evaluations=1, reward_scale=scale, gae_lambda=1.0)
        torch.nn.init.zeros_(trainer.model.critic[-1].weight)  # values of 0: advantages are sums of rewards alone
        trainer.open()
        trainer.begin()
        found[scale] = trainer.estimate(trainer.collect()), trainer.curve
    (whole, curve), (scaled, same) = found[1.0], found[0.25]
    assert curve == same and curve
    for place in (3, 4):  # advantages and returns
        torch.testing.assert_close(scaled[place], 0.25 * whole[place])
    assert torch.equal(whole[1], scaled[1])


def test_before_the_first_update_the_policy_is_the_one_that_collected_also_in_bf16(tmp_path):
    trainer = ppo(tmp_path, precision="bf16")
    trainer.open()
    trainer.begin()
    rollout = trainer.estimate(trainer.collect())
    with trainer.autocast:
        outputs, _ = trainer.forward(rollout[0])
    assert torch.equal(trainer.model.log_probs(outputs.float(), rollout[1]), rollout[2])
    assert trainer.compare(rollout)["approx_kl"] == 0


def test_dqn_waits_for_the_first_transition(tmp_path):
    """Returns of many steps may be incomplete when learning is to start, as after a resume."""
    trainer = dqn(tmp_path, steps=40, learning_starts=20, n_step=20, num_envs=1)
    trainer.config.learning_starts = 2
    trainer.train()
    assert trainer.step > 0


def test_ppo_uses_every_row_once_an_epoch(tmp_path):
    trainer = ppo(tmp_path)
    rows = torch.arange(37)
    batches = [batch for _ in range(3) for (batch,) in trainer.minibatches((rows,))]
    assert [len(batch) for batch in batches] == [8, 8, 7, 7, 7] * 3
    epochs = torch.cat(batches).view(3, 37)
    assert all(torch.equal(epoch.sort().values, rows) for epoch in epochs)
    assert not torch.equal(epochs[0], epochs[1])


def test_ppo_stops_at_the_kl_divergence_asked_for(tmp_path):
    trainer = ppo(tmp_path, steps=32, target_kl=1e-9, learning_rate=0.1)
    trainer.train()
    assert trainer.step == 4  # the first of three epochs


def test_reinforce_takes_one_step_an_update(tmp_path):
    config = train_reinforce.Config(model_dir=tmp_path, episodes=8, num_envs=2, evaluation_episodes=2)
    trainer = set_up(config)
    trainer.train()
    assert (trainer.step, len(trainer.curve)) == (4, 8)
    assert trainer.env_steps == sum(value for _, value in trainer.curve)  # CartPole pays 1 a step


def test_dqn_counts_updates_and_targets_on_the_environments_steps(tmp_path, monkeypatch):
    copies = []
    update_target = DQNTrainer.update_target
    monkeypatch.setattr(DQNTrainer, "update_target", lambda self: (copies.append(self.env_steps), update_target(self)))
    trainer = dqn(tmp_path, steps=400, learning_starts=100, target_every=50, n_step=1)
    trainer.train()
    assert trainer.env_steps == 400
    assert trainer.step == 2 * len(range(100, 401, 4))
    assert copies == list(range(50, 401, 50))
    assert all(map(torch.equal, trainer.target.state_dict().values(), trainer.model.state_dict().values()))
    assert trainer.buffer.size == 400  # not one reset among them


def test_dqn_learns_as_often_from_many_copies_at_once(tmp_path):
    # No episode of Acrobot-v1 ends within its first 50 steps here, so that every row is a step.
    flags = {"num_envs": 8, "train_every": 2, "gradient_steps": 1, "steps": 400, "learning_starts": 96}
    trainer = dqn(tmp_path, env="Acrobot-v1", **flags)
    trainer.train()
    assert trainer.env_steps == 400
    assert trainer.step == len(range(90, 401, 2))  # the step that reaches 96 passes 90, 92, 94 and 96


def test_epsilon_and_the_learning_rate_follow_the_environments_steps(tmp_path):
    trainer = dqn(tmp_path, steps=1000, exploration=0.5, final_epsilon=0.1, learning_rate=0.01, anneal="linear")
    expected = {0: (1.0, 0.01), 250: (0.55, 0.0075), 500: (0.1, 0.005), 900: (0.1, 0.001), 1000: (0.1, 0.0)}
    for trainer.env_steps, (epsilon, rate) in expected.items():
        trainer.step = 7  # the optimiser's steps do not matter
        assert trainer.epsilon() == pytest.approx(epsilon)
        assert trainer.learning_rate(trainer.step) == pytest.approx(rate)


def test_ppos_learning_rate_and_clip_fall_to_the_last_rollout_not_past_it(tmp_path):
    trainer = ppo(
        tmp_path, env="Pendulum-v1", steps=128, learning_rate=0.01, clip=0.2, anneal="linear", anneal_clip="linear"
    )
    seen = []
    step = trainer.train_step
    trainer.train_step = lambda batch: (seen.append((trainer.learning_rate(0), trainer.clip())), step(batch))[1]
    trainer.train()
    assert seen[::12] == [pytest.approx((0.01 * share, 0.2 * share)) for share in (1.0, 0.75, 0.5, 0.25)]


@pytest.mark.parametrize(("double", "next_q"), [(False, 30.0), (True, 10.0)])
def test_dqns_loss_by_hand(tmp_path, double, next_q):
    trainer = dqn(tmp_path, double=double)
    trainer.model.layers[-1].weight.data.zero_()
    trainer.model.layers[-1].bias.data = torch.tensor([2.0, 1.0])
    batch = (
        *(torch.zeros(2, 4), torch.zeros(2, 4)),  # observations, next observations
        torch.tensor([1, 0]),
        torch.tensor([3.0, 2.5]),
        torch.tensor([0.5, 0.5]),
        torch.tensor([F, T]),
        torch.tensor([[10.0, 30.0], [10.0, 30.0]]),  # the target network's values of the next observations
    )
    # Errors: 1 - (3 + next_q / 2), beyond 1, so the Huber loss is |error| - 0.5;  2 - 2.5, so it is 0.5 ** 2 / 2.
    loss, metrics = trainer.loss(batch)
    assert loss.item() == pytest.approx(((2 + next_q / 2 - 0.5) + 0.125) / 2)
    assert metrics["q"].item() == 1.5


def test_dqn_learns_from_batches_of_the_memory_with_the_target_networks_values(tmp_path):
    trainer = dqn(tmp_path, gradient_steps=3, batch_size=5, steps=50, learning_starts=100)
    trainer.train()
    trainer.model.layers[-1].bias.data += 1  # so that it is not its target network any more
    batches = list(trainer.batches())
    assert len(batches) == 3
    memory = torch.cat([trainer.buffer.observations, trainer.buffer.next_observations], 1)[: trainer.buffer.size]
    for observations, next_observations, actions, rewards, discounts, terminated, next_q in batches:
        assert [len(part) for part in (actions, rewards, discounts, terminated)] == [5] * 4
        rows = torch.cat([observations, next_observations], 1)
        assert all((memory == row).all(1).any() for row in rows)  # each a transition that was seen
        assert not next_q.requires_grad
        with torch.no_grad():
            assert torch.allclose(next_q, trainer.target(next_observations), atol=1e-6)
            assert not torch.allclose(next_q, trainer.model(next_observations))
    assert not torch.equal(batches[0][0], batches[1][0])


@pytest.mark.parametrize(
    ("baseline", "weights"), [("none", [1.0, 2.0, 6.0]), ("standardise", [-0.92582, -0.46291, 1.38873])]
)
def test_reinforces_loss_by_hand(tmp_path, baseline, weights):
    trainer = set_up(train_reinforce.Config(model_dir=tmp_path, baseline=baseline))
    trainer.model.actor[-1].weight.data.zero_()
    trainer.model.actor[-1].bias.data = torch.tensor([0.0, math.log(3.0)])  # probabilities 1/4 and 3/4
    batch = (torch.zeros(3, 4), torch.tensor([0, 1, 1]), torch.tensor([1.0, 2.0, 6.0]))
    loss, metrics = trainer.loss(batch)
    logs = [math.log(1 / 4), math.log(3 / 4), math.log(3 / 4)]
    assert loss.item() == pytest.approx(-sum(log * weight for log, weight in zip(logs, weights, strict=True)) / 3)
    assert metrics["entropy"].item() == pytest.approx(-(math.log(1 / 4) / 4 + math.log(3 / 4) * 3 / 4))


@pytest.mark.parametrize(
    ("baseline", "weights"), [("value-raw", [-1.0, 0.0, 4.0]), ("value", [-0.92582, -0.46291, 1.38873])]
)
def test_reinforces_loss_with_a_learned_value_by_hand(tmp_path, baseline, weights):
    trainer = set_up(train_reinforce.Config(model_dir=tmp_path, baseline=baseline))
    for network, bias in ((trainer.model.actor, [0.0, math.log(3.0)]), (trainer.model.critic, [2.0])):
        network[-1].weight.data.zero_()
        network[-1].bias.data = torch.tensor(bias)
    batch = (torch.zeros(3, 4), torch.tensor([0, 1, 1]), torch.tensor([1.0, 2.0, 6.0]))
    loss, metrics = trainer.loss(batch)
    logs = [math.log(1 / 4), math.log(3 / 4), math.log(3 / 4)]
    policy_loss = -sum(log * weight for log, weight in zip(logs, weights, strict=True)) / 3
    assert metrics["policy_loss"].item() == pytest.approx(policy_loss, abs=1e-4)
    assert metrics["value_loss"].item() == pytest.approx((1 + 0 + 16) / 3)
    assert loss.item() == pytest.approx(policy_loss + 0.5 * 17 / 3, abs=1e-4)


def test_without_a_value_gradients_are_clipped_all_together_to_the_bit(tmp_path):
    clipped = []
    for clip in ("clip_gradients", "clip"):
        trainer = set_up(train_reinforce.Config(model_dir=tmp_path, baseline="none"))
        vector = trainer.optimizer.vector
        vector.grad.copy_(torch.randn(vector.shape, generator=torch.Generator().manual_seed(0)))
        (trainer.clip_gradients if clip == "clip_gradients" else trainer.optimizer.clip)(0.5)
        clipped.append(vector.grad.clone())
    assert torch.equal(*clipped)
    assert clipped[0].norm() == pytest.approx(0.5, rel=1e-5)


def test_a_large_error_of_the_value_leaves_the_policys_step_as_it_is(tmp_path):
    """As policy and value share nothing here, however wrong the value is, the policy learns alike."""
    gradients = []
    for scale in (1.0, 1000.0):
        trainer = set_up(train_reinforce.Config(model_dir=tmp_path, baseline="value", max_gradient_norm=0.01))
        generator = torch.Generator().manual_seed(0)
        observations, returns = torch.randn(64, 4, generator=generator), torch.randn(64, generator=generator)
        returns = trainer.model.value(observations).detach() + scale * returns  # the same once standardised
        loss, _ = trainer.loss((observations, torch.arange(64) % 2, returns))
        trainer.optimizer.zero_grad()
        loss.backward()
        trainer.clip_gradients(trainer.max_gradient_norm)
        parts = [
            torch.cat([each.grad.flatten() for each in part.parameters()])
            for part in (trainer.model.actor, trainer.model.critic)
        ]
        assert parts[1].norm().item() == pytest.approx(0.01, rel=1e-3)
        gradients.append(parts[0])
    assert torch.allclose(*gradients, rtol=1e-3, atol=1e-7)
    assert gradients[0].norm() == pytest.approx(0.01, rel=1e-3)
