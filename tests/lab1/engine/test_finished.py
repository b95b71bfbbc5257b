"""Which runs stay as they are: the decision by itself, on folders with nothing but the small files in them."""

import json
from pathlib import Path

import pytest

from lab1.engine.config import TrainConfig, UsageError
from lab1.engine.finished import changed_flags, is_published, shown, stands


def make_run(folder: Path, results: bool = True, checkpoint: bool = False, **changes) -> TrainConfig:
    """A run's folder; its configuration, as ``--resume`` reads it."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(TrainConfig(**changes).as_dict()), encoding="utf-8")
    if results:
        (folder / "results.json").write_text('{"test": {"loss": 0.25, "accuracy": 0.5}}', encoding="utf-8")
    if checkpoint:
        (folder / "last.pt").write_bytes(b"")
    return TrainConfig(**changes, resume=str(folder))


def test_a_folder_inside_the_current_one_is_shown_relative(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert shown(tmp_path / "model" / "run") == "model/run"
    assert shown(Path("model/run")) == "model/run"
    assert shown(tmp_path) == str(tmp_path)
    assert shown(tmp_path.parent / "other") == str(tmp_path.parent / "other")


def test_published_is_what_lies_under_model_published():
    assert is_published(Path("lab1/model/published/mlp-128-64-seed0"))
    assert is_published(Path("lab1/model/published/depth-mlp/plain-depth2-seed0"))
    assert not is_published(Path("lab1/model/mlp-128-64-seed0"))
    assert not is_published(Path("elsewhere/published/mlp-128-64-seed0"))


def test_changed_flags_leave_out_where_it_computes_and_what_an_older_file_does_not_have(tmp_path):
    make_run(tmp_path / "run", epochs=3)
    path = tmp_path / "run" / "config.json"
    saved = json.loads(path.read_text(encoding="utf-8"))
    del saved["patience"]
    path.write_text(json.dumps(saved), encoding="utf-8")
    config = TrainConfig(epochs=3, device="cpu", data_dir=tmp_path, model_dir=tmp_path, name="other")
    assert changed_flags(config, tmp_path / "run") == []
    config = TrainConfig(epochs=4, learning_rate=0.5, patience=2)
    assert changed_flags(config, tmp_path / "run") == ["--epochs 4", "--learning-rate 0.5", "--patience 2"]


@pytest.mark.parametrize(("results", "checkpoint"), [(False, False), (False, True), (True, True)])
def test_what_can_go_on_does_not_stand(tmp_path, capsys, results, checkpoint):
    assert stands(make_run(tmp_path / "run", results, checkpoint)) is None
    assert stands(TrainConfig()) is None
    assert capsys.readouterr().out == ""


def test_results_without_a_checkpoint_stand(tmp_path, monkeypatch, capsys):
    config = make_run(tmp_path / "run", epochs=3)
    monkeypatch.chdir(tmp_path)
    assert stands(config) == {"test": {"loss": 0.25, "accuracy": 0.5}}
    assert capsys.readouterr().out == (
        "run is finished: its results.json stands; it has no checkpoint to go on from "
        "(test loss 0.2500  accuracy 50.00 %)\n"
    )
    config.epochs = 5
    with pytest.raises(UsageError) as refused:
        stands(config)
    assert str(refused.value) == (
        "run has no checkpoint to go on from with --epochs 5; leave out --resume to train a new run"
    )


@pytest.mark.parametrize("checkpoint", [False, True])
def test_a_published_run_stands_and_is_not_changed(tmp_path, monkeypatch, capsys, checkpoint):
    config = make_run(tmp_path / "model" / "published" / "run", checkpoint=checkpoint)
    monkeypatch.chdir(tmp_path)
    assert stands(config)["test"]["accuracy"] == 0.5
    said = capsys.readouterr().out
    assert said.startswith("model/published/run is finished: its results.json stands")
    assert ("no checkpoint" in said) is not checkpoint
    config.epochs, config.batch_size = 5, 7
    with pytest.raises(UsageError) as refused:
        stands(config)
    assert str(refused.value) == (
        "model/published/run: published runs stay as they are; to train one of your own, leave out --resume and give "
        "the flags of its config.json with --epochs 5, --batch-size 7"
    )


def test_a_published_run_without_results_is_not_trained(tmp_path):
    with pytest.raises(UsageError, match="published runs stay as they are"):
        stands(make_run(tmp_path / "model" / "published" / "run", results=False, checkpoint=True))


def test_results_that_cannot_be_read_are_said_so(tmp_path):
    config = make_run(tmp_path / "run")
    (tmp_path / "run" / "results.json").write_text('{"test": ', encoding="utf-8")
    with pytest.raises(UsageError, match=r"results\.json cannot be read"):
        stands(config)
