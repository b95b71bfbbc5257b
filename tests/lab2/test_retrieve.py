"""Exercise 3.3: BM25, ranking measures, the contrastive loss and its batches, and the script."""

import dataclasses
import json
import math
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.metrics import ndcg_score

from lab1.engine.config import REPOSITORY, Interrupted, UsageError
from lab2 import retrieve
from lab2.tasks import ranking, retrieval, tiny
from lab2.tasks.encoders import load_tokenizer
from lab2.tasks.retrieval import PairBatches, RetrievalTrainer, info_nce
from lab2.tasks.search import load_search
from tests.posix import posix


def test_words():
    assert ranking.words("The Theories of plates, wings; and stress-waves: 3") == [
        "theory",
        "plate",
        "wing",
        "stress",
        "wave",
        "3",
    ]
    assert [ranking.singular(word) for word in ("radius", "bodies", "shoes", "flow")] == [
        "radius",
        "body",
        "shoe",
        "flow",
    ]


def test_bm25_by_hand():
    index = ranking.BM25(["wing wing lift", "drag", "lift drag flow flow flow"])
    # 3 documents of 3, 1 and 5 words, 3 on average. "wing" is in one of them, "lift" in two.
    wing = math.log(1 + (3 - 1 + 0.5) / (1 + 0.5))
    lift = math.log(1 + (3 - 2 + 0.5) / (2 + 0.5))
    k1, b = 1.2, 0.75
    first = wing * 2 * 2.2 / (2 + k1 * (1 - b + b * 3 / 3)) + lift * 1 * 2.2 / (1 + k1 * (1 - b + b * 3 / 3))
    third = lift * 1 * 2.2 / (1 + k1 * (1 - b + b * 5 / 3))
    assert index.scores(["wings lift unknown"]).tolist() == [pytest.approx([first, 0, third])]
    # A word that is asked for twice counts twice; without b, length does not matter.
    twice = index.scores(["lift lift"], k1=1.2, b=0)
    assert twice.tolist() == [pytest.approx([2 * lift, 0, 2 * lift])]


def test_measures_by_hand():
    #            rank:  3    1    4    2
    scores = torch.tensor([[0.2, 0.9, 0.1, 0.5]], dtype=torch.float64)
    relevant = torch.tensor([[3.0, 0.0, 1.0, 2.0]], dtype=torch.float64)
    found = ranking.measures(scores, relevant)
    gain = 0 / 1 + 2 / math.log2(3) + 3 / math.log2(4) + 1 / math.log2(5)
    best = 3 / 1 + 2 / math.log2(3) + 1 / math.log2(4)
    assert found["ndcg@10"].item() == pytest.approx(gain / best)
    assert found["mrr"].item() == 0.5
    assert found["recall@100"].item() == 1


def test_measures_against_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(20, 300, generator=generator, dtype=torch.float64)
    relevant = torch.randint(0, 5, (20, 300), generator=generator).double() * (
        torch.rand(20, 300, generator=generator) < 0.1
    )
    found = ranking.measures(scores, relevant)
    for row in range(20):
        expected = ndcg_score(relevant[row : row + 1].numpy(), scores[row : row + 1].numpy(), k=10)
        assert found["ndcg@10"][row].item() == pytest.approx(expected)
        order = np.argsort(-scores[row].numpy())
        hits = relevant[row].numpy()[order] > 0
        assert found["recall@100"][row].item() == pytest.approx(hits[:100].sum() / hits.sum())
        assert found["mrr"][row].item() == pytest.approx(1 / (1 + np.flatnonzero(hits)[0]))


def test_both_together():
    first = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64)
    second = torch.tensor([[30.0, 20.0, 10.0]], dtype=torch.float64)
    assert ranking.standardised(second).tolist() == [[1, 0, -1]]
    assert ranking.hybrid(first, second, 0.25).tolist() == [pytest.approx([0.5, 0, -0.5])]
    table = ranking.relevance({"a": {"d1": 2, "gone": 1}, "b": {"d0": 1, "d1": -1}}, ["d0", "d1"])
    assert table.tolist() == [[0, 2, 1], [1, 0, 0]]  # the document that is not there comes last


