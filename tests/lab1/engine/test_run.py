"""A run on disk: what it says, any network of one's own, finished runs, and results that no picture can cost."""

import json
import math
import re
from pathlib import Path

import pytest
import torch
from tensorboard.summary.writer import event_file_writer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lab1.engine import checkpoint, finished, logbook
from lab1.engine.config import TrainConfig, UsageError
from lab1.engine.registry import load
from lab1.engine.run import _same_network
from lab1.images.batches import Batches
from lab1.models import MLP
from lab1.trainer import Trainer
from tests.exactness import assert_equal, assert_same_end, points

ABOUT = {"dataset": "noise", "classes": ["a", "b", "c"]}


@pytest.fixture(autouse=True)
def counted_from_zero(monkeypatch):
    """TensorBoard reads event files in the order of their names, which end with a number that counts on in a process:
    of two in the same second, the 10th would come before the 9th."""
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(0))


def make_batches(count: int = 20, size: int = 4, seed: int = 0) -> DataLoader:
    generator = torch.Generator().manual_seed(seed)
    inputs, labels = torch.randn(count, 6, generator=generator), torch.randint(0, 3, (count,), generator=generator)
    return DataLoader(TensorDataset(inputs, labels), size)


class Own(nn.Module):
    """A network of one's own, as a student writes it."""

    def __init__(self, width: int = 8):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 3))

    def forward(self, x):
        return self.layers(x)


def make_trainer(folder: Path, network=Own, kind=Trainer, about=ABOUT, **changes) -> Trainer:
    torch.manual_seed(0)
    settings = {"model_dir": folder, "name": "run", "epochs": 2, "patience": 0, "device": "cpu"}
    return kind(network(), TrainConfig(**settings | changes), about)


