"""The numbers of lab1/README.md."""

import math
import re
from statistics import fmean

import torch

from lab1.ablate_fast import compared
from lab1.compare_gradients import WINDOW
from lab1.detection import canvases
from lab1.detection.detector import RIGHT
from lab1.engine.metrics import correlation_interval, mean_interval, paired_interval, ratio_interval
from lab1.explanation.evaluation import FEW
from lab1.models import CNN, MLP, FastCNN, count_macs
from lab1.train_fast import TRICKS
from tests.readme.pages import Page
from tests.readme.runs import Run, each, mean_sd, percent, read, significant
from tests.readme.runs import seeds as runs_of

MLPS = {
    "MNIST": "mlp-128-64",
    "MNIST, --augment": "mlp-128-64-augment",
    "digits of scikit-learn (no download)": "mlp-128-64-digits",
}
DETECTORS = {
    "LeNet, 80,331 parameters": "detect-lenet",
    "MLP, 235,275 parameters": "detect-mlp",
    "MLP of exercise 1.1, 109,386 parameters, no background class": "detect-mlp-128-64",
}
ABLATION = "ablate-fast-32"
MAPS = {
    "class activation map, 8 x 8": "cam",
    "Grad-CAM at the second stage, 16 x 16": "grad-cam, 16 x 16",
    "class activation map, random weights": "random weights",
    "random map": "random map",
    "the centre of the image": "centre",
    "chance: the box's share of the image": "chance",
}


def check(page: Page) -> None:
    """Everything, in the order of the page."""
    for part in (first_table, small_network, depth, initial_weights, convolutions, one_network, fast):
        page.part(part)
    for part in (gradients, without_normalisation, detector, maps):
        page.part(part)
    page.leave("depths, which name a network", r"\b[Dd]epths? \d+(?:(?:,| and| to|, and) \d+)*")
    page.leave("versions", r"torch 2\.15\.0 and 2\.14\.1")
    page.leave("bits of image files", r"16 bits scaled to 8")
    page.leave(
        "what a comment says of a command",
        r"# depths [\d, ]+|depth \d+ to \d+|depths 5 and 20, seed 0|# depth 9, comparable",
    )
    page.leave("tolerances of the tests", r"holds? (?:it|both) to 1e-5")


def runs(name: str) -> list[Run]:
    return runs_of("lab1", name)


