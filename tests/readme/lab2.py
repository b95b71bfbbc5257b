"""The numbers of lab2/README.md."""

import math
import re
from statistics import correlation, fmean

from lab1.engine.metrics import mean_interval, paired_interval
from lab2.train_gpt import PRESETS
from tests.readme.pages import Page
from tests.readme.runs import Run, each, mean_sd, percent, read
from tests.readme.runs import seeds as runs_of

ENCODER = "all-MiniLM-L6-v2"
FILMS = "classify-rotten_tomatoes"
METHODS = {
    "TF-IDF": f"{FILMS}-tfidf",
    "frozen features": f"{FILMS}-features-{ENCODER}",
    "LoRA": f"{FILMS}-lora-{ENCODER}",
    "full fine-tuning": f"{FILMS}-finetune-{ENCODER}",
}
CHOSEN = {"LoRA": "1e-3", "full fine-tuning": "1e-4"}  # by validation accuracy, of the learning rates that were tried
ANSWERS = {
    "likelihood": "answer-codah-likelihood-gpt-ag_news-bpe1024",
    "control": "answer-codah-length-only",
    "control of the procedure": f"answer-codah-finetune-{ENCODER}-random-labels",
    f"{ENCODER}, fine-tuned, cross-entropy over the choices": f"answer-codah-finetune-{ENCODER}",
    f"{ENCODER}, fine-tuned, margin ranking": f"answer-codah-finetune-{ENCODER}-margin",
}
QUESTIONS = {"validation": 556, "test": 555}  # of CODAH, as its row under "The data" has them
ABLATION = "ablate-gpt-4x128"
MODERN = "gpt-modern-6x192"
SEARCH = f"retrieve-cranfield-{ENCODER}"


def check(page: Page) -> None:
    """Everything, in the order of the page."""
    for part in (first_table, data, gpt, ablation, decoding, classes, choices, documents):
        page.part(part)
    page.leave("tolerances of the tests", r"hold the logits to 1e-4")
    page.leave("seeds to type", r"# the table, seed 0|# and --seed 1, 2|# and --seed 2")


def run(name: str) -> Run:
    return read("lab2", name)


def variant(name: str) -> list[Run]:
    """The runs of one variant of the ablation, by seed."""
    return [one for one in run(ABLATION)["runs"] if one["variant"] == name]


def ablation(page: Page) -> None:
    def row(label: str):
        name = {"GPT-2": "none", "all seven": "all"}.get(label, label.replace("all but", "-"))
        losses, best = (each(variant(which), "test", "loss") for which in (name, "all"))
        above = paired_interval(losses, best) if name != "all" else ()
        return *mean_sd(losses), *above, fmean(each(variant(name), "cpu_seconds"))

    page.table("The modern preset", "| variant | test loss", row)
    settings = PRESETS["modern-nano"] | {"steps": run(ABLATION)["config"]["steps"]}
    names = "layers", "width", "context", "steps"
    page.says("{} layers, {} wide, context {}, {} steps; mean", *(settings[name] for name in names))
    page.says("over seeds {}, {}, {}, paired differences. Run", 0, 1, 2)
    losses = {name: each(variant(name), "test", "loss") for name in {one["variant"] for one in run(ABLATION)["runs"]}}
    page.says("all seven together are {} [{}, {}] nats below", *paired_interval(losses["none"], losses["all"]))
    lost = {name.removeprefix("- "): paired_interval(losses[name], losses["all"]) for name in losses}
    carrying = ("qk-norm", "rotary", "muon", "squared-relu")
    template = (
        "Four carry it: without QK norm {} is lost, without rotary places {}, without Muon {}, without squared ReLU {}."
    )
    page.says(template, *(lost[name][0] for name in carrying))
    assert all(lost[name][1] > 0 for name in carrying), "four that carry it"
    assert all(lost[name][1] < 0 < lost[name][2] for name in ("zero-init", "shuffling")), "two that show nothing"
    worse = paired_interval(losses["all"], losses["- averaging"])
    page.says("weights are worse by {} [{}, {}], as {} steps", *worse, settings["steps"])
    spent = [fmean(each(variant(name), "cpu_seconds")) for name in ("all", "none")]
    page.says("A modern step takes {} times as long.", spent[0] / spent[1])
    longer = runs("gpt-4x128-900steps")
    loss = each(longer, "test", "loss")
    numbers = longer[0]["config"]["steps"], *mean_sd(loss), len(loss)
    page.says("as much time, {} steps, reaches {} ± {} (n = {},", *numbers)
    page.says("and stays {} [{}, {}] above.", *paired_interval(loss, losses["all"]))
    full_size(page)


