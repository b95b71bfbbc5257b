"""Multiple choice: questions, their choices, and the place of the right one, from the layouts of SWAG, CODAH,
HellaSwag, ARC, CommonsenseQA and OpenBookQA as they are on the hub, and from files of one's own."""

import dataclasses
import re
import sys
from pathlib import Path
from typing import Any

import torch

from lab1.engine.config import UsageError, require
from lab1.engine.distributed import rank
from lab1.engine.randomness import random_generator
from lab2.tasks.datasets import TaskData, load_parts, split
from lab2.tasks.files import several

HIDDEN = (None, "", -1, "-1")  # what stands where a label is kept secret
LINE = '{"question": "The sky is", "choices": ["blue", "green"], "label": 0}'
ENDINGS = tuple(f"ending{place}" for place in range(4))


@dataclasses.dataclass
class Question:
    """A question with its choices as it stands in a file. ``names`` are what the label calls the choices (A, B, ...),
    where the file says so."""

    text: Any
    choices: Any
    label: Any
    names: list[Any] | None = None


def load_choices(dataset: str, data_folder: Path, download: bool = True) -> TaskData:
    """Questions with two or more choices, not always the same number: the columns ``question``, ``choices``, ``label``,
    or those of one of the data sets above.

    A part that hides all its labels is left out, and ``split`` makes another.

    Raises:
        UsageError: where the data set cannot be had, has other columns, or a question lacks something; the message
            names the question, counted from 1.
    """
    name, tables = load_parts(dataset, data_folder, download)
    parts = {}
    for part, found in tables.items():
        questions = [as_question(row) for row in found.rows]
        if None in questions:
            number = questions.index(None)
            columns = f"row {number + 1}, only {list(found.rows[number])}"
            raise UsageError(f"{dataset}, {part}: no question, choices and label in {columns}; a line: {LINE}")
        for number, question in enumerate(questions, 1):
            check(question, f"{dataset}, {part}: question {number}")
        parts[part] = questions
    hidden = tuple(part for part, questions in parts.items() if all(q.label in HIDDEN for q in questions))
    require("train" not in hidden, f"{dataset}: all labels of its train part are hidden or missing")
    parts = {part: questions for part, questions in parts.items() if part not in hidden}
    first = first_place([q for questions in parts.values() for q in questions], dataset)
    examples = {}
    for part, questions in parts.items():
        missing = [str(number) for number, question in enumerate(questions, 1) if question.label in HIDDEN]
        require(not missing, f"{dataset}, {part}: {len(missing)} questions have no label: {several(missing)}")
        labels = []
        for number, question in enumerate(questions, 1):
            try:
                labels.append(place(question, first))
            except UsageError as error:
                raise UsageError(f"{dataset}, {part}: question {number}: {error}") from None
        examples[part] = [(question.text, list(question.choices)) for question in questions], torch.tensor(labels)
    most = max(len(choices) for items, _ in examples.values() for _, choices in items)
    filled, sources = split(examples, name, hidden)
    return TaskData(name, [chr(ord("A") + place) for place in range(most)], filled, sources)


def as_question(row: dict[str, Any]) -> Question | None:
    """A row of any layout; None where it has none of them."""
    if row.keys() >= {*ENDINGS, "sent1", "sent2", "label"}:  # SWAG
        both = f"{row['sent1']} {row['sent2']}".strip()
        return Question(both, [row[name] for name in ENDINGS], row["label"], numbered(ENDINGS))
    if row.keys() >= {"question", "candidate_answers", "correct_answer_idx"}:  # CODAH
        return Question(row["question"], row["candidate_answers"], row["correct_answer_idx"])
    if row.keys() >= {"ctx", "endings", "label"}:  # HellaSwag
        return Question(row["ctx"], row["endings"], row["label"], numbered(row["endings"]))
    if "answerKey" in row and isinstance(row.get("choices"), dict):  # ARC and CommonsenseQA, OpenBookQA
        text, choices = row.get("question", row.get("question_stem")), row["choices"]
        return Question(text, choices.get("text"), row["answerKey"], choices.get("label"))
    if row.keys() >= {"question", "choices", "label"}:
        return Question(row["question"], row["choices"], row["label"])
    return None


