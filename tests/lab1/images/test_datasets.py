"""Data sets by name: the embedded digits, one's own, and what is refused."""

import numpy as np
import pytest
import torch

from lab1 import train_mlp
from lab1.engine.launch import parse
from lab1.engine.randomness import stratified_split
from lab1.images import datasets
from lab1.images.batches import ImageData
from tests.refusals import refusal


def test_digits_are_1797_images_in_two_parts(digits):
    assert digits.name == "digits"
    assert digits.classes == list("0123456789")
    assert digits.train_images.shape == (1438, 1, 28, 28)
    assert digits.test_images.shape == (359, 1, 28, 28)
    for images, labels in ((digits.train_images, digits.train_labels), (digits.test_images, digits.test_labels)):
        assert images.dtype == torch.uint8
        assert (images.min(), images.max()) == (0, 255)
        assert labels.dtype == torch.int64
        assert labels.unique().tolist() == list(range(10))


def test_digits_are_scikit_learns_scaled(digits):
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    _, test = stratified_split(torch.tensor(labels), 359, seed=0)
    assert digits.test_labels.tolist() == labels[test].tolist()
    small = torch.tensor(images[test], dtype=torch.float32).reshape(-1, 1, 8, 8) * (255 / 16)
    scaled = torch.nn.functional.interpolate(small, size=(28, 28), mode="bilinear")
    assert torch.equal(digits.test_images, scaled.round().to(torch.uint8))
    # The mean of an image survives the scaling, up to rounding and the edges.
    before, after = images[test].mean(1) * 255 / 16, digits.test_images.float().mean((1, 2, 3)).numpy()
    assert np.corrcoef(before, after)[0, 1] > 0.95


def test_the_test_part_of_the_digits_is_always_the_same(digits):
    torch.manual_seed(1)
    np.random.seed(1)
    again = datasets.load_digits()
    assert torch.equal(again.test_images, digits.test_images)
    assert torch.equal(again.train_labels, digits.train_labels)


def test_an_unknown_data_set_is_refused(tmp_path):
    assert refusal(datasets.load, "cifar", tmp_path, 1, 28) == "--dataset cifar: use auto, mnist, digits or folder"


@pytest.fixture
def register(monkeypatch):
    """``register_dataset`` for the time of a test."""
    monkeypatch.setattr(datasets, "DATASETS", dict(datasets.DATASETS))
    return datasets.register_dataset


def own(dtype=torch.uint8, shape=(20, 1, 5, 4), labels=2, label_dtype=torch.int64, classes=2) -> ImageData:
    """A small data set that says of itself that it is another's."""
    images, numbers = torch.ones(shape).to(dtype), (torch.arange(20) % labels).to(label_dtype)
    return ImageData("another", [f"class {k}" for k in range(classes)], images, numbers, images[:6], numbers[:6])


def test_a_registered_data_set_is_loaded_by_its_name_for_its_channels_alone(register, tmp_path):
    asked = []

    @register("mine", channels=1)
    def load_mine(data_dir, download):
        asked.append((data_dir, download))
        return own()

    loaded = datasets.load("mine", str(tmp_path), channels=1, size=28, download=False)
    assert (loaded.name, loaded.train_images.shape) == ("mine", (20, 1, 5, 4))
    assert asked == [(tmp_path, False)]
    assert load_mine(1, 2).name == "another"  # the function itself is as it was
    assert refusal(datasets.load, "min", tmp_path, 1, 28) == "--dataset min: use auto, mnist, digits, folder or mine"
    assert refusal(datasets.load, "mine", tmp_path, 3, 32) == "--dataset mine: use auto, cifar10, shapes or folder"
    assert len(asked) == 2


def test_a_data_set_of_any_channels_is_told_what_the_script_would_like(register, tmp_path):
    register("mine")(lambda channels, size: own(shape=(20, channels, size, size)))
    for channels, size in ((1, 28), (3, 32)):
        loaded = datasets.load("mine", tmp_path, channels, size)
        assert loaded.test_images.shape == (6, channels, size, size)


@pytest.mark.parametrize("name", ["mnist", "auto"])
def test_a_name_that_is_taken_is_refused_where_it_is_registered(register, name):
    with pytest.raises(TypeError, match=f"there is a data set {name} already"):
        register(name)(own)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"dtype": torch.float32}, "train_images must be uint8 [N, 1, H, W], not float32 [20, 1, 5, 4]"),
        ({"shape": (20, 5, 4)}, "train_images must be uint8 [N, 1, H, W], not uint8 [20, 5, 4]"),
        ({"shape": (20, 3, 5, 4)}, "train_images must be uint8 [N, 1, H, W], not uint8 [20, 3, 5, 4]"),
        ({"shape": (0, 1, 5, 4)}, "train_images must be uint8 [N, 1, H, W], not uint8 [0, 1, 5, 4]"),
        ({"shape": (19, 1, 5, 4)}, "train_labels must be int64 [19], not int64 [20]"),
        ({"label_dtype": torch.int32}, "train_labels must be int64 [20], not int32 [20]"),
        ({"labels": 3}, "train_labels must be from 0 to 1, as it names 2 classes"),
    ],
)
def test_images_of_the_wrong_kind_are_refused_in_one_line(register, tmp_path, wrong, says):
    register("mine", channels=1)(lambda: own(**wrong))
    assert refusal(datasets.load, "mine", tmp_path, 1, 28) == f"--dataset mine: its {says}"


def with_labels(train: list[int], test: list[int]) -> ImageData:
    """Six classes, of which these are learned from and tested on."""
    images = torch.ones(20, 1, 5, 4, dtype=torch.uint8)
    names = [f"class {k}" for k in range(6)]
    return ImageData("mine", names, images[: len(train)], torch.tensor(train), images[: len(test)], torch.tensor(test))


def test_a_class_of_the_test_set_that_training_never_sees_is_refused(register, tmp_path):
    register("mine")(lambda: with_labels([0, 1, 4, 4, 5], [5, 4, 3, 2, 1, 0]))
    message = refusal(datasets.load, "mine", tmp_path, 1, 28)
    assert message == "--dataset mine: its test_labels have what its train_labels lack: class 2, class 3"


@pytest.mark.parametrize(
    ("tested", "said"),
    [
        ([0, 1, 2, 3, 4, 5], ""),
        ([5, 4, 2, 1, 0], "--dataset mine: no test image is of class 3\n"),
        ([3, 3], "--dataset mine: no test image is of class 0, class 1, class 2, ...\n"),
    ],
)
def test_a_class_without_a_test_image_is_said(register, tmp_path, capsys, tested, said):
    register("mine")(lambda: with_labels([0, 1, 2, 3, 4, 5], tested))
    assert datasets.load("mine", tmp_path, 1, 28).test_labels.tolist() == tested
    assert capsys.readouterr().err == said


def test_an_mlp_takes_images_of_another_size(register, tmp_path):
    register("mine", channels=1)(lambda: own(shape=(20, 1, 5, 4)))
    flags = ["--dataset", "mine", "--batch-size", "4", "--device", "cpu", "--augment", "--model-dir", str(tmp_path)]
    trainer, (train, _, _) = train_mlp.set_up(parse(train_mlp.Config, flags, ""))
    assert trainer.model.arguments["sizes"] == (20, 128, 64, 2)
    assert trainer.config.run_name() == "mlp-128-64-augment-mine-seed0"
    assert trainer.train_step(next(iter(train)))["loss"].isfinite()
