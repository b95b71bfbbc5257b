"""Machines that lack something, in real processes: a library, a standard stream, an encoding, a compiler."""

import json
import os
import subprocess
import sys

import pytest

from lab1.engine.config import REPOSITORY

# A script that begins as all of them do, with something to print on the way.
PROGRAM = """
import dataclasses, sys
from lab1.engine.config import RunConfig
from lab1.engine.launch import launch

@dataclasses.dataclass
class Config(RunConfig):
    "Flags."

def main(config):
    from tqdm import tqdm
    for number in range(20_000):
        print("line", number)
        tqdm.write("written")
    open({done!r}, "w").close()

launch(main, Config)
"""
NO_OPENCV = (
    "error: cv2 cannot be loaded: libGL.so.1: cannot open shared object file: No such file or directory; "
    "apt-get install libgl1 libglib2.0-0, or pip install opencv-python-headless\n"
)
posix = pytest.mark.skipif(os.name != "posix", reason="a shell's redirections")


@pytest.fixture
def no_opencv(tmp_path):
    """An environment in which OpenCV finds no libGL, as in a slim container."""
    package = tmp_path / "broken" / "cv2"
    package.mkdir(parents=True)
    missing = "libGL.so.1: cannot open shared object file: No such file or directory"
    (package / "__init__.py").write_text(f"raise ImportError({missing!r})\n", encoding="utf-8")
    return {"PYTHONPATH": f"{package.parent}{os.pathsep}{REPOSITORY}"}


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("lab3/train_ppo.py", ["--env", "CartPole-v1"]),
        ("lab3/train_dqn.py", ["--env", "NavigationGoal-v0"]),
        pytest.param("lab3/play.py", [], marks=pytest.mark.slow),
        pytest.param("lab1/train_mlp.py", ["--dataset", "digits"], marks=pytest.mark.slow),
    ],
)
def test_without_opencv_what_draws_nothing_runs(tmp_path, run_script, no_opencv, script, arguments):
    done = run_script(script, *arguments, "--dry-run", "--model-dir", tmp_path / "runs", env=no_opencv)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("lab3/train_ppo.py", ["--env", "CarRacing-v3"]),  # gymnasium scales its frames with OpenCV
        ("lab1/train_cnn.py", ["--dataset", "shapes"]),
        ("lab1/explain_cam.py", []),
    ],
)
def test_without_opencv_what_draws_says_what_to_install(tmp_path, run_script, no_opencv, script, arguments):
    pytest.importorskip("Box2D")
    done = run_script(script, *arguments, "--dry-run", "--model-dir", tmp_path / "runs", env=no_opencv)
    assert (done.returncode, done.stderr) == (1, NO_OPENCV)


@pytest.mark.parametrize(
    "backend", ["module://matplotlib_inline.backend_inline", pytest.param("TkAgg", marks=pytest.mark.slow)]
)
def test_figures_are_drawn_whatever_backend_is_set(tmp_path, run_script, backend):
    place, env = tmp_path / "runs", {"MPLBACKEND": backend}
    arguments = ["--dataset", "digits", "--dry-run", "--name", "a", "--model-dir", place]
    done = run_script("lab1/train_mlp.py", *arguments, env=env)
    assert (done.returncode, done.stderr) == (0, "")
    assert (place / "a" / "results.json").exists()
    assert (place / "a" / "confusion.png").read_bytes().startswith(b"\x89PNG")
    done = run_script("lab1/plot.py", "--runs", place, env=env)
    assert (done.returncode, done.stderr) == (0, "")


def shell(command: str, tmp_path) -> tuple[subprocess.CompletedProcess, bool]:
    """Run a command of the shell with ``PROGRAM`` for ``script``; what it did, and whether that got to its end."""
    done = tmp_path / "done"
    (tmp_path / "program.py").write_text(PROGRAM.format(done=str(done)), encoding="utf-8")
    command = command.replace("script", f"{sys.executable} {tmp_path / 'program.py'}")
    env = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    found = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, env=env)
    return found, done.exists()


@posix
@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("script | head -1; exit ${PIPESTATUS[0]}", "line 0\n"),
        ("script | true; exit ${PIPESTATUS[0]}", ""),
        ("script 2>&1 >/dev/null | true; exit ${PIPESTATUS[0]}", ""),
        ("script 2>&- | tail -1", "written\n"),
        ("script >&-", ""),
        ("script <&- >&- 2>&-", ""),
    ],
)
def test_a_reader_that_leaves_or_was_never_there_stops_nothing(tmp_path, command, said):
    found, at_the_end = shell(command, tmp_path)
    assert (found.returncode, found.stdout, found.stderr, at_the_end) == (0, said, "", True)


@posix
@pytest.mark.parametrize("script", ["lab1/plot.py", "lab3/train_ppo.py"])
def test_help_into_head_is_clean(script):
    command = f"{sys.executable} {REPOSITORY / script} --help | head -1; exit ${{PIPESTATUS[0]}}"
    env = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, env=env)
    assert (done.returncode, done.stdout.split()[0], done.stderr) == (0, "usage:", "")


@posix
def test_a_usage_error_with_standard_error_closed_keeps_its_status(tmp_path):
    found, at_the_end = shell("script --nonsense 2>&-", tmp_path)
    assert (found.returncode, found.stdout, found.stderr, at_the_end) == (2, "", "", False)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device that is full")
