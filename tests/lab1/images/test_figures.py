"""Figures of series: what they show of each run."""

import matplotlib
import pytest

from lab1.images.figures import ablation_figure, images_of, rates_figure

matplotlib.use("Agg")


def rated(depth: int, residual: bool, rate: float, seed: int, accuracy: float | None) -> dict:
    run = {"depth": depth, "residual": residual, "learning_rate": rate, "seed": seed}
    return run | ({"failed": "nan"} if accuracy is None else {"validation": {"accuracy": accuracy}})


def test_rates_are_shown_by_kind_and_depth_and_a_failure_at_zero():
    runs = [rated(5, False, 0.1, 0, 0.5), rated(5, False, 0.1, 1, 0.7), rated(5, False, 0.3, 0, None)]
    runs += [rated(5, True, 0.1, 0, 0.8), rated(9, True, 0.1, 0, 0.9)]
    config = {"rates": [0.1, 0.3], "epochs": 3, "train_images": 1000}
    figure = rates_figure("", [{"config": config, "dataset": "cifar10", "runs": runs}])
    plain, residual = figure.axes
    assert (plain.get_title(), residual.get_title()) == ("plain", "residual")
    dots = [line.get_ydata().tolist() for line in plain.lines if line.get_marker() == "o"]
    assert dots[0] == pytest.approx([50, 70])
    (cross,) = (line for line in plain.lines if line.get_marker() == "x")
    assert (list(cross.get_xdata()), list(cross.get_ydata())) == ([0.3], [0])
    lines = [list(line.get_ydata()) for line in residual.lines if line.get_linestyle() == "-"]
    assert lines == [pytest.approx([80]), pytest.approx([90])]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["depth 5", "depth 9"]
    assert "1,000 images of CIFAR-10" in figure.get_suptitle()


def test_an_ablation_shows_a_line_a_variant():
    def run(variant, seed, accuracy, reached):
        tested = {"test": {"accuracy": accuracy}} if accuracy else {"failed": "nan"}
        return {"variant": variant, "seed": seed, "steps": 40, "steps_to_goal": reached} | tested

    runs = [run("none", 0, 0.5, None), run("none", 1, 0.6, 30), run("all", 0, 0.8, 20), run("all", 1, None, None)]
    config = {"goal": 0.92, "width": 8, "epochs": 4, "train_images": None}
    figure = ablation_figure("", [{"config": config, "dataset": "shapes", "runs": runs}])
    left, right = figure.axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["none", "all"]
    dots = [list(line.get_xdata()) for line in left.lines if line.get_marker() == "o"]
    assert dots == [pytest.approx([50, 60]), pytest.approx([80])]
    reached = [(list(line.get_xdata()), line.get_ydata()[0]) for line in right.lines if line.get_marker() == "o"]
    assert reached == [([30], 0), ([20], 1)]
    crosses = [line.get_ydata()[0] for line in right.lines if line.get_marker() == "x"]
    assert crosses == [0, 1]
    assert "92%" in right.get_title()


def test_how_much_of_a_data_set():
    assert images_of({"dataset": "mnist", "config": {}}) == "MNIST"
    assert images_of({"dataset": "own", "config": {"train_images": 2500}}) == "2,500 images of own"
