"""The figures of lab 1: what is on them, by hand."""

import json

import numpy as np
import pytest
from matplotlib import pyplot
from PIL import Image

from lab1 import plot
from lab1.engine.config import REPOSITORY
from lab1.engine.figures import NETWORKS, PARTS, read_runs, write_figures


@pytest.fixture(autouse=True)
def without_a_screen():
    pyplot.switch_backend("Agg")
    yield
    pyplot.close("all")


def legend(figure) -> list[str]:
    """The entries of a figure's only legend, which is outside all panels."""
    assert all(panel.get_legend() is None for panel in figure.axes)
    (found,) = figure.legends
    return [text.get_text() for text in found.get_texts()]


def lines(panel, color, **properties) -> list[tuple[list, list]]:
    """The points of the lines of a colour that have these properties, such as ``marker``."""
    found = [line for line in panel.lines if line.get_color() == color]
    found = [line for line in found if all(getattr(line, f"get_{name}")() == it for name, it in properties.items())]
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in found]


# Learning curves


def trained(train, validation, best, script="lab1/train_mlp.py", dataset="mnist", **config):
    """The results of a run, by its accuracies; each loss is one minus the accuracy."""
    part = lambda accuracy: {"loss": 1 - accuracy, "accuracy": accuracy}  # noqa: E731
    pairs = enumerate(zip(train, validation, strict=True), start=1)
    history = [{"epoch": epoch, "train": part(one), "validation": part(other)} for epoch, (one, other) in pairs]
    return {
        "script": script,
        "config": {"hidden": [128, 64], "residual": False, "augment": False} | config,
        "dataset": dataset,
        "parameters": 109386,
        "best_epoch": best,
        "validation": history[best - 1]["validation"],
        "test": part(0.625) | {"per_class_accuracy": dict.fromkeys("0123456789", 1.0)},
        "history": history,
    }


def test_learning_curves_by_hand():
    runs = [trained([0.25, 0.75], [0.5, 0.625], 2), trained([0.25, 0.5], [0.5, 0.375], 1)]
    figure = plot.learning_curves("mlp-128-64", runs)
    assert figure.get_suptitle() == "MLP 784-128-64-10 on MNIST, 109,386 parameters, 2 seeds (a line each)"
    assert legend(figure) == [
        "training",
        "validation",
        "validation, at the chosen epoch",
        "test, at the chosen epoch",
    ]
    loss, accuracy = figure.axes
    assert [panel.get_xlabel() for panel in figure.axes] == ["epoch", "epoch"]
    assert (loss.get_ylabel(), accuracy.get_ylabel()) == ("loss (nats)", "accuracy (%)")
    assert lines(accuracy, PARTS["train"]) == [([1, 2], [25, 75]), ([1, 2], [25, 50])]
    assert lines(accuracy, PARTS["validation"], marker="None") == [([1, 2], [50, 62.5]), ([1, 2], [50, 37.5])]
    assert lines(accuracy, PARTS["validation"], marker="o") == [([2], [62.5]), ([1], [50])]
    assert lines(accuracy, PARTS["test"], marker="x") == [([2], [62.5]), ([1], [62.5])]
    assert lines(loss, PARTS["test"]) == [([2], [0.375]), ([1], [0.375])]
    assert all(tick == round(tick) for tick in accuracy.get_xticks())  # no epoch 1.5
    low, high = accuracy.get_ylim()
    assert low == 36.5
    assert high > 75


def test_one_run_is_one_seed():
    figure = plot.learning_curves("mlp-128-64", [trained([0.25], [0.5], 1)])
    assert figure.get_suptitle() == "MLP 784-128-64-10 on MNIST, 109,386 parameters, one seed"


def test_what_a_figure_shows_in_words():
    def words(script, dataset, **config):
        return plot.subject("a-name", trained([0.5], [0.5], 1, f"lab1/{script}.py", dataset, **config))

    cnn = dict(depth=9, norm="batch", train_images=None, augment=True)
    assert words("train_mlp", "digits", residual=True) == "residual MLP 784-128-64-10 on scikit-learn's digits"
    assert words("train_mlp", "mnist", augment=True) == "MLP 784-128-64-10 on MNIST, augmented"
    assert words("train_cnn", "cifar10", **cnn, residual=True) == "ResCNN of depth 9 on CIFAR-10"
    cnn |= dict(norm="none", train_images=10_000)
    assert words("train_cnn", "cifar10", **cnn) == "CNN of depth 9 without normalisation on 10,000 images of CIFAR-10"
    wide = cnn | {"norm": "batch", "width": 64, "optimizer": "muon", "network": None}
    assert words("train_cnn", "cifar10", **wide) == "CNN of depth 9, width 64, Muon on 10,000 images of CIFAR-10"
    assert (
        words("train_cnn", "shapes", **wide | {"network": "MyNet", "train_images": None})
        == "MyNet, Muon on drawn shapes"
    )
    assert words("train_mlp", "stripes") == "MLP 128-64-10 on stripes"
    assert words("detect_digits", "mnist", network="lenet") == "LeNet on windows of canvases, MNIST"
    assert words("train_another", "flowers") == "a-name on flowers"


