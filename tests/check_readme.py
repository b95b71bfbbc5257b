"""Recomputes every number of the READMEs from the published files, and says which one is not theirs.

Command:  python tests/check_readme.py
Time:     10 seconds
Expect:   for each README how many numerals it has, how many are traced to files, and what the others are

    python tests/check_readme.py --fix      put the right number in the place of each wrong one

Where a number comes from stands in tests/readme/, a module for each README. A new row of a table whose runs are
published is found by itself; a new sentence with a result needs a line there.
"""

import argparse
import sys
from collections import Counter
from importlib import import_module
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = {
    "README.md": "front",
    "lab1/README.md": "lab1",
    "lab2/README.md": "lab2",
    "lab3/README.md": "lab3",
    "tests/benchmarks/README.md": "benchmarks",
}


def check(name: str, text: str):
    """A README's text, compared with the files: a ``Page`` that says what is wrong."""
    from tests.readme.pages import Page

    page = Page(name, text)
    import_module(f"tests.readme.{PAGES[name]}").check(page)
    page.deviations()
    return page


def main() -> int:
    """Check every page; returns how many lines of complaint there are."""
    sys.path[0] = str(REPOSITORY)  # not tests/, whose folder lab1 would hide the labs'
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fix", action="store_true", help="correct the numbers in the READMEs")
    parser.add_argument("pages", nargs="*", default=list(PAGES), metavar="PAGE", help="default: all five")
    flags = parser.parse_args()
    wrong: list[str] = []
    counts: Counter = Counter()
    for name in flags.pages:
        path = REPOSITORY / name
        page = check(name, path.read_text(encoding="utf-8"))
        print(page.summary())
        wrong += page.problems + page.left_over()
        counts += page.counts()
        if flags.fix and page.fixes:
            path.write_text(page.fixed(), encoding="utf-8")
    results = counts["traced"] + counts["printed"] + counts["left over"]
    print(f"{counts['traced']} of {results} result numbers are traced to files, {counts['printed']} were only printed")
    for line in wrong:
        print(line)
    return min(len(wrong), 1)


if __name__ == "__main__":
    raise SystemExit(main())
