"""Files of a run: whole or not there, read with care, renamed again where Windows refuses for a moment."""

import errno
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from lab1.engine import files, logbook
from lab1.engine.config import BEING_MADE, UsageError, find_run
from lab1.engine.files import new_folder, read_object, replace, that_fit, write_text


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def refusing(monkeypatch, times: int) -> list[tuple]:
    """Let ``os.replace`` refuse so many times, as Windows does while a file is open; returns the calls."""
    calls, rename = [], os.replace

    def refuse(*paths):
        calls.append(paths)
        if len(calls) <= times:
            raise PermissionError(errno.EACCES, "Access is denied", str(paths[1]))
        rename(*paths)

    monkeypatch.setattr(os, "replace", refuse)
    return calls


def test_a_rename_that_windows_refuses_for_a_moment_is_tried_again(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "WINDOWS", True)
    calls = refusing(monkeypatch, 3)
    (tmp_path / "a").write_text("new", encoding="utf-8")
    (tmp_path / "b").write_text("old", encoding="utf-8")
    replace(tmp_path / "a", tmp_path / "b")
    assert len(calls) == 4
    assert names(tmp_path) == ["b"]
    assert (tmp_path / "b").read_text(encoding="utf-8") == "new"


def test_a_rename_that_windows_keeps_refusing_fails_after_a_while(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "WINDOWS", True)
    monkeypatch.setattr(files, "PATIENCE", 0.1)
    calls = refusing(monkeypatch, 10**6)
    (tmp_path / "a").write_text("new", encoding="utf-8")
    with pytest.raises(PermissionError, match="Access is denied"):
        replace(tmp_path / "a", tmp_path / "b")
    assert 2 <= len(calls) <= 7


def test_elsewhere_a_refusal_is_final(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "WINDOWS", False)
    calls = refusing(monkeypatch, 1)
    with pytest.raises(PermissionError):
        replace(tmp_path / "a", tmp_path / "b")
    assert len(calls) == 1


@pytest.mark.parametrize("fails", ["fsync", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EACCES], ids=errno.errorcode.get)
def test_a_file_that_cannot_be_written_stays_what_it_was(tmp_path, monkeypatch, fails, code):
    def fail(*_):
        raise OSError(code, os.strerror(code))

    path = tmp_path / "results.json"
    write_text("old", path)
    with monkeypatch.context() as patch, pytest.raises(OSError, match=os.strerror(code)) as caught:
        patch.setattr(os, fails, fail)
        write_text("new", path)
    assert (caught.value.errno, caught.value.filename) == (code, str(path))
    assert path.read_text(encoding="utf-8") == "old"
    assert names(tmp_path) == ["results.json"]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "it is empty"),
        ("[1, 2]", "it holds a list"),
        ("3", "it holds a number"),
        ("true", "it holds true or false"),
        ("null", "it holds nothing"),
        ('"text"', "it holds a text"),
        ('{"a": 1', "Expecting ',' delimiter"),
        ('{"a": ' + "[" * 100_000, "it is nested too deeply"),
        (b"\xff\xfe{}", "can't decode byte 0xff"),
    ],
)
def test_what_is_no_object_is_refused_in_one_line(tmp_path, content, why):
    path = tmp_path / "config.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UsageError) as caught:
        read_object(path)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{path} cannot be read: ")
    assert why in line


def test_folders_links_and_files_that_are_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_object(tmp_path / "results.json")
    with pytest.raises(UsageError, match=r"cannot be read: (Is a directory|Permission denied)"):
        read_object(tmp_path)
    (tmp_path / "link.json").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="it is a link to a file that is not there"):
        read_object(tmp_path / "link.json")


def test_a_reason_is_one_line_and_whole():
    assert files.reason(ValueError("no\nmore")) == "no"
    assert files.reason(RuntimeError("Error(s) in loading:\n\tsize mismatch for a\n\tb")) == (
        "Error(s) in loading: size mismatch for a"
    )
    assert files.reason(KeyError("a")) == "'a' is missing"
    assert files.reason(OSError()) == "OSError"


def test_runs_that_do_not_fit_are_passed_over_by_name(capsys):
    runs = [{"name": "a", "test": {"loss": 1.0}}, {"name": "b"}, {"name": "c", "test": [1]}, {"name": "d", "test": {}}]
    assert that_fit(lambda some: [run["test"]["loss"] for run in some], runs) == runs[:1]
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines] == [f"passing over {name}" for name in "bcd"]
    assert lines[0].endswith("'test' is missing")


