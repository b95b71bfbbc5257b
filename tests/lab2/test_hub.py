"""Folders of models that are not whole: one line says which folder, and nothing random passes for pretrained."""

import json
import shutil

import pytest
import torch
from transformers import BertConfig, BertModel, RobertaConfig, RobertaModel

from lab1.engine.config import UsageError
from lab2 import hub
from lab2.models import GPT
from lab2.tasks import encoders, likelihood, tiny

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for kind in ("bert", "gpt2"):
        tiny.write_model(folder / kind, kind=kind)
    return folder


def load_everything(folder, kind):
    """What the scripts load of a model."""
    tokenizer = encoders.load_tokenizer(str(folder), folder)
    if kind == "gpt2":
        GPT.from_pretrained(str(folder), folder)
        return likelihood.load(str(folder), folder, folder, CPU)
    encoder, new = encoders.load_encoder(str(folder), "classification", folder, CPU, classes=3)
    encoders.longest(tokenizer, encoder.network, 64)
    return new


def refusal(models, tmp_path, kind, change):
    folder = shutil.copytree(models / kind, tmp_path / kind)
    change(folder)
    with pytest.raises(UsageError) as refused:
        load_everything(folder, kind)
    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith(str(folder))
    return str(refused.value).removeprefix(str(folder))


def cut(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def pickled(folder):
    """What torch.load refuses, as it would run something."""
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'true'\ntR.")


BROKEN = {
    "cut weights": cut,
    "empty weights": lambda folder: (folder / "model.safetensors").write_bytes(b""),
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "weights that run something": pickled,
    "a list as configuration": lambda folder: (folder / "config.json").write_text("[1, 2]", encoding="utf-8"),
    "a number as configuration": lambda folder: (folder / "config.json").write_text("3", encoding="utf-8"),
    "cut configuration": lambda folder: (folder / "config.json").write_text('{"model_type":', encoding="utf-8"),
    "a kind that is a list": lambda folder: (folder / "config.json").write_text(
        '{"model_type": ["bert"]}', encoding="utf-8"
    ),
    "cut tokenizer": lambda folder: (folder / "tokenizer.json").write_text('{"version": "1.0",', encoding="utf-8"),
    "a list as tokenizer": lambda folder: (folder / "tokenizer.json").write_text("[]", encoding="utf-8"),
    "no tokenizer": lambda folder: (folder / "tokenizer.json").unlink(),
    "tokenizer that is no text": lambda folder: (folder / "tokenizer.json").write_bytes(b"\xff\xfe\x00"),
    "a list beside the tokenizer": lambda folder: (folder / "tokenizer_config.json").write_text("[]", encoding="utf-8"),
}


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
@pytest.mark.parametrize("change", BROKEN.values(), ids=BROKEN)
def test_broken_folders(models, tmp_path, kind, change):
    assert " cannot be read as " in refusal(models, tmp_path, kind, change)


def configured(**changes):
    def change(folder):
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        (folder / "config.json").write_text(json.dumps(config | changes), encoding="utf-8")

    return change


def test_weights_that_are_missing_are_not_made_up(models, tmp_path):
    whole = refusal(models, tmp_path / "a", "gpt2", configured(n_layer=3))
    assert whole.startswith(" lacks 12 of its weights, such as transformer.h.2.attn.c_attn.bias: its config.json and")
    whole = refusal(models, tmp_path / "b", "bert", configured(num_hidden_layers=3))
    assert whole.startswith(" lacks 16 of its weights, such as bert.encoder.layer.2.attention.output.LayerNorm.bias: ")
    whole = refusal(models, tmp_path / "c", "bert", configured(vocab_size=7))
    assert whole.startswith(" lacks 1 of its weights, such as bert.embeddings.word_embeddings.weight: ")
    # A new head is what fine-tuning begins with.
    assert load_everything(models / "bert", "bert") == ["classifier"]


def test_a_path_that_leads_nowhere_is_nothing_else_of_its_last_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "data" / "mood"
    place.mkdir(parents=True)
    for name in ("mood", "somebody/mood", str(place), "data/mood", "./data/mood"):
        assert hub.locate(name, place.parent).resolve() == place
    for name in ("/nowhere/mood", "./mood", "../mood", "~/nowhere/mood", "some/folder/mood"):
        with pytest.raises(UsageError, match=f"no folder or file {name}"):
            hub.locate(name, place.parent)
    assert hub.locate("somebody/else", place.parent) is None


def test_a_tokenizer_of_another_model(models, tmp_path):
    def swap(folder):
        words = tiny.write_model(tmp_path / "other", [f"word{chr(97 + n % 26)}{chr(97 + n // 26)}" for n in range(300)])
        shutil.copy(words / "tokenizer.json", folder)

    assert "they do not belong together" in refusal(models, tmp_path, "bert", swap)
    assert "they do not belong together" in refusal(models, tmp_path / "second", "gpt2", swap)


def test_a_robertas_places_begin_after_its_padding():
    """Of 130 positions it has 128 for tokens, whatever its tokenizer says of itself."""
    settings = {"vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = RobertaConfig(**settings, intermediate_size=8, max_position_embeddings=130, pad_token_id=1)
    network = RobertaModel(config).eval()

    class Tokenizer:
        model_max_length = 10**30

        def __len__(self):
            return 20

    most = encoders.longest(Tokenizer(), network, 256)
    assert most == 128
    ids = torch.full((1, most), 5)
    assert network(input_ids=ids).last_hidden_state.isfinite().all()
    with pytest.raises((IndexError, RuntimeError)):
        network(input_ids=torch.full((1, most + 1), 5))
    bert = BertModel(BertConfig(**settings, intermediate_size=8, max_position_embeddings=130))
    assert encoders.longest(Tokenizer(), bert, 256) == 130
