"""The figures of lab 3: what is on them, by hand, and the script from end to end."""

import json

import numpy as np
import pytest
from matplotlib import pyplot

from lab1.engine.figures import ALGORITHMS
from lab1.engine.metrics import interquartile_mean_interval
from lab3 import compare_agents, plot


@pytest.fixture(autouse=True)
def without_a_screen():
    pyplot.switch_backend("Agg")
    yield
    pyplot.close("all")


def run(name, returns, test, dataset="CartPole-v1", threshold=None, **config):
    """The results of a run with an evaluation every 10 steps and every 2 episodes."""
    history = [{"step": 10 * n, "episodes": 2 * n, "return": value} for n, value in enumerate(returns, start=1)]
    solved = threshold and {"threshold": threshold, "step": 10, "seconds": 0.1}
    done = {"history": history, "test": {"return": test}, "solved": solved, "config": config}
    return {"name": name, "dataset": dataset} | done


def data(lines) -> list[list[tuple[float, float]]]:
    return [[tuple(point) for point in line.get_xydata().tolist()] for line in lines]


def test_which_run_is_on_which_figure():
    ppo = [run(f"ppo-CartPole-v1-seed{seed}", [1, 2], 3) for seed in (0, 1)]
    lander = run("double-dqn-LunarLander-v3-seed0", [1, 2], 3, "LunarLander-v3")
    done, failed = {"agent": "dqn", "history": [], "test": {"return": 1}}, {"agent": "dqn", "failed": "the loss is nan"}
    comparison = {"name": "compare-CartPole-v1", "dataset": "CartPole-v1", "runs": [done, failed]}
    figures = plot.panels([*ppo, lander, comparison])
    assert figures == {
        "CartPole-v1": {"ppo": ppo},
        "LunarLander-v3": {"double-dqn": [lander]},
        "compare-CartPole-v1": {"dqn": [done | {"dataset": "CartPole-v1"}]},
    }


def test_other_flags_make_another_agent():
    short = run("ppo-CartPole-v1-seed0", [1], 3, steps=2000)
    long = run("ppo-CartPole-v1-seed0-2", [1, 2], 3, steps=5000)
    (agents,) = plot.panels([short, long]).values()
    assert agents == {"ppo, steps 2000": [short], "ppo, steps 5000": [long]}
    figure = plot.learning_curves(agents)
    first, second, tests = figure.get_axes()
    assert [panel.get_title() for panel in (first, second)] == ["PPO\nsteps 2000, 1 seed", "PPO\nsteps 5000, 1 seed"]
    assert [label.get_text() for label in tests.get_yticklabels()] == ["PPO, steps 2000", "PPO, steps 5000"]
    assert first.lines[0].get_color() == ALGORITHMS["ppo"]
    # One evaluation is a dot, as no line goes through it.
    assert [panel.lines[0].get_marker() for panel in (first, second)] == ["o", "None"]


def test_ticks_are_where_they_say():
    write = plot.ticks(1000)
    assert [write(at, 0) for at in (0, 500, 2500, 3000, 1e6, 0.1 + 0.2)] == ["0", "0.5", "2.5", "3", "1,000", "0.0003"]
    assert plot.ticks(1)(1000.0, 0) == "1,000"


