"""The numbers of tests/benchmarks/README.md: from results/*.json, which the scripts there write with --json.

Where such a file is not there, the numbers of its table are counted as what they are, and the command that measures
them is printed with them.
"""

import json
from collections.abc import Sequence
from statistics import fmean, median
from typing import Any

import numpy as np

from lab1.engine.config import REPOSITORY
from lab1.engine.metrics import over_runs, paired_interval
from lab1.models import MLP, ResCNN
from tests.readme import lab1
from tests.readme.pages import UNTRACED, Page
from tests.readme.runs import each, mean_sd, percent, read, seeds

RESULTS = REPOSITORY / "tests" / "benchmarks" / "results"
COMMANDS = {
    "mnist": "bench_mnist.py",
    "cifar": "bench_cifar.py",
    "gpt": "bench_gpt.py",
    "text": "bench_text.py",
    "rl": "bench_rl.py --rounds 5",
    "cleanrl": "bench_rl.py --only cleanrl --cleanrl PATH/ppo.py",
    "workers": "bench_workers.py",
}
# Where the numbers of each stand: under a heading, up to the next one.
UNDER = r"(?s:^## {}\n.*?(?=^## ))"
PLACES = {
    "mnist": UNDER.format("MNIST"),
    "cifar": UNDER.format("CIFAR-10"),
    "gpt": UNDER.format("Language models"),
    "text": UNDER.format("Encoders of texts"),
    "rl": UNDER.format("Reinforcement learning"),
    "workers": r"^\| `(?:compare_agents|sweep_depth)\.py .*$",
}


def check(page: Page) -> None:
    """Everything; each benchmark from its file, or left out by name."""
    page.part(fast)
    precision(page)
    gradients_sent(page)
    page.leave("what a benchmark measures", r"padding to 128 tokens")
    page.part(rerun)
    parts = {"mnist": mnist, "cifar": cifar, "gpt": gpt, "text": text, "rl": rl, "workers": workers}
    for name, part in parts.items():
        found = result(name)
        if found is None:
            page.leave(unmeasured(name), rf"^\| \[{COMMANDS[name].split()[0]}\].*$")
            page.leave(unmeasured(name), PLACES[name])
        else:
            processor = found["environment"]["device"].removeprefix("cpu: ")
            if processor not in page.text:
                page.problems.append(f"{page.name}: it does not name the processor of results/{name}.json: {processor}")
            part(page, found)
    if all(map(result, COMMANDS)) and "No such file is" in page.text:
        page.problems.append(f"{page.name}: every file is there, and it says that none is published yet")


def result(name: str) -> dict[str, Any] | None:
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def version(found: dict[str, Any], library: str) -> str:
    """The version of the other side, without what comes after its second number."""
    return ".".join(found["environment"]["peers"][library].split(".")[:2])


def unmeasured(name: str) -> str:
    command = f"python tests/benchmarks/{COMMANDS[name]} --json tests/benchmarks/results/{name}.json"
    return f"{UNTRACED}; measured by: {command}"


def on_a_processor() -> dict[str, Any]:
    """The results of one run of train_fast.py on a processor."""
    path = REPOSITORY / "tests" / "benchmarks" / "results" / "train_fast.json"
    return json.loads(path.read_text(encoding="utf-8"))


def fast(page: Page) -> None:
    """The whole training of train_fast.py, on two machines."""

    def row(label: str):
        same = lab1.runs("fast-64") if "H100" in label else [on_a_processor()]
        images = 45_000
        if "AMD" in label:
            same, images = lab1.runs("fast-64-0held-out"), 50_000
        seconds = each(same, "seconds")
        speeds = [images * same[0]["epochs"] / second for second in seconds]
        span = (min(speeds), max(speeds)) if len(speeds) > 1 else speeds
        return *seconds, *span, fmean(percent(same)), fmean(lab1.with_views(same))

    page.says("Its {} epochs, without the start", lab1.runs("fast-64")[0]["epochs"])
    page.says("those of `--validation-images 0 --epochs {}`:", lab1.runs("fast-64-0held-out")[0]["epochs"])
    page.leave("seeds", r"(?<=bf16, )seeds 0, 1, 2|(?<=programs, )seeds? 0(?:, 1, 2)?")
    page.table("CIFAR-10", "| where | seconds |", row)


