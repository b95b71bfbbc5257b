"""The numbers of lab3/README.md."""

import math
from statistics import fmean, median

import gymnasium
from scipy import stats

from lab1.engine.metrics import paired_interval
from lab3.compare_agents import AGENTS
from lab3.config import SETTINGS
from lab3.environments import navigation
from tests.readme.pages import UNTRACED, Page
from tests.readme.runs import Run, each, mean_sd, read
from tests.readme.runs import seeds as runs_of

# A row of a table, by its first cell: the name of its runs without "-seed0".
REINFORCE = {
    "no baseline": "reinforce-none",
    "standardised returns": "reinforce-standardise",
    "learned value": "reinforce-value",
}
DQN = {
    "CartPole-v1, returns of 10 steps": "dqn-CartPole-v1",
    "the same, of 1 step": "dqn-1step-CartPole-v1",
    "LunarLander-v3, of 5 steps": "dqn-LunarLander-v3",
}
PPO = {name: f"ppo-{name}" for name in ("CartPole-v1", "Acrobot-v1", "LunarLander-v3")}
RECORDED = f"{UNTRACED}: another processor"


def check(page: Page) -> None:
    """Everything, in the order of the page."""
    for part in (first_table, measured, reinforce, dqn, ppo, elsewhere, navigation_goal):
        page.part(part)
    for algorithm, env, comment in (
        ("dqn", "CartPole-v1", "# CartPole-v1, {} steps: half a"),
        ("dqn", "LunarLander-v3", "# {} steps: ten minutes"),
        ("ppo", "CartPole-v1", "# CartPole-v1, {} steps: seconds"),
        ("ppo", "Acrobot-v1", "--env Acrobot-v1 # {} steps"),
        ("ppo", "LunarLander-v3", "# {} steps: a minute or two"),
    ):
        page.says(comment, SETTINGS[algorithm][env]["steps"])
    page.leave("tolerances and lengths of the tests", r"after 10,000 steps circling|the environment's gamma, 0\.99")


def runs(name: str) -> list[Run]:
    """Runs by seed: ``ppo-CartPole-v1``, or ``compare-CartPole-v1/ppo`` of a comparison."""
    series, _, agent = name.partition("/")
    if not agent:
        return runs_of("lab3", name)
    comparison = read("lab3", series)
    found = sorted((run for run in comparison["runs"] if run["agent"] == agent), key=lambda run: run["seed"])
    if not found:
        raise FileNotFoundError(f"lab3/model/published/{name}")
    settings = SETTINGS[AGENTS[agent][0]]
    given = {flag: value for flag, value in comparison["config"].items() if value is not None}
    return [run | {"config": settings["any"] | settings.get(comparison["dataset"], {}) | given} for run in found]


def returns(name: str) -> list[float]:
    return each(runs(name), "test", "return")


def last(name: str) -> list[float]:
    """The returns of the last evaluation, by seed."""
    return [run["history"][-1]["return"] for run in runs(name)]


def row_of(names: dict[str, str], sizes: bool = True):
    """How a table has a row: seeds and steps if it has, tests, last evaluations, the threshold in training, seconds."""

    def row(label: str):
        same = runs(names[label])
        size = (len(same), same[0]["config"]["steps"]) if sizes else ()
        tests, spent = each(same, "test", "return"), each(same, "seconds")
        solved = [run["solved"]["step"] if run["solved"] else math.inf for run in same]
        reached = len(same) - solved.count(math.inf), len(same)
        middle = (median(solved),) if median(solved) < math.inf else ()
        ends = (min(spent), max(spent)) if round(min(spent)) < round(max(spent)) else (fmean(spent),)
        return *size, *mean_sd(tests), min(tests), *mean_sd(last(names[label])), *reached, *middle, *ends

    return row


