"""Exercise 1.2: the script itself, and a network of one's own."""

import json
import math
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from lab1 import models, train_cnn
from lab1.engine import registry
from lab1.engine.config import REPOSITORY, Interrupted
from lab1.engine.launch import parse
from lab1.images import shapes, start
from lab1.images.batches import Batches, ImageData
from lab1.images.trainer import CNNTrainer
from lab1.models import CNN, ResCNN
from lab1.train_cnn import Config
from tests.exactness import assert_equal
from tests.posix import posix
from tests.refusals import refusal

# The script.


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        ({}, "cnn9-16-seed0"),
        ({"residual": True}, "rescnn9-16-seed0"),
        ({"depth": 20, "norm": "none"}, "cnn20-16-nonorm-seed0"),
        ({"width": 32, "seed": 3, "dataset": "shapes", "augment": False}, "cnn9-32-noaugment-shapes-seed3"),
        ({"residual": True, "label_smoothing": 0.1}, "rescnn9-16-smooth0.1-seed0"),
        ({"network": "MyNet", "dataset": "shapes"}, "mynet-shapes-seed0"),
        ({"network": "MyNet", "depth": 2, "width": 8, "norm": "none"}, "mynet-depth2-width8-nonorm-seed0"),
    ],
)
def test_the_name_of_a_run_says_what_matters_in_it(flags, name):
    assert Config(**{"dataset": "cifar10", **flags}).run_name() == name


@pytest.mark.parametrize(
    ("flags", "flag"),
    [
        ({"depth": 0}, "--depth 0"),
        ({"width": -3}, "--width -3"),
        ({"label_smoothing": 1.0}, "--label-smoothing 1.0"),
        ({"label_smoothing": math.nan}, "--label-smoothing nan"),
        ({"network": "MyNet", "residual": True}, "--network MyNet: --residual goes without"),
    ],
)
def test_flags_out_of_range_are_refused(flags, flag):
    assert refusal(Config(**flags).check).startswith(flag)


def run_script(*arguments) -> subprocess.CompletedProcess:
    """Run train_cnn.py in a process of its own."""
    command = [sys.executable, REPOSITORY / "lab1" / "train_cnn.py", *arguments]
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=120)


PLAIN = ["--norm", "none", "--no-augment", "--label-smoothing", "0.1"]


@pytest.mark.parametrize("flags", [["--residual"], pytest.param(PLAIN, marks=pytest.mark.slow)])
def test_train_cnn(tmp_path, flags):
    # An empty data folder: in a dry run nothing is downloaded, so it draws the shapes and says so.
    folders = ["--model-dir", tmp_path / "model", "--data-dir", tmp_path / "data"]
    done = run_script("--dry-run", "--depth", 2, "--width", 4, *folders, *flags)
    assert done.returncode == 0, done.stderr
    (line,) = done.stderr.splitlines()
    assert "ten drawn shapes" in line
    (folder,) = (tmp_path / "model").iterdir()
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert results["script"] == "lab1/train_cnn.py"
    assert results["dataset"] == results["config"]["dataset"] == "shapes"
    assert results["config"]["precision"] in ("fp32", "bf16")
    assert 0 <= results["test"]["accuracy"] <= 1
    last = torch.load(folder / "last.pt", weights_only=True)
    assert last["step"] == 6
    velocities = [state["momentum_buffer"] for state in last["optimizer"]["state"].values()]
    assert len(velocities) == len(list(CNN(2, norm=results["config"]["norm"]).parameters()))
    assert all(velocity.abs().sum() > 0 for velocity in velocities)
    model, about = models.load(folder / "best.pt")
    assert type(model) is (ResCNN if "--residual" in flags else CNN)
    assert about["classes"] == shapes.CLASSES
    assert len(about["mean"]) == 3