# Depth


def sweep(accuracies, **config):
    """The results of a sweep from ``{(depth, residual): [accuracy of each seed, or None of one that failed]}``."""
    runs = []
    for (depth, residual), seeds in accuracies.items():
        for seed, accuracy in enumerate(seeds):
            run = {"depth": depth, "residual": residual, "seed": seed}
            runs.append(run | ({"failed": "nan"} if accuracy is None else {"test": {"accuracy": accuracy}}))
    settings = {"family": "mlp", "norm": "none", "init": "default", "epochs": 5, "train_images": None}
    return {"runs": runs, "dataset": "mnist", "config": settings | config}


def test_depth_by_hand():
    one = sweep({(2, False): [0.5, 0.75], (2, True): [0.875, 0.875], (4, False): [None, None], (4, True): [0.75, None]})
    figure = plot.depth_figure("depth-mlp", [one])
    whole, upper = figure.axes
    assert figure.get_suptitle() == "MLPs from PyTorch's initial weights, MNIST, 5 epochs"
    assert [panel.get_xlabel() for panel in figure.axes] == ["depth (hidden layers after the first)"] * 2
    assert whole.get_ylabel() == "test accuracy (%)"
    assert legend(figure) == [
        "plain",
        "residual",
        "one seed",
        "mean and 95 % interval (Student's t, n = 2 seeds)",
        "failed to train (3 of 8 runs)",
    ]
    for panel in (whole, upper):
        assert lines(panel, NETWORKS["plain"], marker="o") == [([2, 2], [50, 75])]
        assert lines(panel, NETWORKS["residual"], marker="o") == [([2, 2], [87.5, 87.5]), ([4], [75])]
        assert lines(panel, NETWORKS["plain"], marker="x") == [([4, 4], [0, 0])]
        assert lines(panel, NETWORKS["residual"], marker="x") == [([4], [0])]
        assert lines(panel, NETWORKS["plain"], linewidth=1.8) == [([2], [62.5])]
        assert lines(panel, NETWORKS["residual"], linewidth=1.8) == [([2, 4], [87.5, 75])]
        # Of two seeds, t has one degree of freedom: 62.5 +- 12.7 x 12.5, which is cut at 0 and 100.
        intervals = [bars.get_segments()[0][:, 1].tolist() for bars in panel.collections]
        assert intervals == [[0, 100], [87.5, 87.5], [75, 75]]
    assert whole.get_ylim() == (-3, 103)
    assert upper.get_ylim() == pytest.approx((74, 87.8))  # from a point below the better mean at depth 4


def test_labels_of_depths_do_not_touch():
    one = sweep({(depth, False): [0.5] for depth in (1, 5, 9, 10, 25)}, family="cnn", norm="batch")
    for panel in plot.depth_figure("depth-cnn", [one]).axes:
        assert [label.get_text() for label in panel.get_xticklabels()] == ["1", "5", "9", "\n10", "25"]
    deep = sweep({(depth, False): [0.5] for depth in (9, 10, 50)})  # on a logarithmic scale
    for panel in plot.depth_figure("depth-mlp", [deep]).axes:
        assert [label.get_text() for label in panel.get_xticklabels()] == ["9", "10", "50"]


def test_depth_of_other_sweeps_in_words():
    figure = plot.depth_figure("", [sweep({(2, True): [0.5]}, init="he")])
    assert figure.get_suptitle() == "MLPs from He's initial weights, MNIST, 5 epochs"
    assert legend(figure) == ["residual", "one seed"]
    cnn = sweep({(1, False): [None]}, family="cnn", train_images=500) | {"dataset": "cifar10"}
    figure = plot.depth_figure("", [cnn])
    assert figure.get_suptitle() == "CNNs without normalisation, 500 images of CIFAR-10, 5 epochs"
    assert figure.axes[0].get_xlabel() == "depth (blocks of two convolutions)"


