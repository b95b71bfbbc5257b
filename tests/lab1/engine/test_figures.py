"""A run that is broken is passed over with a line; the others are drawn. No legend is wider than its figure."""

import json

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from lab1.engine.config import UsageError
from lab1.engine.figures import (
    by_experiment,
    confusion_figure,
    draw,
    experiments,
    legend_below,
    read_runs,
    write_figures,
)

RUN = {"script": "lab1/train_mlp.py", "config": {}, "dataset": "mnist", "test": {"loss": 0.5}}
BROKEN = {
    "a-list": "[1]",
    "a-number": "3",
    "empty": "",
    "cut": '{"script": ',
    "no-script": '{"script": null, "config": {}, "dataset": "mnist"}',
    "no-config": '{"script": "x", "config": [], "dataset": "mnist"}',
    "no-dataset": '{"script": "x", "config": {}, "dataset": 3}',
}


def write(folder, runs):
    for name, text in runs.items():
        (folder / name).mkdir()
        (folder / name / "results.json").write_text(text, encoding="utf-8")


def test_broken_runs_are_passed_over_by_name(tmp_path, capsys):
    write(tmp_path, BROKEN | {"good": json.dumps(RUN)})
    (tmp_path / "folder" / "results.json").mkdir(parents=True)
    assert read_runs(tmp_path) == [RUN | {"name": "good"}]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(BROKEN) + 1
    for name, line in zip(sorted([*BROKEN, "folder"]), lines, strict=True):
        assert line.startswith(f"passing over a run: {tmp_path / name / 'results.json'} ")


def test_where_every_run_is_broken_there_is_nothing_to_draw(tmp_path, capsys):
    write(tmp_path, BROKEN)
    with pytest.raises(UsageError, match="holds no finished run that can be read"):
        read_runs(tmp_path)
    assert len(capsys.readouterr().err.splitlines()) == len(BROKEN)


def test_what_cannot_be_drawn_is_left_out(capsys):
    def figures(runs):
        return {run["name"]: run["test"]["loss"] + 1 for run in runs}

    runs = [RUN | {"name": "a"}, RUN | {"name": "b", "test": []}, RUN | {"name": "c", "test": {"loss": "low"}}]
    assert draw(figures, runs[:1]) == {"a": 1.5}
    assert capsys.readouterr().err == ""
    assert draw(figures, runs) == {"a": 1.5}
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines] == ["passing over b", "passing over c"]
    with pytest.raises(UsageError, match="there is no run that can be drawn"):
        draw(figures, runs[1:])


def run(name, **config):
    return {"name": name, "config": {"epochs": 20, "augment": False, "seed": 0} | config}


def test_runs_that_differ_in_the_seed_alone_are_one_experiment():
    runs = [run("mlp-seed0"), run("mlp-seed1", seed=1, device="cpu", precision="bf16"), run("mlp-wide-seed0")]
    assert by_experiment(runs) == {"mlp": runs[:2], "mlp-wide": runs[2:]}


def test_other_flags_make_another_experiment_though_the_name_is_the_same():
    few, many = run("mlp-seed0", epochs=2), run("mlp-seed0-2")
    more, noisy = run("mlp-seed1", seed=1), run("mlp-seed0-3", augment=True, epochs=2)
    assert by_experiment([few, many, noisy, more]) == {
        "mlp, epochs 2": [few],
        "mlp, epochs 20": [many, more],
        "mlp, epochs 2, augment": [noisy],
    }
    assert experiments([many, more]) == {"": [many, more]}
    assert experiments([few, many, noisy, more], compared=("epochs",)) == {
        "epochs 2": [few, noisy],
        "epochs 20": [many, more],
    }


def test_of_a_command_that_was_given_again_the_newest_run_alone_counts():
    again = [run(f"mlp-seed0{number}") for number in ("", "-10", "-2")]
    assert by_experiment([*again, run("mlp-seed1", seed=1)]) == {"mlp": [again[1], run("mlp-seed1", seed=1)]}


def test_a_flag_that_older_runs_do_not_know_tells_nothing_apart():
    old = run("mlp-seed0")
    new = [run(f"mlp-seed{seed}", seed=seed, init="he") for seed in (1, 2)]
    other = run("mlp-seed3", seed=3, init="zero")
    assert by_experiment([old, *new]) == {"mlp": [old, *new]}
    # Not even where it stands between two that do differ.
    assert by_experiment([old, *new, other]) == {"mlp, init he": [old, *new], "mlp, init zero": [other]}


def test_runs_that_use_runs_of_other_seeds_are_one_experiment():
    runs = [run(f"detect-seed{seed}", seed=seed, run=f"mlp-seed{seed}") for seed in (0, 1)]
    assert by_experiment(runs) == {"detect": runs}
    other = run("detect-seed2", seed=2, run="mlp-wide-seed2")
    assert list(by_experiment([*runs, other])) == ["detect, run mlp", "detect, run mlp-wide"]


