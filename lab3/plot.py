"""Every figure of lab 3 comes from its published runs.

Command:  python lab3/plot.py
Time:     10 seconds
Expect:   the figures of lab3/model/published/ in lab3/figures/

    python lab3/plot.py --runs lab3/model     figures of your own runs

One figure for all single runs in an environment, and one for each comparison of compare_agents.py. A panel for each
agent: returns of evaluations over training, a thin line a seed, a thick one their mean. Below: the test returns, a dot
a seed, with the mean and its 95 % interval by Student's t. Ten seeds or more have an interquartile mean and its 95 %
bootstrap interval instead, in both places. A single seed has no interval.

A comparison whose name goes on from another's, as compare-CartPole-v1-lr0.024 does, is the same one made otherwise: a
figure NAME-again shows the last evaluations of all of them. Several algorithms with one agent each have a figure
NAME-budget: returns over steps, and over seconds.
"""

import re
import textwrap
from collections import defaultdict
from typing import Any

from lab1.engine.figures import ALGORITHMS, FigureConfig, by_experiment, counted, draw, legend_below, write_figures
from lab1.engine.launch import launch

Run = dict[str, Any]
ORDER = ("reinforce", "dqn", "ppo")  # of the panels: as the lab meets them
TITLES = {"reinforce": "REINFORCE", "dqn": "DQN", "ppo": "PPO"}
VARIANTS = {
    "none": "no baseline",
    "standardise": "standardised returns",
    "value": "learned value",
    "raw": "not standardised",
    "double": "double",
    "dueling": "dueling",
    "beta": "Beta policy",
}
NO_ALGORITHM = "#4d4d4d"  # the colour of agents whose name does not say what they are
POSSIBLE = {"CartPole-v1": (1, 500), "Acrobot-v1": (-500, 0)}  # lowest and highest return, where there are such
MANY = 10  # seeds from which on their quarters, and a bootstrap, mean something


class Config(FigureConfig):
    """The flags of this script."""