def full_size(page: Page) -> None:
    """The modern preset beside the default: one size, one text."""
    names = {"GPT-2": "gpt-6x192", "modern": MODERN, "modern, twice as long": f"{MODERN}-6600steps"}

    def row(label: str):
        same = runs(names[label.split(" (")[0]])
        minutes = round(min(each(same, "seconds")) / 60)  # some were paused for other programs, on the clock
        tenth = [fmean(one[part]["loss"] for part in ("validation", "test")) for one in same]
        losses = [each(same, part, "loss") for part in ("validation", "test")] + [tenth]
        numbers = [number for values in losses for number in shown(values)]
        return *range(len(same)), same[0]["config"]["steps"], minutes, *numbers

    page.table("The modern preset", "| | seeds | steps | minutes", row)
    modern, (longer,) = runs(MODERN), runs(f"{MODERN}-6600steps")
    page.says("**At full size**, {} million parameters", modern[0]["parameters"] / 1e6)
    page.says("is lowest after {} steps.", longer["best_epoch"] * longer["config"]["eval_interval"])
    (plays,) = runs(f"{MODERN}-tinyshakespeare")
    losses = [plays[part]["loss"] for part in ("validation", "test")]
    page.says("The modern GPT reaches {} on all of the last tenth", fmean(losses))
    page.says("which chose the weights, {}; test {}), with", *losses)
    page.says(
        "with {} million parameters, in {} minutes on one core;", plays["parameters"] / 1e6, plays["seconds"] / 60
    )
    page.leave("what nanoGPT documents, linked there", r"1\.4697 for 10\.65 million parameters")


def runs(name: str) -> list[Run]:
    return runs_of("lab2", name)


def first_table(page: Page) -> None:
    page.says("| {} nats a character on verses", fmean(each(runs("gpt-6x192"), "test", "loss")))
    page.says("; {} in half the steps with what came", fmean(each(runs(MODERN), "test", "loss")))
    greedy = run("generate-gpt-6x192-seed0")["decoding"]["greedy"]["repetition"]
    page.says("greedy text repeats {} % of its 4-grams", 100 * greedy)
    words, frozen, *_ = (fmean(percent(same)) for same in films().values())
    lora, full = (fmean(percent(at_rate(*chosen))) for chosen in CHOSEN.items())
    page.says("counted words {} %, frozen features {} %, LoRA {} %, full fine-tuning {} %", words, frozen, lora, full)
    likelihood, _, _, encoder, _ = map(percent, answers().values())
    page.says("encoder {} %, a small GPT's likelihood {} %, chance {} %", fmean(encoder), *likelihood, 25)


def data(page: Page) -> None:
    page.leave("sizes of data sets", r"532,106 characters|[\d,]+ / [\d,]+ / [\d,]+ (?:sentences|questions)")
    page.leave("sizes of data sets", r"8,980 texts of the official 120,000; 1,000; the official test set of 7,600")
    page.leave("sizes of data sets", r"1,400 abstracts on aerodynamics, 113 \+ 112 queries|fold 0: ")
    page.leave("sizes of data sets", r"10,001 of the training texts|250 of each class validate")
    page.leave(
        "grades of Cranfield",
        r"original\s+grades,\s+1\s+\(best\)\s+to\s+4,\s+became\s+4\s+to\s+1;\s+-1,[^.]*became\s+4\.",
    )
    page.leave("places of choices", r"counted from 0")


