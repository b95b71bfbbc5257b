"""What the machine does becomes one line; what we did wrong stays a traceback."""

import dataclasses
import errno
import http.client
import os
import sys
import urllib.error

import numpy as np
import pytest
import torch

from lab1.engine.config import RunConfig, TrainConfig, UsageError
from lab1.engine.failures import OPENCV, in_one_line
from lab1.engine.launch import launch
from lab3.train_ppo import Config as PPOConfig


def system(number: int, *place) -> OSError:
    return OSError(number, os.strerror(number), *place)


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (
            ImportError("libgomp.so.1: cannot open shared object file: No such file or directory", name="torch._C"),
            1,
            "torch._C cannot be loaded: libgomp.so.1: cannot open shared object file: No such file or directory; "
            "apt-get install libgomp1",
        ),
        (
            ImportError("libGL.so.1: cannot open shared object file", name="cv2"),
            1,
            f"cv2 cannot be loaded: libGL.so.1: cannot open shared object file; {OPENCV}",
        ),
        (
            OSError("libcudart.so.12: cannot open shared object file"),
            1,
            "a library cannot be loaded: libcudart.so.12: cannot open shared object file; install the package of your "
            "system that has this library",
        ),
        (
            ImportError(
                "DLL load failed while importing _box2d: The specified module could not be found.", name="Box2D"
            ),
            1,
            "Box2D cannot be loaded: DLL load failed while importing _box2d: The specified module could not be found; "
            "install the Visual C++ Redistributable (https://aka.ms/vs/17/release/vc_redist.x64.exe)",
        ),
        (
            ModuleNotFoundError("No module named 'gymnasion'", name="gymnasion"),
            1,
            "gymnasion is not installed: pip install -r requirements.txt",
        ),
        (
            system(errno.ENOSPC, "runs/a/last.pt"),
            1,
            "cannot write runs/a/last.pt: No space left on device; make room, then --resume it",
        ),
        (
            system(errno.ENOENT, "runs/a/last.pt.tmp"),
            1,
            "runs/a/last.pt.tmp: No such file or directory; it was moved or removed",
        ),
        (
            system(errno.EACCES, "runs/a"),
            1,
            "runs/a: Permission denied; give yourself the right to, or name another place",
        ),
        (system(errno.EIO, "a.png"), 1, "a.png: Input/output error; the disk, or the connection to it, fails"),
        (
            system(errno.EMFILE, "a.png"),
            1,
            "a.png: Too many open files; close other programs, or raise the limit: ulimit -n 4096",
        ),
        (system(errno.ENAMETOOLONG, "a" * 300), 2, f"{'a' * 40}...: File name too long; choose a shorter one"),
        (system(errno.ENOMEM), 1, "there is not enough memory: Cannot allocate memory; close other programs"),
        (ConnectionResetError(104, "Connection reset by peer"), 1, None),
        (urllib.error.URLError("no host given"), 1, "the network failed: <urlopen error no host given>; try again"),
        (http.client.IncompleteRead(b""), 1, "the network failed: IncompleteRead(0 bytes read); try again"),
        (
            RuntimeError("can't start new thread"),
            1,
            "can't start new thread: close other programs, or raise the limit of processes: ulimit -u",
        ),
        (MemoryError(), 1, "there is not enough memory: close other programs"),
        (
            RuntimeError("CUDA error: no kernel image is available for execution on the device\nCUDA kernel errors"),
            1,
            "the GPU cannot be used: no kernel image is available for execution on the device; "
            "--device cpu computes without it",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_what_the_machine_does_is_one_line(error, status, line):
    found = in_one_line(error)
    assert found[0] == status
    assert "\n" not in found[1]
    if line is not None:
        assert found[1] == line
    else:
        assert found[1] == f"the network failed: {error}; try again"


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x"),
        KeyError("x"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"),
        RuntimeError("CUDA error: device-side assert triggered"),
        ImportError("cannot import name 'x' from 'torch'", name="torch"),
        ModuleNotFoundError("No module named 'lab1.none'", name="lab1.none"),
        ModuleNotFoundError("No module named 'torch.none'", name="torch.none"),
        system(errno.EBADF),
        system(errno.ENOENT, "a.txt"),
        system(errno.ENOENT),
        UnicodeEncodeError("ascii", "é", 0, 1, "ordinal not in range(128)"),
    ],
    ids=repr,
)
def test_what_is_ours_stays_a_traceback(error, monkeypatch):
    assert in_one_line(error) is None

    def main(config):
        raise error

    monkeypatch.setattr(sys, "argv", ["script"])
    with pytest.raises(type(error)) as caught:
        launch(main, TrainConfig)
    assert caught.value is error


