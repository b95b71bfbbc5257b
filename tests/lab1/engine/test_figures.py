"""A run that is broken is passed over with a line; the others are drawn. No legend is wider than its figure."""

import json

import pytest

from lab1.engine.config import UsageError
from lab1.engine.figures import draw, legend_below, read_runs

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