# 1 and 2


def gpt(page: Page) -> None:
    large, weaker = runs("gpt-6x192"), runs("gpt-6x192-decay0.1")
    one, settings = large[0], large[0]["config"]
    names = "layers", "width", "context"
    page.says(
        "# {} layers, {} wide, context {}; {} minutes on", *(settings[name] for name in names), one["seconds"] / 60
    )
    nano = (PRESETS["nano"][name] for name in (*names, "steps"))
    page.says("# {} layers, {} wide, context {}, {} small steps", *nano)
    page.leave("shares of the poem", r"The first 90 % of the poem.*, the next 5 % .*, the last 5 % are")
    for before, trained, seeds in (
        ("nanoGPT).", large, ("seeds {}, {}, {}", *range(3))),
        ("gpt-5x96.png)):", runs("gpt-5x96"), ("one seed",)),
    ):
        settled = trained[0]["config"]
        size = trained[0]["parameters"], settled["steps"], settled["batch_size"]
        page.says(f"{before} | {{}} parameters, {{}} steps of {{}} windows, {seeds[0]} |", *size, *seeds[1:])
        page.table("Exercise 1", f"| {size[0]:,} parameters", losses(trained))
    page.leave("a number format", r"rounded to 16 bits")
    page.leave("a bound that the lines below it show", r"both losses by less than 0\.00001")
    tenth = fmean(fmean(each(large, part, "loss")) for part in ("validation", "test"))
    page.says("Over the whole last tenth of the poem the loss of the large one is {}.", tenth)
    page.says(
        "With a weight decay of {} instead of {} (", weaker[0]["config"]["weight_decay"], settings["weight_decay"]
    )
    higher = [
        number
        for part in ("validation", "test")
        for number in paired_interval(*(each(same, part, "loss") for same in (weaker, large)))
    ]
    page.says("low, validation loss {} [{}, {}] higher, test loss {} [{}, {}] (paired, n = {})", *higher, len(weaker))
    page.leave("settings of sampling", r"with top-p 0\.95")


def losses(trained: list[Run]):
    """How the table of a GPT has a row: validation and test."""
    keys = {"loss": "loss", "perplexity": "perplexity", "bits per character": "bits_per_character"}
    return lambda label: [
        number for part in ("validation", "test") for number in shown(each(trained, part, keys[label.split(" (")[0]]))
    ]


def decoding(page: Page) -> None:
    found = run("generate-gpt-6x192-seed0")
    characters, *pairs = found["tokenizers"].values()
    page.says("The test part, {} characters, is {} tokens", characters["characters"], characters["tokens"])
    page.says("by characters, {} with {} [byte", pairs[0]["tokens"], pairs[0]["vocabulary"])
    page.says("and {} with {}: ", pairs[1]["tokens"], pairs[1]["vocabulary"])
    page.says(": {} and {} characters a token", *(pair["characters_per_token"] for pair in pairs))
    page.says(
        "the same {} passages of the test part by {} characters", *map(found["config"].get, ("samples", "length"))
    )

    for name, size, header in (("6x192", "{}M parameters |", "2.7M"), ("5x96", "{}M parameters ([figure]", "0.6M")):
        page.says(f"| decoding, GPT of {size}", run(f"gpt-{name}-seed0")["parameters"] / 1e6)
        page.table("Exercise 2", f"GPT of {header} parameters", ways(run(f"generate-gpt-{name}-seed0")))


def ways(found: Run):
    """How the table of ways to decode has a row."""

    def row(label: str):
        label = re.sub(r"(top-.), . ", r"\1 ", label)
        return [100 * found["decoding"][label][measure] for measure in ("distinct_1", "distinct_2", "repetition")]

    return row


