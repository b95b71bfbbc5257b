"""Registered networks: what is noted of them, what is refused, and that they come back as they were."""

import copy
import math

import pytest
import torch
from torch import nn

from lab1.engine import checkpoint, registry
from lab1.engine.config import UsageError


@pytest.fixture(autouse=True)
def networks(monkeypatch):
    """A list of networks of each test's own."""
    monkeypatch.setattr(registry, "NETWORKS", {})
    return registry.NETWORKS


def linear() -> type[nn.Module]:
    """A small network, registered."""

    @registry.register
    class Linear(nn.Module):
        def __init__(self, inputs, outputs=2, *, bias=True):
            super().__init__()
            self.layer = nn.Linear(inputs, outputs, bias)

        def forward(self, x):
            return self.layer(x)

    return Linear


def refusal(call, *arguments, **options) -> str:
    """The one line with which a call is refused."""
    with pytest.raises(UsageError) as error:
        call(*arguments, **options)
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


def test_what_a_network_is_made_with_is_noted_by_name_with_its_defaults():
    network = linear()
    assert network(3).arguments == {"inputs": 3, "outputs": 2, "bias": True}
    assert network(4, outputs=5, bias=False).arguments == {"inputs": 4, "outputs": 5, "bias": False}
    assert registry.describe(network(3)) == {"class": "Linear", "arguments": network(3).arguments}
    assert copy.deepcopy(network(3)).arguments == network(3).arguments


def test_keywords_of_any_name_are_noted_one_by_one():
    @registry.register
    class Free(nn.Module):
        def __init__(self, width, **more):
            super().__init__()
            self.layer, self.more = nn.Linear(width, 1), more

    model = Free(3, scale=2.0, name="a")
    assert model.arguments == {"width": 3, "scale": 2.0, "name": "a"}
    assert registry.build(registry.describe(model)).more == {"scale": 2.0, "name": "a"}


def test_a_subclass_notes_its_own_arguments_and_not_its_parents():
    parent = linear()

    @registry.register
    class Narrow(parent):
        def __init__(self, width=7):
            super().__init__(width, outputs=1)

    class Unregistered(parent):
        def __init__(self):
            super().__init__(3)

    model = Narrow(5)
    assert registry.describe(model) == {"class": "Narrow", "arguments": {"width": 5}}
    assert registry.build(registry.describe(model)).layer.weight.shape == (1, 5)
    assert "Unregistered trains and is tested; for scripts to load it again, put @register" in registry.check(
        Unregistered()
    )


def test_a_subclass_without_its_own_constructor_has_its_parents():
    parent = linear()

    @registry.register
    class Same(parent):
        pass

    assert registry.describe(Same(3, bias=False)) == {
        "class": "Same",
        "arguments": {"inputs": 3, "outputs": 2, "bias": False},
    }
    assert registry.describe(parent(3))["class"] == "Linear"


def test_a_class_that_could_not_be_made_again_is_refused_where_it_is_defined():
    class Many(nn.Module):
        def __init__(self, *widths):
            super().__init__()

    class Placed(nn.Module):
        def __init__(self, width, /):
            super().__init__()

    for network in (Many, Placed):
        with pytest.raises(TypeError, match="must take its arguments by name"):
            registry.register(network)
    assert registry.NETWORKS == {}


def test_two_classes_of_one_name_clash_and_one_that_is_defined_again_does_not():
    first = linear()
    again = linear()
    assert again is not first
    assert {"Linear": again} == registry.NETWORKS
    Linear = type("Linear", (nn.Module,), {"__init__": lambda self: None, "__module__": "elsewhere"})
    with pytest.raises(TypeError, match=f"there is a network Linear in {__name__} already"):
        registry.register(Linear)


@pytest.mark.parametrize("value", [3, 0.5, "relu", None, [1, 2], (1, 2), {"a": [True]}, torch.ones(2)], ids=str)
def test_plain_arguments_pass_the_check(value):
    network = linear()
    model = network(2)
    model.arguments["bias"] = value
    assert registry.check(model) is None


@pytest.mark.parametrize("value", [lambda x: x, nn.ReLU, nn.ReLU(), torch.relu, {1: object()}], ids=range(5))
def test_an_argument_that_a_file_cannot_hold_is_named_before_training(value):
    @registry.register
    class Activated(nn.Module):
        def __init__(self, width, activation):
            super().__init__()

    line = refusal(registry.check, Activated(3, activation=value))
    assert line.startswith("Activated was made with activation=")
    assert "which a run's file cannot hold" in line


