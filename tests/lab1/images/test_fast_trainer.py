"""The recipe of train_fast.py: schedule, the factor of the shifts, averaged weights, six views, and exact resume."""

import signal

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lab1.engine.config import Interrupted, UsageError
from lab1.images import shapes
from lab1.images.augment import crop_and_flip, mirrored_and_shifted
from lab1.images.batches import Batches, pixel_statistics
from lab1.images.trainer import FastTrainer
from lab1.models import FastCNN
from lab1.train_fast import TRICKS, Config
from tests.exactness import assert_equal
from tests.posix import posix

BATCH = torch.randn(8, 3, 32, 32), torch.arange(8)


def trainer(tmp_path, steps_per_epoch: int = 10, seed: int = 0, **flags) -> FastTrainer:
    torch.manual_seed(seed)
    config = Config(model_dir=tmp_path, **{"precision": "fp32", "epochs": 2, **flags})
    model = FastCNN(2, without=config.without)
    model.whiten(torch.randn(20, 3, 32, 32, generator=torch.Generator().manual_seed(1)))
    made = FastTrainer(model, config)
    made.steps_per_epoch = steps_per_epoch
    return made


def test_the_learning_rate_is_a_triangle(tmp_path):
    made = trainer(tmp_path, steps_per_epoch=50, learning_rate=0.5)
    rates = [made.learning_rate(step) for step in range(100)]
    assert rates.index(max(rates)) == 22
    assert max(rates) == pytest.approx(0.5)
    assert rates[0] == pytest.approx(0.5 * (0.2 + 0.8 / 23))
    assert rates[-1] == pytest.approx(0.5 * 0.07)
    assert rates[60] == pytest.approx(0.5 * (0.07 + 0.93 * 39 / 77))


@pytest.mark.parametrize("optimizer", ["sgd", "muon"])
def test_shifts_learn_faster_than_the_rest_and_what_is_frozen_not_at_all(tmp_path, optimizer):
    made = trainer(tmp_path, optimizer=optimizer)
    made.train_step(BATCH)
    rate = made.learning_rate(0)
    rates = {id(each): group["lr"] for group in made.optimizer.param_groups for each in group["params"]}
    named = dict(made.model.named_parameters())
    shifts = [each for name, each in named.items() if name.endswith("bias")]
    assert len(shifts) == 6
    assert all(rates[id(each)] == pytest.approx(64 * rate) for each in shifts)
    assert rates[id(named["head.weight"])] == pytest.approx(rate)
    assert id(named["body.0.weight"]) not in rates
    decays = {group.get("factor", 1): group["weight_decay"] for group in made.optimizer.param_groups[:2]}
    assert decays[64] * 64 == pytest.approx(decays[1])
    plain = trainer(tmp_path, optimizer=optimizer, without=("fast-shifts",))
    plain.train_step(BATCH)
    assert {group["lr"] for group in plain.optimizer.param_groups} == {rate}


def test_every_learned_parameter_moves(tmp_path):
    for optimizer in ("sgd", "muon"):
        made = trainer(tmp_path, optimizer=optimizer, without=("whitening", "frozen-scales"))
        before = [each.detach().clone() for each in made.model.parameters()]
        made.train_step(BATCH)
        assert all(not torch.equal(each, old) for each, old in zip(made.model.parameters(), before, strict=True))


def test_a_step_of_sgd_is_one_of_nesterov_momentum(tmp_path):
    made = trainer(tmp_path, optimizer="sgd", without=("averaging",), weight_decay=0.01)
    weight = made.model.head.weight
    expected, velocity = weight.detach().clone(), torch.zeros_like(weight)
    for step in range(3):
        loss, _ = made.loss(BATCH)
        (gradient,) = torch.autograd.grad(loss, weight)
        slope = gradient + 0.01 * expected
        velocity = 0.85 * velocity + slope
        expected = expected - made.learning_rate(step) * (slope + 0.85 * velocity)
        made.train_step(BATCH)
        torch.testing.assert_close(weight.detach(), expected)


