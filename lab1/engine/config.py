"""What every script shares on its command line, and what it raises where something cannot be done.

Nothing here imports torch at the top: ``--help`` and a mistyped flag answer at once.
"""

import contextlib
import dataclasses
import difflib
import hashlib
import inspect
import json
import math
import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import tyro

REPOSITORY = Path(__file__).resolve().parent.parent.parent
BEING_MADE = re.compile(r"\..*\.tmp-[0-9a-f]{8}")  # the name of a run's folder before it is whole
LONGEST_NAME = 120  # bytes of a run's name: file systems take 255, and Windows 260 characters of a whole path
LARGEST = 10**9  # whole number that a flag takes: no count, size or step here is larger
NOT_IN_NAMES = '<>:"/\\|?*'  # what one system or another takes in no file's name
DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # names that are no file's on Windows


LONGEST_MESSAGE = 1000  # characters


class OneLine(Exception):
    """An error whose message is one line, whatever is quoted in it: what cannot be printed is shown as ``\\n`` or
    ``\\x1b``, and a long message loses its middle."""

    def __init__(self, message: str):
        shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in message)
        super().__init__(shown if len(shown) <= LONGEST_MESSAGE else f"{shown[:600]} ... {shown[-300:]}")


class UsageError(OneLine):
    """What the user asked cannot be done. The message is one line that says why, and what would. Exit status 2."""


class RunFailed(OneLine):
    """A run that had begun could not go on. The message is one line that says why. Exit status 1."""


class Diverged(RunFailed):
    """It is the training itself that failed: losses are not finite. Tried again, it would fail again."""


class Interrupted(Exception):
    """SIGINT or SIGTERM came while a run was training, and the run was saved. Exit status 128 + signal number."""

    def __init__(self, signal_number: int, folder: Path, command: str = ""):
        super().__init__(f"stopped and saved; go on with: {command}--resume {quoted(folder)}")
        self.signal_number, self.folder = signal_number, folder

    def __reduce__(self):  # it is raised in one process and handed to another
        return Interrupted, (self.signal_number, self.folder)


def quoted(word: str | Path) -> str:
    """A word as it can be pasted into this system's shell."""
    return subprocess.list2cmdline([str(word)]) if os.name == "nt" else shlex.quote(str(word))


def without_seed(name: str) -> str:
    """The name of a run without its seed, and without the number of one that was made again: what it shares with those
    of other seeds."""
    return re.sub(r"-seed\d+(?![^-])(-\d+$)?", "", name)


def flag(metavar: str):
    """How ``--help`` shows a flag that may be left None or empty: with this placeholder, and a default only where there
    is one."""

    def hint(default: str) -> str:
        return "" if default in ("None", "") else f"(default: {default})"

    return tyro.conf.arg(metavar=metavar, help_behavior_hint=hint)


# A number or a choice that is None until something else says what it is: the data set, a table of settings.
Whole = Annotated[int | None, flag("INT")]
Real = Annotated[float | None, flag("FLOAT")]
Anneal = Annotated[Literal["linear", "none"] | None, flag("{linear,none}")]


def require(condition: bool, message: str) -> None:
    """Raise UsageError(message) unless the condition holds."""
    if not condition:
        raise UsageError(message)


@dataclasses.dataclass
class RunConfig:
    """The flags of every script. A script's own ``Config`` inherits them and adds its own."""

    # What flags stand for that a run's config.json lacks, as it is older than they are, or has as null.
    older: ClassVar[dict[str, Any]] = {}
    deciding: ClassVar[tuple[str, ...]] = ()  # --help shows the defaults that go with the values of these fields

    seed: int = 0
    """Seed of everything random: split, initial weights, batch order, augmentation, dropout."""
    device: str = "auto"
    """Where to compute: auto (CUDA, then MPS, then CPU), cpu, cuda, cuda:N or mps."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Number format of matrix products and convolutions; bf16 is autocast, the weights stay fp32."""
    compile: bool = False
    """Compile the model with torch.compile: worth its half minute for long runs only."""
    resume: Annotated[str | None, flag("RUN")] = None
    """RUN, or auto: go on with this run, a folder or a name; auto begins or goes on with the one of these flags."""
    model_dir: Annotated[Path | None, flag("DIR")] = None
    """Folder that runs are written to (default: model/ beside the script)."""
    name: Annotated[str | None, flag("NAME")] = None
    """Name of the run (default: made from what matters in it); a taken name gets -2, -3, ..."""
    data_dir: Annotated[Path | None, flag("DIR")] = None
    """Folder of the data sets (default: data/ at the top of the repository)."""
    cluster: Annotated[Literal["slurm"] | None, flag("{slurm}")] = None
    """Run as a job of a Slurm cluster, a series as one job array; needs pip install -e .[cluster]."""
    slurm: Annotated[tuple[str, ...], flag("KEY=VALUE ...")] = ()
    """What sbatch is told, such as partition=gpu time=60 gpus=1 (time in minutes)."""
    detach: bool = False
    """Submit and leave; the same command later, then with "--resume auto", collects what is done."""
    dry_run: bool = False
    """See that everything works: at most 2 epochs of 3 batches, nothing downloaded."""

    def check(self) -> None:
        """Refuse values out of range. A subclass extends it.

        Raises:
            UsageError: naming the flag, its value and what would be right.
        """
        require(0 <= self.seed < 2**63, f"--seed {self.seed}: a seed is a whole number from 0 to 2**63 - 1")
        for name, value in vars(self).items():
            for number in value if isinstance(value, tuple) else (value,):
                fits = not isinstance(number, int) or abs(number) <= LARGEST or name in ("seed", "seeds")
                require(fits, f"--{name.replace('_', '-')} {number}: at most {LARGEST:,} will do")
        waits = self.cluster is not None or not (self.slurm or self.detach)
        require(waits, "--slurm and --detach: they need --cluster slurm")
        _nearest("--data-dir", self.data_folder())
        if self.resume not in (None, "auto"):
            return  # its folder is there, under whatever name, wherever it has been moved to
        if self.name is not None:
            check_name(self.name)
        folder = _nearest("--model-dir", self.runs_folder())
        require(
            os.access(folder, os.W_OK), f"--model-dir {self.runs_folder()}: {folder} is not writable; name one that is"
        )

    def runs_folder(self) -> Path:
        """The folder that holds this script's runs."""
        if self.model_dir is not None:
            return Path(self.model_dir)
        return Path(inspect.getfile(type(self))).resolve().parent / "model"

    def published_folder(self) -> Path:
        """The folder of the runs that this script's lab publishes; ``--model-dir`` does not move it."""
        return Path(inspect.getfile(type(self))).resolve().parent / "model" / "published"

    def data_folder(self) -> Path:
        """The folder that holds the data sets."""
        return REPOSITORY / "data" if self.data_dir is None else Path(self.data_dir)

    def run_name(self) -> str:
        """The run's name: what was asked for with ``--name``, or else what ``describe`` says."""
        return self.name or folder_name(("dry-run-" if self.dry_run else "") + self.describe())

    def describe(self) -> str:
        """What matters in this run, as a folder's name. A script's Config overrides it."""
        return f"run-seed{self.seed}"

    def as_dict(self) -> dict[str, Any]:
        """The configuration as JSON can hold it: paths as text, tuples as lists; without how it was started."""
        started = ("resume", "cluster", "slurm", "detach")
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in started}
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