def finish(trainer: Trainer) -> dict:
    trainer.train(make_batches(), make_batches(8, seed=1))
    return trainer.test(make_batches(8, seed=2))


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def test_one_line_says_what_begins(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    noise, zero = (torch.zeros(10, 1, 2, 2, dtype=torch.uint8), torch.zeros(10, dtype=torch.int64)), torch.zeros(1)
    finish(make_trainer(tmp_path / "model", lambda: MLP((6, 8, 3)), epochs=1))
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first == (
        "MLP with 83 parameters on noise (20 examples to learn from, 8 for validation), cpu, fp32 -> model/run"
    )
    assert second.startswith("epoch   1  train loss")
    # Of batches that do not tell how much there is, their number; of data without a name, that much.
    trainer = make_trainer(tmp_path / "model", about={}, epochs=1, precision="bf16")
    trainer.train(list(make_batches()), iter(list(make_batches(8))))
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first.startswith("Own trains and is tested; for scripts to load it again, put @register")
    assert second == "Own with 83 parameters on its data (5 batches to learn from), cpu, bf16 -> model/run-2"
    assert trainer.amount(make_batches()) == (20, "examples")
    assert trainer.amount(Batches(*noise, batch_size=3, mean=zero, std=zero + 1)) == (10, "images")
    assert trainer.amount(Batches(*noise, batch_size=3, mean=zero, std=zero + 1, limit=2)) == (6, "images")


def test_a_network_of_ones_own_trains_is_tested_and_resumes(tmp_path):
    whole = make_trainer(tmp_path / "whole", epochs=3)
    expected = finish(whole)
    first = make_trainer(tmp_path / "parts", epochs=2)
    finish(first)
    torch.manual_seed(5)  # the weights come from the checkpoint, not from here
    resumed = make_trainer(tmp_path / "parts", epochs=3, resume=str(first.folder))
    resumed.train(make_batches(), make_batches(8, seed=1))
    assert [entry["epoch"] for entry in resumed.history] == [1, 2, 3]
    stored = torch.load(resumed.folder / "best.pt", weights_only=True)
    assert stored["model"] == {"class": "Own", "arguments": None}
    found = resumed.test(make_batches(8, seed=2))
    assert set(found) == set(expected)
    assert_equal(resumed.model.state_dict(), torch.load(resumed.folder / "best.pt", weights_only=True)["weights"])
    with pytest.raises(UsageError, match="class 'Own' is none of this lab's"):
        load(resumed.folder / "best.pt")


def test_a_reader_that_left_costs_nothing(tmp_path, monkeypatch):
    def left(*arguments):
        raise BrokenPipeError

    monkeypatch.setattr("lab1.engine.run.tqdm.write", left)  # as in ``python lab1/train_mlp.py | head -1``
    trainer = make_trainer(tmp_path)
    finish(trainer)
    assert (trainer.folder / "results.json").exists()


def test_arguments_that_no_file_can_hold_are_refused_before_a_folder_is_made(tmp_path):
    class Held(Own):
        def __init__(self):
            super().__init__()
            self.arguments = {"activation": lambda x: x}

    with pytest.raises(UsageError, match=r"Held was made with activation=<function .* which a run's file cannot hold"):
        finish(make_trainer(tmp_path / "model", Held))
    assert list(tmp_path.iterdir()) == []


class Scripted(Trainer):
    """Validation losses as they are given."""

    losses = ()

    def evaluate(self, batches):
        return super().evaluate(batches) | {"loss": self.losses[min(self.epoch, len(self.losses) - 1)]}


@pytest.mark.parametrize(
    ("losses", "patience", "line"),
    [
        (
            (3, 1, 2, 2),
            2,
            "after epoch 4: 2 epochs without a better validation loss; epoch 2 is the best",
        ),
        ((3, 4, 1), 1, "after epoch 2: 1 epoch without a better validation loss; epoch 1 is the best"),
        ((3, 2, 1, 1, 1, 1), 3, None),  # patience ends with the last epoch: nothing was stopped early
        ((5, 4, 3, 2, 1, 0), 1, None),
        ((1, 2, 3, 4, 5, 6), 0, None),
    ],
)
def test_early_stopping_is_said_once(tmp_path, capsys, losses, patience, line):
    Scripted.losses = losses
    trainer = make_trainer(tmp_path, kind=Scripted, epochs=6, patience=patience)
    trainer.train(make_batches(), make_batches(8))
    said = [one for one in capsys.readouterr().out.splitlines() if "stopped" in one]
    assert said == ([f"stopped early {line}"] if line else [])


def test_a_finished_run_that_is_resumed_is_not_touched(tmp_path, capsys):
    trainer = make_trainer(tmp_path)
    test = finish(trainer)
    before = snapshot(tmp_path)
    capsys.readouterr()
    again = make_trainer(tmp_path, resume=str(trainer.folder))
    assert finish(again) == test
    assert again.history == trainer.history
    words = f"loss {test['loss']:.4f}  accuracy {test['accuracy']:.2%}".replace("%", " %")
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == f"{trainer.folder} is finished and tested: test {words}  macro_f1 {test['macro_f1']:.4f}"
    assert not [line for line in said if "resuming" in line]
    assert snapshot(tmp_path) == before


def test_a_run_that_was_killed_before_its_test_is_tested(tmp_path, capsys):
    trainer = make_trainer(tmp_path)
    test = finish(trainer)
    (trainer.folder / "results.json").unlink()
    capsys.readouterr()
    assert finish(make_trainer(tmp_path, resume=str(trainer.folder))) == test
    assert f"{trainer.folder} has been trained, and is tested now" in capsys.readouterr().out.splitlines()
    assert (trainer.folder / "results.json").is_file()


def test_what_would_change_nothing_in_a_finished_run_is_refused(tmp_path):
    trainer = make_trainer(tmp_path, epochs=2)
    finish(trainer)
    before = snapshot(tmp_path)
    resume = {"resume": str(trainer.folder)}
    with pytest.raises(UsageError, match=r"is finished and tested, so --batch-size 9 would .* train a new run$"):
        finish(make_trainer(tmp_path, **resume, epochs=2, batch_size=9))
    with pytest.raises(UsageError, match=r"--seed 7: .* was begun with other data, and its results would be of a mix"):
        finish(make_trainer(tmp_path, **resume, epochs=2, seed=7))
    with pytest.raises(UsageError, match="has done 2 epochs already, so --epochs 1 is too few"):
        finish(make_trainer(tmp_path, resume=str(trainer.folder), epochs=1))
    assert snapshot(tmp_path) == before


def test_an_unfinished_run_keeps_its_data(tmp_path):
    trainer = make_trainer(tmp_path, epochs=3)
    trainer.train(make_batches(), make_batches(8))  # not tested: it may go on
    before = snapshot(tmp_path)
    for name, value in (("seed", 4), ("dry_run", True)):
        said = f"--{name.replace('_', '-')} {value}: .* leave out --resume to train a new run"
        with pytest.raises(UsageError, match=said):
            finish(make_trainer(tmp_path, resume=str(trainer.folder), epochs=5, **{name: value}))
    with pytest.raises(UsageError, match="does not fit this network: it was begun without --epochs 5"):
        finish(make_trainer(tmp_path, lambda: MLP((6, 9, 3)), resume=str(trainer.folder), epochs=5))
    assert snapshot(tmp_path) == before
    finish(make_trainer(tmp_path, resume=str(trainer.folder), epochs=5))


@pytest.mark.parametrize(
    "other", [{"dataset": "sound"}, {"classes": ["a", "b"]}, {"mean": [0.5]}, {"std": [0.25, 0.3]}, {"checksum": 8}]
)
def test_a_run_goes_on_with_the_data_that_it_was_begun_with(tmp_path, other):
    about = ABOUT | {"mean": [0.4], "std": [0.25], "checksum": 7}
    make_trainer(tmp_path, about=about).train(make_batches(), make_batches(8))
    before = snapshot(tmp_path)
    with pytest.raises(UsageError, match=r"other files: .*run was begun with other data"):
        finish(make_trainer(tmp_path, about=about | other, epochs=3, resume=str(tmp_path / "run")))
    assert snapshot(tmp_path) == before
    rounded = about | {"mean": [0.40001], "more": 1}  # as another machine may add it up
    finish(make_trainer(tmp_path, about=rounded, epochs=3, resume=str(tmp_path / "run")))


class Twin(Own):
    """Parameters of the same names and shapes, and something else that is made of them."""

    def forward(self, x):
        return x[:, :3] + super().forward(x)


def test_a_run_goes_on_with_the_network_that_it_was_begun_with(tmp_path):
    make_trainer(tmp_path).train(make_batches(), make_batches(8))
    before = snapshot(tmp_path)
    with pytest.raises(UsageError, match="run does not fit this network: it was begun without --epochs 3"):
        finish(make_trainer(tmp_path, Twin, epochs=3, resume=str(tmp_path / "run")))
    assert snapshot(tmp_path) == before
    last = checkpoint.load(tmp_path / "run" / "last.pt")
    del last["model"]  # as older ones lack it
    checkpoint.save(last, tmp_path / "run" / "last.pt")
    finish(make_trainer(tmp_path, epochs=3, resume=str(tmp_path / "run")))


def test_arguments_of_a_network_are_compared_as_far_as_both_tell():
    def same(before, now):
        return _same_network(before and {"class": "MLP", "arguments": before}, {"class": "MLP", "arguments": now})

    assert same(None, {"sizes": [1, 2]})
    assert same({"sizes": (1, 2)}, {"sizes": [1, 2], "new": 3})
    assert not same({"sizes": (1, 2), "residual": False}, {"sizes": (1, 2), "residual": True})
    assert same({"config": {"version": 1}}, {"config": {"version": 2}})
    assert same({"dropout": 0.0}, {"dropout": 0.1})
    assert same({"weights": torch.ones(3)}, {"weights": torch.ones(3)})
    assert not same({"weights": torch.ones(3)}, {"weights": torch.zeros(3)})


def test_a_run_keeps_its_batch_size(tmp_path):
    make_trainer(tmp_path).train(make_batches(), make_batches(8))
    with pytest.raises(UsageError, match=r"--batch-size 2: .*run has gone by another so far"):
        finish(make_trainer(tmp_path, epochs=3, batch_size=2, resume=str(tmp_path / "run")))


def test_best_weights_of_an_epoch_that_was_lost_do_not_stand_for_another(tmp_path):
    """The process was killed after it wrote best.pt and before last.pt, and the epoch turns out otherwise."""
    folder = make_trainer(tmp_path).config.model_dir / "run"
    make_trainer(tmp_path).train(make_batches(), make_batches(8, seed=1))
    best, last = checkpoint.load(folder / "best.pt"), checkpoint.load(folder / "last.pt")
    checkpoint.save(last | {"best_loss": -1.0}, folder / "last.pt")  # nothing can be better any more
    checkpoint.save(best | {"epoch": 3}, folder / "best.pt")
    trainer = make_trainer(tmp_path, epochs=4, patience=1, resume=str(folder))
    finish(trainer)
    assert trainer.best_epoch >= 3
    assert checkpoint.load(folder / "best.pt")["epoch"] == trainer.best_epoch


def test_a_run_keeps_the_flags_that_it_had_before(tmp_path):
    def before():
        return json.loads((tmp_path / "run" / "results.json").read_text(encoding="utf-8")).get("resumed")

    finish(make_trainer(tmp_path))
    assert before() is None
    finish(make_trainer(tmp_path, resume=str(tmp_path / "run")))
    assert before() is None
    finish(make_trainer(tmp_path, epochs=3, learning_rate=0.5, data_dir="there", resume=str(tmp_path / "run")))
    first = {"epochs": 2, "flags": {"epochs": 2, "learning_rate": TrainConfig().learning_rate}}
    assert before() == [first]
    again = make_trainer(tmp_path, epochs=4, learning_rate=0.5, resume=str(tmp_path / "run"))
    finished.note_flags(again.config, tmp_path / "run", "epochs", 3)  # and killed before config.json was written
    finish(again)
    assert before() == [first, {"epochs": 3, "flags": {"epochs": 3}}]
    (tmp_path / "run" / "resumed.json").write_text('{"before": 3}', encoding="utf-8")
    with pytest.raises(UsageError, match=r"resumed\.json is not as it was written; move it away"):
        make_trainer(tmp_path, epochs=5, resume=str(tmp_path / "run")).open()


def test_who_asks_for_more_of_a_run_that_stopped_early_is_told_how(tmp_path):
    Scripted.losses = (3, 4, 1)
    trainer = make_trainer(tmp_path, kind=Scripted, epochs=6, patience=1)
    finish(trainer)
    assert trainer.epoch < 6
    with pytest.raises(UsageError, match="or --patience 0 to let this one go on, which stopped early"):
        finish(make_trainer(tmp_path, kind=Scripted, resume=str(trainer.folder), epochs=9, patience=1))


def test_results_without_a_checkpoint_are_not_trained_over(tmp_path, capsys):
    trainer = make_trainer(tmp_path)
    test = finish(trainer)
    for name in ("last.pt", "previous.pt"):
        (trainer.folder / name).unlink()
    before = snapshot(tmp_path)
    capsys.readouterr()
    assert finish(make_trainer(tmp_path, resume=str(trainer.folder))) == test
    (line,) = capsys.readouterr().out.splitlines()
    assert "finished: its results.json stands; it has no checkpoint to go on from (test loss" in line
    with pytest.raises(UsageError, match="has no checkpoint to go on from with --epochs 3; leave out --resume"):
        finish(make_trainer(tmp_path, resume=str(trainer.folder), epochs=3))
    assert snapshot(tmp_path) == before


def test_a_longer_run_that_was_stopped_before_its_test_does_not_give_the_shorter_ones(tmp_path):
    folder = make_trainer(tmp_path)
    finish(folder)
    longer = make_trainer(tmp_path, epochs=4, resume=str(folder.folder))
    longer.train(make_batches(), make_batches(8, seed=1))  # and then it was killed
    longer.log.close()
    assert json.loads((folder.folder / "results.json").read_text(encoding="utf-8"))["epochs"] == 2
    again = make_trainer(tmp_path, epochs=4, resume=str(folder.folder))
    found = finish(again)
    results = json.loads((folder.folder / "results.json").read_text(encoding="utf-8"))
    assert (results["epochs"], len(results["history"]), results["test"]) == (4, 4, found)


class Killed(BaseException):
    """What ends a process at once: nothing in it can take it for a mistake."""


@pytest.mark.parametrize("where", ["illustrate", "_write_results"])
def test_a_run_that_is_killed_in_its_test_shows_each_point_once_in_the_end(tmp_path, monkeypatch, where):
    whole = make_trainer(tmp_path / "whole")
    found = finish(whole)

    def killed(self, *_):
        self.log.flush()  # what is in TensorBoard's file by then stays there
        raise Killed

    struck = make_trainer(tmp_path)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Trainer, where, killed)
        finish(struck)
    assert not (struck.folder / "results.json").exists()
    assert points(struck.folder)["loss/test"] == points(whole.folder)["loss/test"]
    assert finish(make_trainer(tmp_path, resume=str(struck.folder))) == found
    assert_same_end(struck.folder, whole.folder)


