"""Gradients by hand and by autograd, and the comparison of the two networks side by side."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from lab1 import compare_gradients, train_cnn
from lab1.engine.config import UsageError
from lab1.engine.launch import parse
from lab1.engine.metrics import correlation_interval, mean_interval, ratio_interval
from lab1.explanation.gradients import (
    correlations,
    gradient_norms,
    input_gradients,
    line,
    weight_tensors,
    with_batch_statistics,
)
from lab1.images.batches import ImageData, split_batches
from lab1.models import CNN, ResCNN
from tests.posix import posix


@pytest.fixture(scope="module")
def images() -> ImageData:
    """Noise, as a data set."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (400, 3, 32, 32), dtype=torch.uint8, generator=generator)
    labels = torch.arange(400) % 10
    return ImageData("noise", [str(k) for k in range(10)], pixels[:300], labels[:300], pixels[300:], labels[300:])


def config(*arguments: object) -> compare_gradients.Config:
    flags = ["--depths", 1, "--seeds", 0, "--width", 4, "--batch-size", 16, "--device", "cpu", *arguments]
    return parse(compare_gradients.Config, [str(flag) for flag in flags], "")


def trainers(images, **flags) -> dict:
    made = config(*(f"--{name}={value}" for name, value in flags.items()))
    return {name: train_cnn.set_up(made.network(1, 0, name), images)[0] for name in compare_gradients.NETWORKS}


class Silent:
    def scalars(self, values, step):
        pass


SILENT = {"plain": Silent(), "residual": Silent()}


def test_gradient_norms_by_hand():
    model = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 2))
    with torch.no_grad():
        model[0].weight.fill_(3)
        model[0].bias.fill_(1)
        model[2].weight.copy_(torch.tensor([[4.0], [5.0]]))
    # x = 2: the hidden unit is 7; the sum of the outputs has slope 7 in each output weight, 2 (4 + 5) in the first one.
    model(torch.tensor([[2.0]])).sum().backward()
    norms = gradient_norms(model)
    assert norms == pytest.approx({"01 first dense layer": 18.0, "02 last dense layer": 7 * math.sqrt(2)})


def test_every_layer_has_a_name_and_the_names_are_in_order():
    names = list(weight_tensors(ResCNN(9)))
    assert len(names) == 22  # 21 convolutions, as the table of CNN has it, and the head
    assert names == sorted(names)
    assert (names[0], names[1], names[-1]) == ("01 first convolution", "02 convolution", "22 last dense layer")
    model = CNN(1)
    assert weight_tensors(model)["01 first convolution"] is model.body[0][0].weight
    assert weight_tensors(model)["06 last dense layer"] is model.head.weight


def test_a_line_is_even_and_has_both_ends():
    start, end = torch.zeros(3, 2, 2), torch.full((3, 2, 2), 4.0)
    points = line(start, end, 5)
    assert points.shape == (5, 3, 2, 2)
    assert points[:, 0, 0, 0].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_input_gradients_of_a_linear_layer_are_its_row_and_correlate_perfectly():
    torch.manual_seed(0)
    model = nn.Linear(6, 3)
    gradients = input_gradients(model, line(torch.randn(6), torch.randn(6), 9), logit=2)
    assert torch.equal(gradients, model.weight[2].detach().expand(9, 6))
    torch.testing.assert_close(correlations(gradients), torch.ones(9, dtype=torch.float64))


def test_white_noise_does_not_correlate():
    noise = torch.randn(64, 2000, generator=torch.Generator().manual_seed(0))
    found = correlations(noise)
    assert found[0].item() == pytest.approx(1.0)
    # A mean of 64 - k cosines, each of standard deviation 1 / sqrt(2000).
    assert all(abs(found[places]) < 5 / math.sqrt(2000 * (64 - places)) for places in range(1, 64))


def test_correlations_by_hand():
    quarter_turns = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0], [0.0, -4.0]])
    assert correlations(quarter_turns).tolist() == [1.0, 0.0, -1.0, 0.0]
    tiny = quarter_turns * 1e-30
    torch.testing.assert_close(correlations(tiny), correlations(quarter_turns))
    assert correlations(torch.zeros(3, 2)).tolist() == [0.0, 0.0, 0.0]


