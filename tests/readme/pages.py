"""A page whose numbers are compared, digit by digit, with what the published files say.

A module for each README states its tables and sentences in the order of the page:

    page.table("1.2 Depth", "| depth | parameters", row)    row("20"): the numbers of the row that begins with 20
    page.says("adds {} [{}, {}] points", *paired_interval(after, before))

``{}`` is a numeral, or a small number as a word. The text decides how many digits count: 0.6127 may be written 0.6,
0.61 or 0.613. What is no result is left out by a rule with a name, and counted under it.
"""

import fnmatch
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from tests.readme.runs import USED

Span = tuple[int, int]

NUMERAL = r"(?:(?<![\w)\]])[-+])?(?<![\w.])\d+(?:,\d{3})*(?:\.\d+)?"
WORDS = "zero one two three four five six seven eight nine ten eleven twelve".split()
NUMBERS = {word: number for number, word in enumerate(WORDS)} | {"no": 0, "none": 0}
PLACE = rf"({NUMERAL}|\b(?i:{'|'.join(NUMBERS)})\b)"
NAMES_ROW = "in the name of a row, which no other number would name"
UNTRACED = "results that were printed, in no file yet"
ROUNDED = "rounded for a reader and within a factor of two of the files"
# What is no result, wherever it stands.
RULES = {
    "code in backticks": r"`[^`\n]*`",
    "addresses": r"\]\([^)\s]*\)|https?://\S+",
    "names with a number in them (CIFAR-10, LunarLander-v3, bf16, nDCG@10)": r"[A-Za-z_][-@]?\d[\d.]*(?:-\d+)*\b",
    "4-grams, 3x3 convolutions, networks such as 784-128-64-10": r"\d-grams\b|\b\d+x\d+\b|\b784(?:-\d+)+",
    "headings, numbers of exercises and chapters": (
        r"^#+ .*$|\b(?:[Ee]xercises?|[Ll]abs?|chapter) \d+(?:\.\d)?(?: to \d\.\d)?"
        r"|\[lab \d(?:, \d(?:\.\d)?)?\]|\[\d\.\d(?= [A-Z])|\[\d\. (?=[A-Z])|\[\d(?:\.\d)?(?=\]\()"
    ),
    "years of papers": r"(?:et al\.|[A-Z][a-z]+)\s+\(?(?:19|20)\d\d\b",
    "the 95 % of an interval": r"\b95 %(?= (?:confidence |bootstrap )?intervals?\b|[,)])",
}

# How a row says that no runs are its own: it looks in vain for what its first cells name.
NO_RUNS = (FileNotFoundError, LookupError, ValueError, StopIteration, AssertionError)

# What says how many a mean is over.
COUNTED = (
    r"\bn = \d|\bover seeds \d|\|[^|\n]*\bseeds?\b[^|\n]*\|"
    r"|\b(?:\d+|two|three|four|five|ten|twenty) (?:seeds|episodes|runs)"
)


