"""Collections to search: BEIR's format, judged documents that are missing, and what is refused."""

import json

import pytest

from lab1.engine.config import UsageError
from lab2.tasks.search import load_search


def write(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")


def test_a_collection_in_beirs_format(tmp_path):
    (tmp_path / "wings" / "qrels").mkdir(parents=True)
    folder = tmp_path / "wings"
    write(folder / "corpus.jsonl", [{"_id": "1", "title": "Wings", "text": "lift"}, {"_id": "2", "text": "drag"}])
    write(folder / "queries.jsonl", [{"_id": "a", "text": "lift of wings"}, {"_id": "b", "text": "nothing"}])
    (folder / "qrels" / "test.tsv").write_text(
        "query-id\tcorpus-id\tscore\na\t1\t2\na\t2\t0\nb\t2\t0\n", encoding="utf-8"
    )
    data = load_search(str(folder), tmp_path)
    assert data.documents == {"1": "Wings lift", "2": "drag"}
    # Query b has nothing relevant: no ranking is right or wrong for it.
    assert data.judgements == {"test": {"a": {"1": 2, "2": 0}}}
    (folder / "qrels" / "test.tsv").write_text("query-id,corpus-id,score\na,1,2\n", encoding="utf-8")
    with pytest.raises(UsageError, match="its columns, 'query-id,corpus-id,score', have commas between them; use tabs"):
        load_search(str(folder), tmp_path)
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nc\t1\t2\n", encoding="utf-8")
    with pytest.raises(UsageError, match="1 queries are not among the queries"):
        load_search(str(folder), tmp_path)
    (folder / "queries.jsonl").unlink()
    with pytest.raises(UsageError, match=r"not in BEIR's format: no .*queries\.jsonl"):
        load_search(str(folder), tmp_path)


def test_where_cranfield_is_not_there_the_script_that_makes_it_is_named(tmp_path):
    with pytest.raises(UsageError) as refused:
        load_search("cranfield", tmp_path)
    made = "python lab2/prepare_data.py --datasets cranfield"
    assert str(refused.value) == f"{tmp_path / 'cranfield'} is not there; make it: {made}"


@pytest.fixture
def wings(tmp_path):
    folder = tmp_path / "wings"
    (folder / "qrels").mkdir(parents=True)
    write(folder / "corpus.jsonl", [{"_id": "1", "title": "Wings", "text": "lift"}, {"_id": "2", "text": "drag"}])
    write(folder / "queries.jsonl", [{"_id": "a", "text": "lift"}, {"_id": "b", "text": "drag"}])
    return folder


def judge(folder, *lines):
    text = "\n".join(["query-id\tcorpus-id\tscore", *(line.replace(" ", "\t") for line in lines)])
    (folder / "qrels" / "test.tsv").write_text(text + "\n", encoding="utf-8")


def refusal(folder):
    with pytest.raises(UsageError) as refused:
        load_search(str(folder), folder.parent)
    assert "\n" not in str(refused.value)
    return str(refused.value).removeprefix(str(folder))


def test_judged_documents_that_are_missing_are_named(wings, capsys):
    judge(wings, "a 1 1", "a gone 2", "a d7 0", "b d8 1", "b d9 1", "b d9 2", "b gone 1")
    data = load_search(str(wings), wings.parent)
    assert data.judgements["test"] == {"a": {"1": 1, "gone": 2, "d7": 0}, "b": {"d8": 1, "d9": 2, "gone": 1}}
    (line,) = capsys.readouterr().err.splitlines()
    said = ", qrels of test: 4 judged documents are not in the corpus: gone, d7, d8 and 1 more; no ranking finds them"
    assert line == f"{wings}{said}"
    about = data.about()
    assert about == {"dataset": "wings", "checksum": about["checksum"], "unknown_documents": {"test": 4}}
    judge(wings, "a 1 1")
    assert set(load_search(str(wings), wings.parent).about()) == {"dataset", "checksum"}
    assert capsys.readouterr().err == ""


def test_judgements_without_a_relevant_document(wings):
    nothing = ", qrels of test: no document of the corpus is relevant to any query; a score of 1 or more says so"
    for lines in (["a 1 0", "b 2 0"], ["a gone 1", "b gone 2"], ["a 1 0", "a gone 1"], ["a 1 -1"], []):
        judge(wings, *lines)
        assert refusal(wings) == nothing


@pytest.mark.parametrize("score", ["1.5", "high", "", "nan", "inf"])
def test_scores_that_are_no_whole_numbers(wings, score):
    judge(wings, "a 1 1", f"a 2 {score}")
    assert refusal(wings) == f", qrels of test: the score {score!r} of row 2 is no whole number"


def test_documents_that_cannot_be_used(wings):
    judge(wings, "a 1 1")
    good = [{"_id": "1", "text": "lift"}, {"_id": "2", "text": "drag"}]
    for rows, said in (
        ([*good, {"_id": "1", "text": "again"}], ", corpus: the id '1' stands twice"),
        ([*good, {"_id": "3", "text": None}], ", corpus: '3' has no text"),
        ([*good, {"id": "3", "text": "a"}], ", corpus: not in BEIR's format: no _id and text in row 3"),
        (good[:1], ": at least two documents are needed to rank, not 1"),
    ):
        write(wings / "corpus.jsonl", rows)
        assert refusal(wings) == said
    write(wings / "corpus.jsonl", good)
    judge(wings, "c 1 1", "d 1 1")
    assert refusal(wings) == ", qrels of test: 2 queries are not among the queries: c, d"
