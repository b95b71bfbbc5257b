"""Rebuild every figure of lab 3 from its published runs.

    python lab3/plot.py                       lab3/model/published/ -> lab3/figures/
    python lab3/plot.py --runs lab3/model     figures of your own runs

One figure for all single runs in an environment, and one for each comparison of compare_agents.py. A panel for each
algorithm: returns of evaluation over training, a thin line a seed; the thick line is their interquartile mean,
the band its 95 % bootstrap interval over seeds. Rightmost: the test returns, a dot a seed, with the same mean and
interval.
"""

from collections import defaultdict
from typing import Any

from lab1.engine.figures import FigureConfig, read_runs, write_figures
from lab1.engine.launch import launch

ALGORITHMS = ("ppo", "dqn", "reinforce")
COLORS = {"ppo": "#1f77b4", "dqn": "#d62728", "reinforce-value": "#2ca02c", "reinforce": "#2ca02c"}
OTHER_COLORS = ("#9467bd", "#ff7f0e", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf")


class Config(FigureConfig):
    """The flags of this script."""


def panels(runs: list[dict[str, Any]]) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """What each figure shows, ``{figure's name: {agent: [run, ...]}}``: the single runs of an environment together, a
    comparison by itself. A run has ``history``, ``test`` and ``solved``; one that failed to train is left out."""
    figures: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        if "runs" in run:
            for one in run["runs"]:
                if "test" in one:
                    figures[run["name"]][one["agent"]].append(one)
        else:
            environment = run["dataset"].replace("/", "-")
            figures[environment][run["name"].split("-seed")[0].removesuffix(f"-{environment}")].append(run)
    return figures


def algorithm(agent: str) -> str:
    """The algorithm that an agent such as ``double-dqn`` is a variant of."""
    return next((name for name in ALGORITHMS if name in agent), agent)


def learning_curves(name: str, agents: dict[str, list[dict[str, Any]]]):
    """The figure of one environment or comparison; see the top of this file."""
    import numpy as np
    from matplotlib import pyplot, ticker

    from lab1.engine.metrics import interquartile_mean, interquartile_mean_interval, on_common_steps

    others = iter(OTHER_COLORS * len(agents))
    colors = {agent: COLORS.get(agent) or next(others) for agent in agents}
    kinds = list(dict.fromkeys(map(algorithm, agents)))
    widths = [4.5] * len(kinds) + [1.5 + 0.4 * len(agents)]
    figure, (*curves, tests) = pyplot.subplots(
        1, len(widths), figsize=(sum(widths), 4.2), layout="constrained", width_ratios=widths, sharey=True
    )
    panels = dict(zip(kinds, curves, strict=True))
    for place, (agent, runs) in enumerate(agents.items()):
        color, seeds, panel = colors[agent], len(runs), panels[algorithm(agent)]
        for run in runs:
            points = [(point["step"], point["return"]) for point in run["history"]]
            panel.plot(*zip(*points, strict=True), color=color, lw=0.6, alpha=0.35)
        steps, values = on_common_steps([run["history"] for run in runs])
        low, high = interquartile_mean_interval(values)
        panel.fill_between(steps, low, high, color=color, alpha=0.2, lw=0)
        label = f"{agent}, {seeds} seed{'s' if seeds > 1 else ''}"
        panel.plot(steps, interquartile_mean(values), color=color, lw=2, label=label)
        returns = np.array([run["test"]["return"] for run in runs])
        low, high = interquartile_mean_interval(returns)
        tests.vlines(place, low, high, color=color, alpha=0.3, lw=8)
        tests.plot(place, interquartile_mean(returns), "_", color=color, ms=16, mew=2)
        tests.plot(np.full(seeds, place), returns, "o", color=color, ms=4, mec="white", mew=0.5)
    thresholds = {run["solved"]["threshold"] for runs in agents.values() for run in runs if run["solved"]}
    for panel in (*curves, tests):
        panel.grid(alpha=0.3)
        for threshold in thresholds:
            panel.axhline(threshold, color="black", lw=0.8, ls=":", zorder=0, label="the environment's threshold")
    for panel in curves:
        panel.set(xlabel="steps of the environment, in thousands")
        panel.xaxis.set_major_formatter(ticker.FuncFormatter(lambda steps, _: f"{steps / 1000:,.0f}"))
        panel.legend(frameon=False, loc="lower right", fontsize=9)
    curves[0].set_ylabel("return of an episode, evaluation")
    tests.set_xticks(range(len(agents)), agents, rotation=45 if len(agents) > 1 else 0)
    for label in tests.get_xticklabels():
        label.set_horizontalalignment("right" if len(agents) > 1 else "center")
    tests.set(xlim=(-0.6, len(agents) - 0.4), title="test, best weights")
    figure.suptitle(f"{name}, interquartile mean and 95 % interval over seeds", fontsize=11)
    return figure


def main(config: Config) -> None:
    """Read the runs, write the figures."""
    import matplotlib

    matplotlib.use("Agg")
    figures = panels(read_runs(config.runs_folder()))
    drawn = {name: learning_curves(name, agents) for name, agents in figures.items()}
    write_figures(drawn, config.figures_folder())


if __name__ == "__main__":
    launch(main, Config)