def test_batch_statistics_make_a_function_of_one_input_and_leave_the_network_alone():
    torch.manual_seed(0)
    model, inputs = ResCNN(1, width=4), torch.randn(64, 3, 32, 32)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fixed = with_batch_statistics(model, inputs)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    torch.testing.assert_close(fixed(inputs), model.train()(inputs), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(fixed(inputs[:1]), fixed(inputs)[:1])


def test_mean_interval_by_hand():
    # Student's t with 2 degrees of freedom: 4.3027; standard error 1 / sqrt(3).
    assert mean_interval([1.0, 2.0, 3.0]) == pytest.approx((2.0, 2 - 2.4842, 2 + 2.4842), abs=1e-3)
    assert mean_interval([5.0]) == (5.0, 5.0, 5.0)
    mean, low, high = ratio_interval([1.0, 10.0, 100.0])
    assert mean == pytest.approx(10.0)
    assert low == pytest.approx(10 ** (1 - 2.4842), rel=1e-3)
    assert high == pytest.approx(10 ** (1 + 2.4842), rel=1e-3)
    assert all(map(math.isnan, ratio_interval([0.0, 1.0])))


def test_correlation_interval_by_hand():
    # z = atanh(r) is half the logarithm of (1 + r) / (1 - r): here log(3) / 2 and log(9) / 2. Of two values Student's t
    # has one degree of freedom, 12.7062, and the standard error is half their difference.
    middle, half = math.log(27) / 4, 12.7062 * math.log(3) / 4
    mean, low, high = correlation_interval([0.5, 0.8])
    assert mean == pytest.approx(0.65)
    assert (low, high) == pytest.approx((math.tanh(middle - half), math.tanh(middle + half)), abs=1e-6)
    assert -1 < low < high < 1 < mean_interval([0.5, 0.8])[2]
    assert correlation_interval([-0.5, 0.5])[0] == 0
    assert correlation_interval([0.3]) == (0.3, 0.3, 0.3)
    assert correlation_interval([1.0, 1.0 + 1e-12]) == pytest.approx((1, 1, 1), abs=1e-8)
    assert all(map(math.isfinite, correlation_interval([-1.0, 1.0])))


def test_no_interval_of_a_correlation_exceeds_one():
    moments = [{"loss": 1.0, "first_to_last": 1.0, "correlation": [1.0, value]} for value in (0.9, 0.854, 0.692)]
    runs = [{"depth": 20, "network": "plain", "start": each, "end": each} for each in moments]
    plain, *_ = compare_gradients.summary(runs)
    assert mean_interval([0.9, 0.854, 0.692])[2] > 1
    assert [round(number, 3) for number in plain["neighbours"]] == [0.815, 0.39, 0.963]
    assert "0.815 [0.390, 0.963]" in compare_gradients.table([plain])


def test_means_by_hand():
    found = compare_gradients.means([1.0, 3.0], [[2.0, 5.0, 1.0], [4.0, 7.0, 2.0]])
    assert found == {"loss": 2.0, "norms": [3.0, 6.0, 1.5], "first_to_last": 2.0}
    assert compare_gradients.means([1.0], [[0.0, 1.0]])["first_to_last"] is None


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_both_networks_start_from_the_same_weights_under_the_same_names(images, norm):
    plain, residual = (trainer.model.state_dict() for trainer in trainers(images, norm=norm).values())
    assert plain.keys() == residual.keys()
    assert all(torch.equal(value, residual[name]) for name, value in plain.items())


def test_the_norms_are_those_of_the_gradients_of_each_step(images):
    made = trainers(images)
    for trainer in made.values():
        trainer.epochs, trainer.steps_per_epoch = 1, 2
    batches = list(split_batches(images, 16, seed=0)[0])[:2]
    expected = {}
    for name, network in (("plain", CNN), ("residual", ResCNN)):
        model = network(1, width=4)
        model.load_state_dict(made[name].model.state_dict())
        loss = nn.functional.cross_entropy(model(batches[0][0]), batches[0][1])
        loss.backward()
        expected[name] = loss.item(), [weight.grad.norm().item() for weight in weight_tensors(model).values()]
    taken = compare_gradients.train_side_by_side(made, batches, SILENT)
    for name, (loss, norms) in expected.items():
        assert made[name].step == len(taken[name]["loss"]) == len(taken[name]["norms"]) == 2
        assert taken[name]["loss"][0] == pytest.approx(loss, rel=1e-4)
        assert taken[name]["norms"][0] == pytest.approx(norms, rel=1e-3)
        assert taken[name]["norms"][1] != pytest.approx(norms, rel=1e-3)


class Scripted:
    """A trainer that notes what it is given, and whose losses are given."""

    def __init__(self, losses):
        self.model, self.losses, self.seen = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1)), losses, []

    def train_step(self, batch):
        self.model(torch.ones(1, 1)).backward()
        self.seen.append(batch)
        return {"loss": torch.tensor(self.losses[len(self.seen) - 1])}


def test_both_networks_see_the_same_batches_until_one_fails():
    made = {"plain": Scripted([1.0] * 5), "residual": Scripted([1.0, 1.0, math.inf])}
    taken = compare_gradients.train_side_by_side(made, "abcde", SILENT)
    assert (made["plain"].seen, made["residual"].seen) == (list("abcde"), list("abc"))
    assert taken["residual"]["loss"] == [1.0, 1.0, math.inf]