def test_a_longer_run_shows_its_own_test_alone(tmp_path):
    finish(make_trainer(tmp_path))
    longer = make_trainer(tmp_path, epochs=4, resume=str(tmp_path / "run"))
    found = finish(longer)
    assert points(tmp_path / "run")["loss/test"] == [(4, pytest.approx(found["loss"]))]


def test_a_longer_run_keeps_the_tests_of_the_shorter_ones(tmp_path, capsys):
    path, found = tmp_path / "run" / "results.json", []
    finish(make_trainer(tmp_path))
    for epochs in (3, 3, 5):  # the second of these changes nothing, and tests nothing
        found.append(json.loads(path.read_text(encoding="utf-8")))
        finish(make_trainer(tmp_path, epochs=epochs, resume=str(tmp_path / "run")))
    numbers = [{name: each["test"][name] for name in ("loss", "accuracy", "macro_f1")} for each in found]
    kept = [{"epochs": n, "test": test} for n, test in zip((2, 3), numbers, strict=False)]
    assert [each.get("earlier_tests") for each in found] == [None, kept[:1], kept[:1]]
    assert json.loads(path.read_text(encoding="utf-8"))["earlier_tests"] == kept
    said = [line for line in capsys.readouterr().out.splitlines() if "before" in line]
    assert said == [f"this run was tested before, after epoch {n}; results.json keeps both tests" for n in (2, 3)]


