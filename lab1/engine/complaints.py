"""What is wrong with a command line, in one line that says what would be right.

tyro's own complaints are boxes of several lines that speak of types, and it has no public way to ask what it stumbled
over. So a command line that it has refused is read once more here, flag by flag.
"""

import dataclasses
import difflib
import types
import typing
from pathlib import Path
from typing import Any, Literal, Union

LISTED = "(--help lists the flags)"


def complaint(config_class: type, arguments: list[str]) -> str | None:
    """The first thing that is wrong with these arguments of a dataclass's flags; None where nothing is found."""
    annotations = typing.get_type_hints(config_class)
    fields = {"--" + field.name.replace("_", "-"): field for field in dataclasses.fields(config_class)}
    switches = [name for name, field in fields.items() if annotations[field.name] is bool]
    known = [*fields, *(f"--no-{name[2:]}" for name in switches), "--help"]
    examples = config_class()
    for name, values in groups(arguments):
        if name is None:
            return f"{values[0]}: which flag is it for? {LISTED}"
        if name not in known:
            return f"unknown flag {name}{_guess(name, known)} {LISTED}"
        if name not in fields or name in switches:
            wrong = (values, "this flag takes no value") if values else None
        else:
            wrong = _wrong(values, annotations[fields[name].name], getattr(examples, fields[name].name))
        if wrong is not None:
            words, right = wrong
            stray = next((word for word in words if word.startswith("-") and word[1:2].isalpha()), None)
            if stray is not None:
                return f"unknown flag {stray}{_guess(stray, known)} {LISTED}"
            return f"{' '.join([name, *words])}: {right}"
    return None


def groups(arguments: list[str]) -> list[tuple[str | None, list[str]]]:
    """Each flag with the words up to the next one. A flag begins with two dashes; ``--flag=value`` is a flag and its
    value; words before the first flag have None for it.

    >>> groups(["a", "--epochs=3", "--hidden", "128", "64"])
    [(None, ['a']), ('--epochs', ['3']), ('--hidden', ['128', '64'])]
    """
    found: list[tuple[str | None, list[str]]] = []
    for word in arguments:
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            found.append((name.replace("_", "-"), [value] if equals else []))
        elif found:
            found[-1][1].append(word)
        else:
            found.append((word, []) if word.startswith("-") else (None, [word]))
    return found


def _wrong(values: list[str], annotation: Any, example: Any) -> tuple[list[str], str] | None:
    """Which of a flag's values are wrong, and what would be right; None where they all are.

    annotation: the flag's type, such as ``int | None`` or ``tuple[float, ...]``.
    example: a value that would be right, or None or ().
    """
    if typing.get_origin(annotation) in (Union, types.UnionType):
        annotation = next(each for each in typing.get_args(annotation) if each is not type(None))
    several = typing.get_origin(annotation) is tuple
    kind = typing.get_args(annotation)[0] if several else annotation
    if not several and len(values) > 1:
        return values, "one value is needed" + ("; write quotes around one with spaces" if kind in (str, Path) else "")
    misfits = [value for value in values if not _fits(value, kind)]
    if not misfits and (values or several):
        return None
    if typing.get_origin(kind) is Literal:
        *others, last = map(str, typing.get_args(kind))
        return misfits, f"use {', '.join(others)}{' or ' if others else ''}{last}"
    if kind not in (int, float):
        return misfits, "a value is needed"
    if several:
        shown, words = " ".join(map(str, example or (1, 2))), ("whole numbers are", "numbers are")
    else:
        shown, words = str(example or (10 if kind is int else 0.001)), ("a whole number is", "a number is")
    return misfits, f"{words[kind is float]} needed, such as {shown}"


def _fits(value: str, kind: Any) -> bool:
    if typing.get_origin(kind) is Literal:
        return value in ("None", *map(str, typing.get_args(kind)))
    try:
        return kind not in (int, float) or kind(value) is not None
    except ValueError:
        return value == "None"  # tyro takes it where a flag may be None


def _guess(name: str, known: list[str]) -> str:
    """The flag that was meant, as a question: one whose words begin with these letters (``--lr``), one that is longer
    or shorter (``--environment``), or one that is spelled alike."""
    name = name.lstrip("-")
    flags = [flag[2:] for flag in known if name.startswith("no-") or not flag.startswith("--no-")]
    near = [flag for flag in flags if "".join(word[:1] for word in flag.split("-")) == name]
    near += [flag for flag in flags if len(name) > 2 and (flag.startswith(name) or name.startswith(flag))]
    near += difflib.get_close_matches(name, flags, n=1)
    return f"; did you mean --{near[0]}?" if near else ""
