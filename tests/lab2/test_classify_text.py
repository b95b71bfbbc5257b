"""Exercise 3.1: features of a frozen encoder, linear classifiers, fine-tuning, LoRA, and the script."""

import dataclasses
import json
import os
import shutil
import signal

import numpy as np
import pytest
import torch
import transformers
from sklearn.metrics import confusion_matrix, f1_score
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lab1.engine import metrics
from lab1.engine.config import Interrupted, UsageError
from lab2 import classify_text
from lab2.tasks import datasets, encoders, runs, shallow, tiny
from lab2.tasks.datasets import TaskData
from lab2.tasks.trainer import TaskTrainer
from tests.exactness import assert_same_end
from tests.posix import posix

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A folder with a tiny data set and tiny models of three families."""
    folder = tmp_path_factory.mktemp("data")
    tiny.write_texts(folder / "mood")
    for kind in ("bert", "distilbert"):
        tiny.write_model(folder / kind, kind=kind)
    return folder


def config(places, folder, method, **changes):
    settings = {"model": "bert", "dataset": "mood", "data_dir": places, "model_dir": folder, "precision": "fp32"}
    return classify_text.Config(method=(method,), **settings | changes)


def load(places, name="bert", task="features"):
    torch.manual_seed(0)  # of a new head
    encoder, new = encoders.load_encoder(name, task, places, CPU, classes=2)
    return encoder.eval(), encoders.load_tokenizer(name, places), new


def test_the_tiny_vocabulary_is_the_same_in_every_process(places):
    vocabulary = encoders.load_tokenizer("bert", places).get_vocab()
    pieces = sorted(vocabulary, key=vocabulary.get)
    words = [piece for piece in pieces[4:] if len(piece) > 1 and not piece.startswith("##")]
    assert pieces[:4] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    assert words == sorted({word for text, _ in tiny.sentences() for word in text.split()} - {"a"})


def test_pooling_by_hand():
    hidden = torch.tensor([[[1.0, 2.0], [3.0, 6.0], [100.0, 100.0]], [[5.0, 5.0], [7.0, 1.0], [0.0, 3.0]]])
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    assert encoders.pool(hidden, mask, "cls").tolist() == [[1, 2], [5, 5]]
    assert encoders.pool(hidden, mask, "mean").tolist() == [[2, 4], [4, 3]]


@pytest.mark.parametrize("name", ["bert", "distilbert"])
def test_features_do_not_depend_on_the_batch(places, name):
    encoder, tokenizer, _ = load(places, name)
    texts = ["the cook wins", "a pilot sings a happy song in the morning", "my sister", "a student hates the cold rain"]
    found = encoders.hidden_features(encoder, tokenizer, texts, 32, 3, CPU, "fp32")
    assert found["cls"].shape == found["mean"].shape == (3, 4, 32)  # embeddings and two layers
    for row, text in enumerate(texts):
        alone = tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            states = encoder.network(**alone, output_hidden_states=True).hidden_states
        for layer, state in enumerate(states):
            torch.testing.assert_close(found["cls"][layer, row], state[0, 0], atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(found["mean"][layer, row], state[0].mean(0), atol=1e-5, rtol=1e-4)
    vectors = encoders.sentence_vectors(encoder, tokenizer, texts, 32, 3, CPU, "fp32")
    expected = torch.nn.functional.normalize(found["mean"][-1], dim=-1)
    torch.testing.assert_close(vectors, expected, atol=1e-5, rtol=1e-4)


def test_macro_f1_and_report():
    labels, predicted = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2]), np.array([0, 0, 1, 1, 2, 2, 2, 0, 2])
    counts = torch.from_numpy(confusion_matrix(labels, predicted))
    found = metrics.by_class(counts, ["a", "b", "c"])
    # By hand: F1 is 2*2/(3+3), 2*1/(2+2), 2*3/(4+4).
    assert found["macro_f1"] == pytest.approx((2 / 3 + 1 / 2 + 3 / 4) / 3)
    assert found["macro_f1"] == pytest.approx(f1_score(labels, predicted, average="macro"))
    assert found["confusion"] == [[2, 1, 0], [0, 1, 1], [1, 0, 3]]
    assert found["per_class_accuracy"] == {"a": pytest.approx(2 / 3), "b": 0.5, "c": 0.75}


def test_validation_chooses_and_the_test_set_is_classified_by_the_chosen_one():
    labels = torch.tensor([0, 1] * 10)
    right = labels.numpy()[:, None] * 2.0 - 1
    parts = {part: (["text"] * 20, labels) for part in datasets.PARTS}
    data = datasets.TaskData("toy", ["no", "yes"], parts)
    # One table is right in validation and wrong in the test, the other the other way round.
    good = {"train": right, "validation": right, "test": -right}
    bad = {"train": right, "validation": -right, "test": right}
    found = shallow.choose([({"layer": 1}, bad), ({"layer": 2}, good)], data, [1.0])
    assert found.settings == {"layer": 2, "classifier": "logistic", "C": 1.0, "accuracy": 1.0}
    assert [(one["layer"], one["classifier"], one["accuracy"]) for one in found.tried] == [
        (1, "logistic", 0.0),
        (1, "svm", 0.0),
        (2, "logistic", 1.0),
        (2, "svm", 1.0),
    ]
    assert found.confusion["validation"].tolist() == [[10, 0], [0, 10]]
    assert found.confusion["test"].tolist() == [[0, 10], [10, 0]]
    assert found.parameters == 2  # one weight, one intercept


def test_tables_of_features():
    states = torch.randn(3, 10, 4, generator=torch.Generator().manual_seed(0))
    features = {"cls": states, "mean": states + 1}
    tables = list(shallow.feature_tables(features, [6, 2, 2]))
    assert [settings for settings, _ in tables] == [
        {"pooling": pooling, "layer": layer} for pooling in ("cls", "mean") for layer in range(3)
    ]
    ((settings, parts),) = shallow.feature_tables(features, [6, 2, 2], layer=2, pooling="mean")
    assert settings == {"pooling": "mean", "layer": 2}
    assert [len(parts[part]) for part in datasets.PARTS] == [6, 2, 2]
    assert parts["train"].mean(0) == pytest.approx(0, abs=1e-6)
    assert parts["train"].std(0, ddof=1) == pytest.approx(1, abs=1e-5)
    seen = states[2] + 1
    assert parts["test"] == pytest.approx(((seen[8:] - seen[:6].mean(0)) / seen[:6].std(0)).numpy(), abs=1e-5)


@pytest.mark.parametrize("name", ["bert", "distilbert"])
def test_lora_changes_nothing_at_first_and_leaves_the_encoder_alone(places, name):
    encoder, tokenizer, new = load(places, name, "classification")
    inputs = dict(tokenizer(["the cook wins", "a pilot sings"], return_tensors="pt", padding=True))
    before = encoder(inputs)
    frozen = {key: tensor.clone() for key, tensor in encoder.network.state_dict().items()}
    adapted = encoders.add_lora(encoder, 4, 8, 0.0, new).eval()
    torch.testing.assert_close(adapted(inputs), before)  # B is 0 at first
    heads = {"bert": {"classifier"}, "distilbert": {"classifier", "pre_classifier"}}[name]
    assert set(new) == heads
    learning = {key for key, parameter in adapted.named_parameters() if parameter.requires_grad}
    assert all("lora_" in key or any(f"{head}.modules_to_save" in key for head in heads) for key in learning)
    linear = sum(isinstance(m, torch.nn.Linear) for m in load(places, name, "classification")[0].modules())
    assert sum("lora_A" in key for key in learning) == linear - len(heads)
    # A is [4, in], B is [out, 4].
    assert encoders.trainable(adapted) < sum(tensor.numel() for tensor in frozen.values()) / 3
    optimizer = torch.optim.SGD([p for p in adapted.parameters() if p.requires_grad], lr=1.0)
    for _ in range(3):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(adapted(inputs), torch.tensor([1, 1])).backward()
        optimizer.step()
    assert (adapted(inputs) - before).abs().max() > 1e-3
    after = adapted.network.get_base_model().state_dict()
    for key, tensor in frozen.items():
        if key.split(".")[0] not in heads:
            kept = after.get(
                key, after.get(key.replace(".weight", ".base_layer.weight").replace(".bias", ".base_layer.bias"))
            )
            assert torch.equal(kept, tensor), key


@pytest.mark.parametrize(
    ("kind", "learns"), [("Roberta", {"classifier"}), ("Bert", {"classifier", "bert.pooler.dense"})]
)
def test_lora_trains_no_layer_in_full_for_its_name(places, tmp_path, kind, learns):
    """The head of a RoBERTa, and the pooler that a BERT may lack, have layers of the same names as the encoder's."""
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    settings = getattr(transformers, f"{kind}Config")(vocab_size=200, max_position_embeddings=130, **shape)
    getattr(transformers, f"{kind}Model")(settings, add_pooling_layer=False).save_pretrained(tmp_path)
    encoder, new = encoders.load_encoder(str(tmp_path), "classification", places, CPU, classes=2)
    adapted = encoders.add_lora(encoder, 4, 8, 0.0, new)
    learning = [key for key, parameter in adapted.named_parameters() if parameter.requires_grad]
    whole = {key.split(".modules_to_save")[0] for key in learning if "modules_to_save" in key}
    assert whole == {f"network.base_model.model.{name}" for name in learns}
    assert sum("lora_A" in key for key in learning) == 2 * 6  # all linear layers of two blocks
    assert all("lora_" in key or "modules_to_save" in key for key in learning)


