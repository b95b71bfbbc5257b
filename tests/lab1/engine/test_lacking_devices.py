"""Devices that lack something: float64 (MPS), a compiler."""

import math

import pytest
import torch

from lab1.engine.config import UsageError
from lab1.engine.devices import check_compiler
from lab1.engine.metrics import bootstrap_interval, macro_f1
from lab1.explanation.evaluation import _mean
from lab1.explanation.gradients import correlations
from lab1.images.batches import pixel_statistics


class OnMPS(torch.Tensor):
    """A tensor as on a device of Apple's: it cannot become float64 before it is on the CPU."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        found = super().__torch_function__(function, types, args, kwargs or {})
        if function is torch.Tensor.cpu:
            return found.as_subclass(torch.Tensor)
        if isinstance(found, OnMPS) and found.dtype == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64")
        return found


def on_mps(values) -> torch.Tensor:
    return torch.as_tensor(values).as_subclass(OnMPS)


def test_the_stand_in_refuses_what_mps_does():
    with pytest.raises(TypeError, match="float64"):
        on_mps([1.0]).double().cpu()
    with pytest.raises(TypeError, match="float64"):
        torch.mul(on_mps([1.0]), torch.ones(1, dtype=torch.float64))
    assert type(on_mps([1.0]).cpu().double()) is torch.Tensor


def test_correlations_of_gradients():
    found = correlations(on_mps([[3.0, 4.0], [4.0, 3.0], [-3.0, -4.0]]))
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, torch.tensor([1.0, 0.0, -1.0], dtype=torch.float64))


def test_means_of_maps_and_their_intervals():
    found = _mean(on_mps([1.0, 1.0, 1.0, 1.0]))
    assert found == {"mean": 1.0, "interval": [1.0, 1.0]}


def test_bootstrap_intervals():
    rows = torch.arange(12.0)[:, None]
    assert bootstrap_interval(on_mps(rows), lambda means: means[:, 0]) == bootstrap_interval(
        rows, lambda means: means[:, 0]
    )


def test_macro_f1():
    assert macro_f1(on_mps([[3.0, 1.0], [1.0, 3.0]])) == 0.75


def test_statistics_of_pixels():
    images = torch.tensor([0, 255], dtype=torch.uint8).reshape(2, 1, 1, 1)
    mean, deviation = pixel_statistics(images.as_subclass(OnMPS))
    assert (mean.item(), deviation.item()) == (0.5, 0.5)


@pytest.mark.parametrize(
    ("device", "raised", "line"),
    [
        (
            "cpu",
            RuntimeError("InvalidCxxCompiler: No working C++ compiler found\n\nSet TORCHDYNAMO_VERBOSE=1"),
            "--compile: torch cannot compile here (InvalidCxxCompiler: No working C++ compiler found); "
            "install a C++ compiler, such as g++, or leave it out",
        ),
        (
            "cuda",
            RuntimeError("Cannot find a working triton installation."),
            "--compile: torch cannot compile here (Cannot find a working triton installation); "
            "install Triton, or leave it out",
        ),
        ("cpu", AssertionError(), "--compile: torch cannot compile here (AssertionError); install a C++"),
    ],
)
def test_what_compiling_lacks_is_said_in_one_line(monkeypatch, device, raised, line):
    def compiled(function):
        raise raised

    monkeypatch.setattr(torch, "compile", compiled)
    with pytest.raises(UsageError) as caught:
        check_compiler(torch.device(device))
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


def test_a_compiler_that_works_is_not_spoken_of(monkeypatch):
    seen = []
    monkeypatch.setattr(torch, "compile", lambda function: lambda x: seen.append(function(x).sum().item()))
    check_compiler(torch.device("cpu"))
    assert seen == [pytest.approx(8 * (math.sin(1) + 1))]