def test_after_every_fifth_step_the_weights_go_back_a_part_of_the_way(tmp_path):
    fast, averaged = trainer(tmp_path, without=("averaging",)), trainer(tmp_path)
    begun = [each.detach().clone() for each in averaged.model.parameters()]
    for step in range(1, 6):
        fast.train_step(BATCH)
        averaged.train_step(BATCH)
        equal = all(map(torch.equal, fast.model.parameters(), averaged.model.parameters()))
        assert equal is (step < 5)
    part = 1 - 0.95**5 * (5 / 20) ** 3
    for slow, before, after in zip(averaged.model.parameters(), begun, fast.model.parameters(), strict=True):
        torch.testing.assert_close(slow.detach(), before + part * (after.detach() - before))


def test_labels_are_smoothed_unless_left_out(tmp_path):
    for without, smoothing in (((), 0.2), (("smoothing",), 0.0)):
        made = trainer(tmp_path, without=without)
        made.model.train()
        loss, _ = made.loss(BATCH)
        with torch.no_grad():
            logarithms = made.model(BATCH[0]).log_softmax(1)
        own = -logarithms[torch.arange(8), BATCH[1]]
        expected = ((1 - smoothing) * own - smoothing * logarithms.mean(1)).mean()
        assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_test_looks_at_each_image_six_times(tmp_path):
    images, labels, _ = shapes.draw(60, seed=7)
    batches = Batches(images, labels, 16, *pixel_statistics(images))
    made = trainer(tmp_path)
    made.open()
    found = made.report(batches)["accuracy_with_views"]
    made.log.close()
    right = 0
    with torch.no_grad():
        for inputs, expected in batches:
            mean = sum(weight * made.model.eval()(view) for weight, view in mirrored_and_shifted(inputs))
            right += int((mean.argmax(1) == expected).sum())
    assert found == right / 60
    assert 0 < right < 60


@posix
@pytest.mark.parametrize("flags", [{"optimizer": "muon"}, {"optimizer": "sgd", "without": ("alternating",)}])
def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(tmp_path, flags):
    images, labels, _ = shapes.draw(80, seed=7)
    mean, std = pixel_statistics(images)
    alternate = "alternating" not in flags.get("without", ())
    train = Batches(images, labels, 10, mean, std, seed=0, augment=crop_and_flip, alternate=alternate)
    validation = Batches(images, labels, 80, mean, std)
    whole = trainer(tmp_path, name="whole", **flags)
    whole.train(train, validation)
    stopped = trainer(tmp_path, name="stopped", **flags)
    step = stopped.train_step

    def stop_in_the_second_epoch(batch):
        if stopped.step == 11:
            signal.raise_signal(signal.SIGTERM)
        return step(batch)

    stopped.train_step = stop_in_the_second_epoch
    with pytest.raises(Interrupted):
        stopped.train(train, validation)
    assert (stopped.epoch, stopped.batch) == (1, 4)
    resumed = trainer(tmp_path, seed=1, resume=str(tmp_path / "stopped"), **flags)
    resumed.train(train, validation)
    assert_equal(dict(resumed.model.state_dict()), dict(whole.model.state_dict()))
    assert_equal(resumed.slow, whole.slow)
    assert resumed.history == whole.history


def test_averaged_weights_of_another_network_do_not_fit(tmp_path):
    made = trainer(tmp_path)
    with pytest.raises((RuntimeError, UsageError)):
        made.restore_more({"slow": [each[:1] if each.ndim == 1 else each.repeat(2, 1, 1, 1)[:3] for each in made.slow]})


def test_the_tricks_are_those_of_the_flag():
    assert len(TRICKS) == len(set(TRICKS)) == 8
    config = Config(without=TRICKS)
    assert not any(config.uses(trick) for trick in TRICKS)
    assert config.label_smoothing == 0.0


def test_the_accuracy_of_six_looks_is_a_point_of_the_test_and_stands_there_once(tmp_path):
    """Points of a test have an event file of their own, which a test that was stopped and is made again replaces."""
    images, labels, _ = shapes.draw(40, seed=7)
    batches = Batches(images, labels, 20, *pixel_statistics(images))
    made = trainer(tmp_path, epochs=1)
    made.about["classes"] = shapes.CLASSES
    made.train(batches, batches)
    for _ in range(2):  # as a run does that was killed before its results were written
        made.test(batches)
        (made.folder / "results.json").unlink()
    shown = EventAccumulator(str(made.folder))
    shown.Reload()
    assert [point.step for point in shown.Scalars("accuracy with views/test")] == [1]