def panels(runs: list[Run]) -> dict[str, dict[str, list[Run]]]:
    """What each figure shows, ``{figure's name: {agent: [run, ...]}}``: the single runs of an environment together, a
    comparison by itself. A run has ``dataset`` (its environment), ``history``, ``test`` and ``solved``; one that
    failed to train is left out. An agent that was trained with other flags, too, is several: ``ppo, steps 200000``."""
    figures: dict[str, dict[str, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for name, same in by_experiment(runs).items():
        if "runs" in same[0]:
            for one in same[0]["runs"]:
                if "test" in one:
                    figures[name][one["agent"]].append(one | {"dataset": same[0]["dataset"]})
        else:
            environment = same[0]["dataset"].replace("/", "-")
            name, *flags = name.split(", ")
            figures[environment][", ".join([name.removesuffix(f"-{environment}"), *flags])] += same
    return figures


def series(runs: list[Run]) -> dict[str, dict[str, dict[str, list[Run]]]]:
    """Comparisons that were made again, ``{name: {"first": {agent: [run, ...]}, "lr0.024": ...}}``: those whose name
    goes on from another's of the same environment, by the rest of theirs."""
    shown, found = panels(runs), {}
    compared = {run["name"]: run["dataset"] for run in runs if run["name"] in shown and "runs" in run}
    for name, dataset in compared.items():
        again = {
            other.removeprefix(f"{name}-"): shown[other]
            for other in compared
            if other.startswith(f"{name}-") and compared[other] == dataset and shown[name].keys() & shown[other]
            # What ends with a number alone was not made again otherwise: it is the second of a name.
            if not other.removeprefix(f"{name}-").isdigit()
        }
        if again and not any(name.startswith(f"{first}-") for first in compared):
            found[name] = {"first": shown[name], **again}
    return found


def algorithm(agent: str) -> str | None:
    """The algorithm that an agent such as ``double-dqn`` is a variant of."""
    return next((name for name in ORDER if name in agent.partition(", ")[0].split("-")), None)


def in_words(agent: str, run: Run) -> tuple[str, str]:
    """An agent's algorithm and its variant as people read them: ``REINFORCE`` and ``no baseline`` of
    ``reinforce-none``. A name with parts that are not known stays as it is; flags after it belong to the variant."""
    if flags := agent.partition(", ")[2]:
        kind, variant = in_words(agent.partition(", ")[0], run)
        return kind, ", ".join(filter(None, (variant, flags)))
    kind, rest = algorithm(agent), agent.split("-")
    if kind is None:
        return agent, ""
    rest.remove(kind)
    steps = [re.sub(r"^(\d+)step$", r"\1-step returns", part) for part in rest]
    words = [VARIANTS.get(part, part) for part in steps]
    if any(word in rest and word not in VARIANTS for word in words):
        return agent, ""
    if kind == "reinforce" and not words:
        words = [VARIANTS["value"]]
    if kind == "dqn" and "n_step" in run.get("config", {}) and steps == [part for part in rest if part in VARIANTS]:
        words.append(f"{run['config']['n_step']}-step returns")
    return TITLES[kind], ", ".join(words)


def threshold(environment: str, runs: list[Run]) -> float | None:
    """The return from which on an environment counts as solved: what its runs noted, else what gymnasium says of it."""
    import gymnasium

    import lab3.environments.navigation  # noqa: F401  which registers its environment

    noted = [run["solved"]["threshold"] for run in runs if run["solved"]]
    known = gymnasium.registry.get(environment)  # and not gymnasium.spec, which imports what a name tells it to
    return noted[0] if noted else known and known.reward_threshold


def over_seeds(values, possible: tuple[float, float] | None = None):
    """What stands for several seeds: middle, low and high end, of values ``[S, ...]``. Of ten seeds or more the
    interquartile mean and its 95 % bootstrap interval; of fewer the mean and its 95 % interval by Student's t, no wider
    than what is ``possible``. The ends are None of a single seed."""
    import numpy as np

    from lab1.engine.metrics import over_runs

    middle, low, high = over_runs(values)
    if len(values) == 1:
        return middle, None, None
    return middle, *np.clip((low, high), *(possible or (-np.inf, np.inf)))


def ticks(scale: int):
    """What writes the numbers of an axis that counts in so many: ``1,000``, ``0.5``."""
    from matplotlib import ticker

    return ticker.FuncFormatter(lambda at, _: f"{round(at / scale, 9):,}".removesuffix(".0"))


def unit_of(agent: str, runs: list[Run]) -> str:
    """What the curves of an agent count: ``episodes`` of REINFORCE, which trains for so many of them and not so many
    steps, where the runs tell them; else ``step``."""
    counted = all("episodes" in point for run in runs for point in run["history"])
    return "episodes" if counted and algorithm(agent) == "reinforce" else "step"


def draw_curves(panel, runs: list[Run], color: str, key: str = "step") -> None:
    """A thin line a seed and a thick one for all of them, over what ``key`` counts in the runs' evaluations."""
    from lab1.engine.metrics import on_common_steps

    histories = [[{"step": point[key], "return": point["return"]} for point in run["history"]] for run in runs]
    dot = "o" if all(len(history) == 1 for history in histories) else None  # a line through one point is not seen
    for history in histories if len(runs) > 1 else ():
        look = dict(color=color, lw=0.8, alpha=0.4 if len(runs) >= MANY else 1, marker=dot, ms=3)
        panel.plot(*zip(*(point.values() for point in history), strict=True), **look)
    x, values = on_common_steps(histories, to_the_last=True)
    if len(runs) >= MANY:
        middle, low, high = over_seeds(values)
        panel.fill_between(x, low, high, color=color, alpha=0.25, lw=0)
    else:
        middle = values.mean(0)
    panel.plot(x, middle, color=color, lw=2.8, marker=dot)


def draw_row(panel, row: int, returns: list[float], color: str, possible: tuple[float, float] | None) -> None:
    """A row of returns, a dot a seed; their middle and its interval."""
    middle, low, high = over_seeds(returns, possible)
    if low is not None:
        panel.hlines(row, low, high, color=color, lw=9, alpha=0.35)
        panel.plot(middle, row, "|", color="black", ms=17, mew=2.2)
    panel.plot(returns, [row] * len(returns), "o", color=color, ms=6, mec="black", mew=0.7)


def draw_tests(panel, agents: dict[str, list[Run]], colors: dict[str, str]) -> None:
    """A row an agent: its test returns, a dot a seed; their middle and its interval."""
    possible = POSSIBLE.get(next(iter(agents.values()))[0]["dataset"])
    for row, (agent, runs) in enumerate(agents.items()):
        draw_row(panel, row, [run["test"]["return"] for run in runs], colors[agent], possible)
    panel.set_yticks(range(len(agents)), [", ".join(filter(None, in_words(a, runs[0]))) for a, runs in agents.items()])
    panel.set(ylim=(len(agents) - 0.4, -0.6), xlabel="return in the test, with the best weights")


def caption(counts: list[int], solved: float | None, cut: bool, curves: bool = True) -> str:
    """What lines, dots and bars are, for agents with so many seeds each; ``cut``: intervals end where returns do;
    ``curves``: there are learning curves, too."""
    few, many = any(1 < count < MANY for count in counts), any(count >= MANY for count in counts)
    dots, strokes, bars = ("Dots", "Strokes", "bars")
    if curves:
        dots, strokes, bars = ("Thin lines and dots", "Thick lines and strokes", "bands and bars")
    words = [f"{dots}: a seed each." if few or many else "One seed: no interval."]
    if few:
        mean = f"{strokes}: the mean over seeds; bars: its 95 % interval by Student's t"
        words.append(mean + ", cut where returns end" * cut + f", of fewer than {MANY} seeds" * many + ".")
    if many:
        mean = f"{strokes}: the interquartile mean over seeds; {bars}: its 95 % bootstrap interval"
        words.append(mean + f", of {MANY} seeds or more" * few + ".")
    if solved is not None:
        words.append(f"Dotted: counts as solved from {solved:g} on.")
    return textwrap.fill(" ".join(words), 115)


def learning_curves(agents: dict[str, list[Run]]):
    """The figure of one environment or comparison; see the top of this file."""
    from matplotlib import pyplot

    last = len(ORDER)
    places = {agent: ORDER.index(algorithm(agent)) if algorithm(agent) else last for agent in agents}
    agents = {agent: agents[agent] for agent in sorted(agents, key=places.get)}
    colors = {agent: ALGORITHMS.get(algorithm(agent), NO_ALGORITHM) for agent in agents}
    environment = next(iter(agents.values()))[0]["dataset"]
    solved = threshold(environment, [run for runs in agents.values() for run in runs])

    columns = {1: 1, 2: 2, 4: 2}.get(len(agents), 3)
    heights = 2.6 * -(-len(agents) // columns), 0.75 + 0.3 * len(agents)
    figure = pyplot.figure(figsize=(9.1, sum(heights) + 0.8), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=heights)
    curves, units = [], []
    for place, (agent, runs) in enumerate(agents.items()):
        cell = -(-len(agents) // columns), columns, place + 1
        panel = above.add_subplot(*cell, sharey=curves[0] if curves else None)
        units.append(unit_of(agent, runs))
        draw_curves(panel, runs, colors[agent], units[-1])
        seeds = counted(len(runs), "seed")
        name, variant = in_words(agent, runs[0])
        width = {1: 95, 2: 45}.get(columns, 32)
        title = f"{name}\n{textwrap.fill(f'{variant}, {seeds}', width)}" if variant else f"{name}, {seeds}"
        panel.set_title(title, fontsize=10)
        panel.set_xlabel("episodes" if units[-1] == "episodes" else "thousand steps")
        panel.xaxis.set_major_formatter(ticks(1 if units[-1] == "episodes" else 1000))
        panel.set_ylabel("return in evaluations") if place % columns == 0 else panel.tick_params(labelleft=False)
        curves.append(panel)
    for unit in set(units):  # what is counted alike is drawn to one scale
        alike = [panel for panel, own in zip(curves, units, strict=True) if own == unit]
        end = max(panel.dataLim.x1 for panel in alike)
        for panel in alike:
            panel.set_xlim(0, 1.02 * end)
    tests = below.add_subplot()
    draw_tests(tests, agents, colors)
    for panel in (*curves, tests):
        panel.grid(alpha=0.3)
        if solved is not None:
            (panel.axvline if panel is tests else panel.axhline)(solved, color="black", lw=1.2, ls=":", zorder=0)
    figure.suptitle(f"{environment}: returns during training and in the test", fontsize=12)
    counts = [len(runs) for runs in agents.values()]
    figure.supxlabel(caption(counts, solved, cut=environment in POSSIBLE), fontsize=9)
    return figure


def made_again(again: dict[str, dict[str, list[Run]]]):
    """The figure of a comparison that was made again: of each agent the last evaluations, a row a comparison."""
    from matplotlib import pyplot

    agents = [agent for agent in again["first"] if sum(agent in agents for agents in again.values()) > 1]
    environment = again["first"][agents[0]][0]["dataset"]
    solved = threshold(environment, [run for agents in again.values() for runs in agents.values() for run in runs])
    rows = -(-len(agents) // 2)
    size = (9.1, 0.9 + rows * (0.75 + 0.3 * len(again)))
    figure, grid = pyplot.subplots(rows, 2, figsize=size, layout="constrained", sharex=True, sharey=True, squeeze=False)
    for panel in grid.flat[len(agents) :]:
        panel.set_visible(False)
    counts = []
    for panel, agent in zip(grid.flat, agents, strict=False):
        there = {row: agents[agent] for row, agents in enumerate(again.values()) if agent in agents}
        for row, runs in there.items():
            returns = [run["history"][-1]["return"] for run in runs]
            draw_row(panel, row, returns, ALGORITHMS.get(algorithm(agent), NO_ALGORITHM), POSSIBLE.get(environment))
            counts.append(len(runs))
        panel.set_yticks(range(len(again)), again)
        panel.set(title=", ".join(filter(None, in_words(agent, there[0][0]))), ylim=(len(again) - 0.4, -0.6))
        panel.xaxis.set_tick_params(labelbottom=True)
        panel.grid(alpha=0.3)
        if solved is not None:
            panel.axvline(solved, color="black", lw=1.2, ls=":", zorder=0)
    figure.suptitle(f"{environment}: return in the last evaluation, the comparison made again", fontsize=12)
    figure.supxlabel(caption(counts, solved, cut=environment in POSSIBLE, curves=False), fontsize=9)
    return figure


def has_budget(agents: dict[str, list[Run]]) -> bool:
    """Whether the agents are of several algorithms, one of each."""
    kinds = [algorithm(agent) for agent in agents]
    return len(kinds) > 1 and None not in kinds and len(set(kinds)) == len(kinds)


def budget(agents: dict[str, list[Run]]):
    """The figure of one agent of each algorithm: returns over steps, and over seconds; over those that the processor
    spent, whatever ran beside it, where all runs tell them."""
    from matplotlib import pyplot, ticker

    points = [point for runs in agents.values() for run in runs for point in run["history"]]
    clock = "cpu_seconds" if all("cpu_seconds" in point for point in points) else "seconds"
    environment = next(iter(agents.values()))[0]["dataset"]
    solved = threshold(environment, [run for runs in agents.values() for run in runs])
    figure, panels = pyplot.subplots(1, 2, figsize=(9.1, 4.2), layout="constrained", sharey=True)
    for panel, key in zip(panels, ("step", clock), strict=True):
        for agent, runs in agents.items():
            draw_curves(panel, runs, ALGORITHMS[algorithm(agent)], key)
        panel.grid(alpha=0.3)
        if solved is not None:
            panel.axhline(solved, color="black", lw=1.2, ls=":", zorder=0)
    over_steps, over_seconds = panels
    over_steps.set(xlabel="thousand steps", ylabel="return in evaluations", xlim=(0, None))
    over_steps.xaxis.set_major_formatter(ticks(1000))
    kind = "seconds" if clock == "seconds" else "processor seconds"
    over_seconds.set(xlabel=f"{kind} of training, logarithmic scale", xscale="log")
    over_seconds.xaxis.set_major_formatter(ticker.FuncFormatter(lambda at, _: f"{at:g}"))
    names = {agent: f"{in_words(agent, runs[0])[0]}, {counted(len(runs), 'seed')}" for agent, runs in agents.items()}
    lines = [pyplot.Line2D([], [], color=ALGORITHMS[algorithm(agent)], lw=2.8) for agent in agents]
    legend_below(figure, dict(zip(names.values(), lines, strict=True)))
    figure.suptitle(f"{environment}: returns over steps, and over what they cost", fontsize=12)
    return figure


def main(config: Config) -> None:
    """Read the runs, write the figures."""
    import matplotlib

    matplotlib.use("Agg")
    write_figures(draw(figures_of, config.read()), config.figures_folder())


def figures_of(runs: list[Run]) -> dict[str, Any]:
    """The figures by their names; see the top of this file."""
    shown, again = panels(runs), series(runs)
    repeated = {f"{name}-{rest}" for name, others in again.items() for rest in others}
    shown = {name: agents for name, agents in shown.items() if name not in repeated}
    figures = {name: learning_curves(agents) for name, agents in shown.items()}
    figures |= {f"{name}-again": made_again(others) for name, others in again.items()}
    return figures | {f"{name}-budget": budget(agents) for name, agents in shown.items() if has_budget(agents)}


if __name__ == "__main__":
    launch(main, Config)