def test_curves_intervals_and_test_returns_by_hand():
    agents = {
        "ppo": [run("a", [0, 20], 30, threshold=25.0), run("b", [10, 40, 70], 50)],
        "dqn": [run("c", [5, 5, 5], 5)],
    }
    figure = plot.learning_curves(agents)
    dqn_curves, curves, tests = figure.get_axes()
    # A thin line a seed, and the mean, in which a run that has ended keeps its last value.
    *seeds, mean, dotted = curves.lines
    assert data(seeds) == [[(10, 0), (20, 20)], [(10, 10), (20, 40), (30, 70)]]
    assert [line.get_linewidth() for line in (*seeds, mean)] == [0.8, 0.8, 2.8]
    points = dict(data([mean])[0])
    assert (min(points), max(points), points[10], points[30]) == (10, 30, 5, 45)
    assert {line.get_color() for line in (*seeds, mean)} == {ALGORITHMS["ppo"]}
    # A single seed has a thick line alone.
    only, dqn_dotted = dqn_curves.lines
    assert set(only.get_ydata()) == {5}
    assert (only.get_xdata()[-1], only.get_linewidth(), only.get_color()) == (30, 2.8, ALGORITHMS["dqn"])
    # Below 10 seeds no panel has a band.
    assert [len(panel.collections) for panel in (curves, dqn_curves)] == [0, 0]
    # Both panels count steps, and to one scale.
    assert curves.get_xlim() == dqn_curves.get_xlim() == pytest.approx((0, 30.6))
    assert [panel.get_xlabel() for panel in (curves, dqn_curves)] == ["thousand steps"] * 2
    # The tests: DQN above, as its panel comes first. Of 30 and 50 the mean is 40, and its interval reaches
    # t (1 degree of freedom) 12.706 x 14.142 / sqrt(2) = 127.06 to each side, but no return of CartPole is below 1.
    assert [label.get_text() for label in tests.get_yticklabels()] == ["DQN", "PPO"]
    dots = [line for line in tests.lines if line.get_marker() == "o"]
    assert data(dots) == [[(5, 0)], [(30, 1), (50, 1)]]
    (stroke,) = [line for line in tests.lines if line.get_marker() == "|"]
    assert data([stroke]) == [[(40, 1)]]
    (bar,) = [collection.get_segments()[0] for collection in tests.collections]
    assert bar.tolist() == [[1, 1], [pytest.approx(167.062, abs=1e-3), 1]]
    # The threshold that the runs noted, across all panels.
    assert [line.get_linestyle() for line in (dotted, dqn_dotted, tests.lines[-1])] == [":"] * 3
    assert [list(line.get_ydata()) for line in (dotted, dqn_dotted)] == [[25, 25]] * 2
    assert list(tests.lines[-1].get_xdata()) == [25, 25]
    assert [panel.get_title() for panel in (dqn_curves, curves)] == ["DQN, 1 seed", "PPO, 2 seeds"]
    assert figure.get_suptitle() == "CartPole-v1: returns during training and in the test"
    assert figure.get_supxlabel().replace("\n", " ") == (
        "Thin lines and dots: a seed each. Thick lines and strokes: the mean over seeds; bars: its 95 % interval by "
        "Student's t, cut where returns end. Dotted: counts as solved from 25 on."
    )
    assert not figure.legends
    assert not any(panel.get_legend() for panel in figure.get_axes())  # nothing lies on the data


def test_ten_seeds_have_an_interquartile_mean_and_a_bootstrap_interval():
    values = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 90.0])
    many = [run(f"ppo-seed{seed}", [value, 2 * value], value, "Any-v0") for seed, value in enumerate(values)]
    curves, tests = plot.learning_curves({"ppo": many}).get_axes()
    assert dict(data(curves.lines[-1:])[0])[10] == 4.5  # of 2 to 7
    low, high = interquartile_mean_interval(values)
    assert 0 < low < 4.5 < high < 90
    band = curves.collections[0].get_paths()[0].vertices
    assert sorted(set(band[band[:, 0] == 10][:, 1])) == [low, high]
    assert tests.collections[0].get_segments()[0][:, 0].tolist() == [low, high]
    mixed = {"ppo": many, "dqn": many[:3]}
    assert plot.learning_curves(mixed).get_supxlabel().replace("\n", " ") == (
        "Thin lines and dots: a seed each. Thick lines and strokes: the mean over seeds; bars: its 95 % interval by "
        "Student's t, of fewer than 10 seeds. Thick lines and strokes: the interquartile mean over seeds; bands and "
        "bars: its 95 % bootstrap interval, of 10 seeds or more."
    )


def test_an_interval_over_seeds_by_hand():
    middle, low, high = plot.over_seeds([[1, 4], [3, 4], [5, 4]])
    assert middle.tolist() == [3, 4]
    # sd 2, t with 2 degrees of freedom 4.3027: 4.3027 x 2 / sqrt(3) = 4.9683
    assert low.tolist() == [pytest.approx(-1.9683, abs=1e-4), 4]
    assert high.tolist() == [pytest.approx(7.9683, abs=1e-4), 4]
    assert plot.over_seeds([1, 3, 5], (0, 7)) == (3, 0, 7)
    assert plot.over_seeds([7]) == (7, None, None)