def test_a_run_that_was_resumed_with_other_flags_is_no_seed_of_those_that_had_them_all_along():
    runs = [run(f"mlp-seed{seed}", seed=seed) for seed in (0, 1, 2)]
    runs[2]["resumed"] = [{"epochs": 5, "flags": {"epochs": 5, "learning_rate": 0.1}}]
    assert by_experiment(runs) == {"mlp": runs[:2], "mlp, resumed after epochs 5, learning rate 0.1": runs[2:]}


def test_folders_of_images_are_told_apart_by_their_place():
    runs = [run(f"cnn-seed{n}", seed=n, data_dir=place) | {"dataset": "folder"} for n, place in enumerate("aab")]
    assert by_experiment(runs) == {"cnn, data dir a": runs[:2], "cnn, data dir b": runs[2:]}
    runs = [one | {"dataset": "mnist"} for one in runs]
    assert by_experiment(runs) == {"cnn": runs}


def test_what_means_nothing_is_ignored():
    words = [run("tfidf", epochs=1), run("tfidf-2", epochs=2)]
    assert experiments(words, ignored=("epochs",)) == {"": words[1:]}


def test_of_a_script_that_uses_runs_each_run_is_one():
    runs = [run(f"generate-gpt-seed{seed}", run=f"gpt-seed{seed}") for seed in (0, 1)]
    assert by_experiment(runs) == {"generate-gpt": runs}


def test_a_series_is_an_experiment_by_itself():
    first, second = ({"name": f"depth-seed{number}", "config": {"epochs": 1}, "runs": []} for number in (1, 2))
    assert by_experiment([first, second]) == {"depth-seed1": [first], "depth-seed2": [second]}


def test_flags_in_a_name_are_in_the_figures_title(tmp_path, capsys):
    from matplotlib.figure import Figure

    figure = Figure()
    figure.suptitle("MLP on MNIST")
    write_figures({"mlp, epochs 2, hidden 64 64": figure}, tmp_path)
    assert figure.get_suptitle() == "MLP on MNIST\nepochs 2, hidden 64 64"
    assert [path.name for path in tmp_path.iterdir()] == ["mlp-epochs-2-hidden-64-64.png"]


def test_parts_of_an_unfinished_series_are_left_out(tmp_path):
    (tmp_path / "depth").mkdir()
    (tmp_path / "depth" / "config.json").write_text("{}", encoding="utf-8")
    write(tmp_path / "depth", {"plain-depth1-seed0": json.dumps(RUN)})
    with pytest.raises(UsageError, match="holds parts of unfinished series alone"):
        read_runs(tmp_path)
    write(tmp_path, {"b": json.dumps(RUN)})
    assert read_runs(tmp_path) == [RUN | {"name": "b"}]


def test_dry_runs_are_left_out_beside_true_ones(tmp_path, capsys):
    dry = RUN | {"config": {"dry_run": True}}
    write(tmp_path, {"dry-run-a": json.dumps(dry)})
    assert read_runs(tmp_path) == [dry | {"name": "dry-run-a"}]
    assert capsys.readouterr().err == ""
    write(tmp_path, {"b": json.dumps(RUN)})
    assert read_runs(tmp_path) == [RUN | {"name": "b"}]
    assert capsys.readouterr().err == "leaving out dry runs: 1\n"


def test_runs_of_another_lab_are_left_to_it(tmp_path):
    from lab1 import plot

    write(tmp_path, {"agent": json.dumps(RUN | {"script": "lab3/train_ppo.py"})})
    with pytest.raises(UsageError, match=r"holds runs of lab3 alone; use the plot\.py there"):
        plot.Config(runs=tmp_path).read()
    write(tmp_path, {"mine": json.dumps(RUN | {"script": "mine/train.py"}), "mlp": json.dumps(RUN)})
    assert [run["name"] for run in plot.Config(runs=tmp_path).read()] == ["mine", "mlp"]


@pytest.mark.parametrize(
    "labels",
    [
        ["plain", "residual"],
        [
            "test, one seed",
            "mean and 95 % interval (Student's t, n = 3 seeds)",
            "validation, one seed",
            "not by all seeds",
        ],
    ],
)
def test_a_legend_is_no_wider_than_its_figure(labels, monkeypatch):
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    monkeypatch.setitem(matplotlib.rcParams, "font.size", 11)  # as plot.py has it
    figure = Figure(figsize=(10, 4), layout="constrained")
    figure.add_subplot()
    legend_below(figure, {label: Line2D([], []) for label in labels})
    figure.draw_without_rendering()
    box = figure.legends[0].get_window_extent()
    assert 0 <= box.x0 < box.x1 <= figure.bbox.width
    assert [text.get_text() for text in figure.legends[0].get_texts()] == labels


def test_a_name_with_seed_in_a_word_stays_whole():
    runs = [run("try-seed2lings"), run("try-seed3lings"), run("wide-seed0-late"), run("wide-seed1-late", seed=1)]
    assert by_experiment(runs) == {"try-seed2lings": runs[:1], "try-seed3lings": runs[1:2], "wide-late": runs[2:]}


def test_classes_of_any_name_are_drawn():
    figure = confusion_figure(np.eye(3, dtype=int), ["$10_$20", "$a^$", "b\udcff"])
    FigureCanvasAgg(figure).draw()
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == [r"\$10_\$20", r"\$a^\$", "b?"]
