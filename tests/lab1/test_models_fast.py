"""FastCNN: the table of its docstring re-derived, and each of its parts by what it promises."""

import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lab1.engine.registry import build, describe
from lab1.models import FastCNN, count_macs
from tests.refusals import refusal

TABLE = [
    tuple(int(cell.replace(",", "")) for cell in row)
    for row in re.findall(r"^ *\| (\d+) \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \|$", FastCNN.__doc__, re.MULTILINE)
]


def network(*arguments, **options) -> FastCNN:
    torch.manual_seed(0)
    return FastCNN(*arguments, **options)


def test_the_table_of_the_docstring():
    assert len(TABLE) == 2
    for width, parameters, learned, macs in TABLE:
        model = network(width)
        counts = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
        assert sum(count for count, _ in counts) == parameters
        assert sum(count for count, is_learned in counts if is_learned) == learned
        assert count_macs(model, (3, 32, 32)) == macs


def test_the_first_layer_whitens_patches():
    model, images = network(4), torch.randn(50, 3, 32, 32).cumsum(2).cumsum(3)  # neighbouring pixels are alike
    model.whiten(images, eps=0.0)
    found = model.body[0](images).transpose(0, 1).flatten(1)
    assert torch.allclose(found[:12], -found[12:], atol=1e-4)
    assert torch.allclose(torch.cov(found[:12].double()).float(), torch.eye(12), atol=1e-3)
    assert not model.body[0].weight.requires_grad


def test_what_varies_little_is_not_blown_up():
    model, images = network(4), torch.rand(20, 1, 16, 16).expand(-1, 3, -1, -1)  # grey: 8 of 12 components are 0
    model.whiten(images, eps=0.01)
    found = model.body[0](images).transpose(0, 1).flatten(1)[:12]
    assert found.isfinite().all()
    assert found.var(1).max() < 1


def test_convolutions_begin_as_the_identity_on_what_comes_in():
    model, x = network(8), torch.randn(2, 32, 7, 7)
    second = model.body[13]
    assert (second.in_channels, second.out_channels) == (32, 32)
    assert torch.equal(second(x), x)
    wider = model.body[9]
    assert (wider.in_channels, wider.out_channels) == (8, 32)
    assert torch.equal(wider(x[:, :8])[:, :8], x[:, :8])
    assert not torch.equal(network(8, without=("identity",)).body[13](x), x)


def test_scales_stay_at_one_and_shifts_are_learned():
    for without, learned in (((), False), (("frozen-scales",), True)):
        norms = [module for module in network(4, without=without).modules() if isinstance(module, nn.BatchNorm2d)]
        assert len(norms) == 6
        assert all(norm.weight.requires_grad is learned and norm.bias.requires_grad for norm in norms)
        assert all(torch.equal(norm.weight, torch.ones_like(norm.weight)) for norm in norms)


def test_without_whitening_the_first_layer_is_learned_like_the_others():
    assert network(4, without=("whitening",)).body[0].weight.requires_grad


def test_logits_are_the_head_of_the_largest_places_over_nine():
    model, x = network(4).eval(), torch.randn(3, 3, 32, 32)
    maps = model.features(x)
    assert maps.shape == (3, 16, 3, 3)
    torch.testing.assert_close(model(x), F.linear(maps.flatten(2).max(2).values, model.head.weight) / 9)


def test_it_is_made_again_from_its_description():
    model = network(4, classes=7, without=("identity", "whitening"))
    made = build(describe(model))
    made.load_state_dict(model.state_dict())
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(made.eval()(x), model.eval()(x))


@pytest.mark.parametrize("options", [{"width": 0}, {"classes": 0}, {"in_channels": 0}])
def test_a_number_below_one_is_refused(options):
    assert refusal(lambda: FastCNN(**options)) == f"{next(iter(options))} 0: a FastCNN needs 1 or more"