def test_weight_decay_is_for_matrices_that_learn(places, tmp_path):
    encoder, _, _ = load(places, "bert", "classification")
    trainer = TaskTrainer(encoder, config(places, tmp_path, "finetune", learning_rate=1e-3, weight_decay=0.3), {})
    decayed, others = trainer.optimizer.param_groups
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.3, 0.0)
    assert {parameter.ndim for parameter in decayed["params"]} == {2}
    assert {parameter.ndim for parameter in others["params"]} == {1}
    assert len(decayed["params"]) + len(others["params"]) == len(list(encoder.parameters()))


def results(folder):
    (path,) = folder.glob("*/results.json")
    return json.loads(path.read_text(encoding="utf-8"))


def test_linear_classifiers_learn(places, tmp_path):
    for method in ("tfidf", "features"):
        classify_text.main(config(places, tmp_path / method, method))
        found = results(tmp_path / method)
        assert found["test"]["accuracy"] >= 0.9
        assert sum(map(sum, found["test"]["confusion"])) == 28
        assert found["test"]["accuracy"] == sum(found["test"]["confusion"][k][k] for k in (0, 1)) / 28
        assert found["validation"]["accuracy"] == max(one["accuracy"] for one in found["tried"])
    assert found["test"]["trainable_parameters"] == 33  # 32 hidden units and an intercept
    assert len(found["tried"]) == 2 * 3 * 2 * 3  # poolings, layers with the embeddings, classifiers, strengths
    one = config(places, tmp_path / "one", "features", layer=1, pooling="mean", classifier="svm")
    classify_text.main(one)
    assert {(t["layer"], t["pooling"], t["classifier"]) for t in results(tmp_path / "one")["tried"]} == {
        (1, "mean", "svm")
    }
    with pytest.raises(UsageError, match="--layer 3: this encoder has 2"):
        classify_text.main(dataclasses.replace(one, layer=3))