# 3.1 to 3.3


def best_accuracy(one: Run) -> int:
    """The epoch of the highest validation accuracy."""
    return max(one["history"], key=lambda epoch: epoch["validation"]["accuracy"])["epoch"]


def at_rate(method: str, rate: str) -> list[Run]:
    """The runs that accuracy chose from, at a learning rate."""
    kind, default = {"LoRA": ("lora", "1e-3"), "full fine-tuning": ("finetune", "5e-5")}[method]
    named = "" if rate == default else f"-lr{float(rate):g}"
    return runs(f"{FILMS}-{kind}-{ENCODER}{named}-by-accuracy")


def rates(page: Page) -> None:
    def row(method: str, rate: str):
        same = at_rate(method, rate)
        accuracies = *mean_sd(percent(same, "validation")), *mean_sd(percent(same))
        return *range(len(same)), *accuracies, *each(same, "best_epoch")

    page.leave("learning rates", r"(?<= \| )\d+e-\d(?= \|)")
    page.table("Exercise 3.1", "| method | learning rate |", row, keys=2)
    tried = {"LoRA": ("5e-4", "1e-3", "2e-3"), "full fine-tuning": ("2e-5", "5e-5", "1e-4")}
    best = {
        method: max(rates, key=lambda rate: fmean(percent(at_rate(method, rate), "validation")))
        for method, rates in tried.items()
    }
    page.problems += [f"{page.name}: validation chooses {best}"] * (best != CHOSEN)
    lora, full = (percent(at_rate(*chosen)) for chosen in CHOSEN.items())
    page.says(
        "LoRA less full fine-tuning is {} [{}, {}] points (paired, n = {})", *paired_interval(lora, full), len(lora)
    )
    page.leave("learning rates", r"Validation chooses 1e-3 for LoRA and 1e-4 for")


def films() -> dict[str, list[Run]]:
    """The runs of each method; the first two have no seed."""
    without = "TF-IDF", "frozen features"
    return {label: [run(name)] if label in without else runs(name) for label, name in METHODS.items()}


def classes(page: Page) -> None:
    by_method = films()
    frozen, lora, full = (by_method[label] for label in ("frozen features", "LoRA", "full fine-tuning"))

    def row(label: str):
        method = next(name for name in METHODS if label.startswith(name))
        same = by_method[method]
        spent = each(same, "seconds")
        (learns,) = set(each(same, "test", "trainable_parameters"))
        f1 = fmean(each(same, "test", "macro_f1"))
        if len(same) == 1:
            return learns, *percent(same, "validation"), *percent(same), f1, *spent
        accuracies = *mean_sd(percent(same, "validation")), *mean_sd(percent(same))
        return learns, *accuracies, f1, min(spent), max(spent)

    page.says("({}M parameters), compares sentences", frozen[0]["parameters"] / 1e6)
    page.says("deviation over seeds {}, {}, {}; the first two methods", 0, 1, 2)
    page.says("regression, C {})", by_method["TF-IDF"][0]["chosen"]["C"])
    best = frozen[0]["chosen"]
    page.says("(layer {} of {}, mean over tokens, SVM, C {})", best["layer"], 6, best["C"])
    page.says("rank {}, {} epochs |", lora[0]["config"]["lora_rank"], lora[0]["epochs"])
    page.says("full fine-tuning, {} epochs |", full[0]["epochs"])
    page.table("Exercise 3.1", "| method | learns |", row)
    page.says(
        "(LoRA {}e-3, fine-tuning {}e-5)",
        *(1e3 * lora[0]["config"]["learning_rate"], 1e5 * full[0]["config"]["learning_rate"]),
    )

    def difference(label: str):
        after, before = (percent(by_method[method]) for method in label.split(" minus "))
        before = before * len(after) if len(before) == 1 else before
        return *(a - b for a, b in zip(after, before, strict=True)), *paired_interval(after, before)

    page.table("Exercise 3.1", "| difference in test accuracy", difference)
    page.says("(Student's t, n = {}) |", len(lora))
    images = sum(map(sum, lora[0]["test"]["confusion"]))
    shares = [fmean(each(same, "test", "accuracy")) for same in by_method.values()]
    errors = [100 * math.sqrt(share * (1 - share) / images) for share in shares]
    page.says("the {} sentences add a standard error of {} to {} points", images, min(errors), max(errors))
    share = 100 * lora[0]["test"]["trainable_parameters"] / full[0]["test"]["trainable_parameters"]
    page.says("though LoRA trains {} % as many parameters", share)
    if any(one["best_epoch"] != 1 or best_accuracy(one) != 2 for one in full):
        page.problems.append(f"{page.name}: validation loss and accuracy do not choose epochs 1 and 2 of fine-tuning")
    rates(page)
    best = {
        kind: [
            max(one["accuracy"] for one in frozen[0]["tried"] if (one["pooling"], one["layer"]) == (kind, layer))
            for layer in range(7)
        ]
        for kind in ("mean", "cls")
    }
    page.says("every layer: {} against {} % in validation", *(100 * max(best[kind]) for kind in ("mean", "cls")))
    page.says(
        "From layer {} on the mean stays within {} points.", 2, 100 * (max(best["mean"][2:]) - min(best["mean"][2:]))
    )
    page.says("At layer {}, before", 0)
    page.says("and {} % is all there is", 100 * best["cls"][0])
    page.says("TF-IDF alone reaches {} %", *percent([run("classify-ag_news-tfidf")]))