# Gradients


def compared(network, seed, norms, correlation, failed=False):
    moment = {"norms": norms, "correlation": correlation}
    run = {"depth": 1, "network": network, "seed": seed, "start": moment}
    return run | ({"failed": "the loss is nan at iteration 3"} if failed else {"end": moment})


def test_gradients_by_hand():
    runs = [
        compared("plain", 0, [1.0, 10.0], [1.0, 0.5, 0.0]),
        compared("plain", 1, [100.0, 10.0], [1.0, 0.99, 0.0]),
        compared("residual", 0, [2.0, 3.0], [1.0, 0.75, 0.5], failed=True),
        compared("residual", 1, [2.0, 3.0], [1.0, 0.75, 0.5], failed=True),
    ]
    settings = {"iterations": 150, "norm": "none", "train_images": None}
    figure = plot.gradient_figure("gradients-none", [{"runs": runs, "dataset": "cifar10", "config": settings}])
    assert figure.get_suptitle() == "Gradients of CNN and ResCNN without normalisation, CIFAR-10"
    start, end, below = figure.axes
    assert start.get_title() == "depth 1"
    assert start.get_ylabel() == "gradient norm,\niteration 1"
    assert end.get_ylabel() == "gradient norm, last 10\nof 150 iterations"
    assert below.get_ylabel() == "correlation of gradients\nalong a line of inputs"
    assert (end.get_xlabel(), below.get_xlabel()) == ("layer, from the input on", "distance (1: two images)")
    assert legend(figure) == ["plain", "residual", "iteration 1", "end"]
    assert figure.legends[0].get_title().get_text() == (
        "means and 95 % intervals, n = 2 seeds, of norms by Student's t of their logarithms, "
        "of correlations by Fisher's z"
    )
    ((layers, norms),) = lines(start, NETWORKS["plain"])
    assert layers == [1, 2]
    assert norms == pytest.approx([10, 10])  # the geometric mean of 1 and 100
    assert lines(end, NETWORKS["residual"]) == []
    assert [text.get_text() for text in end.texts] == ["residual: 2 of 2\nruns diverged"]
    assert [text.get_text() for text in start.texts + below.texts] == [""] * len(start.texts + below.texts)
    assert start.get_ylim() == end.get_ylim()
    assert lines(below, NETWORKS["plain"], linestyle="--") == [([0, 0.5, 1], [1, 0.745, 0])]
    assert lines(below, NETWORKS["residual"]) == [([0, 0.5, 1], [1, 0.75, 0.5])]
    bands = [path.vertices[:, 1] for band in below.collections for path in band.get_paths()]
    assert len(bands) == 3
    assert all(band.min() >= -1 and band.max() <= 1 for band in bands)
    low, high = below.get_ylim()
    assert low < min(band.min() for band in bands)
    assert high > 1


def test_every_published_band_is_inside_its_panel():
    """Nothing is cut off where it would be missed."""
    folder = REPOSITORY / "lab1" / "model" / "published"
    for name in ("gradients-batch", "gradients-none"):
        run = json.loads((folder / name / "results.json").read_text(encoding="utf-8"))
        for panel in plot.gradient_figure(name, [run]).axes:
            low, high = panel.get_ylim()
            for band in panel.collections:
                edges = band.get_paths()[0].vertices[:, 1]
                assert low <= edges.min() <= edges.max() <= high


def test_published_figures_have_titles_in_words():
    runs = [run for run in read_runs(plot.Config().runs_folder()) if "history" in run or run["script"] in plot.FIGURES]
    for name, seeds in plot.by_experiment(runs).items():
        title = plot.FIGURES.get(seeds[0]["script"], plot.learning_curves)(name, seeds).get_suptitle()
        assert name not in title
        pyplot.close("all")


def test_a_figure_is_written_small_and_with_its_colours(tmp_path):
    figure, panel = pyplot.subplots(figsize=(3, 2))
    panel.axvspan(0, 1, color=NETWORKS["plain"])
    write_figures({"one": figure}, tmp_path)
    with Image.open(tmp_path / "one.png") as image:
        assert (image.mode, image.size) == ("P", (330, 220))
        middle = np.asarray(image.convert("RGB"))[110, 165]
    assert "#{:02x}{:02x}{:02x}".format(*middle) == NETWORKS["plain"]
