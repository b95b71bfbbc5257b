"""The convolutional networks: their docstring's table re-derived, identities that must hold, and what is refused."""

import math
import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lab1 import models
from lab1.models import CNN, ConvBlock, ResCNN, blocks_per_stage, count_macs
from tests.refusals import refusal

DEPTHS = [1, 5, 9, 10, 20, 25]


IMAGE = (3, 32, 32)


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def network(kind=ResCNN, depth: int = 4, seed: int = 0, **options) -> CNN:
    torch.manual_seed(seed)
    return kind(depth, **options)


TABLE = {
    int(depth): ([int(blocks) for blocks in spread.split(",")], *(int(number.replace(",", "")) for number in numbers))
    for depth, spread, *numbers in re.findall(
        r"^ *\| (\d+) \| ([\d, ]+) \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \|$", CNN.__doc__, re.MULTILINE
    )
}


def test_the_docstring_has_a_table_of_every_depth_of_the_exercise():
    assert list(TABLE) == DEPTHS


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("kind", [CNN, ResCNN])
def test_the_networks_are_as_large_as_the_docstring_says(kind, depth):
    spread, convolutions, with_norm, without_norm, macs = TABLE[depth]
    normed, bare = kind(depth), kind(depth, norm="none")
    assert blocks_per_stage(depth) == spread
    for model in (normed, bare):
        assert sum(isinstance(module, nn.Conv2d) for module in model.modules()) == convolutions
        assert count_macs(model, IMAGE) == macs
    assert (parameters(normed), parameters(bare)) == (with_norm, without_norm)


@pytest.mark.parametrize("depth", [1, 2, 9, 10])
@pytest.mark.parametrize("norm", ["batch", "none"])
def test_the_sizes_follow_from_the_formula(depth, norm):
    width, after = 8, {"batch": 2, "none": 1}[norm]  # scale and shift, or a bias, for each channel
    pairs = [(3, width, 32), (width, 2 * width, 16), (2 * width, 4 * width, 8)]  # stem and transitions
    for stage, blocks in enumerate(blocks_per_stage(depth)):
        pairs += [(width << stage, width << stage, 32 >> stage)] * 2 * blocks
    model = CNN(depth, width, norm, classes=7)
    assert parameters(model) == sum(9 * a * b + after * b for a, b, _ in pairs) + (4 * width + 1) * 7
    assert count_macs(model, IMAGE) == sum(9 * a * b * size**2 for a, b, size in pairs) + 4 * width * 7


@pytest.mark.parametrize("depth", range(1, 31))
def test_every_block_stands_in_a_stage_and_the_stages_differ_by_one_at_most(depth):
    spread = blocks_per_stage(depth)
    assert sum(spread) == depth
    assert spread == sorted(spread, reverse=True)
    assert spread[0] - spread[2] <= 1
    blocks = [module.branch[0][0].in_channels for module in CNN(depth, 2).modules() if isinstance(module, ConvBlock)]
    assert blocks == [2] * spread[0] + [4] * spread[1] + [8] * spread[2]


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_plain_and_residual_networks_of_one_seed_start_with_the_same_weights(norm):
    plain, residual = network(CNN, norm=norm).state_dict(), network(ResCNN, norm=norm).state_dict()
    assert list(plain) == list(residual)
    assert all(torch.equal(plain[name], residual[name]) for name in plain)


@pytest.mark.parametrize("kind", [CNN, ResCNN])
@pytest.mark.parametrize("norm", ["batch", "none"])
def test_the_logits_are_the_head_on_the_mean_of_the_last_map(kind, norm):
    model, x = network(kind, width=4, norm=norm, classes=6).eval(), torch.randn(5, *IMAGE)
    features = model.features(x)
    assert features.shape == (5, 16, 8, 8)
    assert (features >= 0).all()
    assert features.any()
    expected = features.mean((2, 3)) @ model.head.weight.T + model.head.bias
    torch.testing.assert_close(model(x), expected)


def test_other_images_give_other_maps():
    assert network(width=2, in_channels=1).features(torch.randn(2, 1, 28, 28)).shape == (2, 8, 7, 7)
    assert network(width=2).features(torch.randn(2, 3, 64, 48)).shape == (2, 8, 16, 12)


