"""The numbers of lab3/README.md."""

import math
from statistics import fmean, median

import gymnasium
from scipy import stats

from lab1.engine.metrics import paired_interval
from lab3.compare_agents import AGENTS
from lab3.config import SETTINGS
from lab3.environments import navigation, vector
from tests.readme.pages import Page
from tests.readme.runs import Run, each, mean_sd, read, significant
from tests.readme.runs import seeds as runs_of

# The comparisons on CartPole-v1, by how they round: rows name it.
COMPARED = {
    "AMD": "compare-CartPole-v1",
    "AMD plain": "compare-CartPole-v1-plain",
    "Intel": "compare-CartPole-v1-intel",
}
# A row of a table, by its first cell: the name of its runs without "-seed0", or an agent of a comparison.
REINFORCE = {
    "no baseline": "reinforce-none",
    "standardised returns": "reinforce-standardise",
    "learned value": "reinforce",
    "the same, not standardised": "reinforce-value-raw",
}
MISSING = {(label, "Intel") for label in ("learned value", "the same, not standardised")}
DQN = {
    "CartPole-v1, returns of 10 steps": "compare-CartPole-v1-dqn/dqn",
    "the same, of 1 step": "compare-CartPole-v1-dqn/dqn-1step",
    "Acrobot-v1, of 1 step": "dqn-Acrobot-v1",
    "LunarLander-v3, of 5 steps": "dqn-LunarLander-v3",
}
PPO = {f"CartPole-v1, {where}": f"{series}/ppo" for where, series in COMPARED.items()} | {
    "Acrobot-v1": "ppo-Acrobot-v1",
    "LunarLander-v3": "ppo-LunarLander-v3",
}


def check(page: Page) -> None:
    """Everything, in the order of the page."""
    for part in (
        first_table,
        measured,
        reinforce,
        learning_rates,
        dqn,
        ppo,
        elsewhere,
        navigation_goal,
        comparison,
        budgets,
    ):
        page.part(part)
    for algorithm, env, comment in (
        ("dqn", "CartPole-v1", "# CartPole-v1, {} steps: half a"),
        ("dqn", "Acrobot-v1", "train_dqn.py --env Acrobot-v1 # {} steps: two minutes"),
        ("dqn", "LunarLander-v3", "# {} steps: ten minutes"),
        ("ppo", "CartPole-v1", "# CartPole-v1, {} steps: seconds"),
        ("ppo", "Acrobot-v1", "train_ppo.py --env Acrobot-v1 # {} steps"),
        ("ppo", "LunarLander-v3", "# {} steps: a minute or two"),
    ):
        page.says(comment, SETTINGS[algorithm][env]["steps"])
    page.leave("tolerances and lengths of the tests", r"after 10,000\s+steps circling|the environment's gamma, 0\.99")


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


def reached(name: str) -> tuple[float, int, int]:
    """The median step of the threshold in training, how many seeds reached it, and how many there are."""
    solved = [run["solved"]["step"] if run["solved"] else math.inf for run in runs(name)]
    return median(solved), len(solved) - solved.count(math.inf), len(solved)


def seconds(name: str) -> list[float]:
    """How long each seed trained: the processor's time, where it is known."""
    return [run["history"][-1].get("cpu_seconds", run["seconds"]) for run in runs(name)]


def row_of(names: dict[str, str], sizes: bool = True):
    """How a table has a row: seeds and steps if it has, tests, last evaluations, the threshold in training, seconds."""

    def row(label: str):
        same = runs(names[label])
        size = (len(same), same[0]["config"]["steps"]) if sizes else ()
        tests, spent = each(same, "test", "return"), seconds(names[label])
        step, *solved = reached(names[label])
        middle = (step,) if step < math.inf else ()
        ends = (min(spent), max(spent)) if round(min(spent)) < round(max(spent)) else (fmean(spent),)
        ends = () if "Intel" in label or "plain" in label else ends  # theirs say nothing of training as it is typed
        return *size, *mean_sd(tests), min(tests), *mean_sd(last(names[label])), *solved, *middle, *ends

    return row