def rerun(page: Page) -> None:
    """Published rows, made again on another machine."""
    found = {row["command"]: row for row in (result("rerun") or {}).values() if "here" in row}

    inside = []

    def row(command: str, runs: str):
        again, lab = found[command.partition(",")[0]], command.partition("/")[0]
        assert again["scalar"] is ("AMD" in runs), command
        if again["cell"]:
            there = read(lab, again["published"])["runs"]
            same = [run for run in there if all(run[key] == value for key, value in again["cell"].items())]
        else:
            same = seeds(lab, again["published"])
        path = (int(key) if key == "-1" else key for key in again["metric"].split("."))
        mean, low, high = over_runs(np.array(each(same, *path, times=again["factor"])))
        here = over_runs(np.array(again["here"]))[0]
        inside.append(low <= here <= high)
        return len(again["here"]), mean, low, high, here

    page.leave("titles and a range of numbers", r"interval over n seeds \(from ten seeds on")
    page.table("The results on another machine", "| command | runs, and where they are from |", row, keys=2)
    page.says("{} of {} are inside", sum(inside), len(found))
    page.leave("what the digits have", r"The digits have 359 test images, 3 of which are 0\.8 points")


def mnist(page: Page, found: dict[str, Any]) -> None:
    flags, newer = found["flags"], result("mnist-amd")

    def row_of(one: dict[str, Any], columns: Sequence[str]):
        epoch = one["epoch"]
        ways = {
            "this repository": "ours",
            "torchvision, DataLoader, 0 workers, plain loop": "DataLoader, 0 workers",
            "the same with 2 workers": "DataLoader, 2 workers",
            f"Lightning {version(one, 'lightning')}, as it comes": "Lightning",
        }

        def row(label: str):
            way = ways[label]
            return median(epoch["seconds"][way]), *[epoch[column][way] for column in columns if way in epoch[column]]

        return row

    other = result("mnist-amd-2")
    found_there = {way: ratio for way, ratio in other["epoch"]["ratio"].items() if way != "matrix products alone"}
    ratios = [ratio for one in (found, newer) for ratio in one["epoch"]["ratio"].values()] + list(found_there.values())
    page.says("Lightning | {} to {} times |", min(ratios), max(ratios))
    page.says("An epoch of {} images in batches of {}, the", 60_000, flags["batch_size"])
    page.says("two threads, median of {} rounds", flags["rounds"])
    page.table("MNIST", "| | seconds an epoch", row_of(found, ("ratio", "peak_mib")))
    page.table("MNIST", "| AMD EPYC |", row_of(newer, ("ratio",)))
    accuracies, seconds = each(newer["user"], "accuracy", times=100), each(newer["user"], "seconds")
    page.says("five seeds reach {} to {} % test accuracy there after", min(accuracies), max(accuracies))
    page.says("there after {} to {} s of training", min(seconds), max(seconds))
    taken = {way: median(each_round) for way, each_round in other["epoch"]["seconds"].items()}
    page.says("calls itself an AMD EPYC needs {} s, and {} for", taken["ours"], taken["DataLoader, 0 workers"])
    page.says("loop: {}, {} and {} times, in", *found_there.values())
    seconds = each(other["user"], "seconds")
    page.says("five seeds there take {} to {} s.", min(seconds), max(seconds))
    page.says("take {} s of ours", taken["matrix products alone"])