def test_info_nce_by_hand():
    queries = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    documents = torch.tensor([[0.8, 0.6], [0.0, 1.0], [1.0, 0.0]])
    scores = [[0.8, 0.0, 1.0], [0.6, 1.0, 0.0], [0.96, 0.8, 0.6]]
    own = torch.eye(3, dtype=torch.bool)
    loss, metrics = info_nce(queries, documents, own, temperature=0.5)
    expected = [-math.log(math.exp(row[k] / 0.5) / sum(math.exp(s / 0.5) for s in row)) for k, row in enumerate(scores)]
    assert loss.item() == pytest.approx(sum(expected) / 3, abs=1e-6)
    assert metrics["accuracy"].item() == pytest.approx(1 / 3)
    # The third document answers the first query, too: it is no negative of it.
    known = own.clone()
    known[0, 2] = True
    expected[0] = -math.log(math.exp(0.8 / 0.5) / (math.exp(0.8 / 0.5) + 1))
    loss, metrics = info_nce(queries, documents, known, temperature=0.5)
    assert loss.item() == pytest.approx(sum(expected) / 3, abs=1e-6)
    assert metrics["accuracy"].item() == pytest.approx(2 / 3)


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    tiny.write_search(folder / "deeds")
    tiny.write_model(folder / "bert")
    return folder


@pytest.fixture(scope="module")
def data(places):
    return load_search("deeds", places)


def pairs(places, data, **changes):
    settings = {"max_length": 32, "batch_size": 4, "seed": 3} | changes
    return PairBatches(data, data.judgements["train"], load_tokenizer("bert", places), **settings)


def test_pairs_are_a_function_of_seed_and_epoch(places, data):
    batches = pairs(places, data)
    assert len(batches) == 2  # six queries
    judged = list(data.judgements["train"].values())
    ids = list(data.documents)
    drawn = torch.zeros(2)
    for epoch in range(200):
        queries, documents = batches.order(epoch)
        assert sorted(queries.tolist()) == list(range(6))
        for query, document in zip(queries.tolist(), documents.tolist(), strict=True):
            drawn[judged[query][ids[document]] - 1] += 1
    # Of each query 6 documents are worth 2 and 12 worth 1: both kinds are drawn equally often.
    assert drawn.sum() == 1200
    assert abs(drawn[1] / 1200 - 0.5) < 4 * (0.25 / 1200) ** 0.5
    whole = list(batches.epoch(1))
    (later,) = batches.epoch(1, start=1)
    for side in ("query", "document"):
        assert torch.equal(later[0][side]["input_ids"], whole[1][0][side]["input_ids"])
    assert torch.equal(later[1], whole[1][1])
    assert whole[0][1].shape == (4, 4)
    assert whole[0][1].diagonal().all()  # the own document is relevant
    first = pairs(places, data, seed=None).order(0)
    assert first[0].tolist() == list(range(6))
    assert all(
        judged[query][ids[document]] == 2 for query, document in zip(*map(torch.Tensor.tolist, first), strict=True)
    )
    # A query alone in its batch has nothing to be told apart from.
    assert len(pairs(places, data, batch_size=5)) == 1


def test_held_out_queries():
    judgements = {f"q{number}": {"d": 1} for number in range(20)}
    rest, held = retrieval.hold_out(judgements, 0.2, seed=1)
    assert (len(rest), len(held)) == (16, 4)
    assert rest.keys() | held.keys() == judgements.keys()
    assert retrieval.hold_out(judgements, 0.2, seed=1) == (rest, held)
    assert retrieval.hold_out(judgements, 0.2, seed=2)[1] != held


def test_the_weight_is_chosen_on_other_queries_than_the_test(data):
    # An encoder that knows the answer to the training queries and to no other: it is trusted, and fails the test.
    ids = list(data.documents)
    place = {text: number for number, text in enumerate(data.documents.values())}
    answers = {data.queries[q]: ranking.relevance({q: found}, ids)[0] for q, found in data.judgements["train"].items()}

    def vectors(texts):
        known = [
            torch.eye(len(ids))[place[t]] if t in place else answers.get(t, torch.arange(len(ids)) * -1.0).float()
            for t in texts
        ]
        return torch.stack(known)

    found = retrieval.search(data, data.judgements["train"], vectors, 1.2, 0.75, resamples=50)
    assert found["weight"] == 0  # the encoder alone is perfect there, and the first of equals is taken
    assert found["hybrid"]["ndcg@10"] == found["dense"]["ndcg@10"] == found["ndcg@10"]
    assert found["bm25"]["ndcg@10"] > 0.9 > found["dense"]["ndcg@10"]
    low, high = found["bm25"]["ndcg@10_interval"]
    assert low <= found["bm25"]["ndcg@10"] <= high
    assert np.mean(found["bm25"]["queries"]) == pytest.approx(found["bm25"]["ndcg@10"], abs=1e-4)
    assert retrieval.search(data, None, vectors, 1.2, 0.75, resamples=50)["weight"] == 0.5