def test_a_comparison_measures_before_and_after(images, tmp_path):
    made = config("--iterations", 25)
    entries = compare_gradients.compare(made, 1, 0, images, tmp_path)
    assert [entry["network"] for entry in entries] == ["plain", "residual"]
    for entry in entries:
        shown = EventAccumulator(str(tmp_path / "depth1-seed0" / entry["network"]), size_guidance={"scalars": 0})
        shown.Reload()
        assert sorted(shown.Tags()["scalars"]) == [*(f"gradient norm/{name}" for name in entry["layers"]), "loss/train"]
        for layer, start, end in zip(entry["layers"], entry["start"]["norms"], entry["end"]["norms"], strict=True):
            points = shown.Scalars(f"gradient norm/{layer}")
            assert [point.step for point in points] == list(range(1, 26))  # more than one epoch of 17 batches
            assert points[0].value == pytest.approx(start)
            assert sum(point.value for point in points[-10:]) / 10 == pytest.approx(end)
        assert entry["start"]["first_to_last"] == entry["start"]["norms"][0] / entry["start"]["norms"][-1]
        for moment in ("start", "end"):
            assert len(entry[moment]["correlation"]) == compare_gradients.POINTS
            assert entry[moment]["correlation"][0] == pytest.approx(1.0)
    assert entries == compare_gradients.compare(made, 1, 0, images, tmp_path / "again")


def test_a_network_that_fails_has_a_start_and_no_end(images, tmp_path):
    entries = compare_gradients.compare(config("--learning-rate", 1e30), 1, 0, images, tmp_path)
    assert all(entry["failed"].startswith(("the loss is nan at", "the loss is inf at")) for entry in entries)
    rows = compare_gradients.summary(entries)
    assert [(row["moment"], row["measured"]) for row in rows] == [("start", 1), ("end", 0)] * 2
    assert compare_gradients.table(rows).count("0 of 1") == 2


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--depths", "0"], "--depths 0: at least 1 block is needed"),
        (["--depths"], "--depths: at least one is needed"),
        (["--seeds"], "--seeds: at least one is needed"),
        (["--depths", "5", "20", "5"], "--depths 5 20 5: one is there twice"),
        (["--seeds", "1", "1"], "--seeds 1 1: one is there twice"),
        (["--norm", "layer"], "--norm layer: use batch or none"),
        (["--iterations", "0"], "--iterations 0: at least 1 is needed"),
        (["--batch-size", "0"], "--batch-size 0: at least 1 is needed"),
        (["--learning-rate", "-1"], "--learning-rate -1.0: a positive number is needed"),
    ],
)
def test_what_is_refused(flags, line):
    with pytest.raises(UsageError) as refused:
        config(*flags)
    assert line in str(refused.value)
    assert "\n" not in str(refused.value)


# The script, which sends itself a real signal at its second pair of networks.
STRUCK = """
import os, signal
from lab1 import compare_gradients
from lab1.engine.launch import launch

compare = compare_gradients.compare

def struck(config, depth, seed, images, folder):
    if seed == 1:
        os.kill(os.getpid(), signal.SIGTERM)
    return compare(config, depth, seed, images, folder)

compare_gradients.compare = struck
launch(compare_gradients.main, compare_gradients.Config)
"""


@posix
def test_stopped_by_a_signal_and_resumed(run_script, tmp_path):
    pixels = torch.randint(0, 256, (60, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for number, image in enumerate(pixels.numpy()):
        place = tmp_path / "images" / ("test" if number >= 50 else "train") / f"class{number % 2}" / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place)
    flags = ["--depths", "1", "--width", "4", "--batch-size", "16", "--iterations", "3", "--device", "cpu"]
    flags += ["--workers", "1", "--dataset", "folder", "--data-dir", str(tmp_path / "images")]
    flags += ["--seeds", "0", "1", "--model-dir", str(tmp_path / "model")]
    done = subprocess.run(
        [sys.executable, "-c", STRUCK, *flags],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    folder = tmp_path / "model" / "gradients-batch-folder"
    assert done.returncode == 143, done.stderr
    assert done.stderr == f"stopped and saved; go on with: --resume {folder}\n"
    (first,) = Path(folder / "depth1-seed0" / "plain").iterdir()
    before = first.read_bytes()
    done = run_script("lab1/compare_gradients.py", "--resume", folder)
    assert done.returncode == 0, done.stderr
    assert "seed 0:" not in done.stdout
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    pairs = [(run["seed"], run["network"]) for run in results["runs"]]
    assert pairs == [(0, "plain"), (0, "residual"), (1, "plain"), (1, "residual")]
    assert first.read_bytes() == before
    done = run_script("lab1/plot.py", "--runs", tmp_path / "model", "--figures", tmp_path / "figures")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["gradients-batch-folder.png"]


def test_dry_run(run_script, tmp_path):
    done = run_script("lab1/compare_gradients.py", "--dry-run", "--dataset", "shapes", "--model-dir", tmp_path)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "dry-run-gradients-batch-shapes" / "results.json").read_text(encoding="utf-8"))
    assert [(run["depth"], run["seed"]) for run in results["runs"]] == [(5, 0), (5, 0)]
    assert len(results["runs"][0]["start"]["norms"]) == 14