def test_agents_in_the_order_of_the_lab_in_their_algorithms_colour_and_in_words():
    names = ("ppo", "double-dqn", "dqn", "mine", "reinforce-none")
    figure = plot.learning_curves({name: [run(name, [1, 2], 3)] for name in names})
    *curves, tests = figure.get_axes()
    assert [panel.get_title() for panel in curves] == [
        "REINFORCE\nno baseline, 1 seed",
        "DQN\ndouble, 1 seed",
        "DQN, 1 seed",
        "PPO, 1 seed",
        "mine, 1 seed",
    ]
    kinds = [ALGORITHMS[kind] for kind in ("reinforce", "dqn", "dqn", "ppo")]
    assert [panel.lines[0].get_color() for panel in curves] == [*kinds, plot.NO_ALGORITHM]
    labels = [label.get_text() for label in tests.get_yticklabels()]
    assert labels == ["REINFORCE, no baseline", "DQN, double", "DQN", "PPO", "mine"]
    assert "One seed: no interval." in figure.get_supxlabel()


@pytest.mark.parametrize(
    ("agent", "config", "words"),
    [
        ("reinforce", {}, ("REINFORCE", "learned value")),
        ("reinforce-standardise", {}, ("REINFORCE", "standardised returns")),
        ("dqn", {"n_step": 10}, ("DQN", "10-step returns")),
        ("dqn-1step", {"n_step": 1}, ("DQN", "1-step returns")),
        ("dqn-double-dueling-3step", {"n_step": 3}, ("DQN", "double, dueling, 3-step returns")),
        ("ppo-wide", {}, ("ppo-wide", "")),
        ("mine", {}, ("mine", "")),
    ],
)
def test_words_for_an_agent(agent, config, words):
    assert plot.in_words(agent, {"config": config}) == words
    assert plot.in_words("dqn", {}) == ("DQN", "")  # as in a comparison, which holds no configuration


def test_reinforce_is_drawn_over_the_episodes_it_trains_for():
    runs = [run("a", [0, 20], 30, episodes=4), run("b", [10, 40], 50, episodes=4)]
    curves, others, _ = plot.learning_curves({"reinforce-value": runs, "ppo": [run("c", [1, 2], 3)]}).get_axes()
    assert data(curves.lines[:2]) == [[(2, 0), (4, 20)], [(2, 10), (4, 40)]]
    assert (curves.get_xlabel(), others.get_xlabel()) == ("episodes", "thousand steps")
    assert (curves.get_xlim()[1], others.get_xlim()[1]) == (pytest.approx(4.08), pytest.approx(20.4))
    assert curves.get_ylim() == others.get_ylim()


def compared(name, agents, seeds=2, **point):
    """A comparison's results: agents by name, with the return of their last evaluations at seed 0."""
    done = [
        {"agent": agent, "seed": seed, "test": {"return": last}, "solved": None}
        | {"history": [{"step": 10 * n, "episodes": n, "return": last + seed} | point for n in (1, 2)]}
        for agent, last in agents.items()
        for seed in range(seeds)
    ]
    return {"name": name, "dataset": "CartPole-v1", "runs": done}


def test_a_comparison_made_again_is_shown_beside_the_first():
    first = compared("compare", {"reinforce": 100, "reinforce-none": 200, "ppo": 300})
    faster, other = compared("compare-lr0.1", {"reinforce": 110}), compared("compare-AVX2", {"reinforce-none": 220})
    apart = compared("compare-2", {"ppo": 1})  # the second of a name
    assert plot.series([first, apart]) == {}
    again = plot.series([faster, first, other, apart])
    assert {name: list(others) for name, others in again.items()} == {"compare": ["first", "lr0.1", "AVX2"]}
    left, right = plot.made_again(again["compare"]).get_axes()  # PPO was not made again
    assert [panel.get_title() for panel in (left, right)] == ["REINFORCE, learned value", "REINFORCE, no baseline"]
    assert [label.get_text() for label in left.get_yticklabels()] == ["first", "lr0.1", "AVX2"]
    dots = [[line for line in panel.lines if line.get_marker() == "o"] for panel in (left, right)]
    assert data(dots[0]) == [[(100, 0), (101, 0)], [(110, 1), (111, 1)]]
    assert data(dots[1]) == [[(200, 0), (201, 0)], [(220, 2), (221, 2)]]
    figures = plot.figures_of([first, faster, other, apart])
    assert list(figures) == ["compare", "compare-2", "compare-again"]


