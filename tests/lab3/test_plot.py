"""The figures of lab 3: what is on them, by hand, and the script from end to end."""

import json

import pytest
from matplotlib import pyplot

from lab3 import compare_agents, plot


@pytest.fixture(autouse=True)
def without_a_screen():
    pyplot.switch_backend("Agg")
    yield
    pyplot.close("all")


def run(name, returns, test, dataset="CartPole-v1", threshold=None):
    """The results of a run with an evaluation every 10 steps."""
    history = [{"step": 10 * (place + 1), "return": value} for place, value in enumerate(returns)]
    solved = threshold and {"threshold": threshold, "step": 10, "seconds": 0.1}
    return {"name": name, "dataset": dataset, "history": history, "test": {"return": test}, "solved": solved}


def test_which_run_is_on_which_figure():
    ppo = [run(f"ppo-CartPole-v1-seed{seed}", [1, 2], 3) for seed in (0, 1)]
    lander = run("double-dqn-LunarLander-v3-seed0", [1, 2], 3, "LunarLander-v3")
    done, failed = {"agent": "dqn", "history": [], "test": {"return": 1}}, {"agent": "dqn", "failed": "the loss is nan"}
    comparison = {"name": "compare-CartPole-v1", "dataset": "CartPole-v1", "runs": [done, failed]}
    figures = plot.panels([*ppo, lander, comparison])
    assert figures == {
        "CartPole-v1": {"ppo": ppo},
        "LunarLander-v3": {"double-dqn": [lander]},
        "compare-CartPole-v1": {"dqn": [done]},
    }


def test_curves_intervals_and_test_returns_by_hand():
    agents = {
        "ppo": [run("a", [0, 20], 30, threshold=25.0), run("b", [10, 40], 50)],
        "dqn": [run("c", [5, 5, 5], 5)],
    }
    figure = plot.learning_curves("CartPole-v1", agents)
    curves, dqn_curves, tests = figure.axes
    (ppo,) = [line for line in curves.lines if line.get_label() == "ppo, 2 seeds"]
    steps, means = ppo.get_data()
    assert (steps[0], steps[-1]) == (10, 20)
    assert (means[0], means[-1]) == (5, 30)
    (dqn,) = [line for line in dqn_curves.lines if line.get_label() == "dqn, 1 seed"]
    assert set(dqn.get_ydata()) == {5}
    assert dqn.get_xdata()[-1] == 30
    seeds = [line for panel in (curves, dqn_curves) for line in panel.lines if line.get_linewidth() == 0.6]
    assert [list(line.get_ydata()) for line in seeds] == [[0, 20], [10, 40], [5, 5, 5]]
    band = curves.collections[0].get_paths()[0].vertices
    # Of two seeds, both draws are the same with probability 1/2: the band goes from the one to the other.
    assert (band[:, 1].min(), band[:, 1].max()) == (0, 40)
    dots = [line for line in tests.lines if line.get_marker() == "o"]
    assert [list(line.get_ydata()) for line in dots] == [[30, 50], [5]]
    bars = [collection.get_segments()[0][:, 1].tolist() for collection in tests.collections]
    assert bars == [[30, 50], [5, 5]]
    dotted = [line for panel in figure.axes for line in panel.lines if line.get_linestyle() == ":"]
    assert [list(line.get_ydata()) for line in dotted] == [[25, 25]] * 3
    assert all(line.get_linestyle() != ":" for line in plot.learning_curves("a", {"dqn": agents["dqn"]}).axes[0].lines)


def test_variants_of_an_algorithm_share_a_panel():
    agents = {name: [run(name, [1, 2], 3)] for name in ("ppo", "double-dqn", "dqn", "mine")}
    *curves, _ = plot.learning_curves("a", agents).axes
    labels = [[text.get_text() for text in panel.get_legend().get_texts()] for panel in curves]
    assert labels == [["ppo, 1 seed"], ["double-dqn, 1 seed", "dqn, 1 seed"], ["mine, 1 seed"]]


def test_the_script(run_script, tmp_path):
    for number in (0, 1):
        folder = tmp_path / "runs" / f"ppo-CartPole-v1-seed{number}"
        folder.mkdir(parents=True)
        (folder / "results.json").write_text(json.dumps(run(folder.name, [1, 2], 3)))
    done = run_script("lab3/plot.py", "--runs", tmp_path / "runs", "--figures", tmp_path / "figures")
    assert done.returncode == 0, done.stderr
    (figure,) = (tmp_path / "figures").iterdir()
    assert figure.name == "CartPole-v1.png"
    assert figure.stat().st_size > 10_000
    done = run_script("lab3/plot.py", "--runs", tmp_path / "nowhere")
    assert done.returncode == 2
    assert "holds no finished run" in done.stderr


def test_every_published_run_can_be_read_and_drawn():
    runs = plot.read_runs(plot.Config().runs_folder())
    for run in runs:
        if "runs" in run:
            assert json.loads(json.dumps(compare_agents.summary(run["runs"]))) == run["summary"]
        else:
            best = [point for point in run["history"] if point["step"] == run["best_step"]]
            assert run["validation"]["return"] == best[0]["return"] == max(point["return"] for point in run["history"])
    for name, agents in plot.panels(runs).items():
        plot.learning_curves(name, agents)
