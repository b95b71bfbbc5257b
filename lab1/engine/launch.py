"""How a script starts, complains and stops.

Nothing here imports torch at the top: ``--help`` and a mistyped flag answer at once.
"""

import contextlib
import dataclasses
import io
import os
import random
import re
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tyro

from lab1.engine.complaints import LISTED, complaint, groups
from lab1.engine.config import REPOSITORY, Interrupted, RunConfig, RunFailed, UsageError, find_run, quoted, require
from lab1.engine.devices import check_compiler, find_device
from lab1.engine.failures import in_one_line
from lab1.engine.files import read_object
from lab1.engine.finished import stands
from lab1.engine.signals import interruptible_imports
from lab1.engine.streams import lost_output, prepare_streams, start_in_utf8
from lab1.engine.workers import SeriesConfig


def parse(config_class: type, arguments: list[str], description: str) -> Any:
    """Turn a command line into a configuration, a checked one where the class is a RunConfig.

    With ``--resume RUN`` the defaults are that run's own configuration, so that no other flag is needed, and a flag
    that is given all the same (``--epochs 40``) changes that one thing. ``--resume auto`` leaves the flags as they are.

    Raises:
        UsageError: for a flag or a value that cannot be used.
        SystemExit: with status 0 after ``--help``.
    """
    if {"-h", "--help"} & set(arguments):
        tyro.cli(config_class, args=["--help"], description=description, **_shown_defaults(config_class, arguments))
    config = _parse(config_class, arguments)
    if not isinstance(config, RunConfig):
        return config
    if config.resume not in (None, "auto"):  # what auto is, only the run's name can tell
        folder = find_run(config.resume, config.runs_folder(), config.published_folder())  # which then stands
        # The run's own flags first: where one is given again, the later one counts.
        saved = _saved_arguments(config_class, folder)
        try:
            config = _parse(config_class, saved + arguments)
        except UsageError as error:
            raise UsageError(f"{folder / 'config.json'} does not suit this script: {error}") from None
        config.resume = str(folder)
    config.check()
    return config


def _parse(config_class, arguments):
    refusal = io.StringIO()
    try:
        # tyro draws its complaints as a box of several lines; ours are one line.
        with contextlib.redirect_stderr(refusal):
            return tyro.cli(config_class, args=arguments)
    except SystemExit as stop:
        if not stop.code:
            raise  # it was asked for a shell's completions
        lines = [line.strip("│ ") for line in refusal.getvalue().splitlines()]
        lines = [line for line in lines if line and not line.startswith(("╭", "╰"))]
        end = next((i for i, line in enumerate(lines) if line.startswith("──")), len(lines))
        found = complaint(config_class, arguments) or f"{' '.join(lines[:end]).rstrip('.')} {LISTED}"
        raise UsageError(found) from None


def _shown_defaults(config_class, arguments):
    # Where some fields decide on the defaults of others, --help shows those that go with the other arguments, such as
    # --env LunarLander-v3 --help.
    deciding = getattr(config_class, "deciding", ())
    if not deciding:
        return {}
    flags = ["--" + name.replace("_", "-") for name in deciding]
    given = [word for name, values in groups(arguments) if name in flags for word in (name, *values)]
    config = _parse(config_class, given)
    return {"default": config_class(**{name: getattr(config, name) for name in deciding})}


def _saved_arguments(config_class, folder):
    path = folder / "config.json"
    try:
        saved = read_object(path)
        defaults = {field.name: field.default for field in dataclasses.fields(config_class)}
        unknown = sorted(set(saved) - set(defaults))
        if unknown:
            script = read_object(folder / "results.json").get("script") if (folder / "results.json").is_file() else None
            its = f"resume it with {script}" if isinstance(script, str) else f"this one has no {', '.join(unknown)}"
            raise UsageError(f"{path} is of another script: {its}")
        arguments = []
        saved = config_class.older | {name: value for name, value in saved.items() if value is not None}
        for name, value in saved.items():
            if value == defaults[name]:
                continue
            name = name.replace("_", "-")
            if isinstance(value, bool):
                arguments.append(f"--{name}" if value else f"--no-{name}")
            elif isinstance(value, list):
                arguments += [f"--{name}", *map(str, value)]
            else:
                arguments.append(f"--{name}={value}")  # one word: the value may begin with a dash
        return arguments
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from None