def parameters(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def first_table(page: Page) -> None:
    plain, augmented = fmean(percent(runs("mlp-128-64"))), fmean(percent(runs("mlp-128-64-augment")))
    page.says("{} % test accuracy; distorting the training images makes it {} %", plain, augmented)
    page.says("plain MLPs fail from depth 50 on, residual ones reach {} % there", fmean(twins("depth-mlp", 50)[1]))
    page.says("a residual CNN of depth 9 reaches {} % on CIFAR-10", *percent(runs("rescnn9-16")))
    growths = [growth(20, network) for network in ("plain", "residual")]
    page.says("the first convolution's gradient is {} times the last one's in a plain CNN, {} times in its", *growths)
    lenet, none = (fmean(each(runs(name), "test", "f1")) for name in ("detect-lenet", "detect-mlp-128-64"))
    page.says("F1 {} on cluttered canvases (mean of three networks), trained", lenet)
    page.says("with a background class; {} with", none)
    page.says("the map marks the object in {} % of the images", 100 * fmean(over_networks("pointing_game", "cam")))
    page.says("by Student's t: {} standard deviations to either side for three seeds", mean_interval((-1, 0, 1))[2])


# 1.1


def small_network(page: Page) -> None:
    def row(label: str):
        same = runs(MLPS[label])
        spent, loss = each(same, "seconds"), each(same, "test", "loss")
        accuracy = *mean_sd(percent(same, "validation")), *mean_sd(percent(same))
        return *accuracy, *mean_sd(loss), min(spent), max(spent)

    plain, augmented, digits = map(runs, MLPS.values())
    page.says("with layers of {}, {} and {} units", *plain[0]["config"]["hidden"], len(plain[0]["test"]["confusion"]))
    page.says("| 784-128-64-10, {} parameters |", parameters(MLP((784, 128, 64, 10))))
    page.table("1.1 A small network", "| 784-128-64-10", row)
    page.says("Mean ± standard deviation over seeds {} to {}. AdamW", 0, len(plain) - 1)
    page.says("up to {} epochs (digits: {});", plain[0]["config"]["epochs"], digits[0]["config"]["epochs"])
    page.leave("seeds that chose hyperparameters", r"Validation loss on seeds 0 and 1 chose")
    images, few = (int(torch.tensor(same[0]["test"]["confusion"]).sum()) for same in (plain, digits))
    page.says("The digits' {} validation images", (1797 - few) // 10)
    chosen = [100 * run["history"][run["best_epoch"] - 1]["train"]["accuracy"] for run in plain]
    page.says("At the chosen epoch training accuracy is {} to {} %", min(chosen), max(chosen))
    page.leave("digits", r"wider than a 1|answering \"1\"")
    page.says("training images adds {} [{}, {}] points, paired", *paired_interval(percent(augmented), percent(plain)))
    errors = [images / 100 * (100 - fmean(percent(same))) for same in (augmented, plain)]
    page.says("paired: {} errors a seed, not {}.", *errors)
    page.says("The standard error of {} test images is about {} points", images, error(plain, images))
    page.says("of the digits' {} it is {}", few, error(digits, few))


def error(same: list[Run], images: int) -> float:
    """Standard error in points of the mean accuracy, by the number of test images."""
    mean = fmean(percent(same))
    return (mean * (100 - mean) / images) ** 0.5


# 1.2


def twins(sweep: str, depth: int, part: str = "test") -> tuple[list[float], list[float]]:
    """Accuracies in percent of plain and residual networks, by seed."""
    found = [run for run in read("lab1", sweep)["runs"] if run["depth"] == depth]
    plain, residual = ([run for run in found if run["residual"] is kind] for kind in (False, True))
    return percent(plain, part), percent(residual, part)


def twin_row(sweep: str, sizes: bool = True):
    """How a table of a sweep has a row: parameters and MACs, both kinds, and their paired difference."""

    def row(label: str):
        plain, residual = twins(sweep, int(label))
        (one, *_) = (run for run in read("lab1", sweep)["runs"] if run["depth"] == int(label))
        size = (one["parameters"], one["macs"]) if sizes else ()
        return *size, *mean_sd(plain), *mean_sd(residual), *paired_interval(residual, plain)

    return row


def depth(page: Page) -> None:
    settings = read("lab1", "depth-mlp")["config"]
    names = ("width", "learning_rate", "weight_decay", "batch_size", "epochs")
    template = "{} units a layer, AdamW, learning rate {}, weight decay {}, batches of {}, {} epochs"
    page.says(template, *(settings[name] for name in names))
    page.table("1.2 Depth", "| depth | parameters | MACs |", twin_row("depth-mlp"))
    page.says("standard deviation over seeds {}, {}, {}; paired", *settings["seeds"])
    (plain2, residual2), (plain6, _) = twins("depth-mlp", 2), twins("depth-mlp", 6)
    residual50, residual100 = twins("depth-mlp", 50)[1], twins("depth-mlp", 100)[1]
    page.says("lose {} [{}, {}] points from depth 2 to 6", *paired_interval(plain2, plain6))
    page.says('always answering "1" scores {} %', 100 * 1135 / 10_000)  # of MNIST's test images 1,135 show a 1
    page.says("({}, {}, {}): read the dots", *twins("depth-mlp", 20)[0])
    page.says("gain {} [{}, {}] points from depth 2 to 50", *paired_interval(residual50, residual2))
    page.says("depth 100 from {} ({} [{}, {}])", 50, *paired_interval(residual100, residual50))


def initial_weights(page: Page) -> None:
    page.table("Is it the identity", "| depth | plain, He's weights |", twin_row("depth-mlp-he", sizes=False))
    difference = paired_interval(twins("depth-mlp-he", 2)[0], twins("depth-mlp-he", 50)[0])
    page.says("trains at depth 50, {} [{}, {}] points below depth 2", *difference)
    sweeps = {
        "as He's weights have it": "depth-mlp-he",
        "divided by the square root of the number of blocks": "depth-mlp-he-scaled",
        "zero, so that each block begins as the identity (Zhang et al. 2019)": "depth-mlp-he-zero",
    }

    def branches(label: str):
        return [number for depth in (2, 10, 20, 50) for number in mean_sd(twins(sweeps[label], depth)[1])]

    page.says("Residual MLPs, test accuracy on MNIST, mean ± standard deviation over seeds {}, {}, {}.", 0, 1, 2)
    page.table("Is it the identity", "| last layer of each branch |", branches)
    zero = {depth: twins("depth-mlp-he-zero", depth)[1] for depth in (2, 10, 20, 50)}
    page.says("begin at zero, depth 50 is {} [{}, {}] points above depth 2", *paired_interval(zero[50], zero[2]))
    page.says("and {} [{}, {}] above the plain", *paired_interval(zero[50], twins("depth-mlp-he", 50)[0]))
    usual = [paired_interval(zero[depth], twins("depth-mlp", depth)[1]) for depth in (10, 20, 50)]
    page.says("difference at depth 10 ({} [{}, {}]) or {} ({} [{}, {}])", *usual[0], 20, *usual[1])
    page.says("lose a little at {} ({} [{}, {}])", 50, *usual[2])


def convolutions(page: Page) -> None:
    sweep, rates = "depth-cnn-tuned", read("lab1", "depth-cnn-10000images-rates")
    settings, by_depth = read("lab1", sweep)["config"], {depth: twins(sweep, depth) for depth in (1, 5, 10, 20, 25)}
    page.says("{} images to learn from: {} epochs of SGD", 45_000, settings["epochs"])
    page.says("of {}, {} and {}, the", *rates["config"]["rates"])
    page.says("nearest of depths 5, 10 and 20, on {} images with seed {} (", rates["config"]["train_images"], 100)
    taken = {(run["depth"], run["residual"]): run["learning_rate"] for run in read("lab1", sweep)["runs"]}
    page.says("Plain networks took {} from depth 9 on, all others {}.", taken[10, False], taken[10, True])
    assert all(rate == (0.1 if depth >= 9 and not residual else 0.3) for (depth, residual), rate in taken.items())
    page.table("Convolutional networks", "| depth | parameters | MACs |", twin_row(sweep))
    plain, residual = ({depth: pair[kind] for depth, pair in by_depth.items()} for kind in (0, 1))
    better, worse = paired_interval(residual[20], residual[5]), paired_interval(plain[5], plain[20])
    page.says("CNN of {} blocks is {} points better than one of {}, a plain one {} points", 20, better[0], 5, worse[0])
    page.says("gains {} [{}, {}] points from depth 5 to 20", *better)
    page.says("show no loss to {} ({} [{}, {}]).", 25, *paired_interval(residual[25], residual[20]))
    lost = [paired_interval(plain[5], plain[depth]) for depth in (10, 20, 25)]
    page.says("from depth 5, {} [{}, {}] points to {}, {} [{}, {}] to {}", *lost[0], 10, *lost[1], 20)
    page.says("and {} [{}, {}] to {}. It", *lost[2], 25)
    train = [fmean(twins(sweep, depth, "train")[0]) for depth in (5, 10, 20, 25)]
    page.says("training accuracy falls, {}, {}, {}, {} % at {}, {}, {}, {}.", *train, 5, 10, 20, 25)
    longer = {depth: twins("depth-cnn-tuned-30epochs", depth) for depth in (10, 20)}
    page.says("After {} epochs (one seed", read("lab1", "depth-cnn-tuned-30epochs")["config"]["epochs"])
    page.says("depths 10 and 20 reach {} and {} %:", *longer[10][0], *longer[20][0])
    page.says("the residual ones, {} and {} %.", *longer[10][1], *longer[20][1])
    page.leave("versions", r"torch 2\.11\.0")
    faster = read("lab1", "depth-cnn-10000images-rates", "larger_rate.json")["runs"]
    usual = [r for r in rates["runs"] if r["residual"] and r["learning_rate"] == max(rates["config"]["rates"])]
    assert [run["depth"] for run in faster] == [run["depth"] for run in usual] == [5, 10, 20]
    page.says(
        "At rate {} residual networks validate lower than at {}:", faster[0]["learning_rate"], usual[0]["learning_rate"]
    )
    percents = *percent(faster, "validation"), *percent(usual, "validation")
    page.says(": {}, {} and {} % against {}, {} and {} % at depths 5, 10 and 20", *percents)
    bare = read("lab1", "depth-cnn-10000images-rates", "without_norm.json")

    def best(runs_of_it: list[Run]) -> float:
        return max(percent(runs_of_it, "validation"))

    kinds = [best([one for one in bare["runs"] if one["init"] == init]) for init in ("default", "he-scaled", "he-zero")]
    twin = [best([one for one in rates["runs"] if (one["depth"], one["residual"]) == (10, kind)]) for kind in (1, 0)]
    page.says("Not here. At depth 10, on {} images and seed {}, a", bare["config"]["train_images"], 100)
    page.says("without it validates at {} % from He's weights, {} % with branches divided", *kinds[:2])
    page.says("as above and {} % with branches that begin at zero", kinds[2])
    page.says("with it, at {} %, and its plain twin at {} %.", *twin)
    quick(page)


def quick(page: Page) -> None:
    sweep = "depth-cnn-10000images"
    settings = read("lab1", sweep)["config"]
    steps = settings["epochs"] * -(-settings["train_images"] // settings["batch_size"])
    numbers = settings["train_images"], settings["epochs"], steps, settings["learning_rate"]
    page.leave("a column of these", r"\| plain, 10,000 images \|")
    page.says("{} images, {} epochs, {} steps at learning rate {}:", *numbers)
    page.table("The same in three hours", "| depth | plain, 10,000 images |", twin_row(sweep, sizes=False))
    residual = {depth: twins(sweep, depth)[1] for depth in (10, 20, 25)}
    lost = [paired_interval(residual[10], residual[depth]) for depth in (20, 25)]
    page.says("they lose {} [{}, {}] points to {} and {} [{}, {}] to", *lost[0], 20, *lost[1])
    page.says("] to {}. ### One network", 25)


def one_network(page: Page) -> None:
    (run,) = runs("rescnn9-16")
    (test,), (held_out,) = percent([run]), percent([run], "validation")
    page.says("The first command: **{} %** test accuracy (validation {} %;", test, held_out)
    page.says("{} parameters, one seed, {} minutes)", parameters(CNN(9)), run["seconds"] / 60)
    page.leave(
        "He et al.'s ResNet-20, linked above", r"He et al\. report 91\.25 % for ResNet-20 after about 180 epochs"
    )
    page.says("With a standard error of {} points the", error([run], 10_000))
    earlier = read("lab1", "rescnn9-16-seed0", "earlier.json")
    page.says("had seen {} epochs ({} %)", earlier["epochs"], *percent([earlier]))
    page.says("before {}, both", run["config"]["epochs"])
    tries = read("lab1", "rescnn9-16-seed0", "twenty_epochs.json")["runs"]
    page.says("91.25 % in {} epochs was not reached:", tries[0]["config"]["epochs"])
    found = percent(tries, "validation")
    page.says("three with Muon, validated between {} and {} %.", min(found), max(found))
    assert [one["config"]["optimizer"] for one in tries] == ["sgd"] * 3 + ["muon"] * 3
    page.leave("a seed", r"(?<=on seed )100(?=, three\s+with SGD)")
    page.leave("He et al.'s ResNet-20, linked above", r"^91\.25 % in 20 epochs")


def fast(page: Page) -> None:
    ablation = read("lab1", ABLATION)
    networks = {
        "FastCNN, width 64": (runs("fast-64"), FastCNN(64)),
        "FastCNN, width 64, nothing held out": (runs("fast-64-0held-out"), FastCNN(64)),
        "FastCNN, width 32": (variant("all"), FastCNN(32)),
        "ResCNN, depth 9 (above)": (runs("rescnn9-16"), CNN(9)),
    }

    def row(label: str):
        same, network = networks[label]
        epochs = same[0]["epochs"] if "epochs" in same[0] else ablation["config"]["epochs"]
        accuracies = percent(same), with_views(same) if label.startswith("FastCNN") else []
        numbers = [mean_sd(found) if len(found) > 1 else found for found in accuracies]
        whole = operations(network, epochs, 50_000 if "nothing held out" in label else 45_000)
        first_and_last = sorted({0, len(same) - 1})
        return *first_and_last, parameters(network), epochs, whole / 1e15, *numbers[0], *numbers[1]

    page.table("In how little computation?", "| network | seeds | parameters |", row)
    large, small = operations(FastCNN(64), 12), operations(FastCNN(32), 12)
    assert 1.8 < operations(CNN(9), 60) / large < 2.2, "half of the operations"
    assert 3.4 < large / small < 4.4, "a quarter of its operations"
    first, most = fmean(percent(runs("fast-64"))), fmean(with_views(runs("fast-64-0held-out")))
    page.says("shallow network reaches {} % on CIFAR-10 with half of the operations; {} % if", first, most)
    page.says("test has a standard error of {} points", error(runs("rescnn9-16"), 10_000))
    seconds = each(runs("fast-64"), "seconds")
    page.says("training of width 64 takes {} to {} s;", min(seconds), max(seconds))
    all_learned, held_out = runs("fast-64-0held-out"), runs("fast-64")
    gains = [paired_interval(of(all_learned), of(held_out)) for of in (percent, with_views)]
    page.says("learn from all {} images, as", 50_000)
    page.says("That is worth {} [{}, {}] points, with six views {} [{}, {}],", *gains[0], *gains[1])
    page.leave("widths, which name a network", r"\b[Ww]idth (?:32|64)\b")
    page.leave("Jordan's speed runs, linked there", r"brought 94 %")
    page.leave("sizes of maps", r"the last map of FastCNN is 3 x 3")
    tricks(page)


def with_views(same: list[Run]) -> list[float]:
    """Accuracies in percent where each image is looked at six times."""
    return each(same, "test", "accuracy_with_views", times=100)


def variant(name: str) -> list[Run]:
    """The runs of one variant of the ablation, by seed."""
    return [run for run in read("lab1", ABLATION)["runs"] if run["variant"] == name]


def tricks(page: Page) -> None:
    def row(label: str):
        trick = {"none": "none", "Muon": "all"}.get(label, f"+ {label}")
        with_it, before = (percent(variant(name)) for name in (trick, compared(trick)[1]))
        numbers = mean_sd(with_it)
        if label != "none":
            numbers += paired_interval(with_it, before)
        if label not in ("none", "Muon"):
            numbers += paired_interval(percent(variant("all")), percent(variant(f"- {label}")))
        return numbers

    page.says("three of nine carry most of it (n = {})", len(variant("all")))
    page.table("What is each trick worth?", "| trick | accuracy with it", row)
    settings = read("lab1", ABLATION)["config"]
    page.leave("the goal of the ablation", r"steps to 90 % of each variant")
    page.says("Width 32, {} epochs; test accuracy in one look", settings["epochs"])
    page.says("over seeds {}, {}, {}; paired differences in points. Runs", *settings["seeds"])
    whole = paired_interval(percent(variant("all")), percent(variant("none")))
    page.says("Together they are worth {} [{}, {}] points.", *whole)
    muon, sgd = (each(variant(name), "steps_to_goal") for name in ("all", "+ alternating"))
    page.says("is at {} % after {} to {} steps, not {} to", 100 * settings["goal"], min(muon), max(muon), min(sgd))
    page.says("to {} steps, not {} to {}.", max(muon), min(sgd), max(sgd))
    shown = {
        name: [paired_interval(percent(variant(a)), percent(variant(b)))[1] > 0 for a, b in both(name)]
        for name in TRICKS
    }
    assert [name for name in TRICKS if all(shown[name])] == ["whitening", "frozen-scales", "shifting"]
    assert [name for name in TRICKS if any(shown[name]) and not all(shown[name])] == ["smoothing"]
    three = sum(fmean(percent(variant(f"+ {name}"))) for name in ("whitening", "frozen-scales", "shifting"))
    before = sum(
        fmean(percent(variant(compared(f"+ {name}")[1]))) for name in ("whitening", "frozen-scales", "shifting")
    )
    assert three - before > whole[0] / 2, "three of nine carry most of it"


def both(trick: str) -> list[tuple[str, str]]:
    """The two comparisons that say what a trick is worth: with it, and without it."""
    return [compared(f"+ {trick}"), ("all", f"- {trick}")]


def operations(network: torch.nn.Module, epochs: int, images: int = 45_000) -> float:
    """Multiplications and additions of a whole training: the backward pass takes twice those of the forward pass."""
    return 6 * count_macs(network, (3, 32, 32)) * images * epochs


# 2.1


def measured(norm: str, depth: int, network: str, moment: str) -> list[tuple[float, float, float]]:
    """Mean and interval of the loss, of first / last and of neighbours, over seeds."""
    same = values(norm, depth, network, moment)
    return [mean_interval(same[0]), ratio_interval(same[1]), correlation_interval(same[2])]


def values(norm: str, depth: int, network: str, moment: str) -> list[list[float]]:
    """Loss, first / last and neighbours, a number a seed."""
    same = [run for run in read("lab1", f"gradients-{norm}")["runs"] if same_twin(run, depth, network)]
    found = [run[moment] for run in same if moment in run]
    return [[one["loss"] for one in found], each(found, "first_to_last"), [one["correlation"][1] for one in found]]


def growth(depth: int, network: str) -> float:
    """How many times the last convolution's gradient norm the first one's is at the start, in the geometric mean."""
    same = [run for run in read("lab1", "gradients-batch")["runs"] if same_twin(run, depth, network)]
    return math.exp(fmean(math.log(run["start"]["norms"][0] / run["start"]["norms"][-2]) for run in same))


def gradient_row(norm: str):
    def row(label: str, network: str):
        depth, _, moment = label.removeprefix("depth ").partition(", ")
        (loss, *_), ratio, neighbours = measured(norm, int(depth), network, moment or "start")
        return loss if loss < 100 else round(loss), *significant(ratio), *neighbours

    return row


def paired_row(label: str):
    """A row that compares the twins: ratios by way of logarithms, differences of the others."""
    what, moment, _ = label.replace(":", ",").split(", ")
    found = []
    for depth in read("lab1", "gradients-batch")["config"]["depths"]:
        plain, residual = (values("batch", depth, network, moment) for network in ("plain", "residual"))
        if what == "first / last":
            ratios = [a / b for a, b in zip(plain[1], residual[1], strict=True)]
            found += significant(ratio_interval(ratios))
        elif what == "neighbours":
            found += paired_interval(residual[2], plain[2])
        else:
            found += paired_interval(plain[0], residual[0])
    return found


def gradients(page: Page) -> None:
    settings = read("lab1", "gradients-batch")["config"]
    page.says("the same {} batches of {} CIFAR-10 images", settings["iterations"], settings["batch_size"])
    page.says("SGD, one cycle, peak learning rate {}.", settings["learning_rate"])
    page.says("in the mean of the last ten (end)")
    assert WINDOW == 10
    page.leave("what a cosine means", r"1 is a linear function, 0 white noise")
    page.leave("distance on a line", r"a 32nd")
    page.table("2.1 Gradients", "| with batch normalisation |", gradient_row("batch"), keys=2)
    page.says("Means over seeds {}, {}, {} and their", *settings["seeds"])
    page.table("2.1 Gradients", "| plain against residual |", paired_row)
    growths = [growth(20, network) for network in ("plain", "residual")]
    page.says("by a factor of {} in plain networks and of {} in residual ones", *growths)
    page.says("at layers {} and {}. The last dense", *strided(20))
    lasts = [
        fmean(run["start"]["norms"][-1] for run in read("lab1", "gradients-batch")["runs"] if same_twin(run, depth))
        for depth in settings["depths"]
    ]
    page.says("almost nothing: {} to {} at every depth", min(lasts), max(lasts))
    page.says("After {} steps the twins cannot be told apart", settings["iterations"])
    page.says("loss is lower after {} steps", settings["iterations"])


def same_twin(run: Run, depth: int, network: str = "plain") -> bool:
    return (run["depth"], run["network"]) == (depth, network)


def strided(depth: int) -> list[int]:
    """Places of the stride-2 convolutions among the layers with weights."""
    layers = [module for module in CNN(depth).modules() if isinstance(module, torch.nn.Conv2d)]
    return [place for place, layer in enumerate(layers, start=1) if layer.stride == (2, 2)]


def without_normalisation(page: Page) -> None:
    settings, found = read("lab1", "gradients-none")["config"], read("lab1", "gradients-none")["runs"]
    page.says("over seeds {}, {}, {} and with intervals as above", *settings["seeds"])
    page.says("The peak learning rate is {}.", settings["learning_rate"])
    page.table("Without batch normalisation", "| without normalisation |", gradient_row("none"), keys=2)
    kinds = [(depth, network) for depth in settings["depths"] for network in ("plain", "residual")]
    norms = [[run["start"]["norms"] for run in found if same_twin(run, *kind)] for kind in kinds]
    curves = [[ratio_interval(layer)[0] for layer in zip(*same, strict=True)] for same in norms]
    page.says("flat to within a factor of {}.", max(max(curve) / min(curve) for curve in curves))
    failed = [int(re.search(r"iteration (\d+)", run["failed"])[1]) for run in found if "failed" in run]
    page.says("within {} steps its loss is no longer finite", max(failed))
    closer = {
        depth: paired_interval(*(values("none", depth, network, "start")[2] for network in ("residual", "plain")))
        for depth in settings["depths"]
    }
    page.says("at depths 10 (by {} [{}, {}]) and {} ({} [{}, {}]);", *closer[10], 20, *closer[20])
    page.says("at {} and {} the interval includes {}.", 5, 25, 0)
    assert all(closer[depth][1] < 0 < closer[depth][2] for depth in (5, 25))
    ends = [fmean(loss) for loss in (values("none", *kind, "end")[0] for kind in kinds) if loss]
    page.says("(mean losses {} to {}, chance is {})", min(ends), max(ends), torch.tensor(10.0).log().item())


# 2.2 and 2.3


def detector(page: Page) -> None:
    def row(label: str):
        tests = each_test(DETECTORS[label])
        if len(tests) == 1:
            (test,) = tests
            grid = test["grid"]
            return (
                0,
                test["f1"],
                *test["f1_interval"],
                test["precision"],
                test["recall"],
                grid["f1"],
                *grid["f1_interval"],
            )
        measures = [each(tests, name) for name in ("f1", "precision", "recall")] + [each(tests, "grid", "f1")]
        return *range(len(tests)), *(number for values in measures for number in mean_sd(values))

    def each_test(name: str) -> list[Run]:
        return [run["test"] for run in runs(name)]

    page.table("2.2 A detector", "| classifier | seeds |", row)
    lenet, mlp = (each(each_test(name), "f1") for name in ("detect-lenet", "detect-mlp"))
    page.says("LeNet less MLP is {} [{}, {}] in F1", *paired_interval(lenet, mlp))
    test = read("lab1", "detect-lenet-seed0")["test"]
    page.says("{} canvases of each kind, {} x {} pixels", test["canvases"], canvases.SIDE, canvases.SIDE)
    page.says("*Random*: {} MNIST test digits, {} to {} times", test["digits"], *canvases.SCALES)
    page.says("*Grid*: {}.", test["grid"]["digits"])
    box = canvases.WINDOW - 2 * canvases.MARGIN
    page.says("an IoU of {} with the digit's box, the square of {} x {} pixels", RIGHT, box, box)
    page.leave("canvases that validate", r"on 200 validation canvases")


def over_networks(measure: str, which: str) -> list[float]:
    """The mean of one measure of a map, a number a network."""
    tests = [run["test"] for run in runs("cam-rescnn3-16-shapes")]
    return [test[measure][which]["mean"] for test in tests]


def game(measure: str, which: str) -> tuple[float, float, float]:
    """Mean and bootstrap interval over images of one measure of a map."""
    found = read("lab1", "cam-rescnn3-16-shapes-seed0")["test"][measure][which]
    return found["mean"], *found["interval"]


def maps(page: Page) -> None:
    test = read("lab1", "cam-rescnn3-16-shapes-seed0")["test"]
    accuracies = percent(runs("rescnn3-16-shapes"))
    page.says("# {} to {} % with seeds {} to {}", min(accuracies), max(accuracies), 0, len(accuracies) - 1)
    page.says("{} test images of `shapes` have known boxes", test["images"])
    page.says("the {} images whose box misses the centre", test["off_centre_images"])
    page.says("({} images): mean probability of the class", FEW)

    def row(label: str):
        measures = ("pointing_game", "off_centre", "deletion_auc", "insertion_auc")
        there = [measure for measure in measures if MAPS[label] in test[measure]]
        shown = there[:1] if MAPS[label] == "centre" else there
        of_images = MAPS[label] in ("centre", "chance")
        found = [game(each, MAPS[label]) if of_images else mean_sd(over_networks(each, MAPS[label])) for each in shown]
        return *(number for measure in found for number in measure), *([0] * (shown != there))

    page.table("2.3 Class activation maps", "| map | pointing game |", row)
    page.says("over seeds {} to {}, a network each; the last", 0, len(runs("cam-rescnn3-16-shapes")) - 1)
    page.leave("seeds and where they were trained", r"seeds 1 and 2 trained in fp32")
    cam, grad, random, chance = "cam", "grad-cam, 16 x 16", "random weights", "chance"

    def ahead(measure: str, ours: str, theirs: str):
        return paired_interval(over_networks(measure, ours), over_networks(measure, theirs))

    page.says("hardly ahead of chance, by {} [{}, {}] and", *ahead("pointing_game", random, chance))
    page.says("and off centre by {} [{}, {}], so it", *ahead("off_centre", random, chance))
    page.says("in the pointing game by {} [{}, {}], off", *ahead("pointing_game", cam, grad))
    page.says("off centre by {} [{}, {}] and in", *ahead("off_centre", cam, grad))
    page.says("in insertion by {} [{}, {}];", *ahead("insertion_auc", cam, grad))
    page.says("in deletion ({} [{}, {}]) five networks", *ahead("deletion_auc", cam, grad))
    page.leave("sizes of maps", r"\b(?:8 x 8|16 x 16)\b")
    page.leave("a test image's number", r"test image 2405")
    page.says("divided by {}, and the mean", CNN(3).head.in_features)
