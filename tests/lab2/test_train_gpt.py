"""Exercise 1: the Trainer for language models by hand, and the script in real processes, killed and resumed."""

import json
import math
import os
import re
import signal
import subprocess
import sys

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lab1.engine.config import REPOSITORY, Interrupted, UsageError
from lab1.engine.launch import parse
from lab2 import models, train_gpt
from lab2.language import corpus, tokens
from lab2.trainer import language_model_loss, moving_average, text_measures
from tests.exactness import assert_equal
from tests.posix import posix

# Dropout, and a last stretch that is shorter: 7 + 7 + 6 steps.
FLAGS = "--steps 20 --eval-interval 7 --layers 2 --heads 2 --width 16 --context 16 --batch-size 4".split()
STRUCK = """
import os, sys
from lab1.engine.launch import launch
from lab2 import train_gpt
from lab2.language import corpus
from lab2.trainer import LanguageModelTrainer

call, strike = int(sys.argv[1]), int(sys.argv[2])
del sys.argv[1:3]
original, calls = LanguageModelTrainer.train_step, 0

def struck(*arguments):
    global calls
    calls += 1
    if calls == call:
        os.kill(os.getpid(), strike)
    return original(*arguments)

LanguageModelTrainer.train_step = struck
launch(train_gpt.main, train_gpt.Config)
"""


@pytest.fixture(scope="module")
def rhymes(tmp_path_factory):
    """A text of 4,000 characters with something to learn."""
    generator = torch.Generator().manual_seed(0)
    lines = ["nel mezzo del cammin", "mi ritrovai per una", "selva oscura e forte", "che la via era smarrita"]
    order = torch.randint(4, (200,), generator=generator).tolist()
    path = tmp_path_factory.mktemp("text") / "rhymes.txt"
    path.write_text("\n".join(lines[place] for place in order), encoding="utf-8")
    return path


def make(folder, rhymes, **changes):
    small = {"layers": 2, "heads": 2, "width": 32, "context": 16, "batch_size": 16, "precision": "fp32", "dropout": 0.0}
    settings = {"text": str(rhymes), "model_dir": folder, "steps": 20, "eval_interval": 10} | small
    return train_gpt.Config(**settings | changes)


def test_loss_by_hand():
    # Two tokens, of probabilities 1/2 and 1/8 where they came: (ln 2 + ln 8) / 2 = 2 ln 2 nats.
    logits = torch.tensor([[[math.log(2), 0, 0], [math.log(6), 0, 0]]])
    loss = language_model_loss(logits, torch.tensor([[0, 2]]))
    assert loss.item() == pytest.approx(2 * math.log(2))
    assert loss.dtype == torch.float32
    assert language_model_loss(logits.bfloat16(), torch.tensor([[0, 2]])).dtype == torch.float32


def test_perplexity_and_bits_by_hand():
    # ln 8 nats a token: as uncertain as between 8 tokens, 3 bits a token; of 2 characters each, 1.5 bits a character.
    assert text_measures(math.log(8), 2.0) == {
        "perplexity": pytest.approx(8),
        "bits_per_character": pytest.approx(1.5),
    }
    assert text_measures(1e4, 1.0)["perplexity"] == math.inf


