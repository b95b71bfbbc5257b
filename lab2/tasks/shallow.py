"""Linear classifiers on fixed features of texts: words counted (TF-IDF), or the hidden states of a frozen encoder.

Validation chooses among all settings; the test set is classified once, by the chosen one.
"""

import dataclasses
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lab1.engine.config import UsageError
from lab1.engine.metrics import confusion_matrix
from lab2.tasks.datasets import PARTS, TaskData

CLASSIFIERS = ("logistic", "svm")
# Inverse strengths of regularisation to choose from, for rows of length 1 and for standardised columns.
TFIDF_C, FEATURE_C = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0), (0.001, 0.01, 0.1)
Table = Any  # a row an example: an array, or a sparse one


@dataclasses.dataclass
class Chosen:
    """The setting with the best validation accuracy, the first of equals, and what it says of the test set."""

    settings: dict[str, Any]
    tried: list[dict[str, Any]]
    parameters: int
    confusion: dict[str, Tensor]  # of validation and test, [true, predicted]


def tfidf_tables(data: TaskData) -> Iterator[tuple[dict[str, Any], dict[str, Table]]]:
    """Each part as weighted counts of words, and of words and pairs of neighbours: log-scaled counts times inverse
    document frequency, of length 1 a text (Salton & Buckley 1988).

    Raises:
        UsageError: where the texts hold no words.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    for longest in (1, 2):
        vectorizer = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, longest), token_pattern=r"(?u)\b\w+\b")
        try:
            tables = {"train": vectorizer.fit_transform(data.parts["train"][0])}
        except ValueError as error:
            if "empty vocabulary" not in str(error):
                raise
            raise UsageError(f"{data.name}: there is no word to count in its training texts: {error}") from None
        tables |= {part: vectorizer.transform(data.parts[part][0]) for part in PARTS[1:]}
        yield {"words": longest}, tables


def feature_tables(
    features: dict[str, Tensor], sizes: Sequence[int], layer: int | None = None, pooling: str | None = None
) -> Iterator[tuple[dict[str, Any], dict[str, Table]]]:
    """Each part as hidden states, layer by layer and for each pooling, standardised by the training part.

    Args:
        features: by pooling ``[L + 1, N, D]``, the parts one after the other (``lab2.tasks.encoders.hidden_features``).
        sizes: the number of texts in each part.
        layer, pooling: only this one.
    """
    for kind, states in features.items():
        for number, state in enumerate(states):
            if layer in (None, number) and pooling in (None, kind):
                parts = dict(zip(PARTS, state.split(list(sizes)), strict=True))
                mean, std = parts["train"].mean(0), parts["train"].std(0).clamp(min=1e-6)
                tables = {part: ((rows - mean) / std).numpy() for part, rows in parts.items()}
                yield {"pooling": kind, "layer": number}, tables


def length_features(items: Sequence[tuple[str, list[str]]]) -> np.ndarray:
    """How long each choice of each question is, one choice after the other, ``[choices, 4]``: in characters and in
    words, both less the mean of its question; and whether it is the longest, and the shortest, of its question."""
    rows = []
    for _, choices in items:
        sizes = np.array([(len(choice), len(choice.split())) for choice in choices], dtype=float)  # [C, 2]
        ends = sizes[:, :1] == (sizes[:, 0].max(), sizes[:, 0].min())
        rows.append(np.hstack([sizes - sizes.mean(0), ends]))
    return np.vstack(rows)


def answer_by_length(data: TaskData) -> tuple[dict[str, float], int]:
    """Answer by the lengths of the choices alone: logistic regression says of each how likely it is the right one, and
    of a question's choices the likeliest is the answer. Returns the accuracy by part, and how many parameters learn."""
    rows = {part: length_features(data.parts[part][0]) for part in PARTS}
    scale = rows["train"].std(0).clip(min=1e-6)
    right = [place == label for (_, choices), label in pairs(data, "train") for place in range(len(choices))]
    model = fit("logistic", 1.0, rows["train"] / scale, np.array(right))
    found = {}
    for part in PARTS[1:]:
        scores, start, correct = model.decision_function(rows[part] / scale), 0, 0
        for (_, choices), label in pairs(data, part):
            correct += int(scores[start : start + len(choices)].argmax()) == label
            start += len(choices)
        found[part] = correct / len(data.parts[part][0])
    return found, model.coef_.size + model.intercept_.size


def pairs(data: TaskData, part: str) -> Iterator[tuple[Any, int]]:
    """The items of a part, each with its label."""
    items, labels = data.parts[part]
    return zip(items, labels.tolist(), strict=True)


def choose(
    tables: Iterable[tuple[dict[str, Any], dict[str, Table]]],
    data: TaskData,
    strengths: Sequence[float],
    classifiers: Sequence[str] = CLASSIFIERS,
) -> Chosen:
    """Fit each classifier with each strength on each table of features, and choose by validation accuracy."""
    labels = {part: data.parts[part][1] for part in PARTS}
    best, tried = None, []
    for settings, parts in tables:
        for name in classifiers:
            for strength in strengths:
                model = fit(name, strength, parts["train"], labels["train"].numpy())
                accuracy = float((model.predict(parts["validation"]) == labels["validation"].numpy()).mean())
                tried.append(settings | {"classifier": name, "C": strength, "accuracy": accuracy})
                if best is None or accuracy > best[0]["accuracy"]:
                    best = tried[-1], model, parts
    chosen, model, parts = best
    confusion = {
        part: confusion_matrix(torch.from_numpy(model.predict(parts[part])), labels[part], len(data.classes))
        for part in PARTS[1:]
    }
    return Chosen(chosen, tried, model.coef_.size + np.size(model.intercept_), confusion)


def fit(name: str, strength: float, rows: Table, labels: np.ndarray) -> Any:
    """Logistic regression or a linear support vector machine (squared hinge loss) from scikit-learn."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import LinearSVC

    if name == "logistic":
        model = LogisticRegression(C=strength, max_iter=1000)
    else:
        # The dual problem for as many columns as rows or more, the primal for fewer; both end at the same place.
        model = LinearSVC(C=strength, dual=rows.shape[1] >= rows.shape[0], random_state=0, max_iter=2000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the weakest strengths, which are seldom chosen
        return model.fit(rows, labels)
