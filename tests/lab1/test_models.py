"""The networks: the tables of their docstrings re-derived, identities that must hold, and files that are refused."""

import itertools
import re

import pytest
import torch
from torch import nn

from lab1 import models
from lab1.engine import checkpoint
from lab1.engine.config import UsageError
from lab1.models import MLP, ResidualBlock


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def network(sizes=(6, 8, 8, 8, 3), **options) -> MLP:
    torch.manual_seed(0)
    return MLP(sizes, **options)


def refusal(call, *arguments, **options) -> str:
    """The one line with which a call is refused."""
    with pytest.raises(UsageError) as caught:
        call(*arguments, **options)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


TABLE = [
    ([int(size) for size in sizes.split(",")], int(count.replace(",", "")))
    for sizes, count in re.findall(r"^ *\| ([\d, ]+) \| ([\d,]+) \|$", MLP.__doc__, re.MULTILINE)
]


def test_the_docstring_has_a_table():
    assert len(TABLE) == 3


@pytest.mark.parametrize(("sizes", "count"), TABLE, ids=str)
def test_parameters_are_those_of_the_docstring_and_of_the_formula(sizes, count):
    assert parameters(MLP(sizes)) == count
    assert count == sum((before + 1) * after for before, after in itertools.pairwise(sizes))


