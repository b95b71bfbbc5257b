"""Exercise 3.2: the losses over choices, likelihood by a language model, and the script."""

import dataclasses
import json
import math

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM

from lab1.engine.config import UsageError
from lab1.engine.launch import parse
from lab2 import answer_questions, train_gpt
from lab2.tasks import encoders, likelihood, shallow, tiny
from lab2.tasks.choices import with_random_labels
from lab2.tasks.datasets import PARTS, TaskData
from lab2.tasks.trainer import choice_loss, margin_ranking_loss

CPU = torch.device("cpu")
SCORES = torch.tensor([[2.0, 0.5, 1.8], [0.0, 1.0, 3.0]])
LABELS = torch.tensor([0, 1])


def test_margin_ranking_by_hand():
    loss, metrics = margin_ranking_loss(SCORES, LABELS, margin=1.0)
    # First question: max(0, 1 - 2 + 0.5) = 0 and max(0, 1 - 2 + 1.8) = 0.8; second: max(0, 1 - 1 + 0) = 0 and 3.
    assert loss.item() == pytest.approx((0 + 0.8 + 0 + 3) / 4)
    assert metrics["accuracy"].item() == 0.5
    # PyTorch's own divides by the number of choices, not of wrong ones.
    assert loss.item() == pytest.approx(F.multi_margin_loss(SCORES, LABELS, margin=1.0).item() * 3 / 2)
    assert margin_ranking_loss(SCORES, LABELS, margin=0.1)[0].item() == pytest.approx(2.1 / 4)


def test_cross_entropy_over_the_choices_by_hand():
    loss, metrics = choice_loss(SCORES, LABELS)
    first = -math.log(math.exp(2) / (math.exp(2) + math.exp(0.5) + math.exp(1.8)))
    second = -math.log(math.exp(1) / (1 + math.exp(1) + math.exp(3)))
    assert loss.item() == pytest.approx((first + second) / 2)
    assert metrics["accuracy"].item() == 0.5


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    tiny.write_choices(folder / "endings")
    for kind in ("bert", "gpt2"):
        tiny.write_model(folder / kind, kind=kind)
    return folder


def test_likelihood_is_that_of_each_choice_alone(places):
    tokenizer = encoders.load_tokenizer("gpt2", places)
    model = likelihood.load("gpt2", places, places, CPU)
    network = AutoModelForCausalLM.from_pretrained(places / "gpt2").eval()
    items = [
        ("in the morning the cook", ["sings", "loves the bright garden", "burns a bitter soup", "wins"]),
        ("after lunch", ["enjoys a warm meal", "hates the cold rain", "a", "breaks a sad toy"]),
        ("on a sunday my sister", ["wins a fine prize", "misses", "the last train", "the old dog"]),
    ]
    found = likelihood.ending_scores(model, items, 64, 2, CPU, "fp32")
    for row, (question, choices) in enumerate(items):
        asked = [tokenizer.bos_token_id, *tokenizer(question, add_special_tokens=False)["input_ids"]]
        for column, choice in enumerate(choices):
            ending = tokenizer(choice, add_special_tokens=False)["input_ids"]
            total = 0.0
            for place, token in enumerate(ending):  # one token after the other, without padding
                with torch.no_grad():
                    logits = network(torch.tensor([asked + ending[:place]])).logits[0, -1]
                total += logits.log_softmax(-1)[token].item()
            assert found["sum"][row, column].item() == pytest.approx(total, abs=1e-4)
            assert found["mean"][row, column].item() == pytest.approx(total / len(ending), abs=1e-4)
    # Too long a question loses its beginning, never the choice.
    long = [("the cook " * 40 + items[0][0], items[0][1])]
    short = likelihood.ending_scores(model, long, 16, 2, CPU, "fp32")
    assert short["sum"].isfinite().all()
    assert (short["sum"] < 0).all()