def numbered(choices: Any) -> list[str] | None:
    """0, 1, ...: what the labels of SWAG and HellaSwag call the choices."""
    return [str(place) for place in range(len(choices))] if isinstance(choices, (list, tuple)) else None


def chance(items: list[tuple[str, list[str]]]) -> float:
    """The accuracy that guessing has on these questions."""
    return sum(1 / len(choices) for _, choices in items) / len(items)


def with_random_labels(data: TaskData, seed: int) -> TaskData:
    """The same questions, but which choice of a training question is right is drawn at random: of the task nothing can
    be learned from them. Validation and test are left as they are."""
    items, _ = data.parts["train"]
    counts = torch.tensor([len(choices) for _, choices in items])
    drawn = torch.rand(len(items), generator=random_generator(seed, 0, 1), dtype=torch.float64)
    return dataclasses.replace(data, parts=data.parts | {"train": (items, (drawn * counts).long())})


def check(question: Question, where: str) -> None:
    """Raise UsageError for a question without a text, or without two choices that are texts."""
    choices = question.choices
    require(isinstance(question.text, str), f"{where}: its text is {question.text!r}")
    require(isinstance(choices, list), f"{where}: its choices are {choices!r:.60}, not a list of texts")
    strange = [choice for choice in choices if not isinstance(choice, str)]
    require(not strange, f"{where}: one of its choices is {strange[:1]}, not a text")
    require(len(choices) >= 2, f"{where}: it has {len(choices)} choice{'s' * (len(choices) != 1)}; two are needed")
    names = question.names
    fits = names is None or (isinstance(names, list) and len(names) == len(choices) == len(set(map(str, names))))
    require(fits, f"{where}: its choices have the labels {names!r}; each needs one of its own")


def first_place(questions: list[Question], dataset: str) -> int:
    """Whether places are counted from 0 or from 1: from 1 where no label is 0, one is the number of its choices, and
    none is beyond it. Only whole numbers tell, and only where the file does not name the choices."""
    counted = [(whole(q.label), len(q.choices)) for q in questions if q.names is None]
    counted = [(label, count) for label, count in counted if label is not None]
    if not counted or min(label for label, _ in counted) < 1 or not any(label == count for label, count in counted):
        return 0
    if any(label > count for label, count in counted):
        return 0
    if rank() == 0:
        print(f"{dataset}: no label is 0, and some are the number of choices: counted from 1", file=sys.stderr)
    return 1


def place(question: Question, first: int = 0) -> int:
    """The place of the right choice, from 0: of a label that is a place counted from ``first``, a letter, the choice's
    own text, or one of the question's names for its choices.

    Raises:
        UsageError: where the label is none of these, or could be two of them.
    """
    label, choices = question.label, question.choices
    if question.names is not None:
        names = [str(name) for name in question.names]
        number = whole(label)
        word = str(label).strip() if number is None else str(number)
        require(word in names, f"the label {label!r} is none of {', '.join(names)}")
        return names.index(word)
    number, found = whole(label), set()
    if number is not None:
        found |= {number - first} & set(range(len(choices)))
    if isinstance(label, str):
        letter = label.strip().upper()
        if re.fullmatch("[A-Z]", letter):
            found |= {ord(letter) - ord("A")} & set(range(len(choices)))
        found |= {each for each, choice in enumerate(choices) if choice == label}
    beyond = f"the label {label!r} is beyond {len(choices)} choices, counted from {first}"
    require(number is None or bool(found), beyond)
    require(bool(found), f"the label {label!r} is neither a place, nor a letter, nor the text of a choice")
    require(len(found) == 1, f"the label {label!r} could be any of choices {sorted(found)}; write the place, from 0")
    return found.pop()


def whole(label: Any) -> int | None:
    """The whole number that a label is or spells; None where it is no such thing."""
    if isinstance(label, bool) or not isinstance(label, (int, float, str)):
        return None
    match = re.fullmatch(r"\s*(-?\d{1,9})(\.0)?\s*", str(label))
    return int(match[1]) if match else None