def answers() -> dict[str, list[Run]]:
    """The runs of each way to answer; the control has no seed."""
    return {label: [run(name)] if label == "control" else runs(name) for label, name in ANSWERS.items()}


def choices(page: Page) -> None:
    likelihood, (control,), random, entropy, margin = answers().values()
    chance = 100 * control["chance"]

    def row(label: str):
        if label == "chance":
            return chance, chance
        same = answers()[label.split(":")[0]]
        return len(same), *(number for part in ("validation", "test") for number in shown(percent(same, part)))

    page.says("deviation over seeds {}, {}, {}.", 0, 1, 2)
    best = [one["best_epoch"] for one in (*entropy, *margin)]
    page.says(
        "Of {} epochs validation loss chose the first in {} run, the second in {}.", 3, best.count(1), best.count(2)
    )
    page.table("Exercise 3.2", "| | runs | validation accuracy | test accuracy |", row)
    page.says(
        "standard error of {} questions is {} points at {} %, {} at {} %",
        QUESTIONS["test"],
        100 * math.sqrt(0.25 / QUESTIONS["test"]),
        50,
        100 * math.sqrt(0.1875 / QUESTIONS["test"]),
        chance,
    )
    page.says("with {}M parameters and", likelihood[0]["parameters"] / 1e6)
    page.leave("sizes of data sets", r"and 1\.6 MB of\s+news read")
    differences = [a - b for a, b in zip(percent(margin), percent(entropy), strict=True)]
    page.says("is {}, {} and {} points by seed, {} [{}, {}] in the mean", *differences, *mean_interval(differences))
    page.says("in the mean (95 %, Student's t, n = {})", len(differences))
    epochs = [[100 * one["history"][epoch]["train"]["accuracy"] for one in (*entropy, *margin)] for epoch in (1, 2)]
    page.says("rises from {}-{} to {}-{} %", *(end(values) for values in epochs for end in (min, max)))
    rising = sum(
        one["history"][2]["validation"]["loss"] > one["history"][1]["validation"]["loss"] for one in (*entropy, *margin)
    )
    page.says("validation loss rises in all {} runs", rising)
    asked = sum(QUESTIONS.values())
    share = sum(control[part]["accuracy"] * count for part, count in QUESTIONS.items()) / asked
    half = 1.96 * math.sqrt(share * (1 - share) / asked)
    page.says("of all {} questions of validation and test", asked)
    page.says("classifier answers {} % [{}, {}] (normal", *(100 * each for each in (share, share - half, share + half)))
    page.says("do not account for the {} %", fmean(percent(entropy)))
    page.says("it ends at {} ± {} % (n = {}), which is chance", *mean_sd(percent(random)), len(random))


