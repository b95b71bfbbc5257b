"""Every number of the READMEs is that of the published files, and one that is not would be found."""

import json
import re
from statistics import fmean

import pytest

from lab1.engine.config import REPOSITORY
from tests.check_readme import PAGES, check
from tests.readme.pages import NAMES_ROW, ROUNDED, Page


@pytest.mark.parametrize("name", PAGES)
def test_every_number_of_a_page_is_that_of_its_files(name):
    page = check(name, (REPOSITORY / name).read_text(encoding="utf-8"))
    assert page.problems + page.left_over() == []


def places(name: str, text: str, rule: str) -> list[tuple[int, int]]:
    """Where the page has numbers of this kind."""
    return [span for span, kind in check(name, text).numerals.items() if kind == rule]


def changed(text: str, spans: list[tuple[int, int]]) -> str:
    """The text with another last digit in each of these numbers."""
    characters = list(text)
    for _, end in spans:
        characters[end - 1] = "1" if text[end - 1] != "1" else "2"
    return "".join(characters)


@pytest.mark.parametrize("name", PAGES)
def test_each_changed_number_is_found_and_put_right(name):
    text = (REPOSITORY / name).read_text(encoding="utf-8")
    traced = places(name, text, "traced")
    # A table is found by its header, and what is wrong there hides what is wrong below it.
    headers = [(start, end) for start, end in traced if text.startswith("\n|---", text.find("\n", end))]
    for spans in (headers, [span for span in traced if span not in headers]):
        page = check(name, changed(text, spans))
        assert sorted(page.fixes) == spans
        assert page.fixed() == text


@pytest.mark.parametrize("name", [name for name in PAGES if name != "README.md"])
def test_each_changed_number_in_the_name_of_a_row_is_found(name):
    text = (REPOSITORY / name).read_text(encoding="utf-8")
    spans = places(name, text, NAMES_ROW)
    told = " ".join(check(name, changed(text, spans)).problems)
    lines = [text.count("\n", 0, start) + 1 for start, _ in spans]
    assert lines
    assert [line for line in lines if f"{name}:{line}: " not in told] == []


@pytest.mark.parametrize(
    ("name", "there", "instead"),
    [
        ("lab1/README.md", "| 50 | ", "| 51 | "),
        ("lab3/README.md", "| 20, Intel | ", "| 87, Intel | "),
        ("tests/benchmarks/README.md", "| DQN with targets of one step", "| QDN with targets of one step"),
        ("tests/benchmarks/README.md", "DQN, Stable-Baselines3 2.9", "DQN, Stable-Baselines3 2.8"),
    ],
)
def test_a_mistyped_row_of_a_page_is_found(name, there, instead):
    text = (REPOSITORY / name).read_text(encoding="utf-8")
    page = check(name, text.replace(there, instead, 1))
    line = text.count("\n", 0, text.index(there)) + 1
    (problem,) = page.problems
    assert problem.startswith(f"{name}:{line}: no runs for the row ")


TEXT = """# A page

Runs: `mlp-128-64-*`.

| depth | accuracy (n = 3) |
|---|---|
| 2 | 97.5 ± 0.2 % |
| 4 | **1,234** [-0.5, 0.25] |

It gains 0.61 points in three
seeds of five, -1 in CIFAR-10 and `--seed 7`.

```bash
python lab1/train_mlp.py --hidden 128 64    # 98 % in 40 seconds
```
"""
ROWS = {"2": (97.46, 0.2), "4": (1234.4, -0.5, 0.25)}


def checked(text: str = TEXT, rows=ROWS) -> Page:
    page = Page("page.md", text)
    page.table("A page", "| depth | accuracy", rows.__getitem__)
    page.says("gains {} points in {} seeds of {}, {} in", 0.6127, 3, 5, -1)
    page.says("# {} % in", 98.4)
    page.about("{} seconds", 27)
    page.leave("numbers of seeds", r"n = 3")
    page.deviations()
    return page


def test_a_page_by_hand():
    page = checked()
    assert page.problems == page.left_over() == []
    assert page.words == 2
    assert [TEXT[slice(*span)] for span, rule in page.numerals.items() if rule == "traced"] == [
        *("97.5", "0.2", "1,234", "-0.5", "0.25"),
        *("0.61", "-1", "98"),
    ]
    numbers = f"8 traced to files, and 2 in words; 2 {NAMES_ROW}; 1 {ROUNDED}"
    assert page.summary().splitlines()[0] == f"page.md: 18 numerals: {numbers}; 7 no results; 0 left over"


