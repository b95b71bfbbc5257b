"""How a text is decoded from a language model, and measures of what comes out: how much of it is new."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

Row = dict[str, Any]


def strategies(temperature: float, top_k: int, top_p: float) -> dict[str, Row]:
    """Ways to decode, by name: the settings of ``GPT.generate``."""
    return {
        "greedy": {"greedy": True},
        "sampling": {},
        f"temperature {temperature:g}": {"temperature": temperature},
        f"top-k {top_k}": {"top_k": top_k},
        f"top-p {top_p:g}": {"top_p": top_p},
    }


def ngrams(text: str, n: int) -> list[tuple[str, ...]]:
    """Each n successive words of a text; words are what white space divides."""
    words = text.split()
    return list(zip(*(words[start:] for start in range(n)), strict=False))


def distinct(texts: Sequence[str], n: int) -> float:
    """Different n-grams of all texts together, as a share of all their n-grams (Li et al. 2016). It falls with the
    texts' length: only texts of one length can be compared. 0 where there is no n-gram."""
    found = [ngram for text in texts for ngram in ngrams(text, n)]
    return len(set(found)) / max(1, len(found))


def repetition(texts: Sequence[str], n: int = 4) -> float:
    """How many of a text's n-grams occurred earlier in the same text, as a share; the mean over texts (Welleck et al.
    2020). A text of fewer than n words repeats nothing."""
    return sum(1 - distinct([text], n) if ngrams(text, n) else 0.0 for text in texts) / len(texts)


def measures(texts: Sequence[str], together: bool = True) -> dict[str, float]:
    """What ``results.json`` says of the texts that one strategy wrote: of all ``together`` or, where they begin alike
    and so repeat each other, the mean over each alone."""
    if not together:
        alone = [measures([text]) for text in texts]
        return {name: fmean(row[name] for row in alone) for name in alone[0]}
    return {"distinct_1": distinct(texts, 1), "distinct_2": distinct(texts, 2), "repetition": repetition(texts)}


def token_lengths(tokenizer: Any, text: str, lines: int = 200) -> Row:
    """How long a text is in tokens, and in characters and tokens how long its first ``lines`` lines are, without those
    that are empty."""
    count = len(tokenizer.encode(text))
    some = [line for line in text.splitlines() if line.strip()][:lines]
    return {
        "vocabulary": len(tokenizer),
        "characters": len(text),
        "tokens": count,
        "characters_per_token": len(text) / count,
        "lines": [[len(line), len(tokenizer.encode(line))] for line in some],
    }


def token_table(rows: dict[str, Row]) -> str:
    """Lengths by tokenizer, as people read them."""
    lines = [f"{'tokenizer':28s}{'vocabulary':>11s}{'characters':>12s}{'tokens':>10s}{'characters a token':>20s}"]
    for name, row in rows.items():
        size = f"{row['vocabulary']:11,}{row['characters']:12,}{row['tokens']:10,}"
        lines.append(f"{name:28s}{size}{row['characters_per_token']:20.2f}")
    return "\n".join(lines)


def measure_table(rows: dict[str, Row]) -> str:
    """Measures by strategy, as people read them."""
    lines = [f"{'decoding':28s}{'distinct-1':>11s}{'distinct-2':>12s}{'repeated 4-grams':>18s}"]
    for name, row in rows.items():
        lines.append(f"{name:28s}{row['distinct_1']:11.1%}{row['distinct_2']:12.1%}{row['repetition']:18.1%}")
    return "\n".join(lines)