def first_table(page: Page) -> None:
    none, standardised, value, _ = (fmean(last(baseline(label, "AMD"))) for label in REINFORCE)
    page.says("it ends at {} with a learned value, at {} with standardised returns, at {}", value, standardised, none)
    page.says("without a baseline (n = {})", len(last(baseline("no baseline", "AMD"))))
    ten, one, _, lander = (fmean(returns(name)) for name in DQN.values())
    page.says("CartPole {} with returns of {} steps, {} with {}; LunarLander {}", ten, 10, one, 1, lander)
    cartpole, lander = (fmean(returns(PPO[label])) for label in ("CartPole-v1, AMD", "LunarLander-v3"))
    spent, car = fmean(seconds(PPO["CartPole-v1, AMD"])), fmean(returns("ppo-CarRacing-v3"))
    page.says("CartPole {} after {} seconds of training, LunarLander {}, CarRacing {}", cartpole, spent, lander, car)
    goals = ended("goal", "sampled")
    page.says("{} to {} % of the goals reached", min(goals), max(goals))


def measured(page: Page) -> None:
    (run, *_) = runs(PPO["LunarLander-v3"])
    page.says("over {} episodes that always start alike", run["config"]["evaluation_episodes"])
    page.says("once, over {} episodes with other starts", run["config"]["test_episodes"])
    page.says("a mean of their last {} training episodes", 20)
    page.leave("the 95 % of an interval", r"mean difference, 95 % by")
    again = {name: f"{COMPARED['AMD']}/{name}" for name in ("reinforce-standardise", "reinforce-none", "ppo")}
    again |= {name: f"compare-CartPole-v1-dqn/{name}" for name in ("dqn", "dqn-1step")}
    pairs = {name: (evaluations(f"{name}-CartPole-v1")[0], evaluations(series)[0]) for name, series in again.items()}
    equal = [one == other for one, other in pairs.values()]
    page.says("seed {} of {} of {} agents on CartPole had the same {}", 0, sum(equal), len(equal), len(pairs["ppo"][0]))
    alike = [one == other for one, other in zip(*pairs["dqn-1step"], strict=True)]
    page.says("DQN with returns of {} step, the same first {};", 1, alike.index(False))
    thresholds = [runs(PPO[label])[0]["solved"]["threshold"] for label in ("CartPole-v1, AMD", *list(PPO)[3:])]
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
        step, *solved = reached(name)
        return *mean_sd(tests), min(tests), *mean_sd(last(name)), early, *solved, step

    def difference(label: str):
        short = {"none": 0, "standardised": 1, "learned value": 2, "not standardised": 3}
        pair = [list(REINFORCE)[short[one]] for one in label.removeprefix("last evaluation: ").split(" less ")]
        found = [where for where in COMPARED if all(where in all_runs[one] for one in pair)]
        return [number for where in found for number in paired_interval(*(last(baseline(one, where)) for one in pair))]

    all_runs = {
        label: {where: runs(baseline(label, where)) for where in COMPARED if (label, where) not in MISSING}
        for label in REINFORCE
    }
    settings = all_runs["no baseline"]["Intel"][0]["config"]
    page.says("| {} episodes | seeds, processor |", settings["episodes"])
    page.says("| first evaluation of {} or more: median episode |", 475)
    page.table("Exercise 2", "| first evaluation of", row, keys=2)
    page.says("# CartPole-v1, a learned value, {} episodes", settings["episodes"])
    counts = [len(same) for same in all_runs["no baseline"].values()]
    page.says("| AMD, n = {} pairs | AMD plain, n = {} pairs | Intel, n = {} pairs |", *counts)
    page.table("Exercise 2", "| difference [95 %", difference)
    page.says("learning rate ({}) and {} episodes a step", settings["learning_rate"], settings["num_envs"])
    on_amd = ("AMD", "AMD plain")
    ends = {label: [end for where in on_amd for end in last(baseline(label, where))] for label in REINFORCE}
    none, standardised, learned, _ = (sum(end >= 495 for end in values) for values in ends.values())
    page.says("Of {} seeds on the AMD", len(ends["no baseline"]))
    page.says("plain or not, {} end at {} or more with a learned value", learned, 495)
    page.says("{} with standardised returns, {} without a baseline. The test", standardised, none)
    all_along = [
        paired_interval(*(each_mean(baseline(label, where)) for label in ("learned value", "no baseline")))
        for where in on_amd
    ]
    page.says("plain {} seeds show it in the mean of all evaluations, {} [{}, {}]", counts[1], *all_along[1])
    page.says("(on the AMD {} [{}, {}])", *all_along[0])
    amd = last(baseline("no baseline", "AMD"))
    halves = amd[:20], amd[20:]
    page.says("seeds {} to {} on the AMD end at {} in the mean", 0, 19, fmean(halves[0]))
    page.says("its seeds {} to {} at {}, ", 20, 39, fmean(halves[1]))
    welch = stats.ttest_ind(*reversed(halves), equal_var=False).confidence_interval()
    page.says("{} [{}, {}] apart", fmean(halves[1]) - fmean(halves[0]), *welch)
    page.says("into {}, {} and {}.", *(fmean(last(baseline("no baseline", where))) for where in COMPARED))
    parted = [
        next((a["episodes"] for a, b in zip(*pair, strict=True) if a["return"] != b["return"]), None)
        for same in all_runs.values()
        for where in same
        for pair in zip(each_history(same["AMD"]), each_history(same[where]), strict=False)
        if where != "AMD"
    ]
    known = [episodes for episodes in parted if episodes is not None]
    page.says("between episodes {} and {}", min(known), max(known))