def test_differences_on_the_same_query_are_printed():
    queries = {"bm25": [0.25, 0.75, 0.5], "dense": [0.5, 0.25, 0.75], "hybrid": [0.5, 1.0, 1.0]}
    measured = {}
    for name in ("ndcg@10", "recall@100", "mrr"):
        measured |= {name: 0.5, f"{name}_interval": [0.4, 0.6]}
    lines = retrieval.table({name: measured | {"queries": each} for name, each in queries.items()}).splitlines()
    assert lines[1].split() == ["bm25"] + ["0.500", "(0.400-0.600)"] * 3
    # t with 2 degrees of freedom is 4.3027. Differences 0.25, -0.5, 0.25: mean 0, sd 0.4330, 4.3027 x sd / sqrt(3) =
    # 1.0757; 0.25, 0.25, 0.5: mean 0.3333, sd 0.1443, 0.3586; 0, 0.75, 0.25: mean 0.3333, sd 0.3819, 0.9487.
    assert [line.split() for line in lines[-3:]] == [
        ["dense", "-", "bm25", "+0.000", "(-1.076", "to", "+1.076)"],
        ["hybrid", "-", "bm25", "+0.333", "(-0.025", "to", "+0.692)"],
        ["hybrid", "-", "dense", "+0.333", "(-0.615", "to", "+1.282)"],
    ]


def config(places, folder, **changes):
    settings = {"model": "bert", "dataset": "deeds", "data_dir": places, "model_dir": folder, "precision": "fp32"}
    return retrieve.Config(**settings | changes)


def results(folder):
    (path,) = folder.glob("*/results.json")
    return json.loads(path.read_text(encoding="utf-8"))


@posix
def test_fine_tuning_learns_and_resumes(places, tmp_path, monkeypatch):
    retrieve.main(config(places, tmp_path / "before"))
    before = results(tmp_path / "before")["test"]
    learning = {"finetune": True, "learning_rate": 3e-3, "epochs": 30, "batch_size": 4}
    retrieve.main(config(places, tmp_path / "whole", **learning))
    whole = results(tmp_path / "whole")
    assert whole["history"][-1]["train"]["loss"] < whole["history"][0]["train"]["loss"] / 2
    assert whole["test"]["bm25"] == before["bm25"]
    assert whole["test"]["dense"] != before["dense"]

    step = RetrievalTrainer.train_step

    def struck(trainer, batch):
        if trainer.step == 10:
            os.kill(os.getpid(), signal.SIGINT)
        return step(trainer, batch)

    monkeypatch.setattr(RetrievalTrainer, "train_step", struck)
    with pytest.raises(Interrupted):
        retrieve.main(config(places, tmp_path / "parts", **learning))
    monkeypatch.undo()
    (folder,) = (tmp_path / "parts").iterdir()
    retrieve.main(config(places, tmp_path / "parts", resume=str(folder), **learning))
    parts = results(tmp_path / "parts")
    assert parts["history"] == whole["history"]
    assert parts["test"] == whole["test"]