def cifar(page: Page, found: dict[str, Any]) -> None:
    training, flags = found["training"], found["flags"]
    ways = {
        "this repository, bf16": "ours",
        "an image at a time through torchvision, DataLoader, channels first, fp32; 0 workers": "DataLoader, 0 workers",
        "the same with 2 workers": "DataLoader, 2 workers",
    }

    def row(label: str):
        way = ways[label]
        return training["images"] / median(training["seconds"][way]), *[
            ratio for other, ratio in training["ratio"].items() if other == way
        ]

    newer = result("cifar-amd")
    both = [[ratio for way, ratio in one["training"]["ratio"].items() if "workers" in way] for one in (newer, found)]
    page.says("channels first, fp32 | {} to {} times; FastCNN", *map(fmean, both))
    wide = found["fast"]
    speeds = {way: wide["images"] / median(seconds) for way, seconds in wide["seconds"].items()}
    ratio = wide["ratio"]["DataLoader, 0 workers"]
    page.says("times; FastCNN {} to {} times |", newer["fast"]["ratio"]["DataLoader, 0 workers"], ratio)
    page.says("in batches of {}, takes {} images a second,", 500, speeds["ours"])
    page.says("a second, {} times the {} of an image at a time,", ratio, speeds["DataLoader, 0 workers"])
    page.says("(median of {} rounds). | AMD", flags["rounds"])
    page.leave("widths, which name a network", r"\bwidth 64\b")
    page.says("in batches of {}, two threads", flags["batch_size"])
    page.says("median of {} rounds of {} steps", flags["rounds"], flags["steps"])
    page.table("CIFAR-10", "| | images a second", row)
    others = {
        "this repository, bf16": "ours",
        "this repository, fp32": "ours in fp32",
        "as above, 0 workers": "DataLoader, 0 workers",
        "as above, 2 workers": "DataLoader, 2 workers",
    }

    def row_of_newer(label: str):
        way = others[label]
        return [
            number
            for part in (newer["training"], newer["fast"])
            if way in part["seconds"]
            for number in (part["images"] / median(part["seconds"][way]), part["ratio"].get(way))
            if number is not None
        ]

    page.table("CIFAR-10", "| AMD EPYC |", row_of_newer)


def gpt(page: Page, found: dict[str, Any]) -> None:
    training, generation = found["training"], found["generation"]
    loss = training["validation"]
    page.says(
        "`generate` of transformers | {} times; {} times |",
        training["ratio"]["plain"],
        generation["ratio"]["transformers"],
    )
    page.says("`--preset nano`, {} steps |", found["flags"]["steps"])
    page.says("| {} times; validation loss {} against {} |", training["ratio"]["plain"], loss["ours"], loss["plain"])
    page.says("writing {} tokens, context {},", generation["tokens"], 512)
    page.says("with its cache | {} times |", generation["ratio"]["transformers"])
    page.says("without its cache | {} times |", generation["ratio"]["without cache"])


def text(page: Page, found: dict[str, Any]) -> None:
    ratios = [found[kind]["ratio"]["usual"] for kind in ("features", "fine-tuning")]
    page.says("fp32 | {} to {} times |", min(ratios), max(ratios))
    for kind, ratio in zip(("features", "fine-tuning"), ratios, strict=True):
        some = " of Rotten Tomatoes" if kind == "features" else ""
        page.says(f"| {kind}, {{}} texts{some}, {{}} rounds |", found[kind]["texts"], found["flags"]["rounds"])
        page.says("padding to 128 tokens, fp32 | {} times |" if some else "| the same | {} times |", ratio)


def rl(page: Page, found: dict[str, Any]) -> None:
    cleanrl = result("cleanrl")
    peer = f"Stable-Baselines3 {version(found, 'stable-baselines3')}"
    workloads = {
        f"PPO, {peer}": found["PPO"],
        f"PPO with the settings of RL Baselines3 Zoo, {peer}": found["zoo (PPO)"],
        "PPO with the settings of CleanRL, its ppo.py, value loss not clipped": cleanrl and cleanrl["CleanRL's PPO"],
        f"DQN, {peer}": found["DQN"],
        f"DQN with targets of one step, {peer}": found["DQN without n-step returns"],
    }

    def row(label: str):
        one = workloads[label]
        if one is None:
            return None
        single = [ratio for who, ratio in one["ratio"].items() if who == "ours, single environments"]
        returns = [fmean(one["returns"][who]) for who in ("ours", one["peer"])]
        return one["rounds"], one["ratio"]["ours"], *single, *returns

    page.table("Reinforcement learning", "| rounds |", row)
    if cleanrl is None:
        page.leave(unmeasured("cleanrl"), r"^\| PPO with the settings of \[CleanRL\].*$")
    ratios = [
        ratio for one in workloads.values() if one for who, ratio in one["ratio"].items() if who.startswith("ours")
    ]
    page.says("Stable-Baselines3; CleanRL | {} to {} times |", min(ratios), max(ratios))
    page.says("over {} episodes, in the mean of the rounds", 20)
    cartpole = found["user"]["CartPole-v1"]
    solved = [one["solved"]["seconds"] for one in cartpole if one["solved"]]
    numbers = len(solved), len(cartpole), min(solved), max(solved)
    page.says("on {} of {} seeds `train_ppo.py` has solved CartPole-v1 in training, after {} to {} s", *numbers)
    spent = median(one["seconds"]["training"] for one in cartpole)
    settings = read("lab3", "ppo-CartPole-v1-seed0")["config"]
    page.says("one episode and not {} times over {}, and", settings["evaluations"], settings["evaluation_episodes"])
    page.says("with its {} steps after {}, with", settings["steps"], spent)
    page.says("evaluations and the test after {}, and", median(one["seconds"]["all"] for one in cartpole))
    page.says("all five test at {} or more", min(one["test"] for one in cartpole))


