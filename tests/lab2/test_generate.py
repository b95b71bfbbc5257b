"""Exercise 2: measures worked out by hand, ways of decoding, and the script with our GPT and transformers'."""

import dataclasses
import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import AutoModelForCausalLM

from lab1.engine import checkpoint
from lab1.engine.config import REPOSITORY, UsageError
from lab1.engine.launch import parse
from lab2 import generate, models
from lab2.language import decoding, tokens
from lab2.models import GPT
from lab2.tasks import tiny

SENTENCE = "the cook wins the race and the cook wins the race"  # 11 words


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A data folder with a tiny GPT-2 and a text that its vocabulary knows."""
    folder = tmp_path_factory.mktemp("data")
    tiny.write_model(folder / "gpt2", kind="gpt2")
    text = "\n".join(sentence for sentence, _ in tiny.sentences())
    (folder / "mood.txt").write_text(text, encoding="utf-8")
    return folder


def test_ngrams_and_distinct_by_hand():
    assert decoding.ngrams("a b\nc", 2) == [("a", "b"), ("b", "c")]
    assert decoding.ngrams("a b", 3) == []
    # the, cook, wins, race, and: 5 of 11 words. 5 of 10 pairs: after "the race" the second half repeats four of ten.
    assert decoding.distinct([SENTENCE], 1) == pytest.approx(5 / 11)
    assert decoding.distinct([SENTENCE], 2) == pytest.approx(6 / 10)
    # Together: what one text has, the other has not again.
    assert decoding.distinct(["a b a", "a c"], 1) == pytest.approx(3 / 5)
    assert decoding.distinct([""], 1) == 0


def test_repetition_by_hand():
    # 8 runs of four words, "the cook wins the" and "cook wins the race" twice: 2 of 8.
    assert decoding.repetition([SENTENCE]) == pytest.approx(2 / 8)
    assert decoding.repetition(["a b c d e", "a a a a a a", "a b"]) == pytest.approx((0 + 2 / 3 + 0) / 3)
    assert decoding.repetition(["a b a b"], n=2) == pytest.approx(1 / 3)
    assert decoding.measures([SENTENCE, "x"])["repetition"] == pytest.approx(1 / 8)


def test_lengths_by_hand():
    found = decoding.token_lengths(tokens.Characters("abc\n"), "abc\n\nab\nc", lines=2)
    assert found == {
        "vocabulary": 4,
        "characters": 9,
        "tokens": 9,
        "characters_per_token": 1.0,
        "lines": [[3, 3], [2, 2]],
    }
    assert "1.00" in decoding.token_table({"characters": found})


def test_what_a_model_brings_along_for_decoding_does_not_count(places):
    """Many instruct models bring a penalty on repetition, which is what is measured here."""
    plain, penal = (AutoModelForCausalLM.from_pretrained(places / "gpt2").eval() for _ in range(2))
    penal.generation_config.repetition_penalty, penal.generation_config.no_repeat_ngram_size = 5.0, 2
    prompts = torch.tensor([[5, 1, 7], [4, 9, 6]])
    for way in decoding.strategies(0.5, 3, 0.7).values():
        assert torch.equal(*(models.write(model, prompts, 20, way, 3) for model in (plain, penal)))
    assert penal.generation_config.repetition_penalty == 5.0


def test_ours_and_theirs_decode_alike(tmp_path):
    """The same weights, the same settings: greedy to the token, drawn ones in distribution."""
    torch.manual_seed(0)
    ours = GPT(8, 32, 2, 2, 16).eval()
    for weight in ours.parameters():
        weight.data.normal_(std=0.4)
    ours.save_pretrained(tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    prompts = torch.tensor([[5, 1, 7]])
    ways = decoding.strategies(0.5, 3, 0.7)
    assert list(ways) == ["greedy", "sampling", "temperature 0.5", "top-k 3", "top-p 0.7"]
    greedy = [models.write(model, prompts, 20, ways["greedy"], 0) for model in (ours, theirs)]
    assert greedy[0].shape == (1, 20)
    assert torch.equal(*greedy)
    many, seen = prompts.expand(4000, -1), {}
    for name in list(ways)[1:]:
        shares = []
        for model in (ours, theirs):
            drawn = models.write(model, many, 1, ways[name], 7).flatten()
            shares.append(torch.bincount(drawn, minlength=8) / len(drawn))
        assert (shares[0] - shares[1]).abs().max() < 0.04, name
        assert torch.equal(shares[0] > 0, shares[1] > 0), name  # the same tokens are left out
        seen[name] = (shares[0] > 0).sum().item()
    assert seen["sampling"] > seen["top-k 3"] == 3
    assert seen["top-p 0.7"] < seen["sampling"]


def test_passages_are_spread_over_the_text():
    config = generate.Config(samples=3, prompt_tokens=2, length=3)
    prompts, follows = generate.passages(config, list(range(25)))
    assert prompts.tolist() == [[0, 1], [10, 11], [20, 21]]
    assert follows.tolist() == [[2, 3, 4], [12, 13, 14], [22, 23, 24]]
    with pytest.raises(UsageError, match="has 4 tokens: prompt and length together are 5"):
        generate.passages(config, list(range(4)))


def assert_whole(folder, names):
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert results["script"] == "lab2/generate.py"
    assert list(results["decoding"]) == list(results["samples"])
    assert next(iter(results["decoding"])) == "greedy"
    assert list(results["decoding"])[-1] == "the text itself"
    assert list(results["tokenizers"]) == names
    assert json.loads((folder / "config.json").read_text(encoding="utf-8")) == results["config"]
    events = EventAccumulator(str(folder))
    events.Reload()
    assert {f"text/{name}/text_summary" for name in results["samples"]} <= set(events.Tags()["tensors"])
    return results


def test_dry_run(run_script, tmp_path):
    done = run_script("lab2/generate.py", "--dry-run", "--model-dir", tmp_path / "model", "--data-dir", tmp_path)
    assert done.returncode == 0, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.endswith("is not downloaded in a dry run: put its files there. It is left out.")
    results = assert_whole(tmp_path / "model" / "dry-run-generate-untrained", ["characters", "bpe-512", "bpe-4096"])
    rows = results["tokenizers"]
    assert rows["characters"]["tokens"] > rows["bpe-512"]["tokens"] > rows["bpe-4096"]["tokens"]
    assert results["dataset"] == "python"


def test_a_run_of_ours_and_its_figures(run_script, places, tmp_path):
    flags = ["--layers", 1, "--heads", 2, "--width", 16, "--context", 16, "--steps", 20, "--eval-interval", 10]
    trained = run_script("lab2/train_gpt.py", "--text", places / "mood.txt", *flags, "--model-dir", tmp_path / "runs")
    assert trained.returncode == 0, trained.stderr
    settings = {"model_dir": tmp_path / "runs", "data_dir": places, "prompt_tokens": 8, "length": 60, "samples": 3}
    generate.main(generate.Config(run="gpt-1x16-mood-seed0", tokenizers=("characters", "bpe-300"), **settings))
    results = assert_whole(tmp_path / "runs" / "generate-gpt-1x16-mood-seed0", ["characters", "bpe-300"])
    text = (places / "mood.txt").read_text(encoding="utf-8")
    assert results["prompt"] + results["samples"]["the text itself"] == text[len(text) * 95 // 100 :][:68]
    assert all(len(sample) == 60 for sample in results["samples"].values())
    drawn = run_script("lab2/plot.py", "--runs", tmp_path / "runs", "--figures", tmp_path / "figures")
    assert drawn.returncode == 0, drawn.stderr
    figures = sorted((tmp_path / "figures").iterdir())
    assert [figure.name for figure in figures] == ["generate-gpt-1x16-mood.png", "gpt-1x16-mood.png"]
    assert all(figure.stat().st_size > 10_000 for figure in figures)


def test_without_a_name_it_takes_the_gpt_of_exercise_1_or_the_published_one(places, tmp_path, capsys):
    (tmp_path / "verse.txt").write_text("mi ritrovai per una selva oscura\n" * 60, encoding="utf-8")
    settings = {"model_dir": tmp_path, "data_dir": places, "text": str(tmp_path / "verse.txt")}
    settings |= {"tokenizers": ("characters",), "prompt_tokens": 8, "length": 20, "samples": 1}
    generate.main(generate.Config(**settings))
    said = capsys.readouterr()
    assert said.err == "gpt-6x192-seed0 is not trained yet. Taking gpt-5x96-seed0 instead, a smaller GPT, published.\n"
    results = assert_whole(tmp_path / "generate-gpt-5x96-seed0", ["characters"])
    assert results["config"]["run"] == "gpt-5x96-seed0"
    assert all(len(sample) == 20 for sample in results["samples"].values())
    own = tmp_path / "gpt-6x192-seed0"
    shutil.copytree(REPOSITORY / "lab2/model/published/gpt-5x96-seed0", own)
    generate.main(generate.Config(**settings))
    assert capsys.readouterr().err == ""
    again = assert_whole(tmp_path / "generate-gpt-6x192-seed0", ["characters"])
    assert again["samples"] == results["samples"]


def test_the_published_gpt_has_weights_of_two_bytes_and_computes_in_four():
    path = REPOSITORY / "lab2/model/published/gpt-5x96-seed0/best.pt"
    stored = checkpoint.load(path)["weights"]
    assert {weight.dtype for weight in stored.values()} == {torch.float16}
    gpt, about = models.load(path)
    assert {weight.dtype for weight in gpt.parameters()} == {torch.float32}
    assert all(torch.equal(weight, stored[name].float()) for name, weight in gpt.state_dict().items())
    assert sum(weight.numel() for weight in gpt.parameters()) == 579_360
    assert path.stat().st_size < 1_200_000
    tokenizer = tokens.build(about["tokenizer"], path.parent, False)
    verse = torch.tensor([tokenizer.encode("\ntal era io a quella vista nova:\n")])  # of the test part
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy(gpt(verse)[0, :-1], verse[0, 1:])
    assert loss.item() == pytest.approx(1.416, abs=0.01)  # nats a character; of 80 equally likely ones 4.38


def test_a_model_of_transformers(places, tmp_path):
    config = generate.Config(
        model="gpt2",
        text=str(places / "mood.txt"),
        tokenizers=("gpt2",),
        prompt="the cook",
        prompt_tokens=4,
        length=12,
        samples=2,
        model_dir=tmp_path,
        data_dir=places,
    )
    generate.main(config)
    results = assert_whole(tmp_path / "generate-gpt2", ["gpt2"])
    assert results["prompt"] == "the cook"
    # From one prompt greedy decoding writes one text, however often: each is measured alone.
    text = results["samples"]["greedy"]
    assert results["decoding"]["greedy"]["distinct_1"] == len(set(text.split())) / len(text.split())
    given = len(generate.load_model(config, "cpu", False)[1].encode("the cook"))
    config.length = 129 - given
    with pytest.raises(
        UsageError, match=f"reads 128 tokens: --prompt, of {given} tokens, and --length together are 129"
    ):
        generate.main(config)
    config.prompt, config.length = None, 126
    with pytest.raises(UsageError, match="reads 128 tokens: --prompt-tokens and --length together are 130"):
        generate.main(config)


def test_passages_do_not_overlap(places, capsys):
    """What two of them share would count as a repetition."""
    config = generate.Config(samples=10, prompt_tokens=4, length=6)
    starts, follows = generate.passages(config, list(range(35)))
    assert starts.shape == (3, 4) and follows.shape == (3, 6)
    assert len({*starts.flatten().tolist(), *follows.flatten().tolist()}) == 30
    assert "35 tokens, has room for 3 passages" in capsys.readouterr().err
    assert len(generate.passages(config, list(range(100)))[0]) == 10
    assert capsys.readouterr().err == ""


def test_beside_a_prompt_a_short_text_is_left_out(places, tmp_path):
    text = str(places / "mood.txt")
    config = generate.Config(model="gpt2", prompt="the cook", text=text, dry_run=True, samples=1, length=20)
    config = dataclasses.replace(config, prompt_tokens=10**6, model_dir=tmp_path, data_dir=places)
    assert "the text itself" not in generate.main(config)["decoding"]


def test_a_prompt_of_which_nothing_is_left_is_refused(tmp_path, monkeypatch):
    config = generate.Config(prompt=" ", dry_run=True, model_dir=tmp_path)
    nothing = SimpleNamespace(encode=lambda text: [])
    monkeypatch.setattr(generate, "load_model", lambda *arguments: (None, nothing, "auto"))
    with pytest.raises(UsageError, match="--prompt ' ': the tokenizer makes nothing of it"):
        generate.main(config)


def test_a_prompt_needs_no_text(tmp_path, capsys):
    settings = {"run": "gpt-5x96-seed0", "prompt": "Nel mezzo", "length": 40, "samples": 2, "dry_run": True}
    generate.main(generate.Config(**settings, model_dir=tmp_path / "runs", data_dir=tmp_path / "empty"))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("No token is counted.")
    results = json.loads((tmp_path / "runs/dry-run-generate-gpt-5x96-seed0/results.json").read_text(encoding="utf-8"))
    assert (results["dataset"], results["tokenizers"]) == (None, {})
    ways = ["greedy", "sampling", "temperature 0.7", "top-k 10", "top-p 0.9"]  # and not the text itself
    assert list(results["decoding"]) == list(results["samples"]) == ways


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--run", "nowhere"], "no run 'nowhere'"),
        (["--model", "openai-community/gpt2", "--dry-run"], "gpt2 and is not downloaded in a dry run"),
        (["--dry-run", "--tokenizers", "openai-community/gpt2"], "is not downloaded in a dry run: put its files there"),
        (["--temperature", "0"], "--temperature 0.0: a positive number"),
        (["--top-p", "1.2"], "--top-p 1.2: a probability"),
        (["--samples", "0"], "--samples 0: at least 1"),
        (["--prompt", ""], "--prompt: at least one character"),
        (["--dry-run", "--prompt", "è"], "the character 'è' is not in this model's vocabulary"),
    ],
)
def test_what_cannot_be_asked(flags, message, tmp_path):
    with pytest.raises(UsageError) as error:
        generate.main(parse(generate.Config, [*flags, "--model-dir", str(tmp_path), "--data-dir", str(tmp_path)], ""))
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_an_error_leaves_with_status_2(run_script, tmp_path):
    failed = run_script("lab2/generate.py", "--model-dir", tmp_path, "--run", "gpt-6x193-seed0")
    assert failed.returncode == 2
    assert len(failed.stderr.splitlines()) == 1
    assert "no run 'gpt-6x193-seed0'" in failed.stderr
    assert "did you mean gpt-6x192-seed0?" in failed.stderr


def test_a_console_that_knows_no_accents(run_script, tmp_path):
    """ASCII and the C locale: what it cannot show is a question mark, and a prompt is read all the same."""
    text = tmp_path / "text.txt"
    text.write_text("perché la diritta via era smarrita\n" * 200, encoding="utf-8")
    plain = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"}
    sizes = {"layers": 1, "heads": 2, "width": 16, "context": 64}
    flags = [word for name, value in sizes.items() for word in (f"--{name}", value)]
    places = ("--model-dir", tmp_path / "runs", "--name", "tiny")
    trained = run_script("lab2/train_gpt.py", "--dry-run", "--text", text, *flags, *places, env=plain)
    assert (trained.returncode, trained.stderr) == (0, "")
    asked = ("--run", "tiny", "--text", text, "--prompt", "perché ", "--tokenizers", "characters")
    counts = ("--samples", 1, "--length", 60, "--prompt-tokens", 8)
    written = run_script("lab2/generate.py", *asked, *counts, "--model-dir", tmp_path / "runs", env=plain)
    assert (written.returncode, written.stderr) == (0, "")
    assert "perch? la d" in written.stdout  # the text itself
    found = json.loads((tmp_path / "runs" / "generate-tiny" / "results.json").read_text(encoding="utf-8"))
    assert found["prompt"] == "perché "