@pytest.mark.parametrize(("method", "model"), [("finetune", "distilbert"), ("lora", "bert")])
def test_fine_tuning_learns(places, tmp_path, method, model):
    learning = {"learning_rate": 3e-3, "epochs": 20, "batch_size": 8}
    classify_text.main(config(places, tmp_path, method, model=model, **learning))
    found = results(tmp_path)
    assert found["test"]["accuracy"] >= 0.9
    assert found["history"][-1]["train"]["loss"] < 0.2
    assert 0 < found["test"]["trainable_parameters"] <= found["parameters"]
    assert (found["test"]["trainable_parameters"] == found["parameters"]) is (method == "finetune")


@posix
def test_interrupted_and_resumed_it_ends_the_same(places, tmp_path, monkeypatch):
    # Dropout, LoRA's own and the model's; a batch order by epoch; a signal in the middle of the second epoch.
    settings = {"epochs": 3, "batch_size": 16, "learning_rate": 1e-2}
    classify_text.main(config(places, tmp_path / "whole", "lora", **settings))
    step = TaskTrainer.train_step

    def struck(trainer, batch):
        if trainer.step == 8:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(trainer, batch)

    monkeypatch.setattr(TaskTrainer, "train_step", struck)
    with pytest.raises(Interrupted) as stopped:
        classify_text.main(config(places, tmp_path / "parts", "lora", **settings))
    monkeypatch.undo()
    (folder,) = (tmp_path / "parts").iterdir()
    assert str(folder) in str(stopped.value)
    assert torch.load(folder / "last.pt", weights_only=True)["step"] == 9  # of 18: 87 texts in batches of 16
    torch.manual_seed(99)
    classify_text.main(config(places, tmp_path / "parts", "lora", resume=str(folder), **settings))
    whole, parts = (next((tmp_path / name).iterdir()) for name in ("whole", "parts"))
    last = [torch.load(run / "last.pt", weights_only=True) for run in (whole, parts)]
    assert last[0]["step"] == last[1]["step"] == 18
    for key, tensor in last[0]["weights"].items():
        assert torch.equal(tensor, last[1]["weights"][key]), key
    first, second = results(tmp_path / "whole"), results(tmp_path / "parts")
    assert first["history"] == second["history"]
    assert first["test"] == second["test"]