@pytest.mark.parametrize(
    ("there", "instead", "found"),
    [
        ("97.5", "97.6", "page.md:7: 97.6 should be 97.5 in"),
        ("97.5", "97.50", "page.md:7: 97.50 should be 97.46 in"),
        ("[-0.5", "[0.5", "page.md:8: 0.5 should be -0.5 in"),
        ("1,234", "1,235", "page.md:8: 1,235 should be 1,234 in"),
        ("0.61", "0.62", "page.md:10: 0.62 should be 0.61 in"),
        ("in three", "in four", "page.md:10: four should be three in"),
        ("# 98", "# 97", "page.md:14: 97 should be 98 in"),
        ("40 seconds", "60 seconds", "page.md:14: 60 should be about 27 in"),
        (" ± 0.2 %", " %", "page.md: 1 numbers and not 2 in the row 2"),
        ("| 4 |", "| 5 |", "page.md:8: no runs for the row 5: KeyError("),
        ("It gains", "It lost", "page.md: it does not say any more: gains {} points"),
        ("# A page", "# The page", "page.md: it does not have the heading A page any more"),
        ("| depth |", "| length |", "page.md: it does not have the table | depth | accuracy any more"),
        ("(n = 3)", "", "page.md:7: a ± without n"),
    ],
)
def test_what_is_wrong_is_found(there, instead, found):
    (problem,) = checked(TEXT.replace(there, instead)).problems
    assert problem.startswith(found)


def test_a_number_in_the_name_of_a_row_is_traced_where_the_row_depends_on_it():
    page = checked(rows={str(depth): ROWS["4"] for depth in range(10)} | {"2": ROWS["2"]})
    assert page.problems == []
    assert page.left_over() == [f"page.md:8: traced to nothing: 4 in: {TEXT.splitlines()[7]}"]


@pytest.mark.parametrize("search", [lambda label: next(iter(())), int, lambda label: fmean(()), ROWS["2"].index])
def test_a_row_that_fits_nothing_is_found(search):
    page = Page("page.md", TEXT.replace("| 4 |", "| four |"))
    page.table("A page", "| depth | accuracy", lambda label: ROWS.get(label) or search(label))
    (problem,) = page.problems
    assert problem.startswith("page.md:8: no runs for the row four: ")


def test_a_number_that_nothing_accounts_for_is_found():
    page = checked(TEXT.replace("It gains", "Of 12 it gains").replace("it gains", "It gains"))
    assert page.left_over() == ["page.md:10: traced to nothing: 12 in: Of 12 It gains 0.61 points in three"]


def test_a_table_names_its_runs():
    from tests.readme.runs import each, seeds

    def row(label: str):
        return each(seeds("lab1", "mlp-128-64-digits"), "best_epoch")[:2] and ROWS[label]

    page = Page("page.md", TEXT)
    page.table("A page", "| depth | accuracy", row)
    assert page.problems == []
    page = Page("page.md", TEXT.replace("mlp-128-64-*", "mlp-*-augment-*"))
    page.table("A page", "| depth | accuracy", row)
    (problem,) = page.problems
    assert re.match(r"page\.md: under A page no `name` of these runs: mlp-128-64-digits-seed0, .*seed4$", problem)


def test_a_speed_table_comes_from_a_file_where_there_is_one(tmp_path, monkeypatch):
    from tests.readme import benchmarks

    name = "tests/benchmarks/README.md"
    text = (REPOSITORY / name).read_text(encoding="utf-8")
    monkeypatch.setattr(benchmarks, "RESULTS", tmp_path)
    command = "python tests/benchmarks/bench_workers.py --json tests/benchmarks/results/workers.json"
    assert command in check(name, text).summary()
    runs = {"seconds": {"2 workers": [50, 40, 60], "1 worker": [100, 130, 90]}, "ratio": {"1 worker": 2.125}}
    found = {"compare_agents": runs, "sweep_depth": runs, "environment": {"device": "cpu: A processor"}}
    (tmp_path / "workers.json").write_text(json.dumps(found), encoding="utf-8")
    page = check(name, text)
    assert command not in page.summary()
    assert f"{name}: it does not name the processor of results/workers.json: A processor" in page.problems
    fixed = page.fixed()
    assert fixed.count(" | 100 s | 50 s | 2.12 times |") == 2
    assert "one worker, on two cores | 2.1 to 2.1 times |" in fixed
    assert not check(name, fixed).fixes