def test_no_figure_can_cost_the_results(tmp_path, monkeypatch):
    def broken(*arguments):
        raise ValueError("no such font")

    monkeypatch.setattr("lab1.trainer.confusion_figure", broken)
    trainer = make_trainer(tmp_path)
    with pytest.raises(ValueError, match="no such font"):
        finish(trainer)
    results = json.loads((trainer.folder / "results.json").read_text(encoding="utf-8"))
    assert set(results["test"]) == {"loss", "accuracy", "macro_f1", "per_class_accuracy", "confusion"}
    assert sum(map(sum, results["test"]["confusion"])) == 8


def test_figures_are_drawn_whatever_backend_is_set(tmp_path, monkeypatch):
    import matplotlib

    monkeypatch.setitem(matplotlib.rcParams, "backend", "module://no_such_backend")
    trainer = make_trainer(tmp_path)
    finish(trainer)
    assert (trainer.folder / "confusion.png").stat().st_size > 1000


def test_results_have_a_line_for_each_thing_they_say(tmp_path):
    content = {"script": "x.py", "config": {"seed": 0, "hidden": [1, 2]}, "history": [{"epoch": 1}], "none": None}
    logbook.write_results(content, tmp_path / "results.json")
    text = (tmp_path / "results.json").read_text(encoding="utf-8")
    assert text == (
        '{\n "script": "x.py",\n "config": {"seed": 0, "hidden": [1, 2]},\n "history": [{"epoch": 1}],\n'
        ' "none": null\n}\n'
    )
    assert json.loads(text) == content
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]
    logbook.write_results({"x": math.inf}, tmp_path / "results.json")
    assert json.loads((tmp_path / "results.json").read_text(encoding="utf-8")) == {"x": math.inf}


