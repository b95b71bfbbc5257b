"""Ranking documents for queries: BM25, how to put two rankings together, and what a ranking is measured by."""

import math
import re
from collections.abc import Sequence

import numpy as np
import torch
from scipy.sparse import csr_array
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, CountVectorizer
from torch import Tensor

from lab1.engine.config import UsageError

WORD = re.compile(r"[^\W_]+")


def words(text: str) -> list[str]:
    """The words of a text in lower case, without English stop words and plural endings (Harman's S-stemmer, 1991)."""
    return [singular(word) for word in WORD.findall(text.lower()) if word not in ENGLISH_STOP_WORDS]


def singular(word: str) -> str:
    """``theories -> theory``, ``plates -> plate``, ``wings -> wing``; ``stress`` and ``radius`` stay."""
    if word.endswith("ies") and not word.endswith(("eies", "aies")):
        return word[:-3] + "y"
    if word.endswith("es") and not word.endswith(("aes", "ees", "oes")):
        return word[:-1]
    return word[:-1] if word.endswith("s") and not word.endswith(("us", "ss")) else word


class BM25:
    """Okapi BM25 (Robertson & Zaragoza 2009, eq. 3.15), with the inverse document frequency that Lucene uses, as it is
    never negative:

        score(q, d) = sum over words w of q:  idf(w) * tf * (k1 + 1) / (tf + k1 * (1 - b + b * |d| / mean |d|))
        idf(w) = ln(1 + (N - n(w) + 0.5) / (n(w) + 0.5))

    with tf how often w is in d, n(w) how many of the N documents have it, and |d| the number of words in d.
    """

    def __init__(self, documents: Sequence[str]):
        """Raises UsageError where the documents hold no word that BM25 could look for."""
        self.vectorizer = CountVectorizer(analyzer=words)
        try:
            self.counts = self.vectorizer.fit_transform(documents).tocoo()  # [N, V]
        except ValueError as error:
            raise UsageError(f"BM25 finds no words in the documents: {error}") from None
        held_by = np.bincount(self.counts.col, minlength=self.counts.shape[1])
        self.idf = np.log1p((len(documents) - held_by + 0.5) / (held_by + 0.5))
        lengths = np.bincount(self.counts.row, self.counts.data, minlength=len(documents))
        self.lengths = lengths / max(lengths.mean(), 1e-9)

    def scores(self, queries: Sequence[str], k1: float = 1.2, b: float = 0.75) -> Tensor:
        """The score of every document for every query, ``[Q, N]``."""
        tf, row, column = self.counts.data, self.counts.row, self.counts.col
        weights = self.idf[column] * tf * (k1 + 1) / (tf + k1 * (1 - b + b * self.lengths[row]))
        table = csr_array((weights, (row, column)), self.counts.shape)
        found = csr_array(self.vectorizer.transform(queries)) @ table.T
        return torch.from_numpy(found.toarray())


def standardised(scores: Tensor) -> Tensor:
    """Scores ``[Q, N]`` with mean 0 and standard deviation 1 over the documents of each query."""
    return (scores - scores.mean(1, keepdim=True)) / scores.std(1, keepdim=True).clamp(min=1e-9)


def hybrid(first: Tensor, second: Tensor, weight: float) -> Tensor:
    """Two systems' scores ``[Q, N]``, standardised and added: ``weight`` of the first, the rest of the second."""
    return weight * standardised(first) + (1 - weight) * standardised(second)


def relevance(judgements: dict[str, dict[str, int]], documents: Sequence[str]) -> Tensor:
    """Judgements as a table ``[Q, N + U]``, queries in their own order; what was not judged is 0, not relevant. The
    last U columns are those judged documents that are none of the N."""
    unknown = (name for scores in judgements.values() for name in scores)
    places = {name: place for place, name in enumerate(dict.fromkeys([*documents, *unknown]))}
    table = torch.zeros(len(judgements), len(places), dtype=torch.float64)
    for query, scores in enumerate(judgements.values()):
        for document, score in scores.items():
            table[query, places[document]] = max(score, 0)
    return table


def measures(scores: Tensor, relevant: Tensor, above: float = -math.inf) -> dict[str, Tensor]:
    """What each query's ranking is worth, ``[Q]`` each, from scores ``[Q, N]`` and graded relevance ``[Q, N + U]``, in
    which U documents are judged but not there to be found. Documents of the same score keep their order; those with a
    score of ``above`` or less, such as without a word of the query, are not found.

    nDCG@10: the sum over the first ten of relevance / log2(1 + rank), as a share of the best ranking's (Järvelin &
    Kekäläinen 2002, with linear gain as in trec_eval and BEIR). Recall@100: the share of the relevant documents that is
    among the first hundred. MRR: 1 / rank of the first relevant one. All are 0 where nothing relevant is found.
    """
    order = scores.argsort(dim=1, descending=True, stable=True)
    found = relevant.gather(1, order) * (scores.gather(1, order) > above)
    hits = found > 0
    first, best = hits.int().argmax(1), relevant.sort(1, descending=True).values
    return {
        "ndcg@10": discounted_gain(found, 10) / discounted_gain(best, 10).clamp(min=1e-9),
        "recall@100": hits[:, :100].sum(1) / (relevant > 0).sum(1).clamp(min=1),
        "mrr": hits.any(1) / (1 + first.double()),
    }


def discounted_gain(found: Tensor, count: int) -> Tensor:
    """The discounted cumulative gain ``[Q]`` of the first ``count`` of ranked relevances ``[Q, N]``."""
    found = found[:, :count]
    return (found / torch.log2(torch.arange(2, found.shape[1] + 2, dtype=torch.float64))).sum(1)
