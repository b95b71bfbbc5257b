"""The GPT against transformers' GPT-2 with the same weights, its cache against none, and sampling by hand."""

import json
import math

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from lab1.engine import checkpoint
from lab1.engine.config import REPOSITORY, UsageError
from lab1.engine.registry import describe
from lab2 import models
from lab2.language import sampling
from lab2.language.sampling import Chooser
from lab2.language.tokens import build
from lab2.models import GPT
from lab2.tasks import tiny
from lab2.trainer import language_model_loss

SIZE = {"vocabulary": 50, "context": 32, "layers": 3, "heads": 4, "width": 32}
MODERN = {"rotary": True, "qk_norm": True, "activation": "relu2"}


@pytest.fixture
def gpt() -> GPT:
    """Random weights, large enough that logits differ widely."""
    return large(GPT(**SIZE))


@pytest.fixture(params=[{}, MODERN, {"rotary": True}, {"qk_norm": True}], ids=str)
def any_gpt(request) -> GPT:
    """The same of GPT-2's architecture, and of what it does not have."""
    return large(GPT(**SIZE, **request.param))


def large(model: GPT) -> GPT:
    """With large weights, in evaluation mode."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.data.normal_(std=0.3) if parameter.ndim == 2 else parameter.data.add_(torch.randn_like(parameter) / 5)
    return model.eval()


@pytest.fixture(params=models.ACTIVATIONS)
def gpt2(request) -> GPT2LMHeadModel:
    torch.manual_seed(1)
    size = {"vocab_size": 50, "n_positions": 32, "n_embd": 32, "n_layer": 3, "n_head": 4}
    model = GPT2LMHeadModel(GPT2Config(**size, activation_function=request.param, bos_token_id=0, eos_token_id=0))
    for parameter in model.parameters():
        parameter.data.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def tokens(*shape: int) -> torch.Tensor:
    return torch.randint(50, shape, generator=torch.Generator().manual_seed(2))


def assert_same(ours: GPT, theirs: GPT2LMHeadModel) -> None:
    """The same logits, loss, and greedy text."""
    batch = tokens(4, 32)
    with torch.no_grad():
        logits, expected = ours(batch), theirs(batch, labels=batch)
    assert logits.std() > 0.5  # else being close says nothing
    torch.testing.assert_close(logits, expected.logits, atol=1e-4, rtol=0)
    torch.testing.assert_close(language_model_loss(logits[:, :-1], batch[:, 1:]), expected.loss, atol=1e-5, rtol=0)
    prompt = batch[:2, :5]
    texts = theirs.generate(prompt, max_new_tokens=27, do_sample=False, eos_token_id=None, pad_token_id=0)
    assert ours.generate(prompt, 27, greedy=True).tolist() == texts.tolist()


def test_gpt2_loads_our_weights(gpt, tmp_path):
    gpt.save_pretrained(tmp_path)
    assert_same(gpt, GPT2LMHeadModel.from_pretrained(tmp_path).eval())
    assert AutoModelForCausalLM.from_pretrained(tmp_path).config.use_cache is True


def test_we_load_the_weights_of_gpt2(gpt2, tmp_path):
    gpt2.save_pretrained(tmp_path / "theirs")
    ours = GPT.from_pretrained(tmp_path / "theirs")
    assert not ours.training
    assert_same(ours, gpt2)
    other = next(name for name in models.ACTIVATIONS if name != gpt2.config.activation_function)
    batch, otherwise = tokens(4, 32), GPT(**SIZE, activation=other).eval()
    otherwise.load_state_dict(ours.state_dict())
    assert (ours(batch) - otherwise(batch)).abs().max() > 1e-3  # which of the two it is can be told
    ours.save_pretrained(tmp_path / "ours")
    back = GPT2LMHeadModel.from_pretrained(tmp_path / "ours").state_dict()
    for name, weight in gpt2.state_dict().items():
        assert torch.equal(back[name], weight), name


@pytest.mark.parametrize(
    ("change", "named"),
    [({"activation_function": "relu"}, "activation_function"), ({"n_inner": 48}, "n_inner")],
)
def test_another_architecture_is_refused(tmp_path, change, named):
    size = {"vocab_size": 20, "n_positions": 8, "n_embd": 16, "n_layer": 1, "n_head": 2}
    GPT2LMHeadModel(GPT2Config(**size, bos_token_id=0, eos_token_id=0, **change)).save_pretrained(tmp_path / "other")
    with pytest.raises(UsageError, match=named):
        GPT.from_pretrained(tmp_path / "other")
    tiny.write_model(tmp_path / "bert", kind="bert")
    with pytest.raises(UsageError, match="model_type"):
        GPT.from_pretrained(tmp_path / "bert")


@pytest.mark.parametrize("change", [{"rotary": True}, {"qk_norm": True}], ids=str)
def test_what_gpt2_does_not_have_is_not_written_as_one(tmp_path, change):
    with pytest.raises(UsageError, match="GPT-2 has no rotary positions and no normalised queries and keys"):
        GPT(**SIZE, **change).save_pretrained(tmp_path / "modern")
    assert not (tmp_path / "modern").exists()


def test_squared_relu_by_hand():
    assert models.squared_relu(torch.tensor([-2.0, 0.0, 0.5, 3.0])).tolist() == [0, 0, 0.25, 9]


def test_with_zero_projections_a_new_network_is_its_embeddings():
    torch.manual_seed(0)
    model, batch = GPT(**SIZE, zero_init=True), tokens(2, 9)
    assert {name for name, each in model.named_parameters() if each.ndim == 2 and not each.any()} == {
        f"h.{layer}.{part}.c_proj.weight" for layer in range(3) for part in ("attn", "mlp")
    }
    x = model.wte(batch) + model.wpe(torch.arange(9))
    assert torch.equal(model(batch), F.linear(model.ln_f(x), model.wte.weight))


def test_published_weights_are_read_as_before():
    gpt, about = models.load(REPOSITORY / "lab2/model/published/gpt-5x96-seed0/best.pt")
    assert sum(parameter.numel() for parameter in gpt.parameters()) == 579_360
    results = json.loads((REPOSITORY / "lab2/model/published/gpt-5x96-seed0/results.json").read_text("utf-8"))
    text = torch.tensor([build(about["tokenizer"]).encode(results["test"]["sample"])])[:, : gpt.context + 1]
    # It finds its own text as probable as the poem it was tested on, 1.5 nats; by chance it would be 4.
    assert language_model_loss(gpt(text[:, :-1]), text[:, 1:]).item() < 1.7


def test_a_model_that_is_nowhere_says_what_to_fetch(tmp_path):
    with pytest.raises(UsageError, match=r"openai-community/gpt2 .* put its files there"):
        GPT.from_pretrained("openai-community/gpt2", tmp_path, download=False)


def test_sizes_by_hand():
    # Embeddings (80 + 64) * 128; a block: norms 4 * 128, attention 128 * 512 + 512, MLP 2 * 128 * 512 + 640.
    block = 4 * 128 + 128 * 512 + 512 + 2 * 128 * 512 + 640
    parameters = (80 + 64) * 128 + 4 * block + 2 * 128
    assert sum(parameter.numel() for parameter in GPT(80, 64, 4, 4, 128).parameters()) == parameters == 811_776
    with torch.device("meta"):
        small = GPT(50257, 1024, 12, 12, 768)
    assert sum(parameter.numel() for parameter in small.parameters()) == 124_439_808


def test_initial_weights():
    torch.manual_seed(0)
    model = GPT(80, 64, 8, 4, 128)
    assert model.wte.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert model.h[3].mlp.c_fc.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert model.h[3].mlp.c_proj.weight.std().item() == pytest.approx(0.02 / 4, rel=0.05)  # sqrt(2 * 8) = 4
    # Before it has learned anything, every token is about as probable as any other.
    batch = torch.randint(80, (4, 65))
    assert language_model_loss(model(batch[:, :-1]), batch[:, 1:]).item() == pytest.approx(math.log(80), abs=0.05)


@pytest.mark.parametrize(
    "change",
    [
        *({"vocabulary": 0}, {"width": 30}, {"dropout": 1.0}, {"layers": 0}, {"activation": "relu"}),
        {"width": 12, "rotary": True},  # four heads of width 3
    ],
    ids=lambda change: str(change),
)
def test_sizes_that_cannot_be(change):
    with pytest.raises(UsageError, match="needed"):
        GPT(**SIZE | change)


def test_no_token_sees_a_later_one(any_gpt):
    batch = tokens(1, 12)
    changed = batch.clone()
    changed[0, 7] = (changed[0, 7] + 1) % 50
    for precision in (torch.float32, torch.bfloat16):  # two ways to compute attention
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
            before, after = any_gpt(batch), any_gpt(changed)
        assert torch.equal(before[:, :7], after[:, :7])
        assert (before[:, 7:] - after[:, 7:]).abs().amax(-1).min() > 1e-3


def test_attention_in_bf16_is_attention():
    torch.manual_seed(0)
    exact = [torch.randn(2, 3, 9, 8) for _ in range(3)]
    rounded = models.attend(*(part.bfloat16() for part in exact))
    assert rounded.dtype == torch.bfloat16
    expected = F.scaled_dot_product_attention(*exact, is_causal=True)
    torch.testing.assert_close(rounded.float(), expected, atol=0.03, rtol=0.03)


def test_dropout_keeps_the_mean():
    torch.manual_seed(0)
    x = torch.ones(1003, 101)
    out = models.dropout(x, 0.25)
    assert out.unique().tolist() == pytest.approx([0, 4 / 3])
    zero = (out == 0).float()
    assert zero.mean().item() == pytest.approx(0.25, abs=0.01)
    # Every place of the eight bytes of a random number is as often zero: none is drawn from fewer values.
    shares = zero.flatten()[: zero.numel() // 8 * 8].view(-1, 8).mean(0)
    assert (shares - 0.25).abs().max() < 0.02
    assert models.dropout(x, 0.0) is x
    torch.manual_seed(0)
    assert torch.equal(models.dropout(x, 0.25), out)  # of the global generator, which checkpoints hold


def test_cached_text_is_uncached_text(any_gpt):
    prompt = tokens(3, 4)
    slow = prompt
    for _ in range(28):
        slow = torch.cat([slow, any_gpt(slow)[:, -1].argmax(-1, keepdim=True)], 1)
    assert any_gpt.generate(prompt, 28, greedy=True).tolist() == slow.tolist()
    assert slow.shape == (3, 32)


def test_beyond_the_context_it_goes_on_from_the_last_half(any_gpt):
    prompt, slow = tokens(2, 40), tokens(2, 40)  # longer than the context: its last 32 count
    start = 8
    for _ in range(45):
        if slow.shape[1] - start > 32:
            start = slow.shape[1] - 16
        slow = torch.cat([slow, any_gpt(slow[:, start:])[:, -1].argmax(-1, keepdim=True)], 1)
    assert any_gpt.generate(prompt, 45, greedy=True).tolist() == slow.tolist()


def test_generation_leaves_the_model_as_it_was(gpt):
    model = GPT(**SIZE, dropout=0.5).train()
    before = torch.get_rng_state()
    drawn = [model.generate(tokens(1, 3), 20, generator=torch.Generator().manual_seed(4)) for _ in range(2)]
    assert drawn[0].tolist() == drawn[1].tolist()  # no dropout, and its own random numbers
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training
    language_model_loss(model(drawn[0][:, :-1]), drawn[0][:, 1:]).backward()  # the text can be trained on
    with pytest.raises(UsageError, match="empty"):
        gpt.generate(tokens(1, 0), 5)
    with pytest.raises(UsageError, match="33 tokens are more than this GPT's context of 32"):
        gpt(tokens(1, 33))


# Probabilities 0.5, 0.3, 0.15, 0.05, at places 2, 0, 3, 1.
LOGITS = torch.tensor([[0.3, 0.05, 0.5, 0.15]]).log()


def allowed(logits: torch.Tensor) -> list[int]:
    return logits[0].isfinite().nonzero().flatten().tolist()


@pytest.mark.parametrize(("k", "kept"), [(1, [2]), (2, [0, 2]), (3, [0, 2, 3]), (4, [0, 1, 2, 3]), (9, [0, 1, 2, 3])])
def test_top_k_by_hand(k, kept):
    assert allowed(sampling.keep_top_k(LOGITS, k)) == kept


@pytest.mark.parametrize(
    ("p", "kept"), [(0.01, [2]), (0.49, [2]), (0.51, [0, 2]), (0.79, [0, 2]), (0.81, [0, 2, 3]), (1.0, [0, 1, 2, 3])]
)
def test_top_p_by_hand(p, kept):
    # The smallest set that reaches p: 0.5; 0.5 + 0.3 = 0.8; 0.95; 1.
    assert allowed(sampling.keep_top_p(LOGITS, p)) == kept


def test_what_is_drawn_by_hand():
    many = LOGITS.expand(20_000, 4)

    def shares(**settings) -> list[float]:
        drawn = Chooser(**settings, generator=torch.Generator().manual_seed(0))(many)
        return (torch.bincount(drawn.flatten(), minlength=4) / len(many)).tolist()

    close = {"abs": 0.015}
    assert shares() == pytest.approx([0.3, 0.05, 0.5, 0.15], **close)
    # Temperature 1/2 squares the probabilities: 0.09, 0.0025, 0.25, 0.0225 of 0.365.
    squares = [0.09 / 0.365, 0.0025 / 0.365, 0.25 / 0.365, 0.0225 / 0.365]
    assert shares(temperature=0.5) == pytest.approx(squares, **close)
    assert shares(top_k=2) == pytest.approx([0.375, 0, 0.625, 0], **close)
    assert shares(top_p=0.9) == pytest.approx([0.3 / 0.95, 0, 0.5 / 0.95, 0.15 / 0.95], **close)
    # The temperature comes first: squared, the two most probable reach 0.34 / 0.365 = 0.93.
    assert shares(temperature=0.5, top_p=0.9) == pytest.approx([0.09 / 0.34, 0, 0.25 / 0.34, 0], **close)
    assert shares(greedy=True) == [0, 0, 1, 0]


@pytest.mark.parametrize("change", [{"temperature": 0.0}, {"temperature": math.inf}, {"top_k": 0}, {"top_p": 1.5}])
def test_choices_that_cannot_be(gpt, change):
    with pytest.raises(UsageError, match="needed"):
        gpt.generate(tokens(1, 1), 1, **change)


def test_best_pt_is_read_again_and_others_are_refused(gpt, tmp_path):
    path = tmp_path / "best.pt"
    content = {"model": describe(gpt), "weights": gpt.state_dict(), "about": {"dataset": "toy"}}
    checkpoint.save(content, path)
    back, about = models.load(path)
    assert about == {"dataset": "toy"}
    assert torch.equal(back(tokens(1, 9)), gpt(tokens(1, 9)))
    with pytest.raises(UsageError, match="train a GPT first"):
        models.load(tmp_path / "nowhere.pt")
    checkpoint.save(content | {"model": {"class": "MLP", "arguments": {}}}, path)
    with pytest.raises(UsageError, match="holds no GPT"):
        models.load(path)
    checkpoint.save(content | {"weights": {}}, path)
    with pytest.raises(UsageError, match="holds no GPT of this lab"):
        models.load(path)