def test_a_run_is_resumed_from_any_folder(places, tmp_path, monkeypatch):
    """Also where the data folder holds a set of the same name."""
    corpus, model = (shutil.copytree(places / name, tmp_path / "corp" / name) for name in ("mood", "bert"))
    monkeypatch.chdir(tmp_path)
    settings = {"dataset": "corp/mood", "model": "corp/bert"}
    classify_text.main(config(places, tmp_path / "runs", "finetune", epochs=1, **settings))
    (folder,) = (tmp_path / "runs").iterdir()
    written = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert (written["dataset"], written["model"]) == (str(corpus.resolve()), str(model.resolve()))
    # Runs of earlier versions hold what was typed.
    (folder / "config.json").write_text(json.dumps(written | settings), encoding="utf-8")
    classify_text.main(config(places, tmp_path / "runs", "finetune", epochs=2, resume=str(folder), **settings))
    assert results(tmp_path / "runs")["epochs"] == 2
    assert results(tmp_path / "runs")["config"]["dataset"] == "corp/mood"


def test_a_run_does_not_go_on_with_other_files_of_the_same_name(places, tmp_path, monkeypatch):
    corpus = shutil.copytree(places / "mood", tmp_path / "mood")
    first = config(places, tmp_path / "runs", "finetune", epochs=1, dataset=str(corpus))
    classify_text.main(first)
    (folder,) = (tmp_path / "runs").iterdir()
    monkeypatch.setattr(TaskData, "about", lambda data: {"dataset": data.name, "parts": data.sources})
    classify_text.main(dataclasses.replace(first, model_dir=tmp_path / "older"))
    monkeypatch.undo()

    train = corpus / "train.csv"
    train.write_text(train.read_text(encoding="utf-8").replace("sad toy", "glad toy", 1), encoding="utf-8")
    classify_text.load_data.cache_clear()
    with pytest.raises(UsageError, match=r"other files: .* was begun with other data"):
        classify_text.main(dataclasses.replace(first, epochs=2, resume=str(folder)))
    # Runs of earlier versions do not tell.
    (folder,) = (tmp_path / "older").iterdir()
    classify_text.main(dataclasses.replace(first, epochs=2, model_dir=tmp_path / "older", resume=str(folder)))
    assert results(tmp_path / "older")["epochs"] == 2