def test_a_network_comes_back_from_its_file(tmp_path):
    model = linear()(3, bias=False)
    content = {"model": registry.describe(model), "weights": model.state_dict(), "about": {"dataset": "none"}}
    checkpoint.save(content, tmp_path / "best.pt")
    again, about = registry.load(tmp_path / "best.pt")
    assert (type(again), about, again.training) == (type(model), {"dataset": "none"}, False)
    assert torch.equal(again.layer.weight, model.layer.weight)
    registry.NETWORKS.clear()
    assert "a network of class 'Linear' is none of this lab's" in refusal(registry.load, tmp_path / "best.pt")


def test_a_folder_of_several_runs_says_so(tmp_path):
    message = refusal(registry.load, tmp_path / "best.pt", missing="not trained yet")
    assert message == "not trained yet"
    (tmp_path / "results.json").write_text('{"runs": []}', encoding="utf-8")
    message = refusal(registry.load, tmp_path / "best.pt")
    assert message == f"{tmp_path} is of several runs, and keeps the weights of none; name a single run"
    for name in ("plain-depth5-seed0", "plain-depth1-seed0"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "best.pt").touch()
    message = refusal(registry.load, tmp_path / "best.pt")
    one = tmp_path / "plain-depth1-seed0"
    assert message == f"{tmp_path} holds several runs; name one of them, such as {one}"


def test_a_network_is_made_with_what_it_takes_of_what_is_offered():
    network = linear()
    assert registry.make(network, inputs=3, bias=False, depth=9).arguments == {
        "inputs": 3,
        "outputs": 2,
        "bias": False,
    }
    line = refusal(registry.make, network, outputs=4, depth=9)
    assert line == "Linear needs inputs: give a default to what is none of outputs, depth"

    @registry.register
    class Free(nn.Module):
        def __init__(self, classes, **more):
            super().__init__()

    assert registry.make(Free, classes=3, depth=9).arguments == {"classes": 3, "depth": 9}


def stored(folder, **changed):
    """A ``best.pt`` of a small network, with something else in it."""
    model = linear()(3)
    content = {
        "model": registry.describe(model),
        "weights": model.state_dict(),
        "about": {"dataset": "a", "mean": [0.5]},
    }
    checkpoint.save(content | changed, folder / "best.pt")
    return model


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        (
            {"weights": {"layer.weight": torch.full((2, 3), math.nan), "layer.bias": torch.zeros(2)}},
            "layer.weight are not",
        ),
        (
            {"weights": {"layer.weight": torch.zeros(2, 4), "layer.bias": torch.zeros(2)}},
            "Error(s) in loading state_dict",
        ),
        ({"weights": [1]}, "holds no network of this lab"),
        ({"model": [1]}, "its description is a list"),
        ({"model": {"class": ["Linear"]}}, "a network of class ['Linear'] is none"),
        ({"model": {"class": "Linear", "arguments": {"inputs": -1}}}, "the description of a Linear does not fit"),
        ({"about": None}, "beside its weights is nothing"),
        ({"about": {"mean": [0.5]}}, "'dataset' is missing"),
        ({"about": {"dataset": 3, "mean": [0.5]}}, "its dataset is a number"),
        ({"about": {"dataset": "a", "mean": 0.5}}, "its mean is a number"),
        ({"about": {"dataset": "a", "mean": ["b"]}}, "its mean is a list"),
    ],
)
def test_a_file_that_holds_something_else_is_refused_in_one_line(tmp_path, changed, why):
    stored(tmp_path)
    registry.load(tmp_path / "best.pt", dataset=str, mean=[float])
    stored(tmp_path, **changed)
    line = refusal(registry.load, tmp_path / "best.pt", dataset=str, mean=[float])
    assert str(tmp_path / "best.pt") in line
    assert why in line


def test_the_weights_to_test_are_checked_too(tmp_path):
    model = stored(tmp_path)
    registry.load_weights(model, tmp_path / "best.pt")
    stored(tmp_path, weights={"layer.weight": torch.full((2, 3), math.inf), "layer.bias": torch.zeros(2)})
    assert "layer.weight are not finite" in refusal(registry.load_weights, model, tmp_path / "best.pt")
    stored(tmp_path, weights=None)
    assert "does not fit this network" in refusal(registry.load_weights, model, tmp_path / "best.pt")
    (tmp_path / "best.pt").unlink()
    assert "is gone; start the run anew" in refusal(registry.load_weights, model, tmp_path / "best.pt")
    (tmp_path / "best.pt").mkdir()
    assert "is a folder and no checkpoint; start the run anew" in refusal(
        registry.load_weights, model, tmp_path / "best.pt"
    )
