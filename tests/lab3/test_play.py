"""Playing: returns and their summary by hand, films frame by frame, what is refused."""

import json
import math

import gymnasium
import numpy as np
import pytest
import torch
from PIL import Image

from lab1.engine import checkpoint
from lab1.engine.config import UsageError
from lab1.engine.launch import parse
from lab3 import play, train_dqn, train_ppo
from lab3.environments import film, vector


class Counting(gymnasium.Env):
    """Episodes of 3, 4, 5, ... steps; step k is rewarded with k and shows a picture that is k bright."""

    observation_space = gymnasium.spaces.Box(0, 9, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self):
        self.episode, self.seeds = 2, []

    def reset(self, *, seed=None, options=None):
        self.seeds.append(seed)
        self.episode, self.time = self.episode + 1, 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.time += 1
        over = self.time == self.episode
        info = {"outcome": "goal" if self.episode == 3 else "obstacle"} if over else {}
        return np.zeros(1, np.float32), self.time, over and action == 0, over and action == 1, info

    def render(self):
        return np.full((30, 40, 3), self.time, np.uint8)


class Strip:
    """Takes down which pictures it is given."""

    def __init__(self):
        self.pictures = []

    def add(self, picture):
        self.pictures.append(int(picture[0, 0, 0]))


def run(*arguments) -> list[dict]:
    return play.main(parse(play.Config, [str(argument) for argument in arguments], ""))


@pytest.mark.parametrize("action", [0, 1])  # episodes end by termination, and by truncation
def test_returns_lengths_pictures_and_seeds_by_hand(action, capsys):
    env, strip = Counting(), Strip()
    played = play.play(env, lambda observation: action, 7, 3, strip)
    assert [episode["return"] for episode in played] == [6, 10, 15]
    assert [episode["length"] for episode in played] == [3, 4, 5]
    assert [episode["outcome"] for episode in played] == ["goal", "obstacle", "obstacle"]
    assert strip.pictures == [0, 1, 2, 3, 0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5]
    assert env.seeds == [7, None, None]
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "episode   2  return     10.00  4 steps  obstacle"
    # mean 31 / 3, variance (13^2 + 1 + 14^2) / 9 / 2
    assert play.summary(played) == "return 10.33 ± 4.51 over 3 episodes, obstacle 67%, goal 33%"
    assert play.summary(played[:1]) == "return 6.00 over 1 episode, goal 100%"


def test_a_film_holds_five_episodes_and_a_limit_cuts_them():
    strip = Strip()
    played = play.play(Counting(), lambda observation: 0, 0, 7, strip, max_steps=2)
    assert [episode["return"] for episode in played] == [3] * 7
    assert strip.pictures == [0, 1, 2] * 5


def test_a_gif_frame_by_frame(tmp_path):
    # 50 pictures a second: every second one, from the first on, 40 ms each.
    with film.open_film(tmp_path / "a.gif", 50) as strip:
        for brightness in range(0, 250, 10):
            strip.add(np.full((200, 640, 3), brightness, np.uint8))
    with Image.open(tmp_path / "a.gif") as shown:
        assert shown.size == (320, 100)
        assert shown.n_frames == 13
        assert shown.info["loop"] == 0
        for frame, brightness in enumerate(range(0, 250, 20)):
            shown.seek(frame)
            assert shown.info["duration"] == 40
            assert shown.convert("RGB").getpixel((5, 5)) == pytest.approx((brightness,) * 3, abs=2)
    assert [path.name for path in tmp_path.iterdir()] == ["a.gif"]


