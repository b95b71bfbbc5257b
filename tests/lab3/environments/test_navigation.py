"""NavigationGoal-v0: what it sees and rewards, by hand; that every layout has a way; its flaw, and that it is gone."""

import heapq
import importlib
import math
import subprocess
import sys

import cv2
import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from lab3 import train_ppo
from lab3.algorithms.start import set_up
from lab3.environments import navigation, vector
from lab3.environments.navigation import DIAGONAL, FORWARD, HEADINGS, LEFT, RIGHT, NavigationGoal, cast_rays, free_cells


def placed(position, heading, goal, obstacles=(), **arguments) -> NavigationGoal:
    """An environment with this layout."""
    env = NavigationGoal(**arguments)
    env.reset(seed=0)
    env.place(position, heading, goal, obstacles)
    return env


def play(env: NavigationGoal, actions) -> tuple[list[float], str | None]:
    """The rewards of these actions, until the episode is over, and its outcome."""
    rewards = []
    for action in actions:
        _, reward, terminated, truncated, info = env.step(action)
        assert not truncated
        assert terminated == ("outcome" in info)
        rewards.append(reward)
        if terminated:
            return rewards, info["outcome"]
    return rewards, None


def discounted(rewards, gamma: float) -> float:
    return sum(gamma**time * reward for time, reward in enumerate(rewards))


def drive_to_goal(env: NavigationGoal):
    """A policy for rooms without obstacles: turn until the goal is ahead, then drive."""
    while True:
        half_a_turn = math.pi / HEADINGS
        yield LEFT if env.direction > half_a_turn else RIGHT if env.direction < -half_a_turn else FORWARD


def circle(env: NavigationGoal):
    """A policy that drives round and round."""
    while True:
        yield FORWARD
        yield LEFT


