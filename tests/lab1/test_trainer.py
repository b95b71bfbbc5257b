"""The Trainer: exact counts, parity with plain PyTorch, early stopping, the one test, what TensorBoard gets."""

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from lab1.engine import distributed
from lab1.engine.config import RunFailed, TrainConfig, UsageError
from lab1.images import datasets
from lab1.images.batches import Batches, about_data, split_batches
from lab1.models import MLP
from lab1.trainer import Averages, Trainer, classification_loss, warmup_cosine


def make_config(folder: Path, **changes) -> TrainConfig:
    return TrainConfig(**{"model_dir": folder, "epochs": 2, "patience": 0, "device": "cpu"} | changes)


def make_batches(count: int = 50, size: int = 8, seed: int | None = 0) -> Batches:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (count, 1, 4, 4), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, 3, (count,), generator=generator)
    return Batches(images, labels, size, torch.tensor([0.5]), torch.tensor([0.3]), seed=seed)


def make_trainer(folder: Path, **changes) -> Trainer:
    torch.manual_seed(0)
    about = {"dataset": "noise", "classes": ["a", "b", "c"], "mean": [0.5], "std": [0.3]}
    return Trainer(MLP((16, 8, 3)), make_config(folder, **changes), about)


def events(folder: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    accumulator.Reload()
    return accumulator


def test_classification_loss_by_hand():
    logits = torch.tensor([[0.0, math.log(3.0)], [math.log(4.0), 0.0]])
    loss, metrics = classification_loss(logits, torch.tensor([1, 1]))
    assert loss.item() == pytest.approx((-math.log(3 / 4) - math.log(1 / 5)) / 2)
    assert metrics["accuracy"].item() == 0.5


def test_warmup_cosine_by_hand():
    shares = [warmup_cosine(step, total_steps=12, warmup_steps=2) for step in range(13)]
    assert shares[:3] == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert shares[7] == pytest.approx(0.5)
    assert shares[12] == pytest.approx(0.0)


def test_averages_are_weighted_and_the_same_to_the_bit_however_often_they_are_read():
    generator = torch.Generator().manual_seed(0)
    values = [({"loss": torch.rand((), generator=generator)}, weight) for weight in (3, 1, 7, 2, 5)]
    once, often = Averages(), Averages()
    for metrics, weight in values:
        once.add(metrics, weight)
        often.add(metrics, weight)
        often.read()
    by_hand = sum(metrics["loss"].item() * weight for metrics, weight in values) / 18
    assert once.means() == often.means()
    assert once.means()["loss"] == pytest.approx(by_hand, rel=1e-12)


def test_averages_over_processes_of_which_one_saw_nothing(monkeypatch):
    averages = Averages()
    averages.add({"loss": torch.tensor(2.0)}, 3)
    monkeypatch.setattr(distributed, "from_every_process", lambda own: [[{}, 0.0], own, [{"loss": 4.0}, 1.0]])
    assert averages.totals() == ({"loss": 10.0}, 4.0)
    assert averages.means() == {"loss": 2.5}


def test_training_equals_plain_pytorch(tmp_path):
    trainer = make_trainer(tmp_path, epochs=3, learning_rate=0.01, weight_decay=0.1)
    batches = make_batches()
    torch.manual_seed(0)
    model = MLP((16, 8, 3))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    total, step = 3 * len(batches), 0
    for epoch in range(3):
        for images, labels in batches.epoch(epoch):
            optimizer.param_groups[0]["lr"] = 0.01 * warmup_cosine(step, total, total // 20)
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
            step += 1
    trainer.train(batches, make_batches(20, seed=None))
    assert trainer.step == step == 3 * math.ceil(50 / 8)
    for ours, plain in zip(trainer.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-6)


def test_history_holds_the_means_of_what_was_seen(tmp_path):
    trainer = make_trainer(tmp_path, epochs=2)
    validation = make_batches(20, size=6, seed=None)
    history = trainer.train(make_batches(), validation)
    assert [entry["epoch"] for entry in history] == [1, 2]
    trainer.model.eval()
    images, labels = next(iter(make_batches(20, size=20, seed=None)))
    loss, metrics = classification_loss(trainer.model(images), labels)
    assert history[-1]["validation"]["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert history[-1]["validation"]["accuracy"] == pytest.approx(metrics["accuracy"].item())


def test_any_iterable_of_batches_will_do(tmp_path):
    lists = [list(make_batches().epoch(0)), list(make_batches(20, seed=None))]
    trainer = make_trainer(tmp_path)
    trainer.train(*lists)
    assert trainer.step == 2 * len(lists[0])


@pytest.mark.parametrize("training", [True, False])
def test_evaluate_leaves_the_mode_the_weights_and_the_gradients_alone(tmp_path, training):
    trainer = make_trainer(tmp_path)
    trainer.model.train(training)
    before = [parameter.clone() for parameter in trainer.model.parameters()]
    trainer.evaluate(make_batches(20, seed=None))
    assert trainer.model.training is training
    for parameter, old in zip(trainer.model.parameters(), before, strict=True):
        assert torch.equal(parameter, old)
        assert parameter.grad is None


def test_gradients_are_clipped_to_the_norm_asked_for(tmp_path):
    trainer = make_trainer(tmp_path)
    trainer.steps_per_epoch, trainer.max_gradient_norm = 1, 1e-3
    trainer.train_step(next(make_batches().epoch(0)))
    norm = torch.stack([parameter.grad.norm() for parameter in trainer.model.parameters()]).norm()
    assert norm.item() == pytest.approx(1e-3, rel=1e-3)


class Scripted(Trainer):
    """A Trainer whose validation losses are given."""

    def __init__(self, *arguments, losses):
        super().__init__(*arguments)
        self.losses = losses

    def evaluate(self, batches):
        return {"loss": self.losses[self.epoch], "accuracy": 0.0}


@pytest.mark.parametrize(
    ("losses", "patience", "epochs", "best"),
    [
        ([3.0, 2.0, 2.0, 2.5, 1.0, 1.0], 2, 4, 2),  # an equal loss is no better one
        ([3.0, 2.0, 2.5, 1.0, 1.5, 1.6], 2, 6, 4),
        ([3.0, 2.0, 2.5, 2.6, 2.7, 1.0], 0, 6, 6),  # 0 never stops early
        ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 1, 2, 1),
    ],
)
def test_early_stopping_and_the_best_epoch(tmp_path, losses, patience, epochs, best):
    torch.manual_seed(0)
    trainer = Scripted(MLP((16, 8, 3)), make_config(tmp_path, epochs=6, patience=patience), losses=losses)
    trainer.train(make_batches(), None)
    assert (trainer.epoch, trainer.best_epoch) == (epochs, best)
    stored = torch.load(trainer.folder / "best.pt", weights_only=True)
    assert (stored["epoch"], stored["loss"]) == (best, losses[best - 1])


def test_the_test_uses_the_best_weights_not_the_last(tmp_path):
    class FirstIsBest(Trainer):
        def evaluate(self, batches):
            return super().evaluate(batches) | ({"loss": 1.0 + self.epoch} if not self.finished() else {})

    torch.manual_seed(0)
    trainer = FirstIsBest(MLP((16, 8, 3)), make_config(tmp_path, epochs=3, learning_rate=0.05))
    kept = {}
    save_best = trainer._save_best
    trainer._save_best = lambda: (
        kept.update({name: value.clone() for name, value in trainer.model.state_dict().items()}),
        save_best(),
    )
    trainer.train(make_batches(), make_batches(20, seed=None))
    last = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.test(make_batches(20, seed=None))
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value, kept[name])
        assert not torch.equal(value, last[name])


def test_results_say_what_was_found(tmp_path):
    trainer = make_trainer(tmp_path, epochs=3)
    test_batches = make_batches(30, seed=None)
    trainer.train(make_batches(), make_batches(20, seed=None))
    test = trainer.test(test_batches)
    results = json.loads((trainer.folder / "results.json").read_text(encoding="utf-8"))
    assert set(results) == {
        *("script", "config", "dataset", "parameters", "epochs", "best_epoch", "seconds"),
        *("validation", "test", "history", "environment"),
    }
    assert results["test"] == test
    assert results["parameters"] == 16 * 8 + 8 + 8 * 3 + 3
    assert results["validation"] == results["history"][results["best_epoch"] - 1]["validation"]
    images, labels = next(iter(make_batches(30, size=30, seed=None)))
    predicted = trainer.model(images).argmax(1)
    confusion = torch.tensor(test["confusion"])
    for true in range(3):
        for guess in range(3):
            assert confusion[true, guess] == ((labels == true) & (predicted == guess)).sum()
    assert test["accuracy"] == pytest.approx(confusion.diagonal().sum().item() / 30)
    assert test["per_class_accuracy"]["b"] == pytest.approx((confusion[1, 1] / confusion[1].sum()).item())
    assert (trainer.folder / "confusion.png").stat().st_size > 1000


def test_a_second_run_of_the_same_name_overwrites_nothing(tmp_path):
    folders = []
    for _ in range(3):
        trainer = make_trainer(tmp_path, name="twin", epochs=1)
        trainer.train(make_batches(), make_batches(20, seed=None))
        folders.append(trainer.folder.name)
    assert folders == ["twin", "twin-2", "twin-3"]


def test_tensorboard_shows_the_run(tmp_path):
    trainer = make_trainer(tmp_path, epochs=3)
    history = trainer.train(make_batches(), make_batches(20, seed=None))
    test = trainer.test(make_batches(30, seed=None))
    assert len(list(trainer.folder.glob("events.out.tfevents.*"))) == 2
    assert len(list(trainer.folder.glob("events.out.tfevents.*.test"))) == 1
    assert [path for path in trainer.folder.iterdir() if path.is_dir()] == []  # no spawned run
    shown = events(trainer.folder)
    for metric in ("loss", "accuracy"):
        for part in ("train", "validation"):
            points = shown.Scalars(f"{metric}/{part}")
            assert [point.step for point in points] == [1, 2, 3]
            assert [point.value for point in points] == pytest.approx([entry[part][metric] for entry in history])
        assert shown.Scalars(f"{metric}/test")[0].value == pytest.approx(test[metric])
    assert len(shown.Scalars("update/learning rate")) == len(shown.Scalars("speed/examples per second")) == 3
    assert all(point.value > 0 for point in shown.Scalars("speed/examples per second"))
    assert shown.Graph().node
    assert {"first batch/train", "confusion matrix/test", "mistakes/test"} <= set(shown.Tags()["images"])
    text = shown.Tensors("configuration/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "| batch_size | `128` |" in text
    assert "_hparams_/session_start_info" in shown.summary_metadata


@pytest.mark.parametrize("bad_step", [1, 4, 9])
def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(tmp_path, bad_step):
    class Poisoned(Trainer):
        def loss(self, batch):
            loss, metrics = super().loss(batch)
            return loss * (math.nan if self.model.training and self.step + 1 == bad_step else 1.0), metrics

    torch.manual_seed(0)
    trainer = Poisoned(MLP((16, 8, 3)), make_config(tmp_path, epochs=3))
    with pytest.raises(RunFailed, match=rf"nan at step {bad_step}, in epoch {1 + (bad_step - 1) // 7};") as failure:
        trainer.train(make_batches(), make_batches(20, seed=None))
    assert "\n" not in str(failure.value)
    if bad_step > 7:  # the checkpoint of the first epoch stays, and it is good
        stored = torch.load(trainer.folder / "last.pt", weights_only=True)
        assert stored["step"] == 7
        assert all(torch.isfinite(value).all() for value in stored["weights"].values())
    else:
        assert not (trainer.folder / "last.pt").exists()


def test_nothing_to_train_on_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="nothing to train on"):
        make_trainer(tmp_path).train(make_batches(0), make_batches(20, seed=None))
    assert list(tmp_path.iterdir()) == []


def test_bf16_computes_in_bf16_and_keeps_its_weights_in_fp32(tmp_path):
    seen = set()
    trainer = make_trainer(tmp_path, precision="bf16", epochs=1)
    trainer.model.head.register_forward_hook(lambda module, inputs, output: seen.add(output.dtype))
    trainer.train(make_batches(), make_batches(20, seed=None))
    assert seen >= {torch.bfloat16}
    assert {parameter.dtype for parameter in trainer.model.parameters()} == {torch.float32}


def test_the_digits_are_learned(tmp_path):
    images = datasets.load_digits()
    train, validation, test = split_batches(images, 64, seed=0)
    torch.manual_seed(0)
    config = make_config(tmp_path, epochs=12, learning_rate=5e-3, weight_decay=0.05, batch_size=64)
    trainer = Trainer(MLP((784, 64, 10)), config, about_data(images, train))
    trainer.train(train, validation)
    assert trainer.test(test)["accuracy"] > 0.95


def test_the_configuration_is_written_as_it_was(tmp_path):
    trainer = make_trainer(tmp_path, learning_rate=0.02)
    trainer.train(make_batches(), make_batches(20, seed=None))
    written = json.loads((trainer.folder / "config.json").read_text(encoding="utf-8"))
    fields = {field.name for field in dataclasses.fields(TrainConfig)} - {"resume", "cluster", "slurm", "detach"}
    assert set(written) == fields
    assert written["learning_rate"] == 0.02


def test_a_lab_may_save_more_and_count_in_its_own_unit(tmp_path):
    class Counting(Trainer):
        charted = ("loss", "perplexity")
        words = 0

        def more_state(self):
            return {"words": self.words}

        def restore_more(self, content):
            self.words = content["words"]

        def clock(self):
            return self.words

        def where(self):
            return f"after {self.words} words"

    def make(**changes) -> Counting:
        torch.manual_seed(0)
        return Counting(MLP((16, 8, 3)), make_config(tmp_path, **changes))

    first = make()
    first.open()
    for words in (10, 20, 30):
        first.log.scalars({"loss/train": 1.0}, words)
    first.words = 20
    first.save()
    first.log.close()
    second = make(resume=str(first.folder))
    second.open()
    assert second.words == 20
    second.log.scalars({"loss/train": 2.0}, 25)
    second.log.close()
    shown = events(first.folder)
    assert [point.step for point in shown.Scalars("loss/train")] == [10, 20, 25]  # 30 is forgotten
    (charts,) = shown.Tensors("custom_scalars__config__")
    assert b"perplexity/train" in charts.tensor_proto.string_val[0]
