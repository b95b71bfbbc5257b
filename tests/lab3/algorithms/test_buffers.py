"""Buffers and environments: no row but true transitions, n-step returns by hand, state that survives."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers import GrayscaleObservation, ResizeObservation

from lab1.engine.config import UsageError
from lab3 import train_ppo
from lab3.algorithms.buffers import ReplayBuffer
from lab3.algorithms.start import set_up
from lab3.environments import vector
from lab3.environments.car import GiveUp, draw_what_is_near


class Counting(gymnasium.Env):
    """Observes (episode, step); an episode of episode + 2 steps, which terminate and are truncated in turn."""

    observation_space = gymnasium.spaces.Box(0, np.inf, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self):
        self.episode, self.at = 0, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.at = self.episode + 1, 0
        return np.array([self.episode, 0], np.float32), {}

    def step(self, action):
        self.at += 1
        over = self.at == self.episode + 2
        odd = self.episode % 2 == 1
        return np.array([self.episode, self.at], np.float32), float(self.at), over and odd, over and not odd, {}


gymnasium.register("Counting-v0", Counting, max_episode_steps=1000)


def add(buffer, env, at, reward, terminated=False, truncated=False, valid=True):
    row = [np.array([[env, at]], np.float32), np.array([at]), np.array([reward]), np.array([[env, at + 1]], np.float32)]
    buffer.add(*row, np.array([terminated]), np.array([truncated]), np.array([valid]))


def test_n_step_returns_by_hand():
    buffer = ReplayBuffer(10, 1, np.zeros((1, 2), np.float32), gamma=0.5, n_step=3)
    for at, reward in enumerate((8.0, 4.0, 2.0)):
        assert buffer.size == 0
        add(buffer, 0, at, reward)
    assert buffer.size == 1
    add(buffer, 0, 3, 16.0, terminated=True)
    add(buffer, 0, 99, 99.0, valid=False)  # the step that only resets
    add(buffer, 1, 0, 1.0)
    add(buffer, 1, 1, 6.0, truncated=True)
    assert buffer.size == 6
    # 8 + 4/2 + 2/4;  4 + 2/2 + 16/4;  2 + 16/2;  16;  then the second episode: 1 + 6/2;  6.
    assert buffer.rewards[:6].tolist() == [10.5, 9.0, 10.0, 16.0, 4.0, 6.0]
    assert buffer.discounts[:6].tolist() == [0.125, 0.125, 0.25, 0.5, 0.25, 0.5]
    assert buffer.terminated[:6].tolist() == [False, True, True, True, False, False]  # a truncation bootstraps
    assert buffer.observations[:6].tolist() == [[0, 0], [0, 1], [0, 2], [0, 3], [1, 0], [1, 1]]
    assert buffer.next_observations[:6].tolist() == [[0, 3], [0, 4], [0, 4], [0, 4], [1, 2], [1, 2]]
    assert buffer.actions[:6].tolist() == [0, 1, 2, 3, 0, 1]


def test_the_oldest_transitions_make_room_and_the_state_survives():
    def filled(count):
        buffer = ReplayBuffer(4, 1, np.zeros((1, 2), np.float32), gamma=0.9, n_step=2)
        for at in range(count):
            add(buffer, 0, at, at)
        return buffer

    buffer = filled(7)  # six complete transitions, of which the last four are there
    assert buffer.size == 4
    assert sorted(buffer.actions.tolist()) == [2, 3, 4, 5]
    for count in (3, 7):
        buffer, copy = filled(count), filled(0)
        copy.load_state_dict(buffer.state_dict())
        samples = []
        for each in (buffer, copy):
            add(each, 0, 50, 50.0)
            torch.manual_seed(1)
            samples.append(each.sample(64))
        assert all(map(torch.equal, *samples))
    with pytest.raises(ValueError, match="not one of 3"):
        ReplayBuffer(3, 1, np.zeros((1, 2), np.float32), gamma=0.9).load_state_dict(filled(7).state_dict())


def test_a_memory_that_is_just_full_goes_on_at_its_beginning():
    whole = ReplayBuffer(10, 1, np.zeros((1, 2), np.float32), 0.9, 1)
    step = np.zeros((1, 2), np.float32), np.array([0]), np.array([1.0])
    ends = np.array([False]), np.array([False]), np.array([True])
    for _ in range(4):
        whole.add(*step, step[0], *ends)
    exact = ReplayBuffer(4, 1, np.zeros((1, 2), np.float32), 0.9, 1)
    exact.load_state_dict(whole.state_dict())
    exact.add(*step, step[0], *ends)
    assert (exact.size, exact.next) == (4, 1)


def test_every_transition_is_a_true_one():
    envs = vector.make("Counting-v0", 3, seed=0)
    assert envs.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
    buffer = ReplayBuffer(1000, 3, envs.observation_space.sample(), gamma=1.0)
    observations, _ = envs.reset()
    ended = np.zeros(3, bool)
    for _ in range(60):
        before, valid = observations, ~ended
        observations, rewards, terminated, truncated, _ = envs.step(np.zeros(3, int))
        buffer.add(before, np.zeros(3, int), rewards, observations, terminated, truncated, valid)
        ended = terminated | truncated
    (episode, at), (next_episode, next_at) = (
        buffer.observations[: buffer.size].T,
        buffer.next_observations[: buffer.size].T,
    )
    assert torch.equal(episode, next_episode)
    assert torch.equal(next_at, at + 1)
    assert torch.equal(buffer.rewards[: buffer.size], next_at)
    last = next_at == episode + 2  # the final observation, not the next episode's first one
    assert torch.equal(buffer.terminated[: buffer.size], last & (episode % 2 == 1))
    assert (last & (episode % 2 == 0)).any()


def test_a_rollouts_rows_are_true_transitions(tmp_path):
    config = train_ppo.Config(env="Counting-v0", model_dir=tmp_path, num_envs=3, rollout=50, steps=1000)
    trainer = set_up(config)
    trainer.open()
    trainer.begin()
    for _ in range(2):
        buffer = trainer.collect()
        before, after = buffer.observations[:-1][buffer.valid], buffer.observations[1:][buffer.valid]
        assert torch.equal(before[:, 0], after[:, 0])
        assert torch.equal(before[:, 1] + 1, after[:, 1])
        assert torch.equal(buffer.rewards[buffer.valid], after[:, 1])
        resets = ~buffer.valid
        assert resets.any()
        assert (buffer.observations[1:][resets][:, 1] == 0).all()
        ended = buffer.terminated | buffer.truncated
        assert torch.equal(ended[:-1], resets[1:])


@pytest.mark.parametrize(
    ("env_id", "native"),
    [
        ("CartPole-v1", False),
        ("CartPole-v1", True),
        ("Acrobot-v1", False),
        ("MountainCar-v0", False),
        ("Pendulum-v1", False),
        ("NavigationGoal-v0", False),
    ],
)
def test_environments_that_are_plain_data_are_saved_whole(env_id, native):
    def play(envs, steps):
        found = []
        for step in range(steps):
            actions = np.stack([np.full(envs.single_action_space.shape, (step + i) % 2) for i in range(3)])
            observations, rewards, terminated, truncated, _ = envs.step(actions.astype(envs.action_space.dtype))
            found.append(np.concatenate([observations.ravel(), rewards, terminated, truncated]))
        return np.stack(found)

    first = vector.make(env_id, 3, seed=0, native=native)
    play(first, 30)
    saved = vector.state(first)
    assert saved["whole"]
    second = vector.make(env_id, 3, seed=9, native=native)
    assert vector.restore(second, saved)
    np.testing.assert_array_equal(play(first, 300), play(second, 300))  # over several resets and time limits


def test_an_environment_that_is_not_plain_data_begins_a_new_episode():
    first = vector.make("LunarLander-v3", 2, seed=0)
    first.reset()
    saved = vector.state(first)
    assert not saved["whole"]
    second = vector.make("LunarLander-v3", 2, seed=9)
    assert not vector.restore(second, saved)
    np.testing.assert_array_equal(first.reset()[0], second.reset()[0])


def test_seeds_of_runs_copies_and_purposes_all_differ():
    starts = [
        tuple(observation)
        for seed in range(3)
        for purpose in vector.PURPOSES
        for observation in vector.make("CartPole-v1", 4, seed, purpose).reset()[0]
    ]
    assert len(set(starts)) == 3 * len(vector.PURPOSES) * 4
    again = vector.make("CartPole-v1", 4, 2, vector.PURPOSES[-1])
    assert [tuple(observation) for observation in again.reset()[0]] == starts[-4:]
    samples = [vector.make("CartPole-v1", 16, 0, purpose).action_space.sample() for purpose in ("test", "play")]
    assert not np.array_equal(*samples)


def test_the_native_cartpole_is_the_same_environment():
    native, sync = (vector.make("CartPole-v1", 4, seed=0, native=native) for native in (True, False))
    native.reset(), sync.reset()
    native.state = np.stack([env.unwrapped.state for env in sync.envs], axis=1)
    ended = np.zeros(4, bool)
    rng = np.random.default_rng(0)
    while not ended.all():
        actions = rng.integers(0, 2, 4)
        ours, theirs = native.step(actions), sync.step(actions)
        for mine, their in zip(ours[:4], theirs[:4], strict=True):
            np.testing.assert_allclose(mine[~ended], their[~ended], rtol=1e-5, atol=1e-6)
        ended |= theirs[2]
    native.steps[:] = 499  # one step before the time limit
    native.state[:] = 0.0
    native.prev_done[:] = False
    _, rewards, terminated, truncated, _ = native.step(np.ones(4, int))
    assert (rewards.tolist(), terminated.any(), truncated.all()) == ([1.0] * 4, False, True)
    _, rewards, terminated, truncated, _ = native.step(np.ones(4, int))  # this one only resets
    assert (rewards.tolist(), terminated.any(), truncated.any()) == ([0.0] * 4, False, False)
    assert np.abs(native.state).max() <= 0.05


def test_observations_are_vectors_of_floats_or_stacked_frames():
    assert vector.make_single("FrozenLake-v1").reset()[0].shape == (16,)  # one-hot
    car = vector.make_single("CarRacing-v3")
    frames, _ = car.reset(seed=0)
    assert (frames.shape, frames.dtype) == ((4, 64, 64), np.uint8)
    later = car.step(3)[0]
    assert np.array_equal(later[:3], frames[1:])  # the oldest frame leaves
    assert car.action_space == gymnasium.spaces.Discrete(5)


def test_the_car_holds_each_action_and_only_the_last_frame_is_drawn(monkeypatch):
    held = vector.make_single("CarRacing-v3")
    plain = gymnasium.make("CarRacing-v3", continuous=False)  # whose every frame is drawn
    plain = GrayscaleObservation(ResizeObservation(plain, (64, 64)))
    held.reset(seed=3), plain.reset(seed=3)
    drawn = []
    render = type(held.unwrapped)._render
    monkeypatch.setattr(type(held.unwrapped), "_render", lambda car, mode: (drawn.append(car), render(car, mode))[1])
    actions = [3, 3, 1, 2, 0, 4] * 3
    for action in actions:
        seen, reward, *_ = held.step(action)
        steps = [plain.step(action) for _ in range(4)]
        assert np.array_equal(seen[-1], steps[-1][0])
        assert reward == pytest.approx(sum(step[1] for step in steps))
    assert drawn.count(held.unwrapped) == len(actions)
    for _ in range(250 - len(actions) - 1):
        assert held.step(0)[2:4] == (False, False)
    assert held.step(0)[3]  # 250 times 4 frames: the time limit of 1,000
    assert held.metadata["render_fps"] == plain.metadata["render_fps"] / 4
    short = vector.HeldAction(gymnasium.make("CarRacing-v3", 2, disable_env_checker=True, continuous=False), 4)
    short.reset(seed=3)
    observation, _, _, truncated, _ = short.step(3)  # ends in its second frame
    assert truncated and np.array_equal(observation, short.unwrapped._render("state_pixels"))


class Paid(gymnasium.Env):
    """Pays what it was told to, step by step, and never ends."""

    observation_space, action_space = gymnasium.spaces.Box(0, 1, (1,)), gymnasium.spaces.Discrete(2)

    def __init__(self, rewards):
        self.rewards = rewards

    def reset(self, **arguments):
        super().reset(**arguments)
        self.left = iter(self.rewards)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), next(self.left), False, False, {}


def test_an_episode_is_given_up_after_so_many_steps_in_a_row_without_a_reward():
    env = GiveUp(Paid([-1, 0, 2, -1, -1, 0, 5]), 3)
    for _ in range(2):  # a new episode begins to count anew
        env.reset()
        steps = [env.step(0) for _ in range(6)]
        assert [step[1] for step in steps] == [-1, 0, 2, -1, -1, 0]
        assert [step[2] for step in steps] == [False] * 5 + [True]
        env.reset()
        assert not any(env.step(0)[2] for _ in range(2))


def test_a_lost_car_ends_an_episode_in_training_alone():
    lengths, layers = {}, set()
    for purpose in ("train", "validation", "test"):
        envs = vector.make("CarRacing-v3", 1, 0, purpose)
        ends = (length for length in range(1, 60) if envs.step(np.array([0]))[2][0])  # it never starts
        lengths[purpose] = next(ends, None)
        layers.add(len(vector.state(envs)["layers"]))
        envs.close()
    assert vector.PATIENCE["CarRacing-v3"] <= lengths["train"] < 50  # it stands on the first pieces of road
    assert lengths["validation"] is lengths["test"] is None
    assert len(layers) == 1  # checkpoints from before there was such an end are still read


def test_what_lies_far_off_the_screen_is_left_out_and_the_image_is_the_same(monkeypatch):
    whole, near = (gymnasium.make("CarRacing-v3", disable_env_checker=True, continuous=False) for _ in range(2))
    looked_at = []
    draw = type(whole.unwrapped)._draw_colored_polygon

    def counted(car, *arguments, **options):
        looked_at.append(car)
        draw(car, *arguments, **options)

    monkeypatch.setattr(type(whole.unwrapped), "_draw_colored_polygon", counted)
    draw_what_is_near(near.unwrapped)
    for seed in (1, 2):  # the second track must not be drawn with the first one's places
        assert np.array_equal(whole.reset(seed=seed)[0], near.reset(seed=seed)[0])
        for place in range(0, len(whole.unwrapped.track), 40):  # all along the track, whatever its direction there
            _, angle, x, y = whole.unwrapped.track[place]
            for env in (whole, near):
                env.unwrapped.car.hull.position, env.unwrapped.car.hull.angle = (x, y), angle
                env.unwrapped.t += place / 40  # in the first second the view zooms in, and shows the whole track
            frames = [env.step(0)[0] for env in (whole, near)]
            assert np.array_equal(*frames)
            if place == 0:
                looked_at.clear()
    counts = [looked_at.count(env.unwrapped) for env in (whole, near)]
    assert counts[1] < counts[0] / 4


@pytest.mark.parametrize(
    ("env_id", "complaint"),
    [
        ("NoSuchThing-v0", "NoSuchThing"),
        ("CartPole", "did you mean CartPole-v1?"),
        ("CartPole-v99", "CartPole"),
        ("os:CartPole-v1", "without a module"),
    ],
)
def test_what_is_not_there_is_said_in_one_line(env_id, complaint):
    with pytest.raises(UsageError) as error:
        vector.make(env_id, 2, seed=0)
    assert complaint in str(error.value)
    assert len(str(error.value).splitlines()) == 1