def shortest_way(env: NavigationGoal) -> list[int]:
    """Actions to the goal along the grid of free cells, facing 0, 90, 180 or 270 degrees (Dijkstra 1959)."""
    cells, _ = free_cells(env.obstacles)
    free = {tuple(cell) for cell in np.round(cells / navigation.STEP - 0.5).astype(int)}
    to_axis = (-env.heading) % 6  # left turns until the agent faces along an axis
    start = tuple(np.round(env.position / navigation.STEP - 0.5).astype(int))
    first = (*start, (env.heading + to_axis) // 6 % 4)
    queue, best, came_from = [(0, first)], {first: 0}, {}
    while queue:
        cost, (x, y, side) = heapq.heappop(queue)
        middle = (np.array([x, y]) + 0.5) * navigation.STEP
        if np.hypot(*(middle - env.goal)) <= navigation.GOAL_RADIUS:
            actions, state = [], (x, y, side)
            while state != first:
                state, taken = came_from[state]
                actions = taken + actions
            return [LEFT] * to_axis + actions
        dx, dy = ((1, 0), (0, 1), (-1, 0), (0, -1))[side]
        moves = [((x, y, (side + 1) % 4), [LEFT] * 6), ((x, y, (side - 1) % 4), [RIGHT] * 6)]
        moves += [((x + dx, y + dy, side), [FORWARD])] if (x + dx, y + dy) in free else []
        for state, taken in moves:
            if cost + len(taken) < best.get(state, math.inf):
                best[state] = cost + len(taken)
                came_from[state] = (x, y, side), taken
                heapq.heappush(queue, (best[state], state))
    raise AssertionError("no way to the goal")


def test_it_is_registered_once_and_gymnasium_finds_no_fault():
    importlib.reload(navigation)
    env = gymnasium.make("NavigationGoal-v0").unwrapped
    assert env.observation_space.shape == (18,)
    check_env(env, skip_render_check=True)
    code = "import lab3.environments.navigation, gymnasium; gymnasium.make('NavigationGoal-v0').reset(seed=1)"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_what_is_seen_by_hand():
    # At (5, 5), facing along x. An obstacle of radius 1 at (8, 5); to the agent of radius 0.2 it is one of radius 1.2.
    env = placed((5, 5), 0, (5, 9), [(8, 5, 1)])
    seen = env.observation()
    assert seen.dtype == np.float32
    assert seen[0] == pytest.approx((3 - 1.2) / 5)
    # 22.5 degrees to either side: 3 cos - sqrt(1.2^2 - (3 sin)^2)
    beside = 3 * math.cos(math.pi / 8) - math.sqrt(1.44 - (3 * math.sin(math.pi / 8)) ** 2)
    assert seen[1] == pytest.approx(beside / 5)
    assert seen[15] == pytest.approx(beside / 5)
    assert seen[2] == 1  # 45 degrees: 4.8 sqrt 2 = 6.8 m to the corner, more than 5
    assert seen[3] == 1  # 67.5 degrees: 4.8 / sin 67.5 = 5.2 m
    assert seen[[4, 8, 12]] == pytest.approx(4.8 / 5)  # left, behind, right: the walls
    assert seen[16] == pytest.approx(4 / DIAGONAL)
    assert seen[17] == pytest.approx(0.5)  # the goal is 90 degrees to the left

    env.step(RIGHT)  # now 105 degrees to the left
    assert env.observation()[17] == pytest.approx(105 / 180)
    for _ in range(2):
        env.step(LEFT)
    assert env.observation()[17] == pytest.approx(75 / 180)
    env.place((5, 5), 6, (5, 1))  # facing up, the goal behind
    assert abs(env.observation()[17]) == pytest.approx(1)
    assert env.observation()[0] == pytest.approx(4.8 / 5)


def test_rays_agree_with_walking_along_them():
    rng = np.random.default_rng(0)
    for _ in range(20):
        env = NavigationGoal()
        env.reset(seed=int(rng.integers(1000)))
        clearance = cast_rays(env.position, env.heading, env.obstacles)
        for ray in range(16):
            angle = 2 * np.pi * (env.heading / HEADINGS + ray / 16)
            walked = np.arange(0, 5, 0.002)
            points = env.position + walked[:, None] * [np.cos(angle), np.sin(angle)]
            gaps = np.hypot(*(points[:, None] - env.obstacles[:, :2]).transpose(2, 0, 1)) - env.obstacles[:, 2]
            touches = (gaps.min(1) < 0.2) | (points.min(1) < 0.2) | (points.max(1) > 9.8)
            expected = walked[touches.argmax()] if touches.any() else 5
            assert clearance[ray] == pytest.approx(expected, abs=0.004)


def test_rewards_and_ends_by_hand():
    # 1.1 m before the goal: after two steps 0.6 m are left, after three 0.35 m, which is there.
    env = placed((5, 5), 0, (6.1, 5), shaping="none")
    assert play(env, [FORWARD] * 9) == ([0, 0, 100], "goal")
    # 0.6 m before a wall, 0.4 m before touching it.
    env = placed((9.4, 5), 0, (2, 5), shaping="none")
    assert play(env, [LEFT, RIGHT, FORWARD, FORWARD]) == ([0, 0, 0, -100], "obstacle")
    assert env.position == pytest.approx([9.8, 5])
    env = placed((5, 5), 0, (9, 9), [(5.8, 5, 0.4)], shaping="none")
    assert play(env, [FORWARD]) == ([-100], "obstacle")
    env = placed((5, 5), 0, (9, 9), shaping="none", max_steps=3)
    assert play(env, [LEFT] * 9) == ([0, 0, -100], "time-out")
    # The goal counts in the last moment, and so does an obstacle.
    env = placed((5, 5), 0, (5.7, 5), shaping="none", max_steps=1)
    assert play(env, [FORWARD]) == ([100], "goal")

    def phi(distance):
        return 10 * (1 - distance / DIAGONAL)

    env = placed((5, 5), 0, (6.1, 5), gamma=0.9)
    expected = [0.9 * phi(0.85) - phi(1.1), 0.9 * phi(0.6) - phi(0.85), 100 - phi(0.6)]
    assert play(env, [FORWARD] * 3)[0] == pytest.approx(expected)
    env = placed((5, 5), 0, (6.1, 5), shaping="naive")
    assert play(env, [FORWARD, *[LEFT] * 12, FORWARD])[0] == pytest.approx([10 * 0.25 / DIAGONAL, *[0] * 13])


@pytest.mark.parametrize("arguments", [{"shaping": "some"}, {"render_mode": "ansi"}])
def test_what_is_refused(arguments):
    with pytest.raises(ValueError, match="is needed"):
        NavigationGoal(**arguments)


def test_every_layout_has_a_way_to_the_goal_within_the_time():
    env, starts = NavigationGoal(), []
    for seed in range(40):
        env.reset(seed=seed)
        starts.append(env.distance)
        rewards, outcome = play(env, shortest_way(env))
        assert outcome == "goal", seed
        assert len(rewards) <= env.max_steps
    assert min(starts) >= navigation.NEAREST_START


def test_layouts_without_a_way_are_drawn_again():
    # A wall of obstacles: the cells left and right of it belong to two parts.
    cells, parts = free_cells(np.array([[5, y, 0.4] for y in np.arange(0.25, 10, 0.5)]))
    assert len(set(parts[cells[:, 0] < 4])) == len(set(parts[cells[:, 0] > 6])) == 1
    assert parts[cells[:, 0] < 4][0] != parts[cells[:, 0] > 6][0]
    # With 40 obstacles start and goal often lie in different parts.
    env = NavigationGoal(obstacles=40, max_steps=1000)
    for seed in range(5):
        env.reset(seed=seed)
        assert play(env, shortest_way(env))[1] == "goal"
    with pytest.raises(RuntimeError, match=r"^300 obstacles leave no way"):
        NavigationGoal(obstacles=300).reset(seed=0)


def test_connected_parts_are_those_that_opencv_finds():
    """In a thousand layouts, from empty to crowded."""
    random = np.random.default_rng(0)
    several = 0
    for count in random.integers(0, 40, 1000):
        obstacles = np.concatenate([random.uniform(0, 10, (count, 2)), random.uniform(0.4, 1, (count, 1))], 1)
        cells, parts = free_cells(obstacles)
        grid = np.zeros((40, 40), np.uint8)
        rows, columns = (cells / 0.25 - 0.5).round().astype(int).T
        grid[rows, columns] = 1
        number, expected = cv2.connectedComponents(grid, connectivity=4)
        np.testing.assert_array_equal(parts, expected[rows, columns])
        several += number > 2
    assert several > 300


def test_the_same_seed_gives_the_same_episodes():
    def episodes(seed):
        env, actions = NavigationGoal(), np.random.default_rng(0).integers(0, 3, 300)
        seen = [env.reset(seed=seed)[0]]
        for action in actions:
            observation, _, terminated, _, _ = env.step(action)
            seen.append(env.reset()[0] if terminated else observation)
        return np.stack(seen)

    assert np.array_equal(episodes(3), episodes(3))
    assert not np.array_equal(episodes(3), episodes(4))


def test_a_policy_that_drives_to_the_goal_gets_there():
    env = NavigationGoal(obstacles=0)
    for seed in range(20):
        env.reset(seed=seed)
        phi = env.potential()
        rewards, outcome = play(env, drive_to_goal(env))
        assert outcome == "goal"
        assert discounted(rewards, 0.99) == pytest.approx(100 * 0.99 ** (len(rewards) - 1) - phi)


def farmed(shaping: str, steps: int) -> float:
    """Return of driving in circles for so many steps; 24 times a step and a turn is a round of 6 m."""
    env = placed((5, 5), 0, (9, 9), shaping=shaping, max_steps=10**6)
    rewards, outcome = play(env, (action for action, _ in zip(circle(env), range(steps), strict=False)))
    assert outcome is None
    return sum(rewards)


def test_naive_shaping_pays_for_driving_in_circles_and_potential_based_shaping_does_not():
    rounds = [farmed("naive", 48 * rounds) for rounds in (1, 2, 4, 200)]
    # Without bound: every round pays the same, about its diameter of 6 m / pi, and in the end more than the goal does.
    assert rounds[1:] == pytest.approx([2 * rounds[0], 4 * rounds[0], 200 * rounds[0]])
    assert rounds[0] == pytest.approx(10 * 6 / math.pi / DIAGONAL, rel=0.02)
    assert rounds[3] > 200
    # With a potential a round costs what being far from the goal costs, and never pays.
    costs = [farmed("potential", 48 * rounds) for rounds in (1, 2, 4)]
    assert 0 > costs[0] > costs[1] > costs[2]


def test_around_a_closed_loop_potential_based_shaping_adds_up_to_what_theory_says():
    # Forward, half a turn, back, half a turn: 26 steps to where it began, or 48 steps around.
    there_and_back = [FORWARD, *[LEFT] * 12, FORWARD, *[RIGHT] * 12]
    for loop in (there_and_back, [FORWARD, LEFT] * 24, [LEFT] * 24):
        env = placed((5, 5), 0, (9, 9), gamma=0.95)
        phi, observation = env.potential(), env.observation()
        rewards, _ = play(env, loop)
        assert env.observation() == pytest.approx(observation, abs=1e-6)
        # sum of gamma^t (gamma phi(s_t+1) - phi(s_t)) = gamma^n phi(s_n) - phi(s_0), and s_n is s_0
        assert discounted(rewards, 0.95) == pytest.approx((0.95 ** len(loop) - 1) * phi)


def test_potential_based_shaping_leaves_the_ranking_of_policies_and_naive_shaping_does_not():
    gamma, policies = 0.99, {"circle": circle, "to the goal": drive_to_goal}
    policies["straight on"] = lambda env: iter(lambda: FORWARD, None)
    policies["stand and turn"] = lambda env: iter(lambda: LEFT, None)

    def returns(shaping, max_steps, gamma_of_return):
        found = {}
        for name, policy in policies.items():
            env = placed((5, 5), 0, (8, 8), shaping=shaping, gamma=gamma, max_steps=max_steps)
            found[name] = discounted(play(env, policy(env))[0], gamma_of_return)
        return found

    plain, shaped = returns("none", 300, gamma), returns("potential", 300, gamma)
    phi = placed((5, 5), 0, (8, 8)).potential()
    for name in policies:
        assert shaped[name] == pytest.approx(plain[name] - phi)  # all of them lose the same
    assert len({round(value, 6) for value in plain.values()}) == 3  # circling and turning both end with the time
    assert sorted(plain, key=plain.get)[-1] == sorted(shaped, key=shaped.get)[-1] == "to the goal"
    farming = returns("naive", 10_000, 1.0)
    assert max(farming, key=farming.get) == "circle"
    honest = returns("potential", 10_000, 1.0)
    assert max(honest, key=honest.get) == "to the goal"


def test_the_picture():
    env = placed((2.5, 5), 0, (5, 7.5), [(7.5, 2.5, 1)], render_mode="rgb_array")
    picture = env.render()
    assert picture.shape == (320, 320, 3)
    assert picture.dtype == np.uint8
    # 32 pixels a metre, y upwards.
    assert picture[160, 78].tolist() == [31, 119, 180]
    assert picture[80, 160].tolist() == [44, 160, 44]
    assert picture[240, 240].tolist() == [120, 120, 120]
    assert picture[160, 70].tolist() != [31, 119, 180]
    env.place((2.2, 5), 0, (5, 7.5))
    assert env.render()[160, 70].tolist() == [31, 119, 180]
    assert env.render()[240, 240].tolist() == [255, 255, 255]


def test_a_window_shows_the_picture(monkeypatch):
    shown = []
    monkeypatch.setattr(cv2, "imshow", lambda name, image: shown.append(image))
    monkeypatch.setattr(cv2, "waitKey", lambda milliseconds: shown.append(milliseconds))
    monkeypatch.setattr(cv2, "destroyAllWindows", lambda: shown.append("closed"))
    env = NavigationGoal(render_mode="human")
    env.reset(seed=0)
    env.step(LEFT)
    env.close()
    assert [type(one) for one in shown] == [np.ndarray, int, np.ndarray, int, str]
    assert shown[1] == 50


def test_its_state_can_be_saved_in_the_middle_of_an_episode():
    envs = vector.make("NavigationGoal-v0", 2, seed=0)
    rng = np.random.default_rng(0)
    for _ in range(30):
        envs.step(rng.integers(0, 3, 2))
    saved = vector.state(envs)
    actions = rng.integers(0, 3, (300, 2))
    ours = [envs.step(pair)[0].copy() for pair in actions]
    others = vector.make("NavigationGoal-v0", 2, seed=1)
    assert vector.restore(others, saved) is True
    theirs = [others.step(pair)[0].copy() for pair in actions]
    assert np.array_equal(ours, theirs)


def test_another_discount_than_that_of_the_shaping_is_said(tmp_path, capsys):
    for gamma, said in ((0.99, ""), (0.9, "NavigationGoal-v0 shapes its rewards for a discount of 0.99, not of 0.9\n")):
        set_up(train_ppo.Config(env="NavigationGoal-v0", gamma=gamma, model_dir=tmp_path, num_envs=2))
        assert capsys.readouterr().err == said