def each_mean(name: str) -> list[float]:
    """The mean of all evaluations, by seed."""
    return [fmean(values) for values in evaluations(name)]


def each_history(same: list[Run]) -> list[list[Run]]:
    return [run["history"] for run in same]


def learning_rates(page: Page) -> None:
    ways = ("reinforce-none", "reinforce-standardise", "reinforce")

    def row(label: str, where: str):
        series = COMPARED[where.split(", ")[1]] + (f"-lr{label}" if label != "0.008" else "")
        none, *others = (last(numbered(f"{series}/{way}", where)) for way in (ways[:2] if "Intel" in where else ways))
        sds = [number for values in (none, *others) for number in mean_sd(values)]
        return *sds, *(number for values in others for number in paired_interval(values, none))

    page.table("Exercise 2", "| learning rate | seeds", row, keys=2)
    slow = [each_mean(f"{COMPARED['AMD']}-lr0.0027/{way}") for way in (ways[2], ways[0])]
    page.says("the mean of all evaluations does, {} [{}, {}] with", *paired_interval(*slow))
    page.leave("learning rates", r"^\| 0\.0(?:027|08|24)(?= \|)|In the figure \*first\* is the AMD's 0\.008")


def baseline(label: str, where: str) -> str:
    """The runs of a baseline on one processor, which may have their number before it: ``20, Intel``."""
    return numbered(f"{COMPARED[where.split(', ')[-1]]}/{REINFORCE[label]}", where)


def numbered(name: str, where: str) -> str:
    """The name, if there are as many of these runs as stands before the processor."""
    count, found = where.rpartition(", ")[0], len(runs(name))
    if count and int(count) != found:
        raise LookupError(f"{found} runs of {name}, not {count}")
    return name


def dqn(page: Page) -> None:
    ten, one, _, lander = DQN.values()
    page.table("Exercise 3.1", "| | seeds, steps |", row_of(DQN))
    high = {name: [sum(value >= 475 for value in values) for values in evaluations(name)] for name in (ten, one)}
    page.says("each seed has {} to {} of its {} evaluations at {} or more", min(high[ten]), max(high[ten]), 20, 475)
    page.says("the first after {} steps at the latest", max(first_at(run, 475) for run in runs(ten)))
    best = [max(values) for values in evaluations(one)]
    below = sum(value <= 290 for value in best)
    page.says("it is {} to {}: {} of {} seeds", min(high[one]), max(high[one]), below, len(best))
    page.says("never have an evaluation above {}.", 290)
    more, *ends = paired_interval(high[ten], high[one])
    page.says("is {} of {} evaluations [{}, {}]", more, 20, *ends)
    page.says("Student's t, n = {} pairs of seeds, all on the AMD", len(best))
    page.leave(
        "trials that are not published",
        r"among 1, 3, 5 and 10|on seeds 100 to 103|tried on seed 100|one among 1, 3\s+and 5 on",
    )
    page.says("all {} seeds end above {}.", sum(end > 260 for end in last(lander)), 260)
    page.says("above {} comes after {}, {} and {} steps", 200, *sorted(first_at(run, 200) for run in runs(lander)))