def test_evaluation_is_weighted_by_token(tmp_path, rhymes):
    trainer, (_, validation, _) = train_gpt.set_up(make(tmp_path, rhymes))
    found = trainer.evaluate(validation)
    text = rhymes.read_text(encoding="utf-8")
    held_out = torch.tensor(trainer.tokenizer.encode(text[len(text) * 90 // 100 : len(text) * 95 // 100]))
    losses, right = [], 0
    for start in range(0, len(held_out) - 1, 16):  # by hand, one window after the other; the last one is shorter
        window = held_out[start : start + 17]
        with torch.no_grad():
            logits = trainer.model(window[None, :-1])[0]
        losses += torch.nn.functional.cross_entropy(logits, window[1:], reduction="none").tolist()
        right += (logits.argmax(-1) == window[1:]).sum().item()
    assert len(losses) == len(held_out) - 1
    mean = sum(losses) / len(losses)
    assert found == {
        "loss": pytest.approx(mean, abs=1e-5),
        "accuracy": pytest.approx(right / len(losses)),
        "perplexity": pytest.approx(math.exp(mean), rel=1e-4),
        "bits_per_character": pytest.approx(mean / math.log(2), abs=1e-5),
    }


def test_weight_decay_on_matrices_only(tmp_path, rhymes):
    trainer, (train, _, _) = train_gpt.set_up(make(tmp_path, rhymes, weight_decay=0.1))
    decayed, others = trainer.optimizer.param_groups
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    names = {id(parameter): name for name, parameter in trainer.model.named_parameters()}
    assert {names[id(p)].rsplit(".", 2)[-2] for p in decayed["params"]} == {"wte", "wpe", "c_attn", "c_proj", "c_fc"}
    assert all(names[id(p)].endswith("bias") or ".ln_" in f".{names[id(p)]}" for p in others["params"])
    assert len(decayed["params"]) + len(others["params"]) == len(names)
    # And gradients are clipped to norm 1.
    trainer.steps_per_epoch = len(train)
    trainer.model.wte.weight.data.mul_(100)
    trainer.train_step(train.batch(0))
    norm = torch.stack([parameter.grad.norm() for parameter in trainer.model.parameters()]).norm()
    assert norm.item() == pytest.approx(1, abs=1e-3)


def test_muon_learns_the_matrices_of_the_blocks(tmp_path, rhymes):
    trainer, (train, _, _) = train_gpt.set_up(make(tmp_path, rhymes, preset="modern-nano", weight_decay=0.1))
    names = {id(parameter): name for name, parameter in trainer.model.named_parameters()}
    decayed, others, matrices = (
        ({names[id(p)] for p in group["params"]}, group["weight_decay"]) for group in trainer.optimizer.param_groups
    )
    assert decayed == ({"wte.weight"}, 0.1)  # places are rotary: no embedding
    parts = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    assert matrices == ({f"h.{layer}.{part}.weight" for layer in range(2) for part in parts}, 0.1)
    assert others == (set(names.values()) - decayed[0] - matrices[0], 0.0)
    # An update by Muon has singular values of about 0.2 * sqrt(larger side) times the rate: of 96 x 32, 1.96.
    weight = trainer.model.h[0].attn.c_attn.weight
    trainer.steps_per_epoch = len(train)
    for step in range(3):  # c_attn has no gradient before c_proj is no longer zero
        before = weight.detach().clone()
        trainer.train_step(train.batch(step))
    rate = trainer.learning_rate(2)
    update = (before * (1 - rate * 0.1) - weight.detach()) / rate
    values = torch.linalg.svdvals(update) / (0.2 * math.sqrt(96))
    assert 0.5 < values[len(values) // 2] < 1.3
    assert values.max() < 1.3


def test_averaged_weights_by_the_formula(tmp_path, rhymes):
    trainer, (train, validation, test) = train_gpt.set_up(make(tmp_path, rhymes, preset="modern-nano"))
    expected, original = {}, trainer.train_step

    def step(batch):
        steps, metrics = trainer.step, original(batch)
        part = 9 / (10 + steps)  # 9/11 of the second step's weights, 9/29 of the twentieth's
        for name, weight in trainer.model.state_dict().items():
            expected[name] = (1 - part) * expected[name] + part * weight if name in expected else weight.clone()
        return metrics

    trainer.train_step = step
    trainer.train(train, validation)
    last = torch.load(trainer.folder / "last.pt", weights_only=True)["weights"]
    best = torch.load(trainer.folder / "best.pt", weights_only=True)["weights"]
    assert trainer.best_epoch == 2
    assert set(best) == set(last) == set(expected)
    for name, weight in expected.items():
        torch.testing.assert_close(best[name], weight, atol=1e-6, rtol=1e-5, msg=name)
        assert torch.equal(last[name], trainer.model.state_dict()[name])
    assert (best["wte.weight"] - last["wte.weight"]).abs().max() > 1e-4
    # What validation and the test measured are the averaged weights.
    gpt, _ = models.load(trainer.folder / "best.pt")
    found = trainer.test(test)
    for batches, loss in ((validation, trainer.history[1]["validation"]["loss"]), (test, found["loss"])):
        total = sum(language_model_loss(gpt(x), y).item() * y.numel() for x, y in batches)
        assert loss == pytest.approx(total / sum(y.numel() for _, y in batches), abs=1e-5)


def test_an_average_remembers_a_hundred_steps():
    average, weights = torch.zeros(1), torch.ones(1)
    parts = [moving_average(average, weights, torch.tensor(steps)).item() for steps in (8, 890, 1000, 10**6)]
    assert parts == pytest.approx([0.5, 0.01, 0.01, 0.01])


def test_without_all_its_tricks_the_modern_preset_is_gpt2(tmp_path, rhymes):
    losses = []
    for settings in ({"preset": "nano"}, {"preset": "modern-nano", "without": train_gpt.TRICKS}):
        torch.manual_seed(0)
        trainer, (train, validation, _) = train_gpt.set_up(make(tmp_path, rhymes, **settings))
        losses.append(trainer.train(train, validation))
    assert losses[0] == losses[1]
    modern = make(tmp_path, rhymes, preset="modern-nano", without=("muon",))
    assert modern.describe() == "gpt-modern-2x32-no-muon-rhymes-seed0"
    trainer, (train, _, _) = train_gpt.set_up(modern)
    assert isinstance(trainer.optimizer, torch.optim.AdamW)
    assert isinstance(train, corpus.ShuffledWindows)
    size = {"rotary": True, "qk_norm": True, "zero_init": True, "activation": "relu2"}
    assert size.items() <= trainer.model.arguments.items()


def test_a_modern_run_that_is_stopped_ends_as_if_nothing_had_happened(tmp_path, rhymes):
    settings = {"preset": "modern-nano", "eval_interval": 7, "dropout": 0.2}
    trainer, (train, validation, test) = train_gpt.set_up(make(tmp_path / "whole", rhymes, **settings))
    trainer.train(train, validation)
    whole = trainer.folder
    trainer.test(test)

    parts, (train, validation, _) = train_gpt.set_up(make(tmp_path / "parts", rhymes, **settings))
    original = parts.train_step

    def struck(batch):
        if parts.step == 9:
            signal.raise_signal(signal.SIGINT)
        return original(batch)

    parts.train_step = struck
    with pytest.raises(Interrupted):
        parts.train(train, validation)
    resumed = make(tmp_path / "parts", rhymes, **settings, resume=str(parts.folder))
    trainer, (train, validation, test) = train_gpt.set_up(resumed)
    torch.manual_seed(99)  # what a checkpoint puts back
    trainer.train(train, validation)
    trainer.test(test)
    last = [torch.load(folder / "last.pt", weights_only=True) for folder in (whole, trainer.folder)]
    assert last[0]["step"] == 20
    assert {"average", "optimizer"} <= set(last[0])
    clocks = ("seconds", "epoch_seconds")
    assert_equal(*[{key: value for key, value in content.items() if key not in clocks} for content in last])
    results = [json.loads((folder / "results.json").read_text()) for folder in (whole, trainer.folder)]
    assert_equal(results[0]["test"], results[1]["test"])
    assert_equal(results[0]["history"], results[1]["history"])


def test_the_rate_falls_to_zero_at_the_steps_asked_for(tmp_path, rhymes):
    trainer, (train, _, _) = train_gpt.set_up(make(tmp_path, rhymes, steps=50, eval_interval=20, learning_rate=1.0))
    trainer.steps_per_epoch = len(train)
    assert trainer.epochs == 3
    assert trainer.total_steps() == 50
    # Two steps of warm-up, a third and two thirds; the middle of the cosine; its end.
    rates = [trainer.learning_rate(step) for step in (0, 1, 2, 26, 50)]
    assert rates == pytest.approx([1 / 3, 2 / 3, 1, 0.5, 0], abs=1e-6)


@pytest.mark.parametrize("preset", ["laptop", "modern"])
def test_it_learns_a_text(tmp_path, rhymes, preset):
    config = make(tmp_path, rhymes, preset=preset, steps=240, eval_interval=120, learning_rate=1e-2)
    trainer, (train, validation, test) = train_gpt.set_up(config)
    before = trainer.evaluate(validation)
    trainer.train(train, validation)
    found = trainer.test(test)
    assert before["loss"] > 2.8  # ln 18 = 2.9: as good as guessing
    # One of four lines at the start of each costs ln 4 a line of 20.5 characters, the rest nothing: 0.07 nats.
    assert found["loss"] < 0.25
    assert trainer.step == 240
    assert any(line in found["sample"] for line in ("nel mezzo del cammin\n", "mi ritrovai per una\n"))


def test_several_tokens_a_character_and_several_characters_a_token(tmp_path, rhymes):
    trainer, (_, validation, _) = train_gpt.set_up(make(tmp_path, rhymes, tokenizer="bpe-300"))
    assert len(trainer.tokenizer) == 300
    assert validation.characters_per_token > 1.5
    content = rhymes.read_text(encoding="utf-8")
    learned = tokens.BytePairs.train(content[: len(content) * 90 // 100], 300)  # and not from what is held out
    assert trainer.tokenizer.serialised == learned.serialised


def run(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=180,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def script(*arguments) -> subprocess.CompletedProcess:
    return run(REPOSITORY / "lab2" / "train_gpt.py", *arguments)


def shown(folder) -> tuple[dict, list[int]]:
    events = EventAccumulator(str(folder))
    events.Reload()
    scalars = {tag: [point.step for point in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    return scalars, [point.step for point in events.Tensors("sample/text_summary")]


@posix
def test_interrupted_and_killed_it_ends_as_if_nothing_had_happened(rhymes, tmp_path):
    flags = [*FLAGS, "--dropout", "0.2", "--text", rhymes]
    whole = script(*flags, "--model-dir", tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    name = "gpt-2x16-rhymes-seed0"
    struck = tmp_path / "struck.py"
    struck.write_text(STRUCK, encoding="utf-8")
    stopped = run(struck, 10, int(signal.SIGINT), *flags, "--model-dir", tmp_path / "parts")
    folder = tmp_path / "parts" / name
    assert stopped.returncode == 130, stopped.stderr
    (line,) = stopped.stderr.splitlines()
    assert line.startswith("stopped and saved; go on with: python ")
    assert line.endswith(f" --resume {folder}")
    assert torch.load(folder / "last.pt", weights_only=True)["step"] == 10
    assert run(struck, 7, int(signal.SIGKILL), "--resume", folder).returncode == -signal.SIGKILL
    assert torch.load(folder / "last.pt", weights_only=True)["step"] == 14  # the end of the second stretch
    finished = script("--resume", folder)
    assert finished.returncode == 0, finished.stderr

    other = tmp_path / "whole" / name
    last = [torch.load(one / "last.pt", weights_only=True) for one in (folder, other)]
    assert last[0]["step"] == 20
    clocks = ("seconds", "epoch_seconds")
    assert_equal(*[{key: value for key, value in content.items() if key not in clocks} for content in last])
    results = [json.loads((one / "results.json").read_text(encoding="utf-8")) for one in (folder, other)]
    for key in ("test", "history", "best_epoch", "epochs", "dataset"):
        assert_equal(results[0][key], results[1][key], key)
    scalars, samples = shown(folder)
    assert (scalars, samples) == shown(other)
    assert samples == [1, 2, 3]
    assert scalars["perplexity/validation"] == scalars["speed/tokens per second"] == [1, 2, 3]


def test_more_steps_are_refused_where_windows_would_be_left_out(rhymes, tmp_path):
    # 20 steps in stretches of 7: the last one has 6, so it ends between two places where an epoch can begin.
    trainer, (train, validation, test) = train_gpt.set_up(make(tmp_path, rhymes, steps=20, eval_interval=7))
    trainer.train(train, validation)
    trainer.test(test)
    before = (trainer.folder / "last.pt").read_bytes()
    with pytest.raises(UsageError, match="cannot go on from its step 20 with --steps 30 and --eval-interval 7"):
        train_gpt.main(make(tmp_path, rhymes, steps=30, eval_interval=7, resume=trainer.folder))
    assert (trainer.folder / "last.pt").read_bytes() == before
    again = train_gpt.main(make(tmp_path, rhymes, steps=20, eval_interval=7, resume=trainer.folder))
    assert again["loss"] == json.loads((trainer.folder / "results.json").read_text(encoding="utf-8"))["test"]["loss"]
    trainer, (train, validation, _) = train_gpt.set_up(make(tmp_path / "even", rhymes, steps=14, eval_interval=7))
    trainer.train(train, validation)
    more, (train, validation, _) = train_gpt.set_up(
        make(tmp_path / "even", rhymes, steps=21, eval_interval=7, resume=trainer.folder)
    )
    assert len(more.train(train, validation)) == 3
    assert more.step == 21


def test_dry_run(run_script, tmp_path):
    # An empty data folder: in a dry run nothing is downloaded, so it takes the embedded text and says so.
    places = ("--model-dir", tmp_path / "model", "--data-dir", tmp_path / "data")
    done = run_script("lab2/train_gpt.py", "--dry-run", "--preset", "nano", *places)
    assert done.returncode == 0, done.stderr
    (line,) = done.stderr.splitlines()
    assert "standard library" in line
    folder = tmp_path / "model" / "dry-run-gpt-4x128-python-seed0"
    last = torch.load(folder / "last.pt", weights_only=True)
    assert last["step"] == 6
    assert all(state["exp_avg"].abs().sum() > 0 for state in last["optimizer"]["state"].values())
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert results["script"] == "lab2/train_gpt.py"
    assert results["dataset"] == results["config"]["text"] == "python"
    assert results["test"]["perplexity"] == pytest.approx(math.exp(results["test"]["loss"]))
    assert results["parameters"] > 800_000
    begins = (
        r"GPT with ([\d,]+) parameters on python \(([\d,]+) tokens to learn from, ([\d,]+) for validation\), cpu, .*"
    )
    said = re.fullmatch(begins, done.stdout.splitlines()[0])
    parameters, learned, held_out = (int(number.replace(",", "")) for number in said.groups())
    assert parameters == results["parameters"]
    assert learned == len(corpus.load_corpus("python", tmp_path).parts()["train"])
    assert held_out == 3 * 12 * 64  # three batches of twelve windows


@pytest.mark.parametrize("tokenizer", ["characters", "bpe-300"])
def test_best_pt_holds_what_reads_and_writes_text(rhymes, tmp_path, tokenizer, monkeypatch):
    monkeypatch.chdir(rhymes.parent)
    config = make(tmp_path, rhymes.name, tokenizer=tokenizer, dry_run=True)
    train_gpt.main(config)
    assert config.text == str(rhymes)  # so that the run can be resumed from any folder
    name = "dry-run-gpt-2x32-rhymes" + ("" if tokenizer == "characters" else "-bpe-300")
    gpt, about = models.load(tmp_path / f"{name}-seed0" / "best.pt")
    found = tokens.build(about["tokenizer"])
    assert len(found) == gpt.arguments["vocabulary"]
    assert found.decode(found.encode("selva oscura")) == "selva oscura"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--text", "nowhere.txt"], "--text nowhere.txt: no such file"),
        (["--width", "30", "--heads", "4"], "--width 30: a multiple of the 4 heads is needed"),
        (["--steps", "0"], "--steps 0: at least 1 is needed"),
        (["--dropout", "1"], "--dropout 1.0: a probability"),
        (["--learning-rate", "nan"], "--learning-rate nan: a positive number"),
        (["--weight-decay", "-1"], "--weight-decay -1.0: 0 or a positive"),
        (["--dry-run", "--tokenizer", "openai-community/gpt2"], "gpt2 and is not downloaded in a dry run"),
        (["--dry-run", "--tokenizer", "word"], "--tokenizer word: word ("),
        (["--dry-run", "--tokenizer", "word"], "put its files there; characters and bpe-512 need none"),
        (["--preset", "huge"], "--preset"),
        (["--without", "muon"], "--without muon: it needs --preset modern"),
        (["--preset", "modern", "--without", "muon", "muon"], "--without muon muon: one is there twice"),
        (["--preset", "modern", "--without", "adam"], "--without adam: use rotary, qk-norm,"),
        (["--epochs", "3"], "--epochs"),
    ],
)
def test_what_cannot_be_asked(flags, message, tmp_path):
    with pytest.raises(UsageError) as error:
        config = parse(train_gpt.Config, [*flags, "--model-dir", str(tmp_path), "--data-dir", str(tmp_path)], "")
        train_gpt.main(config)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_an_error_leaves_with_status_2(run_script, tmp_path):
    flags = ("--dry-run", "--text", "divina_commedia", "--model-dir", tmp_path, "--data-dir", tmp_path)
    failed = run_script("lab2/train_gpt.py", *flags)
    assert failed.returncode == 2
    (line,) = failed.stderr.splitlines()
    assert line.endswith("divina_commedia.txt and is not downloaded in a dry run: put its files there")
    assert not list(tmp_path.iterdir())


def test_presets_and_what_takes_precedence():
    nano = parse(train_gpt.Config, ["--preset", "nano", "--steps", "10"], "")
    assert (nano.layers, nano.heads, nano.width, nano.context, nano.batch_size, nano.steps) == (4, 4, 128, 64, 12, 10)
    assert nano.dropout == 0
    laptop = parse(train_gpt.Config, [], "")
    assert (laptop.layers, laptop.heads, laptop.width, laptop.context, laptop.dropout) == (6, 6, 192, 128, 0.1)
    assert not any(laptop.uses(trick) for trick in train_gpt.TRICKS)
    modern = parse(train_gpt.Config, ["--preset", "modern", "--without", "rotary", "zero-init"], "")
    assert (modern.layers, modern.width, modern.steps, modern.eval_interval) == (6, 192, 3300, 165)
    assert [modern.uses(trick) for trick in train_gpt.TRICKS] == [False, True, True, False, True, True, True]


def test_two_processes_learn_what_one_does(rhymes, tmp_path):
    flags = [*FLAGS, "--dropout", "0", "--batch-size", "5", "--text", rhymes, "--precision", "fp32"]
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    for start, place in (((), "one"), (torchrun, "two")):
        done = run(*start, REPOSITORY / "lab2" / "train_gpt.py", *flags, "--model-dir", tmp_path / place)
        assert done.returncode == 0, done.stderr
    found = [
        json.loads(next((tmp_path / place).rglob("results.json")).read_text(encoding="utf-8"))
        for place in ("one", "two")
    ]
    for mine, other in zip(found[0]["history"], found[1]["history"], strict=True):
        for part in ("train", "validation"):
            assert mine[part] == pytest.approx(other[part], rel=1e-4)
    assert found[0]["test"]["loss"] == pytest.approx(found[1]["test"]["loss"], abs=1e-5)


def test_a_text_without_a_line_s_end(tmp_path):
    path = tmp_path / "ab.txt"
    path.write_text("ab" * 1000, encoding="utf-8")
    config = make(tmp_path, path, steps=60, eval_interval=60, learning_rate=1e-2)
    found = train_gpt.main(config)
    assert found["loss"] < 0.05
    assert found["sample"] == "ab" * 200 + "a"