def workers(page: Page, found: dict[str, Any]) -> None:
    both = found["compare_agents"], found["sweep_depth"]
    ratios = [one["ratio"]["1 worker"] for one in both]
    page.says("one worker, on two cores | {} to {} times |", min(ratios), max(ratios))
    for one, what in zip(both, ("{} runs", "{} networks"), strict=True):
        spent = [median(one["seconds"][workers]) for workers in ("1 worker", "2 workers")]
        page.says(
            f"`: {what} | {{}} s | {{}} s | {{}} times |",
            12 if what == "{} runs" else 16,
            *spent,
            one["ratio"]["1 worker"],
        )


# What needs no timing.


def precision(page: Page) -> None:
    """bf16 and fp32 of the same network."""
    fp32, bf16 = percent(lab1.runs("rescnn5-16-10000images-fp32")), lab1.twins("depth-cnn-10000images", 5)[1]
    settings = read("lab1", "depth-cnn-10000images")["config"]
    page.says(
        "depth 5, {} images, {} epochs, seeds {}, {}, {}",
        settings["train_images"],
        settings["epochs"],
        *settings["seeds"],
    )
    page.says("mean ± sd over {} seeds", len(fp32))
    page.says("| fp32 | {} ± {} % |", *mean_sd(fp32))
    page.says("| bf16 | {} ± {} % |", *mean_sd(bf16))
    differences = [a - b for a, b in zip(bf16, fp32, strict=True)]
    page.says("| {}, {}, {} points; mean {} [{}, {}] (", *differences, *paired_interval(bf16, fp32))
    page.says("Student's t, n = {})", len(fp32))


def gradients_sent(page: Page) -> None:
    """What data-parallel training sends, worked out from the networks' sizes."""
    sizes = {
        "MLP of exercise 1.1": lab1.parameters(MLP((784, 128, 64, 10))),
        "ResCNN of depth 9": lab1.parameters(ResCNN(9)),
        "GPT of lab 2": read("lab2", "gpt-6x192-seed0")["parameters"],
    }
    sent = {name: [8e-6 * size * (n - 1) / n for n in (2, 8, 64)] for name, size in sizes.items()}
    page.table("Past one machine", "| network | parameters |", lambda label: (sizes[label], *sent[label]))
    _, cnn, gpt = sent.values()
    page.says(
        "links of {} GB/s, that is {} ms a step for ResCNN-9 and {} ms for the GPT at {} GPUs",
        25,
        cnn[2] / 25,
        gpt[2] / 25,
        64,
    )
    macs, windows = 45_269_632, 12 * 128
    work = [3 * 2 * macs * 128 / 1e9, 6 * sizes["GPT of lab 2"] * windows / 1e9]
    page.says("of {} TFLOP/s in use needs {} ms for ResCNN-9's batch of {} (", 50, work[0] / 50, 128)
    page.says("({} x {} x {} M MACs an image, {} GFLOP) and {} ms for", 3, 2, macs / 1e6, work[0], work[1] / 50)
    page.says(
        "the GPT's {} windows ({} x {} M x {} tokens, {} GFLOP)", 12, 6, sizes["GPT of lab 2"] / 1e6, windows, work[1]
    )
    page.leave("a formula", r"sends 2 \(N - 1\) / N times the gradients' 4 bytes")
    page.leave("numbers of processes", r"\(`--threads`, 1 by default\)|\| 1 worker \| 2 workers \|")
    page.leave("depths, which name a network", r"ResCNN (?:of )?depth \d+")
    page.leave("a kind of layer", r"a 1 x 1 convolution")
    page.leave("numbers of processes", r"2 processes \| 8 \| 64 \|")
    page.leave("tolerances of the tests", r"losses equal to 1e-5")