def first_table(page: Page) -> None:
    value, none = (fmean(last(baseline(label, "Intel"))) for label in ("learned value", "no baseline"))
    page.says("it ends at {} with a learned value, at {} without a baseline", value, none)
    ten, one, lander = (fmean(returns(name)) for name in DQN.values())
    page.says("CartPole {} with returns of {} steps, {} with {}; LunarLander {}", ten, 10, one, 1, lander)
    cartpole, _, lander = (fmean(returns(name)) for name in PPO.values())
    seconds = fmean(each(runs("ppo-CartPole-v1"), "seconds"))
    car = fmean(returns("ppo-CarRacing-v3"))
    page.says("CartPole {} after {} seconds of training, LunarLander {}, CarRacing {}", cartpole, seconds, lander, car)
    goals = ended("goal", "sampled")
    page.says("{} to {} % of the goals reached", min(goals), max(goals))


def measured(page: Page) -> None:
    (run, *_) = runs(PPO["LunarLander-v3"])
    page.says("over {} episodes that always start alike", run["config"]["evaluation_episodes"])
    page.says("once, over {} episodes with other starts", run["config"]["test_episodes"])
    page.says("a mean of their last {} training episodes", 20)
    page.says("an Intel Xeon the comparison of {} seeds", len(runs("compare-CartPole-v1/reinforce")))
    page.says("CartPole-v1 over {} seeds, and the tests]", len(runs("compare-CartPole-v1/reinforce")))
    page.says("by algorithm over {} seeds, and the tests]", len(runs("dqn-CartPole-v1")))
    page.leave("the 95 % of an interval", r"mean difference, 95 % by")
    thresholds = [runs(name)[0]["solved"]["threshold"] for name in PPO.values()]
    page.says("(CartPole-v1 {}, LunarLander-v3 {}, Acrobot-v1 {})", thresholds[0], thresholds[2], thresholds[1])


# The exercises


def first_at(run: Run, level: float, key: str = "step") -> float | None:
    """When an evaluation was first at this level, if one was."""
    return next((point[key] for point in run["history"] if point["return"] >= level), None)


def evaluations(name: str) -> list[list[float]]:
    """The returns of all evaluations, a list a seed."""
    return [each(run["history"], "return") for run in runs(name)]


def reinforce(page: Page) -> None:
    def row(label: str, where: str):
        name = baseline(label, where)
        same, tests = runs(name), returns(name)
        early = median(first_at(run, 475, "episodes") or math.inf for run in same)
        solved = [run["solved"]["step"] if run["solved"] else math.inf for run in same]
        reached = len(same) - solved.count(math.inf), len(same)
        return *mean_sd(tests), min(tests), *mean_sd(last(name)), early, *reached, median(solved)

    def difference(label: str):
        what, pair = label.split(": ")
        names = [
            {"none": "no baseline", "standardised": "standardised returns"}.get(one, one)
            for one in pair.split(" less ")
        ]
        of = last if what == "last evaluation" else lambda name: [first_at(run, 475, "episodes") for run in runs(name)]
        return [
            number
            for where in ("Intel", "AMD")
            for number in paired_interval(*(of(baseline(name, where)) for name in names))
        ]

    (both, few) = ({label: runs(baseline(label, where)) for label in REINFORCE} for where in ("Intel", "AMD"))
    settings = both["no baseline"][0]["config"]
    page.says("| {} episodes | seeds, processor |", settings["episodes"])
    page.says("| first evaluation of {} or more: median episode |", 475)
    page.table("Exercise 2", "| seeds, processor |", row, keys=2)
    page.says("# CartPole-v1, a learned value, {} episodes", settings["episodes"])
    page.says("| Intel, n = {} pairs | AMD, n = {} pairs |", *(len(kind["no baseline"]) for kind in (both, few)))
    page.says("episodes to {}: learned", 475)
    page.table("Exercise 2", "| difference [95 %", difference)
    page.says("learning rate ({}) and {} episodes a step", settings["learning_rate"], settings["num_envs"])
    ends = {label: last(baseline(label, "Intel")) + last(baseline(label, "AMD")) for label in REINFORCE}
    high = {label: sum(end >= 495 for end in values) for label, values in ends.items()}
    page.says(
        "all {} seeds end at {} or more, without a baseline {} do", high["learned value"], 495, high["no baseline"]
    )
    standardised = last(baseline("standardised returns", "Intel")), last(baseline("standardised returns", "AMD"))
    page.says("{} of {} seeds end at {} on one processor", standardised[0].count(500), len(standardised[0]), 500)
    page.says("processor, {} of {} on the other", standardised[1].count(500), len(standardised[1]))
    more, less = last(baseline("no baseline", "Intel")), last(baseline("no baseline", "AMD"))
    welch = stats.ttest_ind(more, less, equal_var=False).confidence_interval()
    page.says("explain, {} to {}: {} [{}, {}]", fmean(more), fmean(less), fmean(more) - fmean(less), *welch)
    page.says("Welch's t, n = {} and {}). Why", len(more), len(less))
    parted = [
        next(a["episodes"] for a, b in zip(one["history"], other["history"], strict=True) if a["return"] != b["return"])
        for label in REINFORCE
        for one, other in zip(both[label], few[label], strict=False)
    ]
    page.says("seeds {} to {} parted between episodes {} and {}.", 0, 4, min(parted), max(parted))