def test_likelihood_by_a_gpt_of_ours(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text(" ".join(f"{sentence}." for sentence, _ in tiny.sentences()), encoding="utf-8")
    settings = {"text": str(text), "preset": "nano", "context": 32, "layers": 1, "heads": 2, "width": 16}
    train_gpt.main(
        train_gpt.Config(**settings, model_dir=tmp_path, name="small", steps=4, eval_interval=2, batch_size=2)
    )
    model = likelihood.load("small", tmp_path, tmp_path, CPU)
    assert model.most == 32
    assert (
        model.parameters == json.loads((tmp_path / "small" / "results.json").read_text(encoding="utf-8"))["parameters"]
    )
    items = [("the cook", ["sings", "wins"])]
    found = likelihood.ending_scores(model, items, 128, 1, CPU, "fp32")
    tokens = torch.tensor([model.start + model.encode("the cook sings")])
    each = model.logits(tokens)[0, :-1].log_softmax(-1).gather(-1, tokens[0, 1:, None])[:, 0]
    assert found["sum"][0, 0].item() == pytest.approx(each[-6:].sum().item(), abs=1e-4)  # " sings", by character
    assert found["mean"][0, 0].item() == pytest.approx(each[-6:].mean().item(), abs=1e-4)


def results(folder):
    (path,) = folder.glob("*/results.json")
    return json.loads(path.read_text(encoding="utf-8"))


def test_an_empty_question_needs_a_token_that_texts_begin_with(places):
    """Nothing says how likely the first token of a text is: a choice of one token would be certain."""
    model = likelihood.load("gpt2", places, places, CPU)
    items = [("the cook", ["yes", "of course"]), ("", ["yes", "of course"])]
    assert likelihood.ending_scores(dataclasses.replace(model, start=[0]), items, 64, 2, CPU, "fp32")["sum"].max() < 0
    with pytest.raises(UsageError, match="question 2 is empty, and this model's texts begin with no token of"):
        likelihood.ending_scores(dataclasses.replace(model, start=[]), items, 64, 2, CPU, "fp32")


@pytest.mark.parametrize("loss", ["cross-entropy", "margin"])
def test_it_learns_to_choose(places, tmp_path, loss):
    settings = {"model": "bert", "dataset": "endings", "data_dir": places, "model_dir": tmp_path, "precision": "fp32"}
    learning = {"learning_rate": 5e-3, "epochs": 15, "batch_size": 8}
    answer_questions.main(answer_questions.Config(loss=loss, **settings | learning))
    found = results(tmp_path)
    assert found["test"]["accuracy"] >= 0.9  # chance is 0.25
    assert found["dataset"] == "endings"
    assert found["history"][-1]["train"]["loss"] < found["history"][0]["train"]["loss"] / 4


def test_by_likelihood(places, tmp_path):
    settings = {"model": "gpt2", "dataset": "endings", "data_dir": places, "model_dir": tmp_path}
    answer_questions.main(answer_questions.Config(method="likelihood", **settings))
    found = results(tmp_path)
    assert found["chosen"]["likelihood"] in ("sum", "mean")
    assert found["validation"]["accuracy"] == max(found["validation"]["sum"], found["validation"]["mean"])
    assert found["test"]["accuracy"] == found["test"][found["chosen"]["likelihood"]]
    assert found["test"]["trainable_parameters"] == 0


@pytest.mark.parametrize("method", ["finetune", "likelihood"])
def test_what_was_tested_is_recorded(places, tmp_path, capsys, method):
    """A set of 3 to 5 choices a question whose test labels are hidden."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    choices = ["sings", "wins", "misses", "burns", "enjoys"]
    rows = [
        {"question": f"the cook {n}", "choices": choices[: 3 + n % 3], "label": n % 3 if n < 60 else -1}
        for n in range(66)
    ]
    for part, found in (("train", rows[:40]), ("validation", rows[40:60]), ("test", rows[60:])):
        (folder / f"{part}.jsonl").write_text("\n".join(map(json.dumps, found)), encoding="utf-8")
    settings = {"dataset": str(folder), "data_dir": places, "model_dir": tmp_path / "runs", "epochs": 1}
    model = "bert" if method == "finetune" else "gpt2"
    answer_questions.main(answer_questions.Config(method=method, model=model, **settings))
    found = results(tmp_path / "runs")
    assert found["parts"] == {"train": "train", "validation": "a tenth of train", "test": "validation"}
    assert found["choices"] == [3, 4, 5]
    # Questions 40 to 59: six of three choices, seven of four and seven of five.
    assert found["chance"] == pytest.approx((6 / 3 + 7 / 4 + 7 / 5) / 20)
    assert found["test"]["accuracy"] * 20 == pytest.approx(round(found["test"]["accuracy"] * 20))
    assert "mixed hides the labels of its test part: here" in capsys.readouterr().err


def test_end_to_end(run_script, tmp_path, places):
    # A folder for the model and one for the data, as the flags are promised to stay.
    done = run_script(
        "lab2/answer_questions.py",
        *("--model", places / "bert", "--dataset", places / "endings", "--model-dir", tmp_path, "--epochs", 1),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    folder = tmp_path / "answer-endings-finetune-bert-seed0"
    assert torch.load(folder / "last.pt", weights_only=True)["step"] == 3  # 44 questions in batches of 16
    again = answer_questions.main(parse(answer_questions.Config, ["--resume", str(folder)], ""))
    assert again == json.loads((folder / "results.json").read_text(encoding="utf-8"))["test"]


def test_dry_runs_need_nothing(tmp_path):
    for method, kind in (("finetune", "bert"), ("likelihood", "gpt2")):
        settings = {"data_dir": tmp_path / "data", "model_dir": tmp_path / method, "dry_run": True}
        answer_questions.main(answer_questions.Config(method=method, **settings))
        assert results(tmp_path / method)["config"]["model"] == f"tiny-{kind}"


def test_random_labels_are_those_of_training_alone(tmp_path):
    items = [("q", ["a", "b", "c"][: 2 + n % 2]) for n in range(600)]
    labels = torch.zeros(600, dtype=torch.int64)
    data = TaskData("mixed", ["A", "B", "C"], dict.fromkeys(PARTS, (items, labels)))
    found = with_random_labels(data, seed=3)
    assert found.parts["train"][0] is items
    drawn = found.parts["train"][1]
    # Uniform over a question's own choices: 300 questions of two, 300 of three; four standard deviations.
    assert torch.bincount(drawn[0::2]).tolist() == [pytest.approx(150, abs=35)] * 2
    assert torch.bincount(drawn[1::2]).tolist() == [pytest.approx(100, abs=33)] * 3
    assert found.parts["validation"] == found.parts["test"] == (items, labels)
    assert torch.equal(with_random_labels(data, 3).parts["train"][1], drawn)
    assert not torch.equal(with_random_labels(data, 4).parts["train"][1], drawn)


def test_lengths_by_hand():
    found = shallow.length_features([("q", ["ab", "a b c d", "abc"]), ("q", ["x", "y"])])
    # Characters 2, 7, 3 (mean 4) and words 1, 4, 1 (mean 2); then the longest and the shortest.
    assert found.tolist() == [[-2, -1, 0, 1], [3, 2, 1, 0], [-1, -1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]


def test_control_by_length(tmp_path, capsys):
    # Everywhere the longest is right; the questions and the words are all the same.
    folder = tmp_path / "long"
    folder.mkdir()
    for part, count in (("train", 30), ("validation", 10), ("test", 8)):
        rows = [
            {
                "question": "the cook",
                "choices": ["sings" * (1 + (place == n % 3)) for place in range(3)],
                "label": n % 3,
            }
            for n in range(count)
        ]
        rows[-1]["label"] = count % 3  # but for one, the last
        (folder / f"{part}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    settings = {"dataset": str(folder), "control": "length-only", "model_dir": tmp_path / "runs", "data_dir": tmp_path}
    answer_questions.main(answer_questions.Config(**settings))
    assert "the choices' lengths alone: test accuracy 87.50 %" in capsys.readouterr().out
    found = results(tmp_path / "runs")
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["answer-long-length-only"]
    assert (found["validation"], found["test"]) == (
        {"accuracy": 0.9},
        {"accuracy": 7 / 8, "trainable_parameters": 5},
    )
    assert found["chance"] == pytest.approx(1 / 3)


def test_control_by_random_labels(places, tmp_path):
    settings = {"model": "bert", "dataset": "endings", "data_dir": places, "model_dir": tmp_path, "precision": "fp32"}
    learning = {"learning_rate": 5e-3, "epochs": 15, "batch_size": 8}
    answer_questions.main(answer_questions.Config(control="random-labels", **settings | learning))
    found = results(tmp_path)
    assert found["test"]["accuracy"] < 0.7  # with the true labels 0.9 and more
    assert [path.name for path in tmp_path.iterdir()] == ["answer-endings-finetune-bert-random-labels-seed0"]


def test_flags_that_cannot_be_used():
    with pytest.raises(UsageError, match="--control random-labels: leave out --method likelihood"):
        answer_questions.Config(control="random-labels", method="likelihood").check()
    with pytest.raises(UsageError, match="--control length-only takes a second"):
        answer_questions.Config(control="length-only", resume="auto").check()
    with pytest.raises(UsageError, match="--margin 0"):
        answer_questions.Config(margin=0).check()
    with pytest.raises(UsageError, match="trains nothing"):
        answer_questions.Config(method="likelihood", resume="somewhere").check()