@pytest.mark.parametrize("sizes", [(784, 128, 128, 128, 10), (8, 8, 8, 2), (5, 7, 7, 7, 7, 7, 3), (4, 6, 6, 6, 5, 2)])
def test_residual_connections_add_no_parameters(sizes):
    plain, residual = MLP(sizes), MLP(sizes, residual=True)
    assert parameters(residual) == parameters(plain)
    shapes = [sorted(tuple(p.shape) for p in model.parameters()) for model in (plain, residual)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize(
    ("hidden", "blocks", "linear"),
    [((8, 8, 8), 1, 1), ((8, 8, 8, 8), 1, 2), ((8, 8, 8, 8, 8), 2, 1), ((9, 8, 8, 8, 7), 1, 3)],
)
def test_successive_layers_of_one_width_are_paired(hidden, blocks, linear):
    body = MLP((6, *hidden, 3), residual=True).body
    assert sum(isinstance(layer, ResidualBlock) for layer in body) == blocks
    assert sum(isinstance(layer, nn.Linear) for layer in body) == linear


@pytest.mark.parametrize("residual", [False, True])
def test_logits_are_the_head_of_the_features_and_no_probabilities(residual):
    model = network(residual=residual)
    x = torch.randn(200, 6)
    logits = model(x)
    assert logits.shape == (200, 3)
    assert torch.equal(logits, model.head(model.features(x)))
    assert torch.equal(logits, nn.functional.linear(model.features(x), model.head.weight, model.head.bias))
    assert logits.min() < 0
    assert not torch.allclose(logits.exp().sum(1), torch.ones(200), atol=0.01)


@pytest.mark.parametrize("residual", [False, True])
def test_features_are_what_the_head_sees(residual):
    features = network(residual=residual).features(torch.randn(50, 6))
    assert features.shape == (50, 8)
    assert features.min() == 0
    assert features.max() > 0


def test_images_are_flattened():
    model, images = MLP((2 * 3 * 3, 5, 4)), torch.randn(7, 2, 3, 3)
    assert torch.equal(model(images), model(images.reshape(7, 18)))


def test_without_hidden_layers_it_is_linear():
    model, x = MLP((6, 3)), torch.randn(5, 6)
    assert torch.equal(model.features(x), x)
    assert torch.allclose(model(x), x @ model.head.weight.T + model.head.bias)


def test_a_plain_network_is_its_formula():
    model, x = network((6, 8, 4, 3)), torch.randn(5, 6)
    (w1, b1), (w2, b2), (w3, b3) = [
        (layer.weight, layer.bias) for layer in model.modules() if isinstance(layer, nn.Linear)
    ]
    expected = (((x @ w1.T + b1).relu() @ w2.T + b2).relu()) @ w3.T + b3
    assert torch.allclose(model(x), expected, atol=1e-6)


def test_a_residual_block_is_its_formula():
    block, h = ResidualBlock(8), torch.randn(5, 8)
    (w1, b1), (w2, b2) = [(layer.weight, layer.bias) for layer in block.modules() if isinstance(layer, nn.Linear)]
    expected = (h + (h @ w1.T + b1).relu() @ w2.T + b2).relu()
    assert torch.allclose(block(h), expected, atol=1e-6)


def zero(block: ResidualBlock) -> None:
    """Silence the branch of a block: its last layer returns zeros."""
    nn.init.zeros_(block.branch[-1].weight)
    nn.init.zeros_(block.branch[-1].bias)


def test_a_block_with_a_silent_branch_is_the_identity_on_what_a_relu_leaves():
    block, h = ResidualBlock(8, dropout=0.5).eval(), torch.rand(5, 8)
    assert not torch.equal(block(h), h)
    zero(block)
    assert torch.equal(block(h), h)
    assert torch.equal(block(-h), torch.zeros_like(h))


def test_a_network_with_silent_branches_is_the_shallow_one():
    model, x = network((6, 8, 8, 8, 8, 8, 3), residual=True), torch.randn(5, 6)
    for layer in model.body:
        if isinstance(layer, ResidualBlock):
            zero(layer)
    assert torch.equal(model.features(x), model.body[0](x).relu())


@pytest.mark.parametrize("sizes", [(784, 128, 64, 10), (784, 128, 128, 10), (784, 10), (4, 8, 8, 8)])
def test_residual_where_no_pair_of_layers_keeps_the_width_is_refused(sizes):
    message = refusal(MLP, sizes, residual=True)
    assert "keep the width" in message
    assert "128 128 128" in message


@pytest.mark.parametrize(
    ("sizes", "options", "says"),
    [
        ([10], {}, "[10]"),
        ([], {}, "[]"),
        ([4, 0, 2], {}, "[4, 0, 2]"),
        ([4, -1, 2], {}, "[4, -1, 2]"),
        ([4, 2], {"dropout": 1.0}, "dropout 1.0"),
        ([4, 2], {"dropout": -0.1}, "dropout -0.1"),
    ],
)
def test_sizes_and_dropout_out_of_range_are_refused(sizes, options, says):
    assert says in refusal(MLP, sizes, **options)


def test_dropout_drops_its_share_in_training_and_nothing_in_evaluation():
    model, x = network((6, 20_000, 3), dropout=0.25), torch.randn(1, 6)
    model.eval()
    whole = model.features(x)
    assert torch.equal(model.features(x), whole)
    active = whole > 0
    model.train()
    one, other = model.features(x), model.features(x)
    assert not torch.equal(one, other)
    kept = one[active] > 0
    assert kept.float().mean().item() == pytest.approx(0.75, abs=0.02)
    assert torch.allclose(one[active][kept], whole[active][kept] / 0.75)


@pytest.mark.parametrize("residual", [False, True])
def test_every_hidden_unit_can_be_dropped(residual):
    model = network((6, 8, 8, 8, 3), residual=residual, dropout=0.5)
    drops = [layer for layer in model.modules() if isinstance(layer, nn.Dropout)]
    assert [layer.p for layer in drops] == [0.5] * 3
    assert not any(isinstance(layer, nn.Dropout) for layer in network(residual=residual).modules())


@pytest.mark.parametrize("options", [{}, {"residual": True}, {"residual": True, "dropout": 0.3}])
def test_a_network_is_built_again_from_its_description_and_its_weights(options):
    model, x = network(**options).eval(), torch.randn(5, 6)
    again = models.build(models.describe(model)).eval()
    assert models.describe(again) == models.describe(model)
    assert not torch.equal(again(x), model(x))
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(x), model(x))


def best(**changes) -> dict:
    """What a run's ``best.pt`` holds; a change to ``...`` leaves the entry out."""
    model = network(residual=True, dropout=0.3)
    about = {"dataset": "digits", "classes": ["a", "b", "c"], "mean": [0.1], "std": [0.3]}
    content = {"model": models.describe(model), "weights": model.state_dict(), "about": about, "epoch": 3} | changes
    return {name: value for name, value in content.items() if value is not ...}


def test_a_trained_network_is_loaded_for_evaluation_with_what_is_said_of_its_data(tmp_path):
    checkpoint.save(best(), tmp_path / "best.pt")
    model, about = models.load(tmp_path / "best.pt")
    x = torch.randn(5, 6)
    assert torch.equal(model(x), network(residual=True, dropout=0.3).eval()(x))
    assert not any(part.training for part in model.modules())
    assert about == best()["about"]