class Page:
    """One README: its numerals, and what accounts for each of them.

    ``problems`` has a line for each thing that is wrong, ``fixes`` what should stand where it is a number.
    """

    def __init__(self, name: str, text: str):
        self.name, self.text = name, text
        self.numerals: dict[Span, str] = {match.span(): "" for match in re.finditer(NUMERAL, text)}
        self.words = 0  # numbers that are written as words, and traced
        self.problems: list[str] = []
        self.fixes: dict[Span, str] = {}
        self._mark("commands and code", _code(text))
        for rule, pattern in RULES.items():
            self.leave(rule, pattern)

    # What a module for a page uses.

    def part(self, check: Callable[["Page"], None]) -> None:
        """One part of the page; a run that is not there, or lacks what is asked, is a problem like others."""
        try:
            check(self)
        except NO_RUNS as error:
            self.problems.append(f"{self.name}: {check.__module__}.{check.__name__}: {error!r}")

    def says(self, template: str, *values: float) -> None:
        """The page has this text, and these numbers at each ``{}``; where it stands twice, both times."""
        for match in self._matches(template, len(values)):
            for place, value in enumerate(values, start=1):
                self._compare(match.span(place), value)

    def about(self, template: str, *values: float) -> None:
        """The same of numbers that are rounded for a reader, such as minutes: each is right within a factor of two."""
        for match in self._matches(template, len(values)):
            for place, value in enumerate(values, start=1):
                span = match.span(place)
                self.numerals[span] = ROUNDED
                if not value / 2 <= float(match[place].replace(",", "")) <= value * 2:
                    self._wrong(span, f"about {value:.2g}")

    def table(self, heading: str, header: str, row: Callable[..., Sequence[float] | None], keys: int = 1) -> None:
        """Each row of the first table below a heading that has this in its header. ``row`` gets the first cells (an
        empty one repeats the one above it) and returns the numbers in the others, or None for a row without any. A
        number in the first cells is traced if with another one there ``row`` returns something else, or fails. The
        section names the runs that the rows come from: `depth-mlp`, or `detect-*`."""
        start = self._find(rf"^#+ {re.escape(heading)}.*$", f"the heading {heading}")
        lines = start is not None and self._find(rf"^(?=\|).*{re.escape(header)}.*$", f"the table {header}", start)
        if not lines:
            return
        USED.clear()
        above = [""] * keys
        for line in re.finditer(r"^\|.*$", self.text[: _end_of_table(self.text, lines)], re.M):
            if line.start() < lines or line[0].startswith("|---"):
                continue
            cells = [(line.start() + cell.start(1), cell[1]) for cell in re.finditer(r"\|([^|\n]*)(?=\|)", line[0])]
            try:
                first = cells[keys][0]
                above = [_plain(cell) or before for (_, cell), before in zip(cells, above, strict=False)]
                values = row(*above)
            except NO_RUNS as error:
                at = self.text.count("\n", 0, line.start()) + 1
                self.problems.append(f"{self.name}:{at}: no runs for the row {' | '.join(above)}: {error!r}")
                continue
            if values is not None:
                self._compare_row(first, line.end(), values, " | ".join(above))
                self._check_keys(row, above, cells[:keys], values)
        section = self.text[start : self._find(r"^#{1,3} |\Z", "an end", start)]
        names = re.findall(r"`([\w.*-]+)`", section)
        missing = [run for run in sorted(USED) if not any(fnmatch.fnmatchcase(run, name) for name in names)]
        if missing:
            self.problems.append(f"{self.name}: under {heading} no `name` of these runs: {', '.join(missing)}")

    def leave(self, rule: str, pattern: str) -> None:
        """What matches is no result."""
        self._mark(rule, (match.span() for match in re.finditer(pattern, self.text, re.M)))

    # How it is done.

    def _find(self, pattern: str, what: str, start: int = 0) -> int | None:
        """Where a line ends that matches, or None and a problem."""
        found = re.compile(pattern, re.M).search(self.text, start)
        if found is None:
            self.problems.append(f"{self.name}: it does not have {what} any more")
        return found and found.end()

    def _matches(self, template: str, count: int) -> list[re.Match]:
        """Where the page has this text, or a problem."""
        pattern = PLACE.join(r"\s+".join(map(re.escape, part.split(" "))) for part in template.split("{}"))
        found = list(re.finditer(pattern, self.text))
        if template.count("{}") != count:
            self.problems.append(f"{self.name}: {count} numbers for: {template}")
            return []
        if not found:
            self.problems.append(f"{self.name}: it does not say any more: {template}")
        return found

    def _check_keys(self, row: Callable, above: list[str], cells: list[tuple[int, str]], values: Sequence) -> None:
        """Numbers in the first cells of a row are traced if with others there it is another row, or none."""
        used = set(USED)
        for place, (start, cell) in enumerate(cells):
            for first, end in self.numerals:
                if self.numerals[first, end] or not start <= first < start + len(cell):
                    continue
                other = cell[: end - start - 1] + str((int(self.text[end - 1]) + 5) % 10) + cell[end - start :]
                try:
                    same = row(*above[:place], _plain(other), *above[place + 1 :])
                except NO_RUNS:
                    same = None
                if same != values:
                    self.numerals[first, end] = NAMES_ROW
        USED.intersection_update(used)

    def _compare_row(self, first: int, end: int, values: Sequence[float], label: str) -> None:
        there = [span for span in self.numerals if first <= span[0] < end and not self.numerals[span]]
        if len(there) == len(values):
            for span, value in zip(there, values, strict=True):
                self._compare(span, value)
        else:
            self.problems.append(f"{self.name}: {len(there)} numbers and not {len(values)} in the row {label}")

    def _compare(self, span: Span, value: float) -> None:
        """The number there is this one, to as many digits as it shows."""
        there = self.text[slice(*span)]
        if there.lower() in NUMBERS:
            right = next((word for word, number in NUMBERS.items() if number == value), f"{value:g}")
            same = NUMBERS[there.lower()] == value
            self.words += 1
        else:
            right = f"{value:,.{len(there.partition('.')[2])}f}"
            right = right.replace(",", "") if "," not in there and abs(value) < 10_000 else right
            right = right.replace("-0", "0", 1) if float(right.replace(",", "")) == 0 else right
            right = f"+{right}" if there.startswith("+") else right
            same = there == right
            self.numerals[span] = "traced"
        if not same:
            self.fixes[span] = right
            self._wrong(span, right)

    def _wrong(self, span: Span, right: str) -> None:
        line = self.text.count("\n", 0, span[0]) + 1
        around = " ".join(self.text[max(0, span[0] - 60) : span[1] + 40].split())
        self.problems.append(f"{self.name}:{line}: {self.text[slice(*span)]} should be {right} in: ... {around} ...")

    def _mark(self, rule: str, spans: Iterator[Span] | Sequence[Span]) -> None:
        """Numerals in these places are accounted for, if they were not before."""
        for start, end in spans:
            for span in self.numerals:
                if start <= span[0] and span[1] <= end:
                    self.numerals[span] = self.numerals[span] or rule

    # What it comes to.

    def deviations(self) -> None:
        """Each ± between numbers has its n: in its sentence, or in its table, the table's heading and what stands right
        above and below it."""
        for sign in re.finditer(r"\d ± \d", self.text):
            table = self.text[self.text.rfind("\n", 0, sign.start()) + 1] == "|"
            around = self._around_table(sign.start()) if table else self._sentence(sign.start())
            if not re.search(COUNTED, around):
                line = self.text.count("\n", 0, sign.start()) + 1
                self.problems.append(f"{self.name}:{line}: a ± without n: {' '.join(around.split())[:300]}")

    def _around_table(self, at: int) -> str:
        """A table and the paragraphs before and after it."""
        start = self.text.rfind("\n\n", 0, self.text.rfind("\n\n", 0, at)) + 2
        end = self.text.find("\n\n", self.text.find("\n\n", at) + 2)
        return self.text[start : end if end > 0 else None]

    def _sentence(self, at: int) -> str:
        start = max(self.text.rfind(mark, 0, at) for mark in (". ", ".\n", "\n\n", ": ")) + 1
        end = re.compile(r"[.:](?=\s)|\n\n").search(self.text, at)
        return self.text[start : end.start() if end else None]

    def counts(self) -> Counter:
        """How many result numbers are traced to files, were printed and are in no file, and are left over."""
        rules = Counter(self.numerals.values())
        printed = sum(count for rule, count in rules.items() if rule.startswith(UNTRACED))
        traced = rules["traced"] + rules[NAMES_ROW] + rules[ROUNDED]
        return Counter({"traced": traced, "printed": printed, "left over": rules[""]})

    def summary(self) -> str:
        """How many numerals the page has, and what accounts for them."""
        counts = Counter(self.numerals.values())
        traced, names, rounded, left = (counts.pop(rule, 0) for rule in ("traced", NAMES_ROW, ROUNDED, ""))
        printed = sum(count for rule, count in counts.items() if rule.startswith(UNTRACED))
        of_kinds = {
            f"traced to files, and {self.words} in words": traced,
            NAMES_ROW: names,
            ROUNDED: rounded,
            UNTRACED: printed,
            "no results": sum(counts.values()) - printed,
            "left over": left,
            "wrong": len(self.fixes),
        }
        shown = "; ".join(f"{count} {kind}" for kind, count in of_kinds.items() if count or kind == "left over")
        rules = [f"  {count:4d} {rule}" for rule, count in counts.most_common()]
        return "\n".join([f"{self.name}: {len(self.numerals)} numerals: {shown}", *rules])

    def left_over(self) -> list[str]:
        """A line for each line of the page with numerals that nothing accounts for."""
        found: dict[int, list[str]] = {}
        for (start, end), rule in self.numerals.items():
            if not rule:
                found.setdefault(self.text.count("\n", 0, start) + 1, []).append(self.text[start:end])
        lines = self.text.splitlines()
        return [f"{self.name}:{at}: traced to nothing: {', '.join(n)} in: {lines[at - 1]}" for at, n in found.items()]

    def fixed(self) -> str:
        """The page with every number as it should be."""
        text = self.text
        for (start, end), right in sorted(self.fixes.items(), reverse=True):
            text = text[:start] + right + text[end:]
        return text


def _code(text: str) -> Iterator[Span]:
    """Blocks of code; of those with commands all but the comments, which may tell results."""
    for block in re.finditer(r"^```(\w*)\n.*?^```$", text, re.M | re.S):
        comments = re.compile(r" # .*$", re.M).finditer(text, *block.span()) if block[1] == "bash" else ()
        start = block.start()
        for comment in comments:
            yield start, comment.start()
            start = comment.end()
        yield start, block.end()


def _end_of_table(text: str, start: int) -> int:
    """Where the table ends that has a line at ``start``."""
    end = re.compile(r"\n(?!\|)").search(text, start)
    return end.start() if end else len(text)


def _plain(cell: str) -> str:
    """A cell without Markdown: links by their text, no stars."""
    return re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", cell).replace("*", "").replace("`", "").strip()