def test_every_method_end_to_end(run_script, tmp_path):
    done = run_script(
        "lab2/classify_text.py",
        *("--method", "tfidf", "features", "lora", "finetune", "--dry-run"),
        *("--model-dir", tmp_path / "model", "--data-dir", tmp_path / "data"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stderr.splitlines()) == 2  # a tiny data set, and a tiny model
    table = done.stdout.splitlines()[-4:]
    assert [line.split()[0] for line in table] == ["tfidf", "features", "lora", "finetune"]
    folders = {
        json.loads((f / "config.json").read_text(encoding="utf-8"))["method"][0]: f
        for f in (tmp_path / "model").iterdir()
    }
    assert set(folders) == {"tfidf", "features", "lora", "finetune"}
    for method, folder in folders.items():
        found = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        assert found["script"] == "lab2/classify_text.py"
        assert found["dataset"] == "tiny-texts"
        assert 0 <= found["test"]["accuracy"] <= 1
        assert 0 <= found["test"]["macro_f1"] <= 1
        assert (folder / "confusion.png").stat().st_size > 5_000
        shown = EventAccumulator(str(folder))
        shown.Reload()
        assert "accuracy/test" in shown.Tags()["scalars"]
        if method in ("lora", "finetune"):
            last = torch.load(folder / "last.pt", weights_only=True)
            assert last["step"] == 6
            assert all(state["exp_avg"].abs().sum() > 0 for state in last["optimizer"]["state"].values())
            assert [point.step for point in shown.Scalars("loss/train")] == [1, 2]


@pytest.mark.slow
def test_methods_side_by_side_find_what_they_find_in_turn(run_script, places, tmp_path):
    flags = (
        "--method tfidf features finetune --model bert --dataset mood --epochs 2 --precision fp32 --threads 1".split()
    )
    for count in (1, 2):
        where = ("--model-dir", tmp_path / str(count), "--data-dir", places)
        done = run_script("lab2/classify_text.py", *flags, *where, "--workers", count)
        assert done.returncode == 0, done.stderr
        assert ("3 methods, 2 at a time" in done.stdout) == (count == 2)
    names = [sorted(path.name for path in (tmp_path / str(count)).iterdir()) for count in (1, 2)]
    assert len(names[0]) == 3
    assert names[0] == names[1]
    for name in names[0]:
        assert_same_end(tmp_path / "1" / name, tmp_path / "2" / name)
    with pytest.raises(UsageError, match="--workers 0: at least 1 is needed"):
        classify_text.Config(workers=0).check()
    with pytest.raises(UsageError, match="--threads 2000: a number from 1 to 1024 is needed"):
        classify_text.Config(threads=2000).check()


def a_run(method, accuracy, seconds=1.0, model="org/m", validation=0.5, **settings):
    """What ``results.json`` of a run says, as far as the table needs it."""
    test = {"accuracy": accuracy, "macro_f1": accuracy - 0.1, "trainable_parameters": 7}
    config = {"method": [method], "model": model, "seed": 0, "learning_rate": 1e-3, "epochs": 2} | settings
    return {"config": config, "validation": {"accuracy": validation}, "test": test, "seconds": seconds}


def test_what_chooses_the_epoch(places, tmp_path, monkeypatch):
    found = iter(
        [{"loss": 0.5, "accuracy": 0.8}, {"loss": 0.6, "accuracy": 0.9}, {"loss": 0.7, "accuracy": 0.9}] * 2
        + [{"loss": 0.4, "accuracy": 0.7}] * 9
    )
    best = {}
    for select in ("loss", "accuracy"):
        with monkeypatch.context() as patch:
            patch.setattr(TaskTrainer, "evaluate", lambda trainer, batches: next(found))
            patch.setattr(TaskTrainer, "test", lambda trainer, batches: {"epoch": trainer.best_epoch})
            chosen = config(places, tmp_path, "finetune", select=select, epochs=3, learning_rate=2e-5)
            best[select] = classify_text.main(chosen)[0]["epoch"]
    assert best == {"loss": 1, "accuracy": 2}  # the first of equals
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [
        "classify-mood-finetune-bert-lr2e-05-by-accuracy-seed0",
        "classify-mood-finetune-bert-lr2e-05-seed0",
    ]
    weights = torch.load(tmp_path / names[0] / "best.pt", weights_only=True)
    assert weights["epoch"] == 2


def test_validation_chooses_among_rates(tmp_path):
    found = [
        a_run("lora", 0.9, validation=0.80),
        a_run("lora", 0.8, validation=0.85, learning_rate=5e-4),
        a_run("lora", 0.7, validation=0.85, learning_rate=5e-4, seed=1),
        a_run("lora", 0.9, validation=0.84, learning_rate=5e-4, select="accuracy"),
        a_run("tfidf", 0.6, learning_rate=None),
    ]
    rows = runs.classification_rows(found)
    assert [(row["method"], row["training"], row["runs"], row["chosen"]) for row in rows] == [
        ("tfidf", (), 1, True),
        ("lora", (5e-4, 2, "accuracy"), 1, False),
        ("lora", (5e-4, 2, "loss"), 2, True),
        ("lora", (1e-3, 2, "loss"), 1, False),
    ]
    for number, run in enumerate(found):
        (tmp_path / f"run{number}").mkdir()
        run = {"script": "lab2/classify_text.py", "dataset": "mood"} | run
        run["config"]["dry_run"] = False
        (tmp_path / f"run{number}/results.json").write_text(json.dumps(run), encoding="utf-8")
    head, *lines = runs.classification_table(tmp_path, "mood", dry_run=False).splitlines()
    assert head.split() == "mood rate epochs by runs validation test macro F1 learning seconds".split()
    assert [line.split() for line in lines] == [
        ["tfidf", "1", "50.00", "%", "60.00", "%", "0.5000", "7", "1.0"],
        ["lora", "m", "0.0005", "2", "accuracy", "1", "84.00", "%", "90.00", "%", "0.8000", "7", "1.0"],
        ["lora", "m", "*", "0.0005", "2", "loss", "2", "85.00", "%", "75.00", "±", "7.07", "%", "0.6500", "7", "1.0"],
        ["lora", "m", "0.001", "2", "loss", "1", "80.00", "%", "90.00", "%", "0.8000", "7", "1.0"],
    ]


def test_rows_of_the_table():
    run = a_run

    rows = runs.classification_rows(
        [
            *(run("finetune", 0.8, 10.0), run("finetune", 0.9, 20.0, seed=1)),
            *(run("tfidf", 0.7, 1.0), run("lora", 0.75, 3.0, "n")),
        ]
    )
    assert [(row["method"], row["model"], row["runs"]) for row in rows] == [
        ("tfidf", "", 1),
        ("lora", "n", 1),
        ("finetune", "m", 2),
    ]
    assert rows[2]["accuracy"] == pytest.approx(0.85)
    assert rows[2]["accuracy_sd"] == pytest.approx(0.05 * 2**0.5)
    assert rows[2]["macro_f1"] == pytest.approx(0.75)
    assert rows[2]["seconds"] == 15
    assert rows[0]["accuracy_sd"] is None


def test_of_a_command_that_was_given_again_the_newest_run_counts():
    again = [a_run("tfidf", 0.6), a_run("tfidf", 0.7), a_run("lora", 0.8), a_run("lora", 0.9, device="cpu")]
    words, lora = runs.classification_rows([*again, a_run("lora", 1, seed=1)])
    assert (words["runs"], words["accuracy"], words["accuracy_sd"]) == (1, 0.7, None)
    assert (lora["runs"], lora["accuracy"]) == (2, pytest.approx(0.95))
    eight = [a_run("lora", accuracy, lora_rank=8) for accuracy in (0.8, 0.9)]
    other = a_run("lora", 0.7, lora_rank=4)  # another flag: no repetition
    rows = runs.classification_rows([*again[:2], *eight, other])
    assert [(row["same"], row["flags"]) for row in rows] == [
        ([again[1]], ""),
        ([eight[1]], "lora rank 8"),
        ([other], "lora rank 4"),
    ]


def test_a_run_is_selected_by_one_measure(places, tmp_path):
    first = config(places, tmp_path, "finetune", epochs=1, select="accuracy")
    classify_text.main(first)
    (folder,) = tmp_path.iterdir()
    with pytest.raises(UsageError, match=r"--select loss: .* has gone by another so far"):
        classify_text.main(dataclasses.replace(first, epochs=2, select="loss", resume=str(folder)))


def test_a_decoder_without_a_padding_token_takes_its_end_of_text(places, tmp_path):
    folder = tiny.write_model(tmp_path / "gpt2", kind="gpt2")
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    settings["pad_token_id"] = None
    (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    encoder, _ = encoders.load_encoder(str(folder), "classification", tmp_path, torch.device("cpu"), classes=2)
    tokens = torch.tensor([[5, 6, 7], [5, 6, settings["eos_token_id"]]])
    logits = encoder.network(input_ids=tokens, attention_mask=torch.tensor([[1, 1, 1], [1, 1, 0]])).logits
    assert logits.shape == (2, 2)


def test_an_encoder_with_a_decoder_is_refused(tmp_path):
    size = {"vocab_size": 20, "d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2}
    transformers.T5Model(transformers.T5Config(**size)).save_pretrained(tmp_path / "t5")
    with pytest.raises(UsageError, match="it is an encoder and a decoder; an encoder alone is needed"):
        encoders.load_encoder(str(tmp_path / "t5"), "features", tmp_path, torch.device("cpu"))


def test_a_classifier_that_was_asked_for_is_not_the_one_that_validation_chose():
    chosen, forced = a_run("tfidf", 0.8, classifier=None), a_run("tfidf", 0.6, classifier="svm")
    rows = runs.classification_rows([chosen, forced])
    assert [(row["same"], row["flags"]) for row in rows] == [([chosen], ""), ([forced], "classifier svm")]


def test_flags_that_cannot_be_used(run_script, tmp_path):
    with pytest.raises(UsageError, match="one is there twice"):
        classify_text.Config(method=("lora", "lora")).check()
    with pytest.raises(UsageError, match="are quick; run them again"):
        classify_text.Config(method=("tfidf",), resume="somewhere").check()
    for flags, message in ((["--method", "boosting"], "--method"), (["--lora-rank", 0], "--lora-rank 0")):
        done = run_script("lab2/classify_text.py", *flags, "--model-dir", tmp_path)
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert message in line


def test_texts_without_a_word_to_count_are_refused(tmp_path):
    labels = torch.tensor([0, 1])
    data = TaskData("marks", ["a", "b"], dict.fromkeys(("train", "validation", "test"), (["!!!", "???"], labels)), {})
    with pytest.raises(UsageError, match="marks: there is no word to count in its training texts"):
        next(shallow.tfidf_tables(data))