def shown(values: list[float]) -> tuple[float, ...]:
    """Mean and deviation, or the one value there is."""
    return mean_sd(values) if len(values) > 1 else tuple(values)


def documents(page: Page) -> None:
    plain, tuned = run(SEARCH), runs(f"{SEARCH}-finetune")
    systems = {"BM25 (k1 1.2, b 0.75)": "bm25", f"dense, {ENCODER}": "dense", "hybrid of both": "hybrid"}
    again = {"dense, fine-tuned, 5 seeds": "dense", "hybrid, fine-tuned, 5 seeds": "hybrid"}

    def row(label: str):
        measures = "ndcg@10", "recall@100", "mrr"
        if label in again:
            return [number for measure in measures for number in mean_sd(each(tuned, "test", again[label], measure))]
        found = plain["test"][systems[label]]
        return [number for measure in measures for number in (found[measure], *found[f"{measure}_interval"])]

    queries = len(plain["test"]["bm25"]["queries"])
    page.says("bootstrap over the {} test queries", queries)
    page.says("deviation over seeds {} to {} of fine-tuning", 0, len(tuned) - 1)
    weights = each(tuned, "test", "weight")
    page.says("chosen on training queries: {}, and {} to {} after", plain["test"]["weight"], min(weights), max(weights))
    page.leave("sizes of data sets", r"on 22 queries held out of it|ten epochs on 91\s+queries|another 112 queries")
    page.leave("seeds to type", r"queries first; --seed 1 to 4|fine-tuned, 5 seeds|mean of 5 seeds on")
    page.table("Exercise 3.3", "nDCG@10 | recall@100", row)
    bm25, dense, hybrid = (plain["test"][name]["queries"] for name in ("bm25", "dense", "hybrid"))
    by_query = {
        name: [fmean(scores) for scores in zip(*(one["test"][name]["queries"] for one in tuned), strict=True)]
        for name in ("dense", "hybrid")
    }
    pairs = {
        "dense minus BM25": (dense, bm25),
        "hybrid minus BM25": (hybrid, bm25),
        "hybrid minus dense": (hybrid, dense),
        "dense: fine-tuned minus as it is, the mean of 5 seeds on each query": (by_query["dense"], dense),
        "hybrid: fine-tuned minus as it is, the same": (by_query["hybrid"], hybrid),
    }
    page.table("Exercise 3.3", "| difference in nDCG@10 |", lambda label: paired_interval(*pairs[label]))
    page.says("(Student's t, n = {} queries)", queries)
    r, half = correlation(bm25, dense), 1.96 / math.sqrt(queries - 3)  # Fisher's z
    ends = math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half)
    page.says("nDCG by query correlates at {} [{}, {}] (95 %, Fisher's z, n = {})", r, *ends, queries)
    worst = [set(sorted(range(queries), key=scores.__getitem__)[: queries // 4]) for scores in (bm25, dense)]
    page.says(
        "the worst {} queries of each share {} ({} by chance)", queries // 4, len(worst[0] & worst[1]), queries / 16
    )
    gain = mean_interval(
        [score - plain["test"]["dense"]["ndcg@10"] for score in each(tuned, "test", "dense", "ndcg@10")]
    )
    page.says("on these queries {} [{}, {}] over five", *gain)
    page.says("lowest in epoch {}, {}, {}, {} and {}:", *sorted(each(tuned, "best_epoch")))
    spent = each(tuned, "seconds")
    page.says("{} s without and {} to {} s with fine-tuning", plain["seconds"], min(spent), max(spent))