def baseline(label: str, where: str) -> str:
    """The runs of a baseline on one processor."""
    name = REINFORCE[label]
    return f"compare-CartPole-v1/{name.removesuffix('-value')}" if "Intel" in where else f"{name}-CartPole-v1"


def dqn(page: Page) -> None:
    ten, one, lander = DQN.values()
    page.table("Exercise 3.1", "| | seeds, steps |", row_of(DQN))
    high = {name: [sum(value >= 475 for value in values) for values in evaluations(name)] for name in (ten, one)}
    page.says("each seed has {} or {} of its {} evaluations at {} or more", *sorted(set(high[ten])), 20, 475)
    page.says("the first after {} steps at the latest", max(first_at(run, 475) for run in runs(ten)))
    page.says("it is {} to {}: no evaluation", min(high[one]), max(high[one]))
    early, later = (
        [point["return"] for run in runs(one) for point in run["history"] if (point["step"] <= 50_000) is kind]
        for kind in (True, False)
    )
    page.says("of the first {} steps is above {}, later ones", 50_000, 250 if max(early) <= 250 else max(early))
    page.says("swing between {} and {}, and", min(later), max(later))
    best = [max(values) for values in evaluations(one)]
    page.says("{} of {} seeds never have one above {}.", sum(value <= 290 for value in best), len(best), 290)
    more, *ends = paired_interval(high[ten], high[one])
    page.says("is {} of {} evaluations [{}, {}]", more, 20, *ends)
    page.says("Student's t, n = {} pairs of seeds). On", len(best))
    page.leave(RECORDED, r"ten steps give 14 to 19 of 20, and one step an early evaluation of 394")
    page.leave("trials that are not published", r"among 1, 3, 5 and 10|on seeds 100 to 103|tried on seed 100")
    page.says("all {} seeds end above {}.", sum(end > 260 for end in last(lander)), 260)
    page.says("above {} comes after {}, {} and {} steps", 200, *sorted(first_at(run, 200) for run in runs(lander)))


def ppo(page: Page) -> None:
    page.table("Exercise 3.2", "| | seeds, steps |", row_of(PPO))
    cartpole, acrobot, lander = map(runs, PPO.values())
    solved = [run["solved"] for run in cartpole]
    steps = max(run["steps"] for run in cartpole)
    page.says("reaches {} in training, within {} of its {} steps", 475, max(each(solved, "step")), round(steps, -2))
    page.says("and {} to {} seconds on a free", *(end(each(solved, "seconds")) for end in (min, max)))
    page.leave(RECORDED, r"On another processor 3 of 5 reach it")
    page.leave("read off the figure", r"differ by hundreds up to 50,000 steps")
    tests, evaluated = fmean(each(acrobot, "test", "return")), fmean(last(PPO["Acrobot-v1"]))
    page.says("from {} other starts, lies about {} below the last evaluations from {}", 100, evaluated - tests, 20)
    page.says("seeds land, with {}, {}, {}, {} and {}.", *each(lander, "test", "return"))
    reached = [first_at(run, 240, "seconds") for run in lander]
    spent = [seconds for seconds in reached if seconds]
    page.says("{} or more, after {} to {} seconds; seed {}", 240, min(spent), max(spent), reached.index(None))
    page.says(
        "Discount {}, lambda {} and entropy bonus {} are",
        *(lander[0]["config"][name] for name in ("gamma", "gae_lambda", "entropy")),
    )
    ours, others = returns("dqn-LunarLander-v3"), returns("ppo-LunarLander-v3")
    difference = stats.ttest_ind(ours, others, equal_var=False)
    page.says("sets a million steps of PPO beside {} of DQN", runs("dqn-LunarLander-v3")[0]["config"]["steps"])
    page.says("is {} [{}, {}] higher", fmean(ours) - fmean(others), *difference.confidence_interval())
    page.says("n = {} and {}): no", len(ours), len(others))
    (car,) = runs("ppo-CarRacing-v3")
    page.leave("what the environment is", r"four grey frames of 64 x 64 pixels|\[900 counts as\s+solved\]")
    page.says("| CarRacing-v3, {} seed |", 1)
    page.says("over {} episodes | decisions", car["test"]["episodes"])
    row = car["test"]["return"], car["test"]["return_sd"], car["steps"], car["seconds"] / 60
    page.table("Exercise 3.2", "| CarRacing-v3, 1 seed |", lambda label: row)
    page.leave("sizes of files that are not published", r"The weights, 4\.5 MB")