def _nearest(flag: str, path: Path) -> Path:
    """The folder at this path or, where nothing is there yet, the one that it would be made in. UsageError where a file
    is in the way."""
    folder = path
    try:
        while not folder.exists():
            folder = folder.parent
    except OSError as error:
        raise UsageError(f"{flag} {folder}: {error.strerror}") from None
    require(folder.is_dir(), f"{flag} {path}: {folder} is not a folder; name one that is")
    return folder


def check_name(name: str) -> None:
    """Raise UsageError unless ``--name`` can be the name of a folder, on Windows too: runs are copied."""
    fits = name.isprintable() and not set(name) & set(NOT_IN_NAMES) and name[-1:] not in ("", ".", " ")
    right = "one folder's name, without slashes, any of < > : \" | ? *, or a dot or space at its end"
    require(fits, f"--name {name!r}: a name is {right}")
    require(not DEVICES.fullmatch(name), f"--name {name}: Windows keeps this name for a device; choose another")
    size = len(os.fsencode(name))
    require(size <= LONGEST_NAME, f"--name {name[:20]}...: {size} bytes are too many; at most {LONGEST_NAME} will do")


def folder_name(description: str) -> str:
    """A description as the name of a folder: with dashes for what no name may have; a long one keeps its beginning and
    its seed, and a hash stands for what is left out."""
    name = "".join("-" if character in NOT_IN_NAMES else character for character in description)
    if len(os.fsencode(name)) <= LONGEST_NAME:
        return name
    before, seed, number = name.rpartition("-seed")
    beginning = os.fsencode(before or name)
    end = f"-{hashlib.sha256(beginning).hexdigest()[:8]}" + (seed + number if before else "")
    return beginning[: LONGEST_NAME - len(end)].decode(errors="ignore") + end


def find_run(run: str, runs_folder: Path, published: Path | None = None, offer: str = "config.json") -> Path:
    """The folder of a run given by its path or by its name under ``runs_folder`` or, where it will not be written to,
    under the folder of the ``published`` ones.

    Args:
        offer: a file, such as best.pt, that a run must have for the message to name it among those that are there.

    Raises:
        UsageError: where there is none; the message has the nearest name, and a few that are there.
    """
    folders = [runs_folder] if published is None else [runs_folder, published]
    for folder in (Path(run), *(folder / run for folder in folders)):
        with contextlib.suppress(OSError):  # a name that the file system does not take is no run's
            if (folder / "config.json").is_file():
                return folder
    runs = [sorted(path.parent for path in folder.glob("*/config.json")) for folder in folders]
    runs = [[each for each in found if not BEING_MADE.fullmatch(each.name)] for found in runs]
    near = difflib.get_close_matches(run, [each.name for found in runs for each in found], n=1)
    guess = f"; did you mean {near[0]}?" if near else ""
    names = [[each.name for each in found if (each / offer).exists()] for found in runs]
    # One of each experiment's seeds is enough.
    names = [list({without_seed(name): name for name in reversed(found)}.values())[::-1] for found in names]
    shown = [f"{', '.join(found[:5])}{', ...' if len(found) > 5 else ''}" for found in names]
    none = "it holds no run yet" if offer == "config.json" else f"it holds no run with a {offer} yet"
    known = [f"there are: {shown[0]}" if names[0] else none]
    known += [f"published are: {each}" for each in shown[1:] if each]
    raise UsageError(f"no run {run!r} here or in {runs_folder}{guess} ({'; '.join(known)})")
