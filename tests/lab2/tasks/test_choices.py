"""Multiple choice: every layout of the hub, every way to write a label, hidden labels, and what is refused."""

import json

import pytest
import torch

from lab1.engine.config import UsageError
from lab2.tasks import encoders, likelihood, tiny
from lab2.tasks.batches import TextBatches, encode
from lab2.tasks.choices import chance, load_choices
from lab2.tasks.trainer import choice_loss, margin_ranking_loss

CPU = torch.device("cpu")
ROW = {"question": "It is", "choices": ["wet", "dry", "red"], "label": 0}
TEXTS = ["wet", "dry", "red"]


def write(folder, train, **parts):
    folder.mkdir(exist_ok=True)
    for part, rows in {"train": train, "validation": train, "test": train, **parts}.items():
        lines = rows if isinstance(rows, str) else "\n".join(map(json.dumps, rows))
        (folder / f"{part}.jsonl").write_text(lines + "\n", encoding="utf-8")
    return folder


def found(tmp_path, *rows, **parts):
    return load_choices(str(write(tmp_path / "set", list(rows), **parts)), tmp_path)


def refusal(tmp_path, *rows, **parts):
    with pytest.raises(UsageError) as refused:
        found(tmp_path, *rows, **parts)
    assert "\n" not in str(refused.value)
    return str(refused.value).removeprefix(str(tmp_path / "set"))


# One row of each data set with the columns that it has on the hub, what it asks, and the place of the right choice.
LAYOUTS = {
    "arc": (
        {"id": "M1", "question": "It is", "choices": {"text": TEXTS, "label": ["A", "B", "C"]}, "answerKey": "C"},
        2,
    ),
    "arc with numbers": (
        {"id": "M2", "question": "It is", "choices": {"text": TEXTS, "label": ["1", "2", "3"]}, "answerKey": "1"},
        0,
    ),
    "commonsense_qa": (
        {
            "id": "c",
            "question": "It is",
            "question_concept": "it",
            "choices": {"label": ["A", "B", "C"], "text": TEXTS},
            "answerKey": "B",
        },
        1,
    ),
    "openbookqa": (
        {"id": "o", "question_stem": "It is", "choices": {"text": TEXTS, "label": ["A", "B", "C"]}, "answerKey": "A"},
        0,
    ),
    "hellaswag": (
        {
            "ind": 4,
            "activity_label": "Roof",
            "ctx_a": "It",
            "ctx_b": "is",
            "ctx": "It is",
            "endings": TEXTS,
            "source_id": "a",
            "split": "train",
            "split_type": "indomain",
            "label": "2",
        },
        2,
    ),
    "swag": (
        {
            "video-id": "v",
            "fold-ind": "1",
            "startphrase": "It is",
            "sent1": "It",
            "sent2": "is",
            "gold-source": "gold",
            **{f"ending{place}": text for place, text in enumerate([*TEXTS, "big"])},
            "label": 3,
        },
        3,
    ),
    "codah": (
        {
            "id": 0,
            "question_category": 1,
            "question_propmt": "It is",
            "question": "It is",
            "candidate_answers": TEXTS,
            "correct_answer_idx": 1,
        },
        1,
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_layouts_of_the_hub(tmp_path, name):
    row, right = LAYOUTS[name]
    data = found(tmp_path, row)
    ((question, choices),), labels = data.parts["test"]
    assert (question, choices[:3], labels.tolist()) == ("It is", TEXTS, [right])


@pytest.mark.parametrize(("label", "right"), [(2, 2), ("2", 2), (2.0, 2), ("C", 2), ("c", 2), ("red", 2), (0, 0)])
def test_ways_to_write_a_label(tmp_path, label, right, capsys):
    assert found(tmp_path, ROW, ROW | {"label": label}).parts["train"][1].tolist() == [0, right]
    assert capsys.readouterr().err == ""


def test_labels_that_count_from_1(tmp_path, capsys):
    rows = [ROW | {"label": label} for label in (1, 3, 2)]
    assert found(tmp_path, *rows).parts["train"][1].tolist() == [0, 2, 1]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("no label is 0, and some are the number of choices: counted from 1")
    # Without a 3 they may as well count from 0; with a 0 they do.
    assert found(tmp_path, *rows[::2]).parts["train"][1].tolist() == [1, 2]
    assert "question 3: the label 3 is beyond 3 choices, counted from 0" in refusal(tmp_path, ROW, rows[0], rows[1])
    assert "question 2: the label 4 is beyond 3 choices" in refusal(tmp_path, rows[0], ROW | {"label": 4})


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (ROW | {"label": "blue"}, "the label 'blue' is neither a place, nor a letter, nor the text of a choice"),
        (ROW | {"label": "D"}, "the label 'D' is neither a place, nor a letter, nor the text of a choice"),
        (ROW | {"label": True}, "the label True is neither a place, nor a letter, nor the text of a choice"),
        (ROW | {"label": 0.5}, "the label 0.5 is neither a place, nor a letter, nor the text of a choice"),
        (ROW | {"label": [1]}, "the label [1] is neither a place, nor a letter, nor the text of a choice"),
        (ROW | {"choices": ["B", "A"], "label": "A"}, "the label 'A' could be any of choices [0, 1]"),
        (ROW | {"choices": ["1", "0"], "label": "1"}, "the label '1' could be any of choices [0, 1]"),
        (ROW | {"choices": ["yes", "yes"], "label": "yes"}, "the label 'yes' could be any of choices [0, 1]"),
        (LAYOUTS["arc"][0] | {"answerKey": "D"}, "the label 'D' is none of A, B, C"),
        (ROW | {"question": None}, "its text is None"),
        (ROW | {"choices": None}, "its choices are None, not a list of texts"),
        (ROW | {"choices": "wet, dry"}, "its choices are 'wet, dry', not a list of texts"),
        (ROW | {"choices": ["wet", None]}, "one of its choices is [None], not a text"),
        (ROW | {"choices": ["wet"]}, "it has 1 choice; two are needed"),
        (ROW | {"choices": []}, "it has 0 choices; two are needed"),
        (
            LAYOUTS["arc"][0] | {"choices": {"text": TEXTS, "label": ["A", "B"]}},
            "its choices have the labels ['A', 'B']; each needs one of its own",
        ),
    ],
)
def test_questions_that_are_refused(tmp_path, row, message):
    assert refusal(tmp_path, ROW, row).startswith(f", train: question 2: {message}")