def ppo(page: Page) -> None:
    page.table("Exercise 3.2", "| | seeds, steps |", row_of(PPO))
    *cartpole, acrobot, lander = map(runs, PPO.values())
    tests, solved = (
        [of(run) for same in cartpole for run in same]
        for of in (lambda run: run["test"]["return"] >= 495, lambda run: bool(run["solved"]))
    )
    page.says("{} of {} seeds have a test return of {} or more", sum(tests), len(tests), 495)
    page.says("explores, {} of {} reach {}", sum(solved), len(solved), 475)
    apart = [
        step[0]["step"]
        for step in zip(*(run["history"] for run in acrobot), strict=True)
        if max(each(step, "return")) - min(each(step, "return")) >= 100
    ]
    page.says("differ by hundreds up to {} steps", *significant([max(apart)], 2))
    tests, evaluated = fmean(each(acrobot, "test", "return")), fmean(last(PPO["Acrobot-v1"]))
    settings = acrobot[0]["config"]
    page.says("{} passes over a rollout, lambda {}", settings["update_epochs"], settings["gae_lambda"])
    page.says("and entropy bonus {} were chosen", settings["entropy"])
    page.leave("trials that are not published", r"on seeds 100 to 102, by test\s+return")
    page.says(
        "its test return is higher by {} [{}, {}] (paired, n = {} seeds)",
        *paired_interval(returns("dqn-Acrobot-v1"), returns("ppo-Acrobot-v1")),
        len(acrobot),
    )
    page.says("from {} other starts, lies about {} below the last evaluations from {}", 100, evaluated - tests, 20)
    page.says("seeds land, with {}, {}, {}, {} and {}.", *each(lander, "test", "return"))
    reached = [first_at(run, 240, "cpu_seconds") for run in lander]
    page.says("{} or more, after {} to {} seconds. Discount", 240, min(reached), max(reached))
    page.says(
        "Discount {}, lambda {} and entropy bonus {} are",
        *(lander[0]["config"][name] for name in ("gamma", "gae_lambda", "entropy")),
    )
    tried = read("lab3", "ppo-LunarLander-v3-seed0", "tuning.json")["runs"]  # three seeds of each setting
    means = [fmean(each(tried[start : start + 3], "test", "return")) for start in range(0, len(tried), 3)]
    assert [tried[start]["config"]["update_epochs"] for start in (0, 6)] == [6, 10]
    assert (len(means), max(means)) == (6, means[2])
    page.says("Ten passes over a rollout ({} in the mean, six {})", means[2], means[0])
    ours, others = returns("ppo-LunarLander-v3"), returns("dqn-LunarLander-v3")
    difference = stats.ttest_ind(ours, others, equal_var=False)
    page.says("sets a million steps of PPO beside {} of DQN", runs("dqn-LunarLander-v3")[0]["config"]["steps"])
    page.says("is {} [{}, {}] higher", fmean(ours) - fmean(others), *difference.confidence_interval())
    page.says("n = {} and {}), after three times", len(ours), len(others))
    cars = runs("ppo-CarRacing-v3")
    page.leave("what the environment is", r"four grey frames of 64 x 64 pixels|\[900 counts as\s+solved\]")
    page.says("| CarRacing-v3 | test return: mean ± sd over {} seeds", len(cars))
    page.says("seeds of {} episodes each | decisions", cars[0]["test"]["episodes"])
    minutes = [spent / 60 for spent in seconds("ppo-CarRacing-v3")]
    row = *mean_sd(returns("ppo-CarRacing-v3")), fmean(each(cars, "steps")), min(minutes), max(minutes)
    page.table("Exercise 3.2", "| CarRacing-v3 |", lambda label: row)
    seeds = [car["config"]["seed"] for car in cars]
    page.says(
        "The three seeds, {} to {}, reach {}, {} and {}; every", seeds[0], seeds[-1], *returns("ppo-CarRacing-v3")
    )
    page.leave("the seed that settings were chosen on", r"chosen on seed 0, by\s+evaluations")
    curve = [fmean(each(now, "return")) for now in zip(*each_history(cars), strict=True)]
    page.says("Their mean is {} when half of the decisions are made, and {} at the end", curve[4], curve[-1])
    page.says("episode ends after {} decisions without a reward", vector.PATIENCE["CarRacing-v3"])
    page.says("Rewards are divided by {} before", 1 / cars[0]["config"]["reward_scale"])
    page.says("of the best of ten evaluations over {} tracks", cars[0]["config"]["evaluation_episodes"])
    page.leave("sizes of files that are not published", r"The weights, 4\.5 MB")