def test_end_to_end(run_script, tmp_path):
    retrieve.main(retrieve.Config(dry_run=True, model_dir=tmp_path / "model", data_dir=tmp_path / "data"))
    done = run_script(
        "lab2/retrieve.py",
        *("--dry-run", "--finetune", "--model-dir", tmp_path / "model", "--data-dir", tmp_path / "data"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stderr.splitlines()) == 2  # a tiny data set, and a tiny model
    said = done.stdout.splitlines()
    assert [line.split()[0] for line in said[-8:-5]] == ["bm25", "dense", "hybrid"]
    assert [line.split()[:3] for line in said[-3:]] == [
        ["dense", "-", "bm25"],
        ["hybrid", "-", "bm25"],
        ["hybrid", "-", "dense"],
    ]
    folder = tmp_path / "model" / "dry-run-retrieve-tiny-search-tiny-bert"
    found = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert found["script"] == "lab2/retrieve.py"
    for system in ("bm25", "dense", "hybrid"):
        assert 0 <= found["test"][system]["ndcg@10"] <= 1
    tuned = tmp_path / "model" / "dry-run-retrieve-tiny-search-tiny-bert-finetune-seed0"
    assert torch.load(tuned / "last.pt", weights_only=True)["step"] == 2  # two epochs of one batch
    assert json.loads((tuned / "results.json").read_text(encoding="utf-8"))["test"]["trainable_parameters"] > 0


def test_under_torchrun_the_first_process_searches_and_the_others_wait(places, tmp_path):
    flags = ["--finetune", "--dry-run", "--dataset", "deeds", "--model", "bert", "--data-dir", places]
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    script = [REPOSITORY / "lab2" / "retrieve.py", *flags, "--model-dir", tmp_path]
    done = subprocess.run([sys.executable, *torchrun, *script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("hybrid - dense") == 1
    assert 0 <= results(tmp_path)["test"]["hybrid"]["ndcg@10"] <= 1


def test_missing_documents_are_never_drawn_and_never_found(places, tmp_path, data):
    judged = {"q0": {"gone": 2, "d1": 1}, "q2": {"gone": 1, "d3": 0}, "q4": {"d5": 1}}
    batches = PairBatches(data, judged, load_tokenizer("bert", places), 32, 4, seed=3)
    for epoch in range(20):
        queries, documents = batches.order(epoch)
        assert {
            ids: list(data.documents)[place] for ids, place in zip(queries.tolist(), documents.tolist(), strict=True)
        } == {
            0: "d1",
            1: "d5",
        }
    with pytest.raises(UsageError, match="deeds: too few queries have a relevant document in the corpus"):
        PairBatches(data, {"q2": judged["q2"]}, load_tokenizer("bert", places), 32, 4)
    found = retrieval.search(
        dataclasses.replace(data, judgements={"test": judged}), None, lambda texts: torch.ones(len(texts), 2), 1.2, 0.75
    )
    assert found["bm25"]["queries"][1] == found["dense"]["queries"][1] == 0
    assert all(np.isfinite(found[system]["mrr"]) for system in ("bm25", "dense", "hybrid"))
    with pytest.raises(UsageError, match="deeds: the encoder gives vectors that are not finite numbers"):
        retrieval.search(data, None, lambda texts: torch.full((len(texts), 2), torch.nan), 1.2, 0.75)


def test_missing_documents_are_recorded(places, tmp_path):
    folder = tmp_path / "deeds"
    shutil.copytree(places / "deeds", folder)
    with (folder / "qrels" / "test.tsv").open("a") as file:
        file.write("q1\tgone\t1\n")
    for finetune in (False, True):
        settings = {"dataset": str(folder), "finetune": finetune, "epochs": 1}
        retrieve.main(config(places, tmp_path / f"runs{finetune}", **settings))
        assert results(tmp_path / f"runs{finetune}")["unknown_documents"] == {"test": 1}


def test_flags_that_cannot_be_used(places, tmp_path):
    for changes, message in (
        ({"batch_size": 1}, "no negatives"),
        ({"b": 1.5}, "--b 1.5"),
        ({"temperature": 0}, "--temperature 0"),
        ({"resume": "somewhere"}, "nothing is trained"),
    ):
        with pytest.raises(UsageError, match=message):
            config(places, tmp_path, **changes).check()
    (places / "deeds" / "qrels" / "train.tsv").rename(places / "deeds" / "qrels" / "train.aside")
    try:
        with pytest.raises(UsageError, match="no judgements to learn from"):
            retrieve.main(config(places, tmp_path, finetune=True))
    finally:
        (places / "deeds" / "qrels" / "train.aside").rename(places / "deeds" / "qrels" / "train.tsv")


def test_figures_of_every_exercise(places, tmp_path):
    from lab2 import answer_questions, classify_text
    from lab2.tasks import figures

    places_and_runs = {"data_dir": tmp_path / "data", "model_dir": tmp_path / "runs", "dry_run": True}
    classify_text.main(classify_text.Config(method=("tfidf", "features"), **places_and_runs))
    answer_questions.main(answer_questions.Config(**places_and_runs))
    retrieve.main(retrieve.Config(**places_and_runs))
    retrieve.main(retrieve.Config(finetune=True, **places_and_runs))
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in (tmp_path / "runs").glob("*/results.json")]
    figures = figures.task_figures([*runs, {"script": "lab2/train_gpt.py"}])
    assert set(figures) == {"classify-tiny-texts", "answer-tiny-choices", "retrieve-tiny-search"}
    accuracy, layers = figures["classify-tiny-texts"].axes
    assert [label.get_text().split("\n")[0] for label in accuracy.get_yticklabels()] == ["TF-IDF", "frozen features"]
    assert [len(line.get_xdata()) for line in layers.lines] == [3, 3, 1]
    names = [label.get_text() for label in figures["retrieve-tiny-search"].get_axes()[0].get_yticklabels()]
    assert names == ["BM25", "dense", "hybrid", "dense, fine-tuned", "hybrid, fine-tuned"]
    for name, figure in figures.items():
        figure.savefig(tmp_path / f"{name}.png")