def test_a_network_of_an_unknown_class_is_refused():
    assert "'os.system'" in refusal(models.build, {"class": "os.system", "arguments": {}})


def described(name: object = "MLP", **arguments: object) -> dict:
    return {"class": name, "arguments": arguments}


@pytest.mark.parametrize(
    "content",
    [
        best(weights=...),
        best(model=...),
        best(about=...),
        best(weights=None),
        best(weights={}),
        best(weights=network((6, 9, 3)).state_dict()),
        best(model="MLP"),
        best(model=described("Transformer")),
        best(model=described(["MLP"])),
        best(model=described(sizes=[6, 8, 3], depth=5)),
        best(model=described()),
        best(model=described(sizes=["six", 3])),
        best(model=described(sizes=6)),
        {"epoch": 3, "optimizer": {}, "sums": {}},
        [1, 2],
        torch.zeros(3),
        "best",
        None,
    ],
    ids=range(18),
)
def test_a_checkpoint_that_holds_no_network_of_this_lab_is_refused(tmp_path, content):
    checkpoint.save(content, tmp_path / "best.pt")
    refusal(models.load, tmp_path / "best.pt")


@pytest.mark.parametrize("content", [b"", b"hello", b"{}", b"PK\x03\x04"])
def test_a_file_that_is_no_checkpoint_is_refused_by_its_name(tmp_path, content):
    (tmp_path / "best.pt").write_bytes(content)
    assert str(tmp_path / "best.pt") in refusal(models.load, tmp_path / "best.pt")


def test_a_path_where_there_is_no_file_is_refused_by_its_name(tmp_path):
    for path in (tmp_path, tmp_path / "best.pt", tmp_path / "no" / "best.pt"):
        assert str(path) in refusal(models.load, path)


@pytest.mark.parametrize(
    ("init", "residual", "low", "high"),
    [("default", False, 0, 1e-4), ("default", True, 0.5, 12), ("he", False, 1e-3, 2), ("he", True, 1e7, 1e11)],
)
def test_what_tells_inputs_apart_at_the_start_of_a_deep_mlp_is_as_its_docstring_says(init, residual, low, high):
    def spread(depth):
        torch.manual_seed(0)
        model = MLP((20, *[64] * (depth + 1), 3), residual=residual, init=init)
        return model.features(inputs).std(0).mean().item()

    inputs = torch.randn(100, 20, generator=torch.Generator().manual_seed(1))
    assert low < spread(100) / spread(2) < high


def test_he_initial_weights():
    torch.manual_seed(0)
    model = MLP((400, 300, 10), init="he")
    assert model.body[0].weight.var().item() == pytest.approx(2 / 400, rel=0.02)
    assert not model.body[0].bias.any()
    assert "init 'xavier': use default, he, he-zero or he-scaled" in refusal(MLP, (4, 3), init="xavier")


def test_branches_of_zero_make_each_block_the_identity():
    torch.manual_seed(0)
    model, x = MLP((6, *[8] * 7, 3), residual=True, init="he-zero"), torch.rand(4, 8)
    blocks = [layer for layer in model.body if isinstance(layer, ResidualBlock)]
    assert len(blocks) == 3
    assert all(torch.equal(block(x), x) for block in blocks)
    assert all(block.branch[0].weight.any() for block in blocks)


def test_scaled_branches_are_hes_over_the_square_root_of_their_number():
    made = []
    for init in ("he", "he-scaled"):
        torch.manual_seed(0)
        made.append(MLP((6, *[8] * 9, 3), residual=True, init=init))
    for ours, theirs in zip(made[0].modules(), made[1].modules(), strict=True):
        if isinstance(ours, ResidualBlock):
            torch.testing.assert_close(theirs.branch[-1].weight, ours.branch[-1].weight / 2)  # four blocks
            assert torch.equal(theirs.branch[0].weight, ours.branch[0].weight)


@pytest.mark.parametrize("init", ["he-zero", "he-scaled"])
def test_a_plain_network_has_no_branches_to_scale(init):
    assert refusal(MLP, (6, 8, 8, 3), init=init) == f"init {init}: a plain network has no branches to scale"
