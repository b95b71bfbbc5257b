"""The data sets of exercises 3.1 to 3.3, made of originals of a few lines: every line is where the split puts it."""

import csv
import io
import json

from lab2.tasks import originals


def rows_of(text: str) -> list[tuple[str, int]]:
    """Texts and labels of a .csv."""
    head, *rows = csv.reader(io.StringIO(text))
    assert head == ["text", "label"]
    return [(text, int(label)) for text, label in rows]


def test_rotten_tomatoes_by_hand():
    files = {f"rt-polarity.{ending}": "".join(f"{ending} {n} . \n" for n in range(21)) for ending in ("pos", "neg")}
    made = originals.rotten_tomatoes(files)
    assert list(made) == ["train.csv", "validation.csv", "test.csv"]
    # Of 21 lines a tenth, 2, are the test, 2 the validation set.
    for part, numbers in (("train", range(17)), ("validation", (17, 18)), ("test", (19, 20))):
        wanted = [(f"{word} {n} .", label) for word, label in (("pos", 1), ("neg", 0)) for n in numbers]
        assert rows_of(made[f"{part}.csv"]) == wanted
    assert made["test.csv"] == "text,label\npos 19 .,1\npos 20 .,1\nneg 19 .,0\nneg 20 .,0\n"


def test_ag_news_leaves_out_what_stands_twice_or_in_the_test_set(monkeypatch):
    monkeypatch.setattr(originals, "AG_NEWS_HELD_OUT", 1)
    names = [(name, label) for label, name in enumerate(originals.AG_NEWS_CLASSES)]
    lines = [f" {name} {n} \t{name}" for n in range(4) for name, _ in names]
    lines += ["World 0\tWorld", "a test text\tSports", '"He said ""no"", then left"\tBusiness']
    test = '"2","A title","a test text "\n"4","Another","two ""words"""\n'
    made = originals.ag_news({"dev.tsv": "\n".join(lines) + "\n", "test.csv": test})
    assert rows_of(made["test.csv"]) == [("a test text", 1), ('two "words"', 3)]
    train, validation = rows_of(made["train.csv"]), rows_of(made["validation.csv"])
    assert sorted(label for _, label in validation) == [0, 1, 2, 3]
    # The quotes of a line of dev.tsv stay as they are.
    wanted = {(f"{name} {n}", label) for n in range(4) for name, label in names}
    wanted.add(('"He said ""no"", then left"', 2))
    assert set(train + validation) == wanted
    assert len(train + validation) == 17
    assert made == originals.ag_news({"dev.tsv": "\n".join(lines) + "\n", "test.csv": test})
    # Drawn with seed 0: another order would be another table.
    assert [text for text, _ in validation] == ["World 2", "Sci/Tech 3", "Sports 0", "Business 0"]
    assert [text for text, _ in train][:3] == ["Sports 1", "Business 2", "Sci/Tech 0"]


def test_codah_by_hand():
    line = "o\tThe sky is\tblue.\tgreen.\tsad.\tlate.\t{}\n"
    made = originals.codah({"train.tsv": line.format(0) + line.format(3), "dev.tsv": line.format(1), "test.tsv": ""})
    rows = [json.loads(row) for row in made["train.jsonl"].splitlines()]
    choices = ["blue.", "green.", "sad.", "late."]
    assert rows == [
        {"id": f"codah-train-{n}", "category": "o", "question": "The sky is", "choices": choices, "label": label}
        for n, label in enumerate((0, 3))
    ]
    assert json.loads(made["validation.jsonl"])["label"] == 1
    assert made["test.jsonl"] == ""


def test_cranfield_by_hand(monkeypatch):
    monkeypatch.setattr(originals, "CRANFIELD_TESTS", 1)
    documents = (
        ".I 1\n.T\nwings in\na stream .\n.A\nx,y.\n.B\nj. 1958 .\n.W\nwings in\na stream .\n  they lift .\n"
        ".I 2\n.T\nflow .\n.A\n.B\n.W\nof air .\n.A\nz.\n.B\nagain\n"
    )
    queries = ".I 001\n.W\nwhat\nlifts .\n.I 004\n.W\nwhat flows .\n.I 009\n.W\nwhat else .\n"
    judged = "1 2 4 \n1 1 -1\n2 2 1\n3 10 3\n3 9 2\n"
    made = originals.cranfield({"cran.all.1400": documents, "cran.qry": queries, "cranqrel": judged})
    assert [json.loads(row) for row in made["corpus.jsonl"].splitlines()] == [
        {"_id": "1", "title": "wings in a stream", "text": "they lift"},  # the title does not stand there twice
        {"_id": "2", "title": "flow", "text": "of air ."},
    ]
    # Numbered by their place, as the judgements count them, not as the file does.
    texts = ["what lifts", "what flows", "what else"]
    assert [json.loads(row) for row in made["queries.jsonl"].splitlines()] == [
        {"_id": str(place), "text": text} for place, text in enumerate(texts, 1)
    ]
    # Seed 0 draws the first query for the test. 1 (best) to 4 become 4 to 1, and -1, the best match of a query, 4.
    assert made["qrels/test.tsv"] == "query-id\tcorpus-id\tscore\n1\t1\t4\n1\t2\t1\n"
    assert made["qrels/train.tsv"] == "query-id\tcorpus-id\tscore\n2\t2\t4\n3\t9\t3\n3\t10\t2\n"


def test_every_file_that_is_made_has_its_checksum():
    assert list(originals.ORIGINALS) == list(originals.MADE)
    sums = [each for found in (*originals.ORIGINALS.values(), *originals.MADE.values()) for each in found.values()]
    assert len(sums) == len(set(sums)) == 23
    assert all(len(each) == 32 and int(each, 16) for each in sums)
