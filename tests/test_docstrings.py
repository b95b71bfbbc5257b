"""Every script says first what it asks, what to type, how long that takes and what to expect. The README's table of
exercises says the same."""

import ast
import re
import subprocess
import sys

import pytest

from lab1.engine.config import REPOSITORY

HEAD = re.compile(
    r"(?P<question>.+)\n\n"
    r"Command:  (?P<command>.+)\n"
    r"Time:     (?P<time>.+)\n"
    r"Expect:   (?P<expect>.+)(?:\n\n|$)"
)
SCRIPTS = sorted(
    path.relative_to(REPOSITORY).as_posix()
    for lab in ("lab1", "lab2", "lab3")
    for path in (REPOSITORY / lab).glob("*.py")
    if 'if __name__ == "__main__":' in path.read_text(encoding="utf-8")
)
EXERCISES = [script for script in SCRIPTS if not script.endswith("/plot.py")]
ROWS = [line for line in (REPOSITORY / "README.md").read_text(encoding="utf-8").splitlines() if line.startswith("|")]


def head(script: str) -> dict[str, str]:
    """The question, command, time and expectation that a script's docstring opens with."""
    docstring = ast.get_docstring(ast.parse((REPOSITORY / script).read_text(encoding="utf-8"))) or ""
    found = HEAD.match(docstring)
    assert found, f"{script}: its docstring begins with a question, an empty line, then Command, Time and Expect"
    return found.groupdict()


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_opens_with_question_command_time_and_expectation(script):
    opening = head(script)
    assert opening["question"].endswith("." if script.endswith("/plot.py") else "?")
    assert re.fullmatch(rf"python {re.escape(script)}( .+)?", opening["command"])


def test_the_help_keeps_these_lines_apart():
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "lab1/train_mlp.py"), "--help"], capture_output=True, text=True, timeout=60
    )
    opening = head("lab1/train_mlp.py")
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert opening["question"] in lines
    for label, part in (("Command:  ", "command"), ("Time:     ", "time"), ("Expect:   ", "expect")):
        assert label + opening[part] in lines


def test_the_table_of_exercises_says_what_the_scripts_say():
    told = set()
    for script in EXERCISES:
        opening = head(script)
        for row in ROWS:
            if f"`{opening['command']}`" in row:
                told.add(script)
                assert opening["time"] in row, f"{script} takes {opening['time']}: {row}"
                assert opening["expect"] in row, f"{script} leads one to expect {opening['expect']}: {row}"
    assert told == set(EXERCISES)