def test_an_mp4_frame_by_frame(tmp_path):
    import cv2

    with film.open_film(tmp_path / "a.mp4", 30) as strip:
        for brightness in range(0, 250, 50):
            picture = np.full((96, 128, 3), brightness, np.uint8)
            picture[:, :, 0] = 200  # red
            strip.add(picture)
    video = cv2.VideoCapture(str(tmp_path / "a.mp4"))
    assert int(video.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little") == b"VP90"  # which browsers play
    assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(30)
    for brightness in range(0, 250, 50):
        there, picture = video.read()
        assert there
        assert picture.shape == (96, 128, 3)
        assert picture[48, 64] == pytest.approx([brightness, brightness, 200], abs=12)
    assert not video.read()[0]


def test_an_mp4_where_opencv_cannot_write_vp9(tmp_path, monkeypatch):
    import cv2

    writer, known = cv2.VideoWriter, [cv2.VideoWriter_fourcc(*"mp4v")]
    monkeypatch.setattr(cv2, "VideoWriter", lambda *given: writer(*given) if given[1] in known else writer())
    picture = np.zeros((96, 128, 3), np.uint8)
    with film.open_film(tmp_path / "a.mp4", 30) as strip:
        strip.add(picture)
    video = cv2.VideoCapture(str(tmp_path / "a.mp4"))
    assert int(video.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little") == b"FMP4"
    known.clear()
    with (
        pytest.raises(UsageError, match=r"this build of OpenCV cannot write MP4 files; use --output FILE\.gif"),
        film.open_film(tmp_path / "b.mp4", 30) as strip,
    ):
        strip.add(picture)
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize("name", ["a.gif", "a.mp4"])
def test_a_film_that_was_not_finished_leaves_nothing(tmp_path, name):
    with pytest.raises(KeyboardInterrupt), film.open_film(tmp_path / name, 30) as strip:
        strip.add(np.zeros((96, 128, 3), np.uint8))
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with two runs of a few steps: ppo-CartPole-v1 and dqn-NavigationGoal-v0."""
    folder = tmp_path_factory.mktemp("model")
    flags = ["--dry-run", "--device", "cpu", "--model-dir", str(folder)]
    train_ppo.main(parse(train_ppo.Config, [*flags, "--name", "ppo"], ""))
    train_dqn.main(parse(train_dqn.Config, [*flags, "--env", "NavigationGoal-v0", "--name", "dqn"], ""))
    return folder


def test_a_run_plays_greedily_and_the_same_every_time(runs, tmp_path, capsys):
    flags = ("--device", "cpu", "--model-dir", runs, "--episodes", 3)
    first = run("--run", "ppo", *flags)
    assert run("--run", runs / "ppo", *flags, "--output", tmp_path / "a.gif") == first  # filming changes nothing
    assert run("--run", "ppo", *flags, "--seed", 1) != first
    assert all(episode["return"] == episode["length"] for episode in first)  # as CartPole rewards
    assert "ppo plays CartPole-v1" in capsys.readouterr().out
    with Image.open(tmp_path / "a.gif") as shown:
        shown_for = 0
        for frame in range(shown.n_frames):  # pictures that look the same are one that is shown for longer
            shown.seek(frame)
            shown_for += shown.info["duration"]
        assert shown_for == 40 * math.ceil(sum(episode["length"] + 1 for episode in first) / 2)
    assert all(episode["outcome"] in ("goal", "obstacle", "time-out") for episode in run("--run", "dqn", *flags))


def test_what_the_episodes_come_to_is_written_down(runs, tmp_path):
    flags = ("--device", "cpu", "--model-dir", runs, "--run", "ppo", "--episodes", 3)
    played = run(*flags, "--actions", "sampled", "--output", tmp_path / "played.json")
    returns = [episode["return"] for episode in played]
    written = json.loads((tmp_path / "played.json").read_text(encoding="utf-8"))
    assert {"python", "torch", "device", "threads"} <= set(written.pop("environment"))
    assert written == {
        **{"script": "lab3/play.py", "run": "ppo", "env": "CartPole-v1", "actions": "sampled", "seed": 0},
        **{"episodes": 3, "return": pytest.approx(np.mean(returns)), "outcomes": {}},
        "return_sd": pytest.approx(np.std(returns, ddof=1)),
    }
    run("--random", "--env", "NavigationGoal-v0", "--episodes", 1, "--output", tmp_path / "random.json")
    written = json.loads((tmp_path / "random.json").read_text(encoding="utf-8"))
    assert (written["run"], written["actions"], written["return_sd"]) == (None, "random", None)
    assert sum(written["outcomes"].values()) == 1


def test_a_run_plays_by_drawn_actions_where_its_evaluations_did_or_where_asked_to(runs, tmp_path):
    flags = ("--device", "cpu", "--model-dir", runs, "--episodes", 3)
    greedy, sampled = (run("--run", "ppo", *flags, "--actions", actions) for actions in ("greedy", "sampled"))
    assert run("--run", "ppo", *flags) == greedy != sampled == run("--run", "ppo", *flags, "--actions", "sampled")
    best = torch.load(runs / "ppo" / "best.pt", weights_only=True)
    checkpoint.save(best | {"about": best["about"] | {"actions": "sampled"}}, tmp_path / "best.pt")
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    assert run("--run", tmp_path, *flags) == sampled
    with pytest.raises(UsageError, match="--actions sampled: action values are no policy"):
        run("--run", "dqn", *flags, "--actions", "sampled")


def test_the_random_agent_is_seeded_and_takes_every_action(monkeypatch):
    flags = ("--random", "--env", "NavigationGoal-v0", "--episodes", 2)
    assert run(*flags) == run(*flags)
    assert run(*flags) != run(*flags, "--seed", 1)
    taken = set()
    make_single = vector.make_single

    def watched(*arguments):
        env = make_single(*arguments)
        step = env.step
        env.step = lambda action: taken.add(int(action)) or step(action)
        return env

    monkeypatch.setattr(vector, "make_single", watched)
    run(*flags)
    assert taken == {0, 1, 2}


def test_in_a_window(monkeypatch):
    pytest.importorskip("pygame")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.setenv("DISPLAY", ":0")
    (episode,) = run("--random", "--dry-run", "--render", "human")
    assert 0 < episode["length"] <= 50


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ([], "either --run RUN is needed or --random"),
        (["--run", "x", "--random"], "either --run RUN is needed or --random"),
        (["--run", "x", "--env", "CartPole-v1"], "--env CartPole-v1: a run plays in its own"),
        (["--run", "nowhere"], "no run 'nowhere'"),
        (["--run", "compare-CartPole-v1"], "compare-CartPole-v1 is of several runs, and keeps the weights of none"),
        (["--random", "--env", "Chess-v0"], "--env Chess-v0"),
        (["--random", "--episodes", "0"], "--episodes 0: at least 1 is needed"),
        (["--random", "--output", "a.avi"], "--output a.avi: a name that ends in .gif, .mp4 or .json"),
        (["--random", "--output", "nowhere/a.gif"], "--output nowhere/a.gif: there is no folder nowhere"),
        (["--random", "--output", "there.gif"], "--output there.gif: it is there already"),
        (["--random", "--output", "a.gif", "--render", "human"], "--output and --render human: one of them"),
        (["--random", "--actions", "greedy"], "--actions: the random agent has no policy"),
        (["--random", "--render", "ansi"], "--render ansi: use human"),
    ],
)
def test_what_is_refused(flags, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.gif").touch()
    with pytest.raises(UsageError) as refused:
        run(*flags)
    assert line in str(refused.value)
    assert "\n" not in str(refused.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["there.gif"]


def test_no_screen_and_no_agent(tmp_path, monkeypatch, runs):
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(UsageError, match="there is no screen here; use --output"):
        run("--random", "--render", "human")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_bytes((runs / "ppo" / "config.json").read_bytes())
    with pytest.raises(UsageError, match=r"has no best\.pt"):
        run("--run", tmp_path / "run")


def test_the_script(run_script, tmp_path):
    done = run_script("lab3/play.py", "--dry-run", "--output", tmp_path / "a.gif", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "the random agent plays CartPole-v1" in done.stdout
    assert (tmp_path / "a.gif").stat().st_size > 1000
    done = run_script("lab3/play.py", "--run", "nowhere", cwd=tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