def test_what_agents_cost_is_drawn_over_the_processors_time():
    agents = plot.panels([compared("c", {"ppo": 1, "dqn": 2}, cpu_seconds=3.0)])["c"]
    assert plot.has_budget(agents)
    for dqn, run_ in zip(agents["dqn"], agents["ppo"], strict=True):
        dqn["history"][1] |= {"cpu_seconds": 40.0}
        run_["history"][1] |= {"cpu_seconds": 4.0}
    steps, seconds = plot.budget(agents).get_axes()
    # Of each agent two thin lines and the mean, then the threshold.
    assert data(steps.lines[:2]) == [[(10, 1), (20, 1)], [(10, 2), (20, 2)]]
    assert data(seconds.lines[:2]) == [[(3, 1), (4, 1)], [(3, 2), (4, 2)]]
    assert data(seconds.lines[3:5]) == [[(3, 2), (40, 2)], [(3, 3), (40, 3)]]
    assert (steps.get_xlabel(), seconds.get_xscale()) == ("thousand steps", "log")
    assert [len(panel.lines) for panel in (steps, seconds)] == [7, 7]
    assert seconds.get_xlabel().startswith("processor seconds of training")
    # Where one run does not tell the processor's time, it is the clock's for all.
    del agents["ppo"][1]["history"][0]["cpu_seconds"]
    for point in (point for runs in agents.values() for run_ in runs for point in run_["history"]):
        point["seconds"] = 5.0 * point["step"]
    _, seconds = plot.budget(agents).get_axes()
    assert data(seconds.lines[:1]) == [[(50, 1), (100, 1)]]
    assert seconds.get_xlabel().startswith("seconds of training")
    assert list(plot.figures_of([compared("c", {"ppo": 1, "dqn": 2}, seconds=3.0)])) == ["c", "c-budget"]
    # Two agents in one colour, a single one, and one that is not known have none.
    for names in (("dqn", "double-dqn"), ("ppo",), ("ppo", "mine")):
        assert not plot.has_budget(plot.panels([compared("c", dict.fromkeys(names, 1), cpu_seconds=3.0)])["c"])


def test_the_threshold_of_an_environment_that_no_run_reached():
    racing = run("ppo", [1, 2], 3, "CarRacing-v3")
    curves, tests = plot.learning_curves({"ppo": [racing]}).get_axes()
    assert list(curves.lines[-1].get_ydata()) == [900, 900]
    assert list(tests.lines[-1].get_xdata()) == [900, 900]
    for environment in ("NavigationGoal-v0", "nowhere:Nothing-v0"):  # one without a threshold, one that is not known
        assert plot.threshold(environment, [run("ppo", [1, 2], 3, environment)]) is None
        figure = plot.learning_curves({"ppo": [run("ppo", [1, 2], 3, environment)]})
        assert all(line.get_linestyle() != ":" for panel in figure.get_axes() for line in panel.lines)


def test_the_script(run_script, tmp_path):
    for number in (0, 1):
        folder = tmp_path / "runs" / f"ppo-CartPole-v1-seed{number}"
        folder.mkdir(parents=True)
        (folder / "results.json").write_text(json.dumps(run(folder.name, [1, 2], 3)), encoding="utf-8")
    done = run_script("lab3/plot.py", "--runs", tmp_path / "runs", "--figures", tmp_path / "figures")
    assert done.returncode == 0, done.stderr
    (figure,) = (tmp_path / "figures").iterdir()
    assert figure.name == "CartPole-v1.png"
    assert figure.stat().st_size > 10_000
    done = run_script("lab3/plot.py", "--runs", tmp_path / "nowhere")
    assert done.returncode == 2
    assert "holds no finished run" in done.stderr


def test_every_published_run_can_be_read_and_drawn():
    runs = plot.Config().read()
    for run in runs:
        if "runs" in run:
            assert json.loads(json.dumps(compare_agents.summary(run["runs"]))) == run["summary"]
        else:
            best = [point for point in run["history"] if point["step"] == run["best_step"]]
            assert run["validation"]["return"] == best[0]["return"] == max(point["return"] for point in run["history"])
    for agents in plot.panels(runs).values():
        plot.learning_curves(agents)