def test_output_that_found_no_room_is_said_at_the_end(tmp_path):
    found, at_the_end = shell("script > /dev/full", tmp_path)
    assert (found.returncode, at_the_end) == (1, True)
    assert found.stderr == "error: what was printed could not be written: No space left on device\n"


@posix
def test_no_file_takes_the_number_of_a_closed_standard_error(tmp_path):
    """What a library in C complains of goes to number 2, whichever file that is."""
    program, file = tmp_path / "program.py", tmp_path / "file"
    writes = f"    import os\n    file = open({str(file)!r}, 'w')\n    os.write(2, b'noise')\n    return\n"
    text = PROGRAM.format(done=str(tmp_path / "done"))
    program.write_text(text.replace("    from tqdm import tqdm\n", writes), encoding="utf-8")
    command = f"{sys.executable} {program} 2>&-"
    env = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    assert subprocess.run(["bash", "-c", command], timeout=60, env=env).returncode == 0
    assert file.read_bytes() == b""


@posix
@pytest.mark.parametrize(
    "settings",
    [
        {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"},
        pytest.param({"LC_ALL": "C"}, marks=pytest.mark.slow),
    ],
)
def test_a_folder_with_an_accent_in_the_locale_c(tmp_path, settings):
    folder = tmp_path / "é→"
    script = [sys.executable, str(REPOSITORY / "lab1/train_mlp.py"), "--dataset", "digits", "--dry-run", "--name", "a"]
    env = os.environ | {"PYTHONPATH": str(REPOSITORY)} | settings
    done = subprocess.run([*script, "--model-dir", str(folder)], capture_output=True, timeout=60, env=env)
    assert (done.returncode, done.stderr) == (0, b"")
    assert f"{folder}/a".encode() in done.stdout
    assert json.loads((folder / "a" / "results.json").read_text(encoding="utf-8"))["config"]["model_dir"] == str(folder)
    assert len(list((folder / "a").glob("events.out.*"))) == 2  # of training, and of the test


@posix
def test_a_name_that_is_no_utf_8_is_refused_in_one_line(tmp_path):
    folder = os.fsencode(tmp_path) + b"/\xe9"
    script = [sys.executable, str(REPOSITORY / "lab1/train_mlp.py"), "--dataset", "digits", "--dry-run"]
    env = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([*script, "--model-dir", folder], capture_output=True, timeout=60, env=env)
    assert done.returncode == 2
    assert done.stderr.startswith(b"error: b'")
    assert done.stderr.endswith(b"is not UTF-8; choose another name\n")
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("argument", ["http://x:99999/", "~nosuchuser/text", "a" * 300])
def test_a_text_that_cannot_be(tmp_path, run_script, argument):
    done = run_script("lab2/train_gpt.py", "--text", argument, "--dry-run", "--model-dir", tmp_path / "runs")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("error: ")
    assert argument[:40] in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.skipif(os.name != "posix", reason="there, torch looks for Visual C++")
def test_compile_without_a_compiler_is_one_line_before_training(tmp_path, run_script):
    env = {"CXX": str(tmp_path / "none"), "PATH": str(tmp_path), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    arguments = ["--dataset", "digits", "--dry-run", "--compile", "--device", "cpu", "--model-dir", tmp_path / "runs"]
    done = run_script("lab1/train_mlp.py", *arguments, env=env)
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 2
    assert last.startswith("error: --compile: torch cannot compile here (InvalidCxxCompiler: ")
    assert last.endswith("; install a C++ compiler, such as g++, or leave it out")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


def test_a_network_beyond_all_memory_names_its_flag(tmp_path, run_script):
    arguments = ["--dataset", "digits", "--dry-run", "--hidden", 10**9, "--model-dir", tmp_path / "runs"]
    done = run_script("lab1/train_mlp.py", *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: there is not enough memory for another 2,920.6 GiB: lower --hidden\n"


def test_a_run_folder_that_is_removed_while_training(tmp_path, run_script):
    """By the program itself, as the first epoch ends."""
    (tmp_path / "sitecustomize.py").write_text(
        "import shutil, sys\n"
        "def hook(event, arguments):\n"
        "    if event == 'open' and str(arguments[0]).endswith('best.pt.tmp'):\n"
        f"        shutil.rmtree({str(tmp_path / 'runs' / 'a')!r}, ignore_errors=True)\n"
        "sys.addaudithook(hook)\n",
        encoding="utf-8",
    )
    env = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{REPOSITORY}"}
    arguments = ["--dataset", "digits", "--dry-run", "--name", "a", "--model-dir", tmp_path / "runs"]
    done = run_script("lab1/train_mlp.py", *arguments, env=env)
    place = tmp_path / "runs" / "a" / "best.pt.tmp"
    assert done.returncode == 1
    assert done.stderr == f"error: {place}: No such file or directory; it was moved or removed\n"


@posix
def test_too_few_files_may_be_open(tmp_path):
    """The limit is set once the libraries are there, as a folder of many runs meets it."""
    found, at_the_end = shell("script", tmp_path)
    assert (found.returncode, at_the_end) == (0, True)
    program = tmp_path / "program.py"
    few = "    import resource\n    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))\n"
    program.write_text(program.read_text(encoding="utf-8").replace("    open(", few + "    open("), encoding="utf-8")
    env = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=60, env=env)
    help_ = "Too many open files; close other programs, or raise the limit: ulimit -n 4096"
    assert (done.returncode, done.stderr) == (1, f"error: {tmp_path / 'done'}: {help_}\n")