def test_a_taken_name_gets_a_number_and_the_folder_is_whole(tmp_path):
    parent = tmp_path / "model"
    made = [logbook.new_run_folder(parent, "mlp", {"seed": seed}) for seed in range(2)]
    (parent / "mlp-3").mkdir()
    (parent / "mlp-4").write_text("a file", encoding="utf-8")
    (parent / "mlp-5").symlink_to(tmp_path / "nowhere")
    made.append(logbook.new_run_folder(parent, "mlp", {"seed": 2}))
    assert [folder.name for folder in made] == ["mlp", "mlp-2", "mlp-6"]
    assert [json.loads((folder / "config.json").read_text(encoding="utf-8")) for folder in made] == [
        {"seed": n} for n in range(3)
    ]
    assert names(parent) == ["mlp", "mlp-2", "mlp-3", "mlp-4", "mlp-5", "mlp-6"]
    assert list((parent / "mlp-3").iterdir()) == []
    (tmp_path / "other").mkdir()
    assert stat.S_IMODE(made[0].stat().st_mode) == stat.S_IMODE((tmp_path / "other").stat().st_mode)


@pytest.mark.parametrize("fails", ["mkdir", "fsync", "replace"])
def test_a_folder_that_cannot_be_made_leaves_nothing(tmp_path, monkeypatch, fails):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, fails, full)
    with pytest.raises(UsageError, match=r"--model-dir .*mlp cannot be made: No space left on device$"):
        logbook.new_run_folder(tmp_path, "mlp", {"seed": 0})
    assert names(tmp_path) == []


def test_a_folder_that_is_being_made_is_no_run(tmp_path):
    new_folder(tmp_path, "mlp", lambda folder: write_text("{}", folder / "config.json"))
    (tmp_path / "mlp").rename(tmp_path / ".mlp.tmp-0123abcd")
    with pytest.raises(UsageError, match="it holds no run yet"):
        find_run("mlp", tmp_path)


def fork_in_a_process(script: str, folder: Path) -> list[str]:
    """The lines that a script prints which forks children; it imports nothing that has threads."""
    done = subprocess.run([sys.executable, "-c", script, str(folder)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


# A child for each call that Python makes while it makes a folder, killed at that call.
KILLED = """
import os, signal, sys
from pathlib import Path
from lab1.engine.files import new_folder, write_text

def fill(folder):
    write_text('{"seed": 0}', folder / "config.json")

for call in range(1, 10_000):
    parent = Path(sys.argv[1]) / str(call)
    child = os.fork()
    if child == 0:
        left = call

        def strike(frame, event, what):
            global left
            left -= event in ("call", "c_call", "return", "c_return")
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.setprofile(strike)
        new_folder(parent, "mlp", fill)
        sys.setprofile(None)
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        break
print(call)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked")
def test_killed_at_any_call_the_folder_is_whole_or_not_there(tmp_path):
    (calls,) = map(int, fork_in_a_process(KILLED, tmp_path))
    assert calls > 100
    whole = []
    for call in range(1, calls + 1):
        parent = tmp_path / str(call)
        for folder in parent.iterdir() if parent.exists() else ():
            if BEING_MADE.fullmatch(folder.name):
                continue
            assert folder.name == "mlp"
            assert json.loads((folder / "config.json").read_text(encoding="utf-8")) == {"seed": 0}
            whole.append(call)
    assert calls in whole
    assert whole == list(range(min(whole), calls + 1))


RACED = """
import os, sys
from pathlib import Path
from lab1.engine.files import new_folder, write_text

parent = Path(sys.argv[1])
for race in range(50):
    reading, writing = os.pipe()
    children = []
    for runner in range(3):
        child = os.fork()
        if child == 0:
            os.close(writing)
            os.read(reading, 1)  # returns when the parent closes its end: all start at once
            fill = lambda folder: write_text(f'{{"runner": {runner}}}', folder / "config.json")
            new_folder(parent, f"race{race}", fill)
            os._exit(0)
        children.append(child)
    os.close(writing)
    os.close(reading)
    assert all(os.waitpid(child, 0)[1] == 0 for child in children)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked")
def test_processes_that_want_one_name_at_once_never_share_a_folder(tmp_path):
    fork_in_a_process(RACED, tmp_path)
    assert names(tmp_path) == sorted(f"race{race}{end}" for race in range(50) for end in ("", "-2", "-3"))
    for race in range(50):
        runners = [
            json.loads((path / "config.json").read_text(encoding="utf-8"))
            for path in tmp_path.glob(f"race{race}*")
            if path.name.split("-")[0] == f"race{race}"
        ]
        assert sorted(runner["runner"] for runner in runners) == [0, 1, 2]