@dataclasses.dataclass
class Sizes(RunConfig):
    hidden: tuple[int, ...] = (128, 64)
    batch_size: int = 64


@pytest.mark.parametrize(
    ("config", "flags"),
    [
        (Sizes(), "--batch-size"),
        (Sizes(hidden=(128, 65)), "--hidden"),
        (Sizes(hidden=(1280, 640), batch_size=6400), "--batch-size or --hidden"),
        (Sizes(hidden=(128000, 64000), batch_size=6400), "--hidden or --batch-size"),
        (PPOConfig(env="LunarLander-v3", rollout=10**8), "--rollout"),
    ],
)
def test_where_memory_does_not_suffice_the_flags_to_lower_are_named(config, flags):
    assert in_one_line(MemoryError(), config) == (1, f"there is not enough memory: lower {flags}")


def memory_of_torch():
    torch.empty(10**15)


def memory_of_numpy():
    np.zeros(10**16, np.uint8)


def memory_of_python():
    bytearray(10**16)


def beyond_any_memory():
    torch.nn.Linear(2**40, 2**40)


def memory_of_a_gpu():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79 GiB")


@pytest.mark.parametrize(
    ("fill", "amount"),
    [
        (memory_of_torch, " for another 3,725,290.3 GiB"),
        (memory_of_numpy, " for another 8.88 PiB"),
        (memory_of_python, ""),
        (beyond_any_memory, ""),
        (memory_of_a_gpu, " for another 2.50 GiB"),
    ],
)
def test_memory_as_the_libraries_really_report_it(monkeypatch, capsys, fill, amount):
    monkeypatch.setattr(sys, "argv", ["script", "--batch-size", "100000"])
    with pytest.raises(SystemExit) as stop:
        launch(lambda config: fill(), Sizes)
    assert stop.value.code == 1
    assert capsys.readouterr().err == f"error: there is not enough memory{amount}: lower --batch-size\n"


def test_the_package_whose_import_failed_is_named(tmp_path, monkeypatch):
    for name, code in (("outer_one", "import inner_one"), ("inner_one", "import ctypes; ctypes.CDLL('libnone.so.7')")):
        (tmp_path / f"{name}.py").write_text(code + "\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(OSError) as caught:
        __import__("outer_one")
    status, line = in_one_line(caught.value)
    assert status == 1
    assert line.startswith("inner_one cannot be loaded: libnone.so.7")


@pytest.mark.parametrize("value", [10**9 + 1, -(10**9) - 1, 10**30])
def test_a_number_beyond_all_measure_is_refused(value):
    with pytest.raises(UsageError, match=rf"^--batch-size {value}: at most 1,000,000,000 will do$"):
        Sizes(batch_size=value).check()
    with pytest.raises(UsageError, match=rf"^--hidden {value}: at most 1,000,000,000 will do$"):
        Sizes(hidden=(64, value)).check()
    Sizes(seed=2**63 - 1, batch_size=10**9).check()


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ({"threads": 99999}, f"--threads 99999: at most {16 * os.cpu_count()} will do on this machine's cores"),
        ({"num_envs": 10**6}, "--num-envs 1000000: at most 100,000 copies of an environment fit in memory"),
        ({"test_episodes": 10**6}, "--test-episodes 1000000: at most 100,000 copies of an environment fit in memory"),
    ],
)
def test_more_threads_and_environments_than_any_machine_has(flags, line):
    with pytest.raises(UsageError) as caught:
        PPOConfig(**flags).check()
    assert str(caught.value) == line


def test_a_file_that_is_gone_is_the_users_among_runs_and_data_and_a_bug_elsewhere(tmp_path):
    config = Sizes(model_dir=tmp_path / "runs", data_dir=tmp_path / "data", resume=str(tmp_path / "moved"))
    for name in ("runs", "data", "moved", "other"):
        (tmp_path / name).mkdir()
        line = in_one_line(system(errno.ENOENT, str(tmp_path / name / "file")), config)
        gone = (1, f"{tmp_path / name / 'file'}: No such file or directory; it was moved or removed")
        assert line == (None if name == "other" else gone)
