"""Tables on the disk: what is read, and the line that a complaint names."""

import pytest

from lab1.engine.config import UsageError
from lab2.tasks.files import Table, read, several


def refusal(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UsageError) as refused:
        read(path, path.parent)
    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith(str(path))
    return str(refused.value).removeprefix(str(path))


def test_json_lines(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes('\ufeff{"text": "ché\\u00e9", "label": 1}\r\n\r\n{"text": "NA", "label": "b"}'.encode())
    assert read(path, tmp_path) == Table(
        [{"text": "chéé", "label": 1}, {"text": "NA", "label": "b"}], ["text", "label"]
    )


def test_broken_json_lines_are_named(tmp_path):
    good, path = '{"text": "a"}\n', tmp_path / "a.jsonl"
    said = " cannot be read: no JSON object on "
    assert refusal(path, good + '{"text": "b",\n' + good) == said + "line 2"
    assert refusal(path, "{'a': 1}\n" + good + "[1]\nnull\n\n1\n") == said + "line 1, line 3, line 4 and 1 more"
    for strange in ("[" * 100_000, '{"a": ' + "9" * 5000 + "}", '{"a": "\\ud800"}', '{"a": "b\n"}', '{"a": tru', "\0"):
        assert refusal(path, good + strange).startswith(said + "line 2")
    assert refusal(path, good.encode() + '{"text": "ché"}'.encode("latin-1")) == (
        " is not UTF-8 text (line 2): save it as UTF-8 first"
    )
    assert "is not UTF-8 text (line 1)" in refusal(path, good.encode("utf-16"))


def test_delimited(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes('\ufefftext,label\r\n"one, ""two""\nthree",1\r\n\r\nNA,null\r\n,x'.encode())
    rows = [{"text": 'one, "two"\nthree', "label": "1"}, {"text": "NA", "label": "null"}, {"text": "", "label": "x"}]
    assert read(path, tmp_path) == Table(rows, ["text", "label"])
    long = tmp_path / "a.tsv"
    long.write_text("a\tb\n" + "x" * 200_000 + "\t1\n", encoding="utf-8")
    assert read(long, tmp_path).rows == [{"a": "x" * 200_000, "b": "1"}]
    path.write_text("", encoding="utf-8")
    assert read(path, tmp_path) == Table([], [])


def test_broken_lines_of_a_table_are_named(tmp_path):
    path = tmp_path / "a.csv"
    assert refusal(path, "text,label\na,1\nb, c,2\n") == (
        " cannot be read: line 3 has 3 fields, the first one 2; put quotes around a text with commas in it"
    )
    assert "line 2 has 1 fields, the first one 2" in refusal(path, "text,label\na\n")
    assert refusal(path, 'text,label\n"a,1\nb,2\n') == " cannot be read: line 3: unexpected end of data"
    assert " cannot be read: line 2: " in refusal(path, 'text,label\n"a" b,1\n')
    assert refusal(path, "text,text\na,1\n") == ": a column stands twice in ['text', 'text']"
    assert refusal(path, b"text,label\na,1\nch\xe9,2\n") == " is not UTF-8 text (line 3): save it as UTF-8 first"


def test_parquet(tmp_path):
    import datasets

    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features).to_parquet(tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet", tmp_path) == Table(
        [{"text": "a", "label": 1}, {"text": "b", "label": 0}], ["text", "label"], {"label": ["no", "yes"]}
    )
    whole = (tmp_path / "a.parquet").read_bytes()
    for broken in (b"", whole[: len(whole) // 2], b"no parquet at all"):
        assert " cannot be read: " in refusal(tmp_path / "b.parquet", broken)


def test_what_is_no_table(tmp_path):
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(UsageError, match=r"folder\.jsonl cannot be read: Is a directory"):
        read(tmp_path / "folder.jsonl", tmp_path)
    with pytest.raises(UsageError, match=r"use a file in \.csv, \.jsonl, \.parquet"):
        read(tmp_path / "a.json", tmp_path)


def test_several():
    assert several(["a", "b", "c"]) == "a, b, c"
    assert several(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"