def launch(main: Callable[[Any], Any], config_class: type) -> None:
    """Run a script: parse the command line, call ``main(config)``, and exit as the README promises.

    0 done; 2 the user asked what cannot be done; 1 the run, or the machine, failed; 130 / 143 stopped by SIGINT /
    SIGTERM. Each but the first with one line on standard error. A bug keeps its traceback.
    """
    start_in_utf8()
    prepare_streams()
    os.environ["MPLBACKEND"] = "Agg"  # figures are files, whatever a notebook's shell has set
    config = None
    threading.excepthook = _thread_failed
    try:
        with interruptible_imports(), _one_process_speaks():
            _check_checkout(Path(sys.argv[0]).resolve().parent.parent)
            description = sys.modules[config_class.__module__].__doc__ or ""
            # tyro joins lines that begin with a letter. These three stay lines, one space to the right.
            description = re.sub(r"^(?=(?:Command|Time|Expect):)", " ", description, flags=re.MULTILINE)
            config = parse(config_class, sys.argv[1:], description)
            if not isinstance(config, RunConfig):
                main(config)
            elif stands(config) is None:
                _run(main, config)
        if (failure := lost_output()) is not None:
            _leave(1, f"error: what was printed could not be written: {failure.strerror}")
    except UsageError as error:
        _leave(2, f"error: {error}")
    except RunFailed as error:
        _leave(1, f"error: {error}")
    except Interrupted as stop:
        # Through torchrun or from an interpreter the command was another one.
        typed = sys.argv[0].endswith(".py") and "WORLD_SIZE" not in os.environ
        command = f"python {quoted(sys.argv[0])} " if typed else ""
        _leave(128 + stop.signal_number, str(Interrupted(stop.signal_number, stop.folder, command)))
    except KeyboardInterrupt:
        _leave(130, "stopped")
    except Exception as error:
        failure = in_one_line(error, config)
        if failure is None:
            raise
        status, line = failure
        _leave(status, f"error: {line}")
    finally:
        if "torch.distributed" in sys.modules:
            from lab1.engine import distributed

            distributed.finish()


def _check_checkout(own: Path) -> None:
    """Refuse a script of one checkout that has imported the labs of another, the one that ``pip install`` has set up
    this environment for: it would run a mixture of both.

    Raises:
        UsageError: where it is so.
    """
    mixed = own != REPOSITORY and (own / "lab1" / "engine" / "launch.py").is_file()
    require(
        not mixed,
        f"{sys.argv[0]} lies in {own}, but this environment runs the labs of {REPOSITORY}; in {own} run: pip install "
        "-r requirements.txt",
    )


def _run(main: Callable[[Any], Any], config: RunConfig) -> None:
    """Here, or as a job of a cluster; a series submits its jobs itself."""
    if config.cluster is None or isinstance(config, SeriesConfig):
        main(config)
    else:
        from lab1.engine import cluster

        cluster.run_alone(config)


def _thread_failed(failure) -> None:
    # TensorBoard writes in a thread. What stops it there, such as a full disk, it raises again at the next write.
    if not isinstance(failure.exc_value, OSError):
        threading.__excepthook__(failure)


def _leave(status: int, message: str) -> None:
    if _speaks():
        print(message, file=sys.stderr, flush=True)
    sys.exit(status)


def _speaks() -> bool:
    """Under torchrun one process speaks for all: the first with a fault or, where all have it alike, the first one."""
    if "torch.distributed" not in sys.modules:
        return os.environ.get("RANK", "0") == "0"
    from lab1.engine import distributed

    return distributed.is_first_to_complain()


@contextlib.contextmanager
def _one_process_speaks() -> Iterator[None]:
    """Inside ``with``, where one process of several falls, the others leave without a traceback of their own.

    Raises:
        RunFailed: where another process was lost.
    """
    try:
        yield
    except (UsageError, RunFailed, Interrupted):
        raise
    except Exception as error:
        if int(os.environ.get("WORLD_SIZE", 1)) > 1:
            from lab1.engine import distributed

            if (line := distributed.lost_process(error)) is not None:
                raise RunFailed(line) from None
            if not distributed.is_first_to_complain():
                sys.exit(1)
        raise


def prepare(config: RunConfig):
    """What a script does first: seed every global generator, find the device, join the other processes of a torchrun.

    Returns the ``torch.device``. Raises UsageError for a device that is not there,
    and for ``--compile`` where nothing can be compiled.
    """
    import numpy
    import torch

    from lab1.engine import distributed

    random.seed(config.seed)
    numpy.random.seed(config.seed % 2**32)
    torch.manual_seed(config.seed)
    device = find_device(config.device)
    if config.compile:
        check_compiler(device)
    distributed.start(device)
    return device
