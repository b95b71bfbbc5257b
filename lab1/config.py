"""What every script shares on its command line, and how a script starts, complains and stops.

Nothing here imports torch at the top: ``--help`` and a mistyped flag answer at once.
"""

import contextlib
import dataclasses
import errno
import inspect
import io
import json
import math
import os
import random
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

REPOSITORY = Path(__file__).resolve().parent.parent


class UsageError(Exception):
    """What the user asked cannot be done. The message is one line that says why, and what would. Exit status 2."""


class RunFailed(Exception):
    """A run that had begun could not go on. The message is one line that says why. Exit status 1."""


class Interrupted(Exception):
    """SIGINT or SIGTERM came while a run was training, and the run was saved. Exit status 128 + signal number."""

    def __init__(self, signal_number: int, folder: Path):
        super().__init__(f"stopped and saved; go on with: --resume {folder}")
        self.signal_number = signal_number


def flag(metavar: str):
    """How ``--help`` shows a flag whose default its docstring explains: with this placeholder, without "None"."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint="")


def require(condition: bool, message: str) -> None:
    """Raise UsageError(message) unless the condition holds."""
    if not condition:
        raise UsageError(message)


@dataclasses.dataclass
class RunConfig:
    """The flags of every script. A script's own ``Config`` inherits them and adds its own."""

    seed: int = 0
    """Seed of everything random: split, initial weights, batch order, augmentation, dropout."""
    device: str = "auto"
    """Where to compute: auto (CUDA, then MPS, then CPU), cpu, cuda, cuda:N or mps."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Number format of matrix products and convolutions; bf16 is autocast, the weights stay fp32."""
    compile: bool = False
    """Compile the model with torch.compile: worth its half minute for long runs only."""
    resume: Annotated[str | None, flag("RUN")] = None
    """Go on with this run, a folder or a name under --model-dir; its own flags are taken from its config.json."""
    model_dir: Annotated[Path | None, flag("DIR")] = None
    """Folder that runs are written to (default: model/ beside the script)."""
    name: Annotated[str | None, flag("NAME")] = None
    """Name of the run (default: made from what matters in it); a taken name gets -2, -3, ..."""
    data_dir: Annotated[Path | None, flag("DIR")] = None
    """Folder of the data sets (default: data/ at the top of the repository)."""
    dry_run: bool = False
    """See that everything works: at most 2 epochs of 3 batches, nothing downloaded."""

    def check(self) -> None:
        """Refuse values out of range. A subclass extends it.

        Raises:
            UsageError: naming the flag, its value and what would be right.
        """
        require(0 <= self.seed < 2**63, f"--seed {self.seed}: a seed is a whole number from 0 to 2**63 - 1")
        name = self.name
        require(
            name is None or (name not in ("", ".", "..") and name == Path(name).name and name.isprintable()),
            f"--name {name!r}: a name is one folder's name, without slashes",
        )
        if self.resume is not None:
            return  # its folder is there, wherever it has been moved to
        folder = self.runs_folder()
        try:
            while not folder.exists():
                folder = folder.parent
        except OSError as error:
            raise UsageError(f"--model-dir {folder}: {error.strerror}") from None
        require(folder.is_dir(), f"--model-dir {self.runs_folder()}: {folder} is not a folder; name one that is")
        require(
            os.access(folder, os.W_OK), f"--model-dir {self.runs_folder()}: {folder} is not writable; name one that is"
        )

    def runs_folder(self) -> Path:
        """The folder that holds this script's runs."""
        if self.model_dir is not None:
            return Path(self.model_dir)
        return Path(inspect.getfile(type(self))).resolve().parent / "model"

    def data_folder(self) -> Path:
        """The folder that holds the data sets."""
        return REPOSITORY / "data" if self.data_dir is None else Path(self.data_dir)

    def run_name(self) -> str:
        """The run's name: what was asked for with ``--name``, or else what ``describe`` says."""
        return self.name or ("dry-run-" if self.dry_run else "") + self.describe()

    def describe(self) -> str:
        """What matters in this run, as a folder's name. A script's Config overrides it."""
        return f"run-seed{self.seed}"

    def as_dict(self) -> dict[str, Any]:
        """The configuration as JSON can hold it: paths as text, tuples as lists; without ``resume``."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "resume"}
        return json.loads(json.dumps(fields, default=str))


@dataclasses.dataclass
class TrainConfig(RunConfig):
    """The further flags of a script that learns from a training set in epochs."""

    epochs: int = 20
    """Passes over the training set, at most."""
    batch_size: int = 128
    """Examples in one step of the optimiser, over all processes."""
    learning_rate: float = 1e-3
    """Peak learning rate, per step: reached after the warm-up, zero at the last epoch."""
    weight_decay: float = 0.01
    """Decoupled weight decay, per unit of learning rate."""
    patience: int = 5
    """Epochs without a better validation loss before training stops; 0 never stops early."""

    def check(self) -> None:
        super().check()
        # A script may leave a flag None until it knows its data set.
        for flag, least in (("epochs", 1), ("batch_size", 1), ("patience", 0)):
            value = getattr(self, flag)
            require(value is None or value >= least, f"--{flag.replace('_', '-')} {value}: at least {least} is needed")
        rate, decay = self.learning_rate, self.weight_decay
        require(
            rate is None or (math.isfinite(rate) and rate > 0),
            f"--learning-rate {rate}: a positive number is needed, such as 0.001",
        )
        require(
            math.isfinite(decay) and decay >= 0,
            f"--weight-decay {decay}: 0 or a positive number is needed, such as 0.01",
        )

    def fill(self, settings: dict[str, Any]) -> None:
        """Give every flag that was left None its value from ``settings``."""
        for flag, value in settings.items():
            if getattr(self, flag) is None:
                setattr(self, flag, value)


def find_run(run: str, runs_folder: Path, published: bool = False) -> Path:
    """The folder of a run given by its path or by its name under ``runs_folder``; with ``published``, for scripts that
    only read it, under ``runs_folder/published`` too.

    Raises:
        UsageError: where there is none; the message lists a few that are there.
    """
    for folder in (Path(run), runs_folder / run, *([runs_folder / "published" / run] if published else [])):
        with contextlib.suppress(OSError):  # a name that the file system does not take is no run's
            if (folder / "config.json").is_file():
                return folder
    found = sorted(path.parent.name for path in runs_folder.glob("*/config.json"))
    known = f"there are: {', '.join(found[:5])}{', ...' if len(found) > 5 else ''}" if found else "it holds no run yet"
    raise UsageError(f"no run {run!r} here or in {runs_folder} ({known})")


def parse(config_class: type, arguments: list[str], description: str) -> Any:
    """Turn a command line into a configuration, a checked one where the class is a RunConfig.

    With ``--resume RUN`` the defaults are that run's own configuration, so that no other flag is needed, and a flag
    that is given all the same (``--epochs 40``) changes that one thing.

    Raises:
        UsageError: for a flag or a value that cannot be used.
        SystemExit: with status 0 after ``--help``.
    """
    config = _parse(config_class, arguments, description)
    if not isinstance(config, RunConfig):
        return config
    if config.resume is not None:
        folder = find_run(config.resume, config.runs_folder())
        # The run's own flags first: where one is given again, the later one counts.
        config = _parse(config_class, _saved_arguments(config_class, folder) + arguments, description)
        config.resume = str(folder)
    config.check()
    return config


def _parse(config_class, arguments, description):
    complaint = io.StringIO()
    try:
        # tyro draws its complaints as a box of several lines; ours are one line.
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(config_class, args=arguments, description=description)
    except SystemExit as stop:
        if not stop.code:
            raise
        lines = [line.strip("│ ") for line in complaint.getvalue().splitlines()]
        lines = [line for line in lines if line and not line.startswith(("╭", "╰"))]
        end = next((i for i, line in enumerate(lines) if line.startswith("──")), len(lines))
        raise UsageError(f"{' '.join(lines[:end]).rstrip('.')} (--help lists the flags)") from None


def _saved_arguments(config_class, folder):
    path = folder / "config.json"
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        defaults = {field.name: field.default for field in dataclasses.fields(config_class)}
        unknown = sorted(set(saved) - set(defaults))
        require(not unknown, f"{path} is of another script: {config_class.__module__} has no {', '.join(unknown)}")
        arguments = []
        for name, value in saved.items():
            if value == defaults[name]:
                continue
            name = name.replace("_", "-")
            if isinstance(value, bool):
                arguments.append(f"--{name}" if value else f"--no-{name}")
            elif isinstance(value, list):
                arguments += [f"--{name}", *map(str, value)]
            elif value is not None:
                arguments.append(f"--{name}={value}")  # one word: the value may begin with a dash
        return arguments
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from None


def launch(main: Callable[[Any], Any], config_class: type) -> None:
    """Run a script: parse the command line, call ``main(config)``, and exit as the README promises.

    0 done; 2 the user asked what cannot be done; 1 the run failed; 130 / 143 stopped by SIGINT / SIGTERM. Each but
    the first with one line on standard error. A bug keeps its traceback.
    """
    description = inspect.getdoc(sys.modules[main.__module__]) or ""
    threading.excepthook = _thread_failed
    try:
        main(parse(config_class, sys.argv[1:], description))
    except UsageError as error:
        _leave(2, f"error: {error}")
    except RunFailed as error:
        _leave(1, f"error: {error}")
    except Interrupted as stop:
        _leave(128 + stop.signal_number, str(stop))
    except KeyboardInterrupt:
        _leave(130, "stopped")
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS):
            raise
        _leave(1, f"error: cannot write {error.filename or 'the run'}: {error.strerror}; make room, then --resume it")
    finally:
        if "torch.distributed" in sys.modules:
            from lab1 import distributed

            distributed.finish()


def _thread_failed(failure) -> None:
    # TensorBoard writes in a thread. What stops it there, such as a full disk, it raises again at the next write.
    if not isinstance(failure.exc_value, OSError):
        threading.__excepthook__(failure)


def _leave(status: int, message: str) -> None:
    if os.environ.get("RANK", "0") == "0":  # under torchrun one process speaks for all
        print(message, file=sys.stderr, flush=True)
    sys.exit(status)


def prepare(config: RunConfig):
    """What a script does first: seed every global generator, find the device, join the other processes of a torchrun.

    Returns the ``torch.device``. Raises UsageError for a device that is not there.
    """
    import numpy
    import torch

    from lab1 import distributed

    random.seed(config.seed)
    numpy.random.seed(config.seed % 2**32)
    torch.manual_seed(config.seed)
    device = find_device(config.device)
    distributed.start(device)
    return device


def find_device(name: str):
    """The torch.device of that name; ``auto`` takes CUDA, then MPS, then the CPU. Under torchrun, cuda is this
    process's own GPU.

    Raises:
        UsageError: for a device that this machine, or this build of torch, does not have.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"--device {name}: not a device; use auto, cpu, cuda, cuda:N or mps") from None
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        require(count > 0, f"--device {name}: torch finds no CUDA GPU here; use auto or cpu")
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) if device.index is None else device.index)
        require(device.index < count, f"--device {device}: there are {count} GPUs, cuda:0 to cuda:{count - 1}")
        torch.cuda.set_device(device)
    elif device.type == "mps":
        require(torch.backends.mps.is_available(), f"--device {name}: torch finds no MPS here; use auto or cpu")
    else:
        require(device.type == "cpu", f"--device {name}: use auto, cpu, cuda, cuda:N or mps")
    return device


def find_precision(name: str, device) -> str:
    """``fp32`` or ``bf16`` as named; ``auto`` is bf16 where this device multiplies it in hardware (CUDA from Ampere on;
    processors with AVX512_BF16 or AMX), and fp32 elsewhere: emulated, bf16 is the slower one."""
    import torch

    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    # Older versions of torch cannot say.
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    hardware = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    return "bf16" if device.type == "cpu" and hardware else "fp32"