def zero_the_branches(model: CNN) -> None:
    for module in model.modules():
        if isinstance(module, ConvBlock):
            last = module.branch[-1][-1]  # the norm, or the convolution where there is none
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_a_residual_block_whose_branch_is_zero_is_the_identity_and_a_plain_one_forgets(norm):
    x = torch.rand(2, 4, 8, 8)
    for residual, expected in ((True, x), (False, torch.zeros_like(x))):
        block = ConvBlock(4, norm, residual)
        assert not torch.equal(block(x), expected)
        zero_the_branches(block)
        assert torch.equal(block(x), expected)


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_a_deep_residual_network_whose_branches_are_zero_is_its_stem_and_transitions(norm):
    model, x = network(depth=7, width=4, norm=norm), torch.randn(3, *IMAGE)
    zero_the_branches(model)
    expected = x
    for layer in model.body:
        expected = expected if isinstance(layer, ConvBlock) else layer(expected)
    assert torch.equal(model.features(x), expected)
    assert expected.any()


def test_a_block_is_what_its_formula_says():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 6, 6)
    plain, residual = ConvBlock(3, "none", False), ConvBlock(3, "none", True)
    residual.load_state_dict(plain.state_dict())
    (w1, b1), (w2, b2) = ((plain.branch[i][0].weight, plain.branch[i][0].bias) for i in (0, 2))
    y = F.conv2d(F.relu(F.conv2d(x, w1, b1, padding=1)), w2, b2, padding=1)
    torch.testing.assert_close(plain(x), F.relu(y))
    torch.testing.assert_close(residual(x), F.relu(x + y))


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_the_initial_weights_are_those_of_he(norm):
    for module in network(depth=6, width=16, norm=norm).modules():
        if isinstance(module, nn.Conv2d):
            expected = math.sqrt(2 / (9 * module.out_channels))
            error = expected / math.sqrt(2 * module.weight.numel())
            assert module.weight.std().item() == pytest.approx(expected, abs=5 * error)
            assert (module.bias is None) == (norm == "batch")
            assert module.bias is None or not module.bias.any()


def test_the_channels_of_a_pixel_lie_side_by_side_in_every_map():
    model = network(width=4)
    assert model.features(torch.randn(2, *IMAGE)).is_contiguous(memory_format=torch.channels_last)
    again = network(width=4, seed=1)
    again.load_state_dict(model.state_dict())
    assert again.body[0][0].weight.is_contiguous(memory_format=torch.channels_last)


def test_counting_leaves_the_network_as_it_was():
    model = network(width=2).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    count_macs(model, IMAGE)
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("kind", [CNN, ResCNN])
def test_a_network_is_built_again_from_its_description(kind):
    model = kind(depth=3, width=4, norm="none", in_channels=1, classes=5)
    again = models.build(models.describe(model))
    assert type(again) is kind
    assert again.arguments == model.arguments
    again.load_state_dict(model.state_dict())


@pytest.mark.parametrize(
    "arguments", [{"depth": 0}, {"depth": -1}, {"width": 0}, {"classes": 0}, {"in_channels": 0}, {"norm": "layer"}]
)
def test_a_network_that_cannot_be_is_refused(arguments):
    (name,) = arguments
    assert name in refusal(ResCNN, **{"depth": 3, **arguments})


@pytest.mark.parametrize(("init", "factor"), [("he-zero", 0.0), ("he-scaled", 0.5)])
def test_branches_begin_smaller_where_asked_for(init, factor):
    plain, scaled = network(depth=4, width=4, norm="none"), network(depth=4, width=4, norm="none", init=init)
    for ours, theirs in zip(plain.modules(), scaled.modules(), strict=True):
        if isinstance(ours, ConvBlock):
            torch.testing.assert_close(theirs.branch[-1][0].weight, factor * ours.branch[-1][0].weight)
            assert torch.equal(theirs.branch[0][0].weight, ours.branch[0][0].weight)


@pytest.mark.parametrize(
    ("kind", "norm", "init"), [(CNN, "none", "he-zero"), (ResCNN, "batch", "he-scaled"), (ResCNN, "none", "xavier")]
)
def test_branches_are_scaled_in_residual_networks_without_norm_alone(kind, norm, init):
    said = refusal(kind, 2, width=2, norm=norm, init=init)
    assert said == f"init {init!r}: use he; or, in a ResCNN without norm, he-zero or he-scaled"