@pytest.mark.parametrize("flags", [["--depth", "0"], ["--norm", "layer"], ["--dataset", "cifar10", "--dry-run"]])
def test_train_cnn_refuses_in_one_line(tmp_path, flags):
    done = run_script(*flags, "--model-dir", tmp_path / "model", "--data-dir", tmp_path / "data")
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert not (tmp_path / "model").exists()


# A network of one's own, by its name.


@pytest.fixture
def my_net():
    """A registered class for the time of a test; it takes a width and no depth."""

    @registry.register
    class MyNet(torch.nn.Module):
        def __init__(self, classes, width=4, in_channels=1):
            super().__init__()
            convolution = torch.nn.Conv2d(in_channels, width, 3, stride=4)
            self.body = torch.nn.Sequential(convolution, torch.nn.Dropout(0.1), torch.nn.ReLU())
            self.head = torch.nn.Linear(width, classes)

        def forward(self, x):
            return self.head(self.body(x).mean((2, 3)))

    yield MyNet
    del registry.NETWORKS["MyNet"]


@pytest.fixture(scope="module")
def few_shapes():
    images, labels, _ = shapes.draw(300, seed=0)
    return ImageData("shapes", shapes.CLASSES, images, labels, images[:50], labels[:50])


def trained(few_shapes, *flags):
    """A whole run in this process, on a few images; its Trainer."""
    trainer, (train, validation, test) = train_cnn.set_up(parse(Config, list(map(str, flags)), ""), few_shapes)
    trainer.train(train, validation)
    trainer.test(test)
    return trainer


@posix
@pytest.mark.parametrize(("more", "name"), [("", ""), ("--optimizer muon --alternate", "-muon-alternate")])
def test_ones_own_network_trains_is_loaded_again_and_resumes_exactly(
    my_net, few_shapes, tmp_path, monkeypatch, more, name
):
    flags = f"--network MyNet --width 6 --epochs 2 --batch-size 64 --dataset shapes {more}".split()
    flags += ["--device", "cpu", "--precision", "fp32"]
    whole = trained(few_shapes, *flags, "--model-dir", tmp_path / "whole")
    assert whole.folder.name == f"mynet-width6{name}-shapes-seed0"
    assert type(whole.model) is my_net
    assert whole.model.arguments == {"classes": 10, "width": 6, "in_channels": 3}
    model, about = models.load(whole.folder / "best.pt")
    assert (type(model), about["dataset"]) == (my_net, "shapes")

    train_step, calls = CNNTrainer.train_step, []

    def struck(self, batch):
        calls.append(self.step)
        if len(calls) == 6:  # the first of the second epoch
            os.kill(os.getpid(), signal.SIGTERM)
        return train_step(self, batch)

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(CNNTrainer, "train_step", struck)
        trained(few_shapes, *flags, "--model-dir", tmp_path / "struck")
    resumed = trained(few_shapes, "--resume", tmp_path / "struck" / whole.folder.name)
    assert (type(resumed.model), resumed.step, len(calls)) == (my_net, whole.step, 6)
    assert_equal(resumed.model.state_dict(), whole.model.state_dict())
    assert resumed.history == whole.history


def test_muon_without_a_convolution_is_refused(tmp_path):
    config = Config(optimizer="muon", device="cpu", precision="fp32", model_dir=tmp_path)
    assert (
        refusal(CNNTrainer, torch.nn.Linear(48, 2), config)
        == "--optimizer muon: this network has no convolution to learn by it"
    )


@pytest.mark.parametrize("network", ["ResCNN", "MyNet"])
def test_muon_learns_the_convolutions_and_sgd_the_rest(my_net, few_shapes, tmp_path, network):
    flags = [f"--network={network}", "--optimizer=muon", "--dataset=shapes", "--device=cpu", f"--model-dir={tmp_path}"]
    config = parse(Config, [*flags, "--width=2", "--learning-rate=0.02"], "")
    trainer, (train, *_) = train_cnn.set_up(config, few_shapes)
    sgd, muon = trainer.optimizer.parts
    kernels = [each for each in trainer.model.parameters() if each.ndim == 4]
    assert [id(each) for each in muon.kernels] == [id(each) for each in kernels]
    assert len(sgd.param_groups[0]["params"]) + len(kernels) == len(list(trainer.model.parameters()))
    before = [each.detach().clone() for each in kernels]
    trainer.steps_per_epoch = len(train)
    trainer.train_step(next(iter(train)))
    for kernel, was in zip(kernels, before, strict=True):
        update = (kernel - was).detach().permute(0, 2, 3, 1).flatten(1)
        singular = torch.linalg.svdvals(update)  # about equal, whatever those of the gradient were
        assert singular.min() / singular.max() > 0.3


