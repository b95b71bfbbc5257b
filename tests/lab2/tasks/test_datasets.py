"""Data sets through ``datasets``, batches of tokens, and what happens where something cannot be had."""

import json
import socket
import time

import huggingface_hub
import pytest
import torch
import transformers

from lab1.engine.config import UsageError
from lab1.engine.distributed import StandIn
from lab2 import hub
from lab2.tasks import datasets, tiny
from lab2.tasks.batches import POOL, TextBatches, encode
from lab2.tasks.choices import load_choices
from lab2.tasks.search import load_search


def write(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The folder of a tiny BERT with random weights."""
    return tiny.write_model(tmp_path_factory.mktemp("model") / "bert")


def test_a_folder_of_csv(tmp_path):
    data = datasets.load_texts(str(tiny.write_texts(tmp_path / "mood")), tmp_path)
    assert (data.name, data.classes) == ("mood", ["0", "1"])
    assert {part: len(items) for part, (items, _) in data.parts.items()} == {"train": 87, "validation": 29, "test": 28}
    expected = [row for number, row in enumerate(tiny.sentences()) if number % 5 < 3]
    assert data.parts["train"][0] == [text for text, _ in expected]
    assert data.parts["train"][1].tolist() == [label for _, label in expected]
    short = data.thinned(3)
    assert [len(items) for items, _ in short.parts.values()] == [3, 3, 3]
    assert short.parts["train"][0] == [expected[row][0] for row in (0, 43, 86)]
    assert data.thinned(30).parts["validation"][0] == data.parts["validation"][0]


def test_every_text_and_label_counts_in_the_checksum(tmp_path):
    load = {"texts": datasets.load_texts, "choices": load_choices, "search": load_search}
    changes = {
        "texts": [("test.csv", "cold", "bold"), ("train.csv", ",0", ",1")],
        "choices": [("train.jsonl", "burns", "turns"), ("validation.jsonl", "pilot", "pirate")],
        "search": [("corpus.jsonl", "sad", "mad"), ("queries.jsonl", "warm", "wan"), ("qrels/train.tsv", "\t2", "\t1")],
    }
    for kind, found in changes.items():
        folder = getattr(tiny, f"write_{kind}")(tmp_path / kind)
        checksums = [load[kind](str(folder), tmp_path).about()["checksum"]]
        assert load[kind](str(folder), tmp_path).about()["checksum"] == checksums[0]
        for file, before, after in found:
            text = (folder / file).read_text(encoding="utf-8")
            (folder / file).write_text(text.replace(before, after, 1), encoding="utf-8")
            checksums.append(load[kind](str(folder), tmp_path).about()["checksum"])
        assert len(set(checksums)) == len(checksums)


def test_texts_with_commas_and_quotes_and_labels_in_words(tmp_path):
    lines = ["text,label", '"good, ""very"" good",pos', "bad,neg", "so so,mid"] * 20
    (tmp_path / "train.csv").write_text(
        "\n".join([lines[0], *(line for line in lines if line != lines[0])]) + "\n", encoding="utf-8"
    )
    data = datasets.load_texts(str(tmp_path), tmp_path)
    assert data.classes == ["mid", "neg", "pos"]
    texts, labels = data.parts["train"]
    assert {text: data.classes[label] for text, label in zip(texts, labels.tolist(), strict=True)} == {
        'good, "very" good': "pos",
        "bad": "neg",
        "so so": "mid",
    }
    # 60 rows: a tenth for the test, a tenth of the other 54 for validation, the same at every call.
    assert [len(items) for items, _ in data.parts.values()] == [49, 5, 6]
    assert torch.equal(datasets.load_texts(str(tmp_path), tmp_path).parts["train"][1], labels)


@pytest.mark.parametrize(
    ("labels", "classes", "places"),
    [
        (["10", "9", " 9"], ["9", "10"], [1, 0, 0]),  # as a .csv holds them: numbers, in their order
        ([1, "1", 2.0], ["1", "2"], [0, 0, 1]),
        (["1", "x", 1], ["1", "x"], [0, 1, 0]),
        ([True, False, True], ["False", "True"], [1, 0, 1]),
        ([-3, 4, 4], ["-3", "4"], [0, 1, 1]),
    ],
)
def test_labels_of_every_kind(tmp_path, labels, classes, places):
    rows = [{"text": "t", "label": label} for label in labels]
    for part in ("train", "validation", "test"):
        write(tmp_path / f"{part}.jsonl", rows)
    data = datasets.load_texts(str(tmp_path), tmp_path)
    assert data.classes == classes
    assert data.parts["train"][1].tolist() == places


def test_a_missing_test_set_is_the_validation_set(tmp_path, capsys):
    rows = [{"text": f"text {number}", "label": number % 2} for number in range(40)]
    write(tmp_path / "train.jsonl", rows)
    write(tmp_path / "validation.jsonl", [{"text": "held out", "label": 0}, {"text": "too", "label": 1}])
    data = datasets.load_texts(str(tmp_path), tmp_path)
    assert data.parts["test"][0] == ["held out", "too"]
    assert [len(items) for items, _ in data.parts.values()] == [36, 4, 2]
    assert not set(data.parts["train"][0]) & set(data.parts["validation"][0])
    said = "has no validation and test part: here validation is a tenth of train and test is a tenth of train"
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(" has no test part: here validation is a tenth of train and test is its validation part")
    assert data.sources == {"train": "train", "validation": "a tenth of train", "test": "validation"}
    assert datasets.load_texts(str(tmp_path / "train.jsonl"), tmp_path).sources["test"] == "a tenth of train"
    assert capsys.readouterr().err == f"train {said}\n"


def test_names_of_known_classes_and_a_single_file(tmp_path):
    rows = [{"text": f"text {number}", "label": number % 4} for number in range(80)]
    write(tmp_path / "ag_news.jsonl", rows)
    data = datasets.load_texts(str(tmp_path / "ag_news.jsonl"), tmp_path)
    assert data.classes == ["World", "Sports", "Business", "Sci/Tech"]
    # Found by its name under the data folder, too.
    assert datasets.load_texts("ag_news.jsonl", tmp_path).name == "ag_news"


def test_texts_that_cannot_be_used(tmp_path):
    def refusal(rows, name="train.jsonl"):
        folder = tmp_path / f"refused{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        write(folder / name, rows)
        with pytest.raises(UsageError) as refused:
            datasets.load_texts(str(folder), tmp_path)
        assert len(str(refused.value).splitlines()) == 1
        return str(refused.value)

    assert "no column label, only ['text', 'class']" in refusal([{"text": "a", "class": 1}])
    assert "at least two classes" in refusal([{"text": "a", "label": 1}, {"text": "b", "label": 1}])
    assert "example 2 has no label" in refusal([{"text": "a", "label": 1}, {"text": "b", "label": None}])
    (tmp_path / "parts").mkdir()
    write(tmp_path / "parts" / "train.jsonl", [{"text": "a", "label": 0}] * 9)
    write(tmp_path / "parts" / "test.jsonl", [{"text": "a", "label": 0}, {"text": "b", "label": 1}])
    write(tmp_path / "parts" / "validation.jsonl", [{"text": "a", "label": 0}, {"text": "b", "label": 1}])
    with pytest.raises(UsageError, match="all its training examples have the label 0; at least two classes are needed"):
        datasets.load_texts(str(tmp_path / "parts"), tmp_path)
    assert "example 2 has no label" in refusal([{"text": "a", "label": "x"}, {"text": "b"}])
    assert "example 1 has no text" in refusal([{"text": None, "label": 1}, {"text": "b", "label": 0}])
    assert "example 1 has no text" in refusal([{"text": ["a"], "label": 1}, {"text": "b", "label": 0}])
    assert "example 2 has the label [1]; use a number" in refusal(
        [{"text": "", "label": 1}, {"text": "b", "label": [1]}]
    )
    assert "holds no train.csv" in refusal([{"text": "a", "label": 1}], "texts.jsonl")
    assert "too small" in refusal([{"text": "a", "label": 0}, {"text": "b", "label": 1}])
    for separator, word in ((";", "semicolons"), ("\t", "tabs")):
        (tmp_path / "table.csv").write_text(
            f"text{separator}label\na, b{separator}1\nc{separator}2\n", encoding="utf-8"
        )
        with pytest.raises(UsageError) as refused:
            datasets.load_texts(str(tmp_path / "table.csv"), tmp_path)
        columns = repr(f"text{separator}label")
        assert str(refused.value) == (
            f"{tmp_path / 'table.csv'}: its columns, {columns}, have {word} between them; use commas"
        )
    (tmp_path / "broken.jsonl").write_text('{"text": "a", "label":\n', encoding="utf-8")
    with pytest.raises(UsageError, match="cannot be read"):
        datasets.load_texts(str(tmp_path / "broken.jsonl"), tmp_path)
    with pytest.raises(UsageError, match=r"use a file in \.csv"):
        datasets.load_texts(str(tiny.write_model(tmp_path / "bert") / "config.json"), tmp_path)
    with pytest.raises(UsageError, match=r"no folder or file \./nowhere/x/y"):
        datasets.load_texts("./nowhere/x/y", tmp_path)


def test_choices_in_every_shape(tmp_path):
    shapes = {
        "plain": {"question": "It rains. She", "choices": ["gets wet.", "flies.", "is a cup.", "melts."], "label": 0},
        "codah": {
            "question": "It rains. She",
            "candidate_answers": ["gets wet.", "flies.", "is a cup.", "melts."],
            "correct_answer_idx": 0,
        },
        "swag": {
            "sent1": "It rains.",
            "sent2": "She",
            **{f"ending{n}": end for n, end in enumerate(["gets wet.", "flies.", "is a cup.", "melts."])},
            "label": 0,
        },
    }
    for name, row in shapes.items():
        key = "correct_answer_idx" if name == "codah" else "label"
        (tmp_path / name).mkdir()
        write(tmp_path / name / "train.jsonl", [row | {key: number % 4} for number in range(40)])
        write(tmp_path / name / "validation.jsonl", [row])
        write(tmp_path / name / "test.jsonl", [row | {key: -1}])  # SWAG keeps its test labels to itself
        data = load_choices(str(tmp_path / name), tmp_path)
        assert data.classes == ["A", "B", "C", "D"]
        assert [len(items) for items, _ in data.parts.values()] == [36, 4, 1]
        assert data.parts["test"][0] == [("It rains. She", ["gets wet.", "flies.", "is a cup.", "melts."])]
        assert data.parts["test"][1].tolist() == [0]


def test_choices_that_cannot_be_used(tmp_path):
    row = {"question": "q", "choices": ["a", "b"], "label": 0}
    refused = {
        "question 2: the label 2 is beyond 2 choices": [row, row | {"label": 2}],
        "no question, choices and label": [{"question": "q", "label": 0}],
    }
    for number, (message, rows) in enumerate(refused.items()):
        write(tmp_path / f"{number}.jsonl", rows)
        with pytest.raises(UsageError, match=message):
            load_choices(str(tmp_path / f"{number}.jsonl"), tmp_path)


def sequences(lengths):
    return {"input_ids": [[number + 1] * length for number, length in enumerate(lengths)]}


def test_padding_by_hand():
    batches = TextBatches(sequences([2, 4, 1]), torch.tensor([7, 8, 9]), 2, padding=0)
    (first, first_labels), (second, second_labels) = batches
    assert first["input_ids"].tolist() == [[3, 0], [1, 1]]  # sorted by length: the third text, then the first
    assert first["attention_mask"].tolist() == [[1, 0], [1, 1]]
    assert first_labels.tolist() == [9, 7]
    assert second["input_ids"].tolist() == [[2, 2, 2, 2]]
    assert second_labels.tolist() == [8]


def test_questions_keep_their_choices_together(model):
    tokenizer = hub.pretrained(transformers.AutoTokenizer, str(model), model)
    items = [("the cook", ["sings", "wins a fine prize"]), ("a pilot", ["burns", "misses the last train"])]
    tokens = encode(tokenizer, items, 32)
    batches = TextBatches(tokens, torch.tensor([1, 0]), 2, tokenizer.pad_token_id, choices=[2, 2])
    inputs, labels = batches.take(torch.tensor([1, 0]))
    assert labels.tolist() == [0, 1]
    longest = max(map(len, tokens["input_ids"]))
    assert inputs["input_ids"].shape == inputs["token_type_ids"].shape == (2, 2, longest)
    for row, item in enumerate([items[1], items[0]]):
        for column, choice in enumerate(item[1]):
            alone = tokenizer(item[0], choice)
            kept = inputs["attention_mask"][row, column].bool()
            assert inputs["input_ids"][row, column][kept].tolist() == alone["input_ids"]
            assert inputs["token_type_ids"][row, column][kept].tolist() == alone["token_type_ids"]
    assert max(map(len, encode(tokenizer, items, 6)["input_ids"])) == 6


def test_the_order_is_a_function_of_seed_and_epoch():
    lengths = torch.randint(1, 60, (1003,), generator=torch.Generator().manual_seed(0)).tolist()
    labels = torch.arange(1003)

    def order(epoch, seed=5, start=0):
        batches = TextBatches(sequences(lengths), labels, 8, padding=0, seed=seed)
        return [labels.tolist() for _, labels in batches.epoch(epoch, start)]

    whole = order(3)
    assert whole == order(3)
    assert order(3, start=70) == whole[70:]
    assert whole != order(4)
    assert whole != order(3, seed=6)
    assert sorted(row for rows in whole for row in rows) == list(range(1003))
    assert len(whole) == len(TextBatches(sequences(lengths), labels, 8, 0, seed=5)) == 126
    # Within a batch lengths are close (50 batches are sorted together), from batch to batch they are not in order.
    spans = [max(lengths[n] for n in rows) - min(lengths[n] for n in rows) for rows in whole]
    assert sum(spans) / len(spans) < 3 * 60 / POOL
    longest = [max(lengths[n] for n in rows) for rows in whole]
    assert longest != sorted(longest)


def test_processes_share_every_batch(monkeypatch):
    found = []
    for number in range(2):
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("RANK", str(number))
        batches = TextBatches(sequences([1] * 9), torch.arange(9), 4, padding=0, seed=0)
        assert len(batches) == 3
        drawn = list(batches.epoch(0))
        # The ninth alone is the first process's; the other one takes it, too, but counts it for nothing.
        assert sum(isinstance(batch, StandIn) for batch in drawn) == number
        found.append([[] if isinstance(batch, StandIn) else batch[1].tolist() for batch in drawn])
    assert sorted(len(a + b) for a, b in zip(*found, strict=True)) == [1, 4, 4]
    assert sorted(row for rows in found[0] + found[1] for row in rows) == list(range(9))


def test_without_a_network_one_line_says_what_to_fetch(run_script, tmp_path):
    # Nothing listens at this address.
    done = run_script(
        "lab2/classify_text.py",
        *("--data-dir", tmp_path / "data", "--model-dir", tmp_path / "model"),
        env={"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "home")},
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "cornell-movie-review-data/rotten_tomatoes" in line
    assert str(tmp_path / "data" / "rotten_tomatoes") in line
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("load", "dataset", "source"),
    [
        (datasets.load_texts, "ag_news", "fancyzhx/ag_news"),
        (load_choices, "swag", "allenai/swag"),
        (load_choices, "codah", "jaredfern/codah"),
        (load_choices, "arc_easy", "allenai/ai2_arc"),
        (load_choices, "arc_challenge", "allenai/ai2_arc"),
        (load_choices, "commonsense_qa", "tau/commonsense_qa"),
        (load_choices, "openbookqa", "allenai/openbookqa"),
        (load_choices, "hellaswag", "Rowan/hellaswag"),
        (load_search, "scifact", "mteb/scifact"),
    ],
)
def test_every_short_name_says_what_it_is_on_the_hub(monkeypatch, tmp_path, load, dataset, source):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UsageError) as refused:
        load(dataset, tmp_path)
    assert source in str(refused.value)
    assert f"not in {tmp_path / dataset} " in str(refused.value)


def test_a_hub_that_never_answers_is_given_up(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)  # whatever this shell says
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it takes calls and says nothing
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        began = time.monotonic()
        with pytest.raises(UsageError, match="put its files there"):
            hub.pretrained(transformers.AutoModel, "nobody/nothing", tmp_path)
        assert 5 < time.monotonic() - began < 30  # ten seconds of waiting


def test_a_folder_that_is_no_model(tmp_path):
    tiny.write_texts(tmp_path / "texts")
    with pytest.raises(UsageError, match="cannot be read as AutoModel") as refused:
        hub.pretrained(transformers.AutoModel, str(tmp_path / "texts"), tmp_path)
    assert len(str(refused.value).splitlines()) == 1


def test_what_is_on_the_disk_asks_nothing_of_the_hub(monkeypatch, model, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)  # whatever this shell says
    with socket.create_server(("127.0.0.1", 0)) as hub_server:
        hub_server.settimeout(0.1)
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{hub_server.getsockname()[1]}")
        hub.pretrained(transformers.AutoTokenizer, str(model), tmp_path)
        hub.pretrained(transformers.AutoModelForSequenceClassification, str(model), tmp_path)
        datasets.load_texts(str(tiny.write_texts(tmp_path / "texts")), tmp_path)
        with pytest.raises(TimeoutError):
            hub_server.accept()
    assert not huggingface_hub.constants.HF_HUB_OFFLINE