def test_hyperparameters_are_those_that_matter_with_the_first_five_ticked(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    log = logbook.Logbook(tmp_path)
    settings = {"name": None, "device": "auto", "compile": False, "threads": 1, "evaluations": 20, "entropy": 0.0}
    settings |= {"seed": 3, "hidden": [64, 64], "num_envs": 8, "learning_rate": 0.5, "steps": 100, "env": "CartPole-v1"}
    log.configuration(settings, ("return",))
    log.end(settings, {"return/test": 9.0}, 5)
    log.close()
    shown = EventAccumulator(str(tmp_path))
    shown.Reload()
    stored = {
        tag: HParamsPluginData.FromString(metadata.plugin_data.content)
        for tag, metadata in shown.summary_metadata.items()
        if metadata.plugin_data.plugin_name == "hparams"
    }
    experiment = stored["_hparams_/experiment"].experiment
    assert [metric.name.tag for metric in experiment.metric_infos] == ["return/test"]
    assert {info.name: info.differs for info in experiment.hparam_infos} == {
        **dict.fromkeys(("env", "learning_rate", "hidden", "num_envs", "seed"), True),
        **dict.fromkeys(("entropy", "steps"), False),
    }
    values = stored["_hparams_/session_start_info"].session_start_info.hparams
    assert (values["hidden"].string_value, values["seed"].string_value, values["steps"].number_value) == (
        "64 64",
        "3",
        100,
    )
    assert shown.Scalars("return/test")[0].value == 9.0


def test_tags_are_spelled_in_words():
    assert logbook.tagged({"macro_f1": 0.5, "loss": 1.0}, "test") == {"macro f1/test": 0.5, "loss/test": 1.0}


def test_every_tag_of_a_run_is_group_and_part_in_lower_case(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trainer = make_trainer(tmp_path)
    finish(trainer)
    shown = EventAccumulator(str(trainer.folder))
    shown.Reload()
    assert set(shown.Tags()["scalars"]) == {
        *(f"{name}/{part}" for name in ("accuracy", "loss") for part in ("train", "validation", "test")),
        *("macro f1/test", "update/learning rate", "speed/examples per second"),
    }
    assert shown.Tags()["images"] == ["confusion matrix/test"]
    assert all(re.fullmatch(r"[a-z0-9 ]+/[a-z0-9 ]+", tag) for tag in shown.Tags()["scalars"])
