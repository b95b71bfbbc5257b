"""Ranking measures beside those of trec_eval.

The numbers below come from pytrec_eval-terrier 0.5.11, which wraps trec_eval 9:

    run = {"q": {f"d{120 - place:03d}": float(score) for place, score in enumerate(scores)}}
    qrels = {"q": {f"d{120 - place:03d}": int(mark) for place, mark in enumerate(marks) if mark != "."} | unknown}
    pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.10", "recall.100", "recip_rank"}).evaluate(run)

with -1 for the mark "-". Documents are numbered downwards, as trec_eval puts the larger id first where scores are the
same; here documents of the same score keep their order. Scores and judgements are random: scores of one digit, so that
there are many ties, a little higher for relevant documents; 14 or 3 judgements a query.
"""

import pytest
import torch

from lab1.engine.config import UsageError
from lab2.tasks import ranking

# Scores of 120 documents, judgements (a dot: none), judged documents that are not there, and trec_eval's measures.
QUERIES = [
    (
        "660487647593824219489341157815659387784080160975351393728711"
        "587148418583989471965934232094711220186848339694775159179533",
        "..1....0....0.0......3......0.....0.......0....1......2....."
        "..............................0..1.......0..0...............",
        {"gone1": 3, "gone2": 0},
        (0.0, 0.6666666666666666, 0.02631578947368421),
    ),
    (
        "321730086914131956208709163457923022584197207698456428071508"
        "423759489924661093523376961696077142787890075470638220665030",
        "0...........0..0........00.................................."
        ".......0.........00....0..0....0....0........0.....0........",
        {"gone3": 2},
        (0.0, 0.0, 0.0),
    ),
    (
        "124000348559097765823694072455515900422945682467804281465471"
        "188755171760452296111530601688477936153492635110873176430392",
        ".............3....20.....3....................3.3..1......2."
        "..2......1..0...2....2.......................1..............",
        {},
        (0.22933816662571457, 0.9166666666666666, 0.5),
    ),
    (
        "926947118013204075227586880918919348967699300248945174466602"
        "234500762791656097670172009925185367109795194264183067557512",
        "...3.0.....0...............3.1..3..........................."
        "..1...0.....30...........0..........................0..3...2",
        {},
        (0.44611841062988733, 1.0, 0.5),
    ),
    (
        "766075415115055203519230310450932271754203557748529118942622"
        "358332456029061126486296451375806606573547121418927626623758",
        "..................0..........................3.............1"
        "............................................................",
        {},
        (0.0, 1.0, 0.05),
    ),
    (
        "407970341489267173864014004689671454391014485183216448298381"
        "686447592211669728457637785707427093057608116050190443294316",
        "..................-..0....................0......0...-.-.00."
        "......................-....-..--......................-....0",
        {},
        (0.0, 0.0, 0.0),
    ),
]


def judgements(marks, unknown):
    grades = {"-": -1, "0": 0, "1": 1, "2": 2, "3": 3}
    return {str(place): grades[mark] for place, mark in enumerate(marks) if mark != "."} | unknown


def test_measures_are_those_of_trec_eval():
    documents = [str(place) for place in range(120)]
    scores = torch.tensor([[float(score) for score in scores] for scores, *_ in QUERIES], dtype=torch.float64)
    judged = {str(number): judgements(marks, unknown) for number, (_, marks, unknown, _) in enumerate(QUERIES)}
    found = ranking.measures(scores, ranking.relevance(judged, documents))
    for row, (*_, expected) in enumerate(QUERIES):
        values = [found[name][row].item() for name in ("ndcg@10", "recall@100", "mrr")]
        assert values == pytest.approx(expected, abs=1e-7)


def test_a_missing_document_counts_as_not_found():
    judged = {"a": {"d0": 1, "gone": 2}, "b": {"gone": 1}}
    relevant = ranking.relevance(judged, ["d0", "d1"])
    assert relevant.tolist() == [[1, 0, 2], [0, 0, 1]]
    found = ranking.measures(torch.tensor([[2.0, 1.0], [2.0, 1.0]], dtype=torch.float64), relevant)
    best = 2 + 1 / torch.log2(torch.tensor(3.0)).item()
    assert found["ndcg@10"].tolist() == pytest.approx([1 / best, 0])
    assert found["recall@100"].tolist() == [0.5, 0]
    assert found["mrr"].tolist() == [1, 0]


def test_what_shares_no_word_with_the_query_is_not_found():
    """Wherever it lies among the documents of the same score, 0."""
    relevant = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, 0, 1]], dtype=torch.float64)
    scores = ranking.BM25(["a wing", "two fins", "steel"]).scores(["xylophone concert", "xylophone", "steel wing"])
    found = ranking.measures(scores, relevant, above=0.0)
    assert found["mrr"].tolist() == [0, 0, 0.5]
    assert [found[name][:2].tolist() for name in ("ndcg@10", "recall@100")] == [[0, 0]] * 2
    assert found["recall@100"][2] == 1


def test_bm25_without_words():
    with pytest.raises(UsageError, match="BM25 finds no words in the documents"):
        ranking.BM25(["the", "..."])