def elsewhere(page: Page) -> None:
    """The table of numbers of others; of ours they say how many steps they took."""
    ours = {
        "CartPole-v1, DQN": DQN["CartPole-v1, returns of 10 steps"],
        "CartPole-v1, PPO": PPO["CartPole-v1, AMD"],
        "Acrobot-v1, DQN": "dqn-Acrobot-v1",
        "Acrobot-v1, PPO": PPO["Acrobot-v1"],
        "LunarLander, PPO": PPO["LunarLander-v3"],
        "LunarLander, DQN": "dqn-LunarLander-v3",
    }
    for label, name in ours.items():
        before = "v3: " if "LunarLander" in label else ""
        same = runs(name)
        page.says(f"| {label} | {before}{{}} ± {{}} ({{}}) |", *mean_sd(returns(name)), same[0]["config"]["steps"])
    sizes = [len(runs(name)) for name in ours.values()]
    episodes = runs("dqn-CartPole-v1")[0]["test"]["episodes"]
    page.says("over {} to {} seeds of {} episodes each", min(sizes), max(sizes), episodes)
    page.leave(
        "numbers of RL Baselines3 Zoo and CleanRL, linked above",
        r"\| (?:v2: )?-?[\d.]+ ± [\d.]+ \([\d,]+\) \|(?: -?[\d.]+ ± [\d.]+)? \|$",
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


def comparison(page: Page) -> None:
    """PPO beside REINFORCE on CartPole-v1."""
    agents = {
        "REINFORCE with a learned value": "learned value",
        "REINFORCE with standardised returns": "standardised returns",
        "REINFORCE without a baseline": "no baseline",
    }
    ours = PPO["CartPole-v1, AMD"]
    page.says("mean of its {} evaluations |", len(runs(ours)[0]["history"]))

    def row(label: str, where: str):
        measures = returns, last, each_mean
        pair = PPO[f"CartPole-v1, {where.split(', ')[1]}"], baseline(agents[label], where)
        return [number for of in measures for number in paired_interval(*map(of, pair))]

    page.table("Exercise 3.4", "| PPO less ...", row, keys=2)
    pairs = [(label, where) for label in REINFORCE for where in COMPARED if (label, where) not in MISSING]
    taken = [run["steps"] for pair in pairs for run in runs(baseline(*pair))]
    page.says("PPO had {} steps, ", *significant([fmean(each(runs(ours), "steps"))]))
    episodes = runs(baseline("no baseline", "AMD"))[0]["config"]["episodes"]
    page.says("{} episodes of REINFORCE are {} to {}, over", episodes, *significant((min(taken), max(taken))))
    ppo, value, standardised = map(
        reached, (ours, baseline("learned value", "AMD"), baseline("standardised returns", "AMD"))
    )
    page.says("the threshold came after {} steps of PPO (the AMD's median, with {} of {} seeds)", *ppo)
    page.says("{} of standardised REINFORCE and {} with a learned value (", standardised[0], value[0])
    page.says("with a learned value ({} and {} of {})", standardised[1], value[1], value[2])


def budgets(page: Page) -> None:
    """PPO beside DQN on LunarLander-v3, at the same steps; and a million steps of PPO beside them."""
    names = {label: f"compare-LunarLander-v3/{label.lower()}" for label in ("DQN", "PPO")}
    measures = returns, last, each_mean

    def row(label: str):
        if label not in names:
            return [number for of in measures for number in paired_interval(of(names["DQN"]), of(names["PPO"]))]
        spent = [run["history"][-1]["cpu_seconds"] for run in runs(names[label])]
        return *(number for of in measures for number in mean_sd(of(names[label]))), min(spent), max(spent)

    settings = read("lab3", "compare-LunarLander-v3")["config"]
    page.says("first command above: {} steps and seeds {} to {} for both", settings["steps"], 0, settings["seeds"][-1])
    page.says("| n = {} seeds | test return", len(settings["seeds"]))
    page.says("mean of the {} evaluations", len(runs(names["DQN"])[0]["history"]))
    page.table("Exercise 3.4", "| mean of the 20 evaluations |", row)
    page.leave("the steps of these runs", r"none was tuned for 300,000")
    dqn, ppo = runs("dqn-LunarLander-v3"), runs("ppo-LunarLander-v3")
    page.says("steps of PPO, {} seeds, have", len(ppo))
    clocks = ((ppo, "cpu_seconds"), (dqn, "seconds"))
    first = [[first_at(run, 200, clock) for run in same] for same, clock in clocks]
    page.says("evaluation of {} or more after {} to {} seconds", 200, min(first[0]), max(first[0]))
    page.says("seconds, DQN's after {} to {} by the clock, {} seeds.", min(first[1]), max(first[1]), len(dqn))