def elsewhere(page: Page) -> None:
    """The table of numbers of others; of ours they say how many steps they took."""
    ours = {
        "CartPole-v1, DQN": "dqn-CartPole-v1",
        **{f"{name.removesuffix('-v3')}, PPO": f"ppo-{name}" for name in PPO},
        "LunarLander, DQN": "dqn-LunarLander-v3",
    }
    for label, name in ours.items():
        before = "v3: " if "LunarLander" in label else ""
        same = runs(name)
        page.says(f"| {label} | {before}{{}} ± {{}} ({{}}) |", *mean_sd(returns(name)), same[0]["config"]["steps"])
    page.leave(
        "numbers of RL Baselines3 Zoo and CleanRL, linked above",
        r"\| (?:v2: )?-?[\d.]+ ± [\d.]+(?: \([\d,]+\))? (?=\|)",
    )
    page.leave("numbers of RL Baselines3 Zoo and CleanRL, linked above", r"^\| steps in brackets \|.*$")


def ended(how: str, actions: str) -> list[float]:
    """How many percent of the episodes that play.py played ended like this, by seed."""
    found = [played(f"ppo-NavigationGoal-v0-seed{seed}", actions) for seed in (0, 1, 2)]
    return [100 * one["outcomes"].get(how, 0) / one["episodes"] for one in found]


def played(run: str, actions: str) -> Run:
    """What ``play.py --output played-ACTIONS.json`` wrote."""
    return read("lab3", run, f"played-{actions}.json")


def navigation_goal(page: Page) -> None:
    name = "ppo-NavigationGoal-v0"
    page.says("from {} distance rays and", navigation.RAYS)
    page.says("--env NavigationGoal-v0 # {} steps: a minute", SETTINGS["ppo"]["any"]["steps"])
    limit = gymnasium.make(navigation.ENV_ID).unwrapped.max_steps
    ends = navigation.END_REWARD, limit, navigation.END_REWARD
    page.says("goal pays {}; an obstacle, a wall or {} steps without a goal cost {}.", *ends)
    page.says("| {} seeds, {} steps |", len(runs(name)), runs(name)[0]["config"]["steps"])
    page.says("goals reached in {} further episodes", played(f"{name}-seed0", "sampled")["episodes"])
    tests = *mean_sd(returns(name)), min(returns(name))
    rows = {
        "actions drawn from the policy": (*tests, *ended("goal", "sampled")),
        "greedy, the same weights": ended("goal", "greedy"),
    }
    page.table("Exercise 3.3", "goals reached in", rows.__getitem__)
    greedy, sampled = (ended("time-out", actions) for actions in ("greedy", "sampled"))
    page.says("time-outs ({} to {} % of all episodes", min(greedy), max(greedy))
    page.says(
        "with drawn actions {} to {} %, and {} % at", min(sampled), max(sampled), fmean(ended("obstacle", "sampled"))
    )
    page.leave("a formula", r"and phi\(s\)|\(gamma\^n - 1\)|\bis 0 once\s")
