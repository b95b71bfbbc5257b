"""The READMEs: every link and anchor leads somewhere, and each page is short enough to be read."""

import re
from pathlib import Path

import pytest

from lab1.engine.config import REPOSITORY

READMES = ("README.md", "lab1/README.md", "lab2/README.md", "lab3/README.md", "tests/benchmarks/README.md")
WORDS_A_MINUTE, MINUTES = 200, 25


def prose(path: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)


def anchors(path: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.*)$", prose(path), re.M):
        name = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        found.add(name if name not in found else f"{name}-1")
    return found


@pytest.mark.parametrize("name", READMES)
def test_every_relative_link_and_anchor_leads_somewhere(name):
    page = REPOSITORY / name
    links = re.findall(r"\]\(([^)\s]+)\)", prose(page))
    assert links
    for link in links:
        if re.match(r"[a-z]+:", link):
            continue
        place, _, anchor = link.partition("#")
        target = page.parent / place if place else page
        assert target.exists(), f"{name}: {link}"
        assert not anchor or anchor in anchors(target), f"{name}: {link}"


def test_anchors_are_those_of_github(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# 1.1 A small network, on MNIST\n```\n# no heading\n```\n## Where `it` looks?\n", encoding="utf-8")
    assert anchors(page) == {"11-a-small-network-on-mnist", "where-it-looks"}


@pytest.mark.parametrize("name", READMES)
def test_a_page_is_read_in_less_than_25_minutes(name):
    assert len(prose(REPOSITORY / name).split()) < WORDS_A_MINUTE * MINUTES


def test_the_front_page_is_short_and_every_lab_has_its_report():
    front = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert len(front.splitlines()) <= 200
    for lab in ("lab1", "lab2", "lab3"):
        assert f"({lab}/README.md#" in front


def test_every_figure_is_shown_somewhere():
    pages = [REPOSITORY / name for name in READMES]
    shown = {(page.parent / link).resolve() for page in pages for link in re.findall(r"\]\(([^)#\s]+)\)", prose(page))}
    figures = {path for lab in ("lab1", "lab2", "lab3") for path in (REPOSITORY / lab / "figures").iterdir()}
    assert figures <= shown, sorted(path.name for path in figures - shown)