def test_alternate_mirrors_each_image_in_every_other_epoch(few_shapes, tmp_path):
    flags = ["--alternate", "--dataset=shapes", "--device=cpu", "--width=2", f"--model-dir={tmp_path}"]
    _, (train, *_) = train_cnn.set_up(parse(Config, flags, ""), few_shapes)
    sides = {}  # how many images of each class are mirrored in an epoch
    for epoch in (0, 1):
        noises = []
        train.augment = lambda images, noise, noises=noises: noises.append(noise[:, 2] < 0.5) or images
        labels = [labels for _, labels in train.epoch(epoch)]
        sides[epoch] = torch.bincount(torch.cat(labels), torch.cat(noises).double(), minlength=10)
    counts = torch.bincount(train.labels, minlength=10)
    assert torch.equal(sides[0] + sides[1], counts.double())  # of each class as many as there are, in two epochs
    assert 0 < sides[0].sum() < len(train.labels)
    assert refusal(Config(alternate=True, augment=False).check).startswith("--alternate")


def test_a_named_network_that_cannot_be_is_refused_in_one_line(my_net, few_shapes, tmp_path):
    def line(*flags):
        config = parse(Config, [*flags, "--device", "cpu", "--model-dir", str(tmp_path)], "")
        return refusal(train_cnn.set_up, config, few_shapes)

    unknown = line("--network", "Mynet")
    listed = unknown.removeprefix("--network Mynet: use one of ").removesuffix(
        ", or put @register on yours in lab1/models.py"
    )
    assert {"MLP", "CNN", "ResCNN", "LeNet", "MyNet"} <= set(listed.split(", "))  # and other labs', if imported here
    assert line("--network", "MyNet", "--depth", "3") == "--depth 3: MyNet takes no depth"
    assert line("--network", "MyNet", "--norm", "none") == "--norm none: MyNet takes no norm"
    assert line("--network", "LeNet").startswith("--network LeNet: it cannot take these images: ")
    assert line("--network", "MLP").startswith("MLP needs sizes: give a default to what is none of depth, width")
    assert list(tmp_path.iterdir()) == []


def test_whitening_looks_at_images_of_all_classes():
    """A folder's images come class by class."""
    seen, labels = [], torch.arange(5000) // 1000
    images = labels.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 4, 4).contiguous()
    network = SimpleNamespace(whiten=seen.append)
    for order in (torch.arange(5000), torch.arange(5000).view(5, 1000).T.flatten()):
        start.whiten(network, Batches(images[order], labels[order], 10, torch.zeros(1), torch.ones(1) / 255))
    in_order, mixed = ([round(value) for value in one[:, 0, 0, 0].tolist()] for one in seen)
    assert len(in_order) == len(mixed) == 2000
    assert {in_order.count(k) for k in range(5)} == {400}
    assert mixed == list(range(5)) * 400  # the first ones, as they are


def test_the_fast_network_is_whitened_here_too(few_shapes, tmp_path):
    flags = "--network FastCNN --width 4 --dry-run --dataset shapes --device cpu --precision fp32".split()
    trainer, _ = train_cnn.set_up(parse(Config, [*flags, "--model-dir", str(tmp_path)], ""), few_shapes)
    kernel = trainer.model.body[0].weight
    assert torch.equal(kernel[:12], -kernel[12:]) and not kernel.requires_grad