def test_a_row_of_no_layout_is_named(tmp_path):
    said = ", train: no question, choices and label in row 2, only ['question', 'label']; a line: {"
    assert refusal(tmp_path, ROW, {"question": "It is", "label": 0}).startswith(said)


def test_labels_that_are_missing(tmp_path):
    for hidden in (None, "", -1, "-1"):
        rows = [ROW, ROW | {"label": hidden}, ROW]
        assert refusal(tmp_path, *rows) == ", train: 1 questions have no label: 2"
        assert refusal(tmp_path, ROW, test=rows) == ", test: 1 questions have no label: 2"
        assert refusal(tmp_path, rows[1]) == ": all labels of its train part are hidden or missing"


def test_a_hidden_test_set_is_never_scored(tmp_path, capsys):
    train = [ROW | {"label": number % 3, "question": f"train {number}"} for number in range(30)]
    held_out = [ROW | {"question": "held out", "label": 1}]
    for hidden in (-1, None, ""):
        secret = [ROW | {"question": "secret", "label": hidden}]
        data = found(tmp_path, *train, validation=held_out, test=secret)
        said = "set hides the labels of its test part: here validation is a tenth of train and test is its validation"
        assert capsys.readouterr().err == f"{said} part\n"
        about = data.about()
        assert about == {
            "dataset": "set",
            "checksum": about["checksum"],
            "parts": {"train": "train", "validation": "a tenth of train", "test": "validation"},
        }
        assert data.parts["test"][0] == [("held out", TEXTS)]
        assert [len(items) for items, _ in data.parts.values()] == [27, 3, 1]
    data = found(tmp_path, *train, validation=secret, test=held_out)
    assert (
        capsys.readouterr().err == "set hides the labels of its validation part: here validation is a tenth of train\n"
    )
    assert data.sources == {"train": "train", "validation": "a tenth of train", "test": "test"}


MIXED = [
    ("in the morning the cook", ["sings", "loves the bright garden", "burns a bitter soup"]),
    ("after lunch", ["enjoys a warm meal", "hates the cold rain", "wins", "breaks a sad toy", "misses"]),
    ("on a sunday my sister", ["wins a fine prize", "misses the last train", "sings", "hates the cold rain"]),
]


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for kind in ("bert", "distilbert", "gpt2"):
        tiny.write_model(folder / kind, kind=kind)
    return folder


def test_three_four_and_five_choices_in_one_file(tmp_path):
    rows = [ROW | {"choices": [str(n) + "." for n in range(count)], "label": count - 1} for count in (3, 4, 5)]
    data = found(tmp_path, *rows, ROW)
    items, labels = data.parts["train"]
    assert [len(choices) for _, choices in items] == [3, 4, 5, 3]
    assert labels.tolist() == [2, 3, 4, 0]
    assert data.classes == ["A", "B", "C", "D", "E"]
    assert chance(items) == pytest.approx((1 / 3 + 1 / 4 + 1 / 5 + 1 / 3) / 4)


@pytest.mark.parametrize("kind", ["bert", "distilbert"])
def test_choices_that_are_not_there_are_masked(places, kind):
    tokenizer = encoders.load_tokenizer(kind, places)
    model, _ = encoders.load_encoder(kind, "choice", places, CPU)
    model.eval()
    labels = torch.tensor([2, 4, 1])

    def batches(items, labels):
        counts = [len(choices) for _, choices in items]
        return TextBatches(encode(tokenizer, items, 64), labels, 8, tokenizer.pad_token_id, choices=counts)

    inputs, taken = batches(MIXED, labels).take(torch.arange(3))
    assert inputs["input_ids"].shape[:2] == (3, 5)
    assert inputs["attention_mask"].any(-1).sum(1).tolist() == [3, 5, 4]
    scores = model(inputs)
    losses = {"entropy": [], "margin": [], "wrong": []}
    for row, item in enumerate(MIXED):
        alone = model(batches([item], labels[row : row + 1]).take(torch.arange(1))[0])
        count = len(item[1])
        assert scores[row, :count].tolist() == pytest.approx(alone[0].tolist(), abs=1e-5)
        assert scores[row, count:].tolist() == [-torch.inf] * (5 - count)
        losses["entropy"].append(choice_loss(alone, labels[row : row + 1])[0].item())
        losses["margin"].append(margin_ranking_loss(alone, labels[row : row + 1])[0].item() * (count - 1))
        losses["wrong"].append(count - 1)
    entropy, _ = choice_loss(scores, taken)
    assert entropy.item() == pytest.approx(sum(losses["entropy"]) / 3, abs=1e-5)
    margin, _ = margin_ranking_loss(scores, taken)
    assert margin.item() == pytest.approx(sum(losses["margin"]) / sum(losses["wrong"]), abs=1e-5)
    for loss in (entropy, margin):
        model.zero_grad()
        loss.backward(retain_graph=True)
        assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)


def test_likelihood_of_choices_that_are_not_there(places):
    model = likelihood.load("gpt2", places, places, CPU)
    together = likelihood.ending_scores(model, MIXED, 64, 8, CPU, "fp32")
    for rule in likelihood.RULES:
        assert together[rule].shape == (3, 5)
        for row, item in enumerate(MIXED):
            count = len(item[1])
            alone = likelihood.ending_scores(model, [item], 64, 1, CPU, "fp32")[rule][0]
            assert together[rule][row, :count].tolist() == pytest.approx(alone.tolist(), abs=1e-4)
            assert together[rule][row, count:].tolist() == [-torch.inf] * (5 - count)
