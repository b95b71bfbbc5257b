"""Networks that can be made again from what a run's file says: the name of a registered class, and plain arguments.

Nothing is ever imported by a name that stands in a file: a class is known here once the module that defines it has been
imported, such as ``lab1.models``.
"""

import contextlib
import functools
import inspect
import io
import pickle
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from lab1.engine import checkpoint
from lab1.engine.config import RunFailed, UsageError, require
from lab1.engine.files import MISFITS, in_words, read_object, reason

Network = TypeVar("Network", bound=type[nn.Module])
NETWORKS: dict[str, type[nn.Module]] = {}


def register(network: Network) -> Network:
    """Class decorator: scripts can load this network again from a run. It notes, in ``arguments``, what each one is
    made with.

    Raises:
        TypeError: where the arguments could not be given again by name, or another class has this name.
    """
    name, signature = network.__name__, inspect.signature(network)
    kinds = {parameter.kind: parameter.name for parameter in signature.parameters.values()}
    if inspect.Parameter.VAR_POSITIONAL in kinds or inspect.Parameter.POSITIONAL_ONLY in kinds:
        raise TypeError(f"@register: {name}(...) must take its arguments by name, without *args")
    extra = kinds.get(inspect.Parameter.VAR_KEYWORD)
    known = NETWORKS.get(name, network)
    if (known.__module__, known.__qualname__) != (network.__module__, network.__qualname__):
        raise TypeError(f"@register: there is a network {name} in {known.__module__} already; give yours another name")
    original = network.__init__

    @functools.wraps(original)
    def __init__(self, *args, **kwargs):
        original(self, *args, **kwargs)
        if type(self) is network:  # a subclass is made with other arguments, and notes its own
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            self.arguments = bound.arguments
            self.arguments |= self.arguments.pop(extra, {})

    network.__init__ = __init__
    NETWORKS[name] = network
    return network


def describe(model: nn.Module) -> dict[str, Any]:
    """What ``build`` needs to make this network again; the arguments are None where the network does not tell."""
    return {"class": type(model).__name__, "arguments": getattr(model, "arguments", None)}


def check(model: nn.Module) -> str | None:
    """To be called before training: whether this network can be loaded again; if not, a line that says how it could.

    Raises:
        UsageError: where it was made with something that a file of plain values cannot hold, such as a function.
    """
    name = type(model).__name__
    if not hasattr(model, "arguments"):
        return f"{name} trains and is tested; for scripts to load it again, put @register (lab1.engine.registry) on it"
    for key, value in model.arguments.items():
        stored = io.BytesIO()
        try:
            torch.save(value, stored)
            torch.load(io.BytesIO(stored.getvalue()), weights_only=True)
        except (pickle.PickleError, AttributeError, TypeError, RuntimeError):
            raise UsageError(
                f"{name} was made with {key}={value!r}, which a run's file cannot hold: give it a number, a text, a "
                "list or a dictionary of these instead"
            ) from None
    return None


def make(network: type[nn.Module], **offered: Any) -> nn.Module:
    """A network of this class, made with those of the offered arguments that it takes.

    Raises:
        UsageError: where it needs another one.
    """
    parameters = inspect.signature(network).parameters.values()
    named = [each for each in parameters if each.kind is not inspect.Parameter.VAR_KEYWORD]
    needed = [each.name for each in named if each.default is each.empty and each.name not in offered]
    require(
        not needed,
        f"{network.__name__} needs {' and '.join(needed)}: give a default to what is none of {', '.join(offered)}",
    )
    takes_any = len(named) < len(parameters)
    return network(**{key: value for key, value in offered.items() if takes_any or key in [e.name for e in named]})


def build(description: dict[str, Any]) -> nn.Module:
    """The untrained network of a description ``{"class": "MLP", "arguments": {...}}``.

    Raises:
        UsageError: for a class that is not registered, or arguments that do not fit it.
    """
    require(isinstance(description, dict), f"its description is {in_words(description)}")
    name = description.get("class")
    require(
        isinstance(name, str) and name in NETWORKS,
        f"a network of class {name!r} is none of this lab's ({', '.join(NETWORKS)})",
    )
    try:
        return NETWORKS[name](**description["arguments"])
    except (*MISFITS, MemoryError) as error:
        raise UsageError(f"the description of a {name} does not fit: {reason(error)}") from None


def load_weights(model: nn.Module, path: Path, device: torch.device | str = "cpu") -> None:
    """Give a network the weights of a ``best.pt``.

    Raises:
        UsageError: where there is no such file, or it is of no use to this network.
        RunFailed: where the system cannot read it.
    """
    try:
        content = checkpoint.load(path, device)
    except FileNotFoundError:
        raise UsageError(f"{path} is gone; start the run anew") from None
    except checkpoint.UnreadableCheckpoint as error:
        raise RunFailed(f"{error}; try again") from None
    except checkpoint.BrokenCheckpoint as error:
        raise UsageError(f"{error}; start the run anew") from None
    try:
        model.load_state_dict(content["weights"])
    except MISFITS as error:
        raise UsageError(f"{path} does not fit this network: {reason(error)}") from None
    _require_finite(model, path)


def _require_finite(model: nn.Module, path: Path) -> None:
    for name, parameter in model.named_parameters():
        require(bool(parameter.isfinite().all()), f"{path} is of no use: its weights {name} are not finite")


def _series(folder: Path) -> str | None:
    """What to say of a folder without weights that holds several runs; None of any other."""
    inside = sorted(path.parent for path in folder.glob("*/best.pt"))
    if inside:
        return f"{folder} holds several runs; name one of them, such as {inside[0]}"
    with contextlib.suppress(UsageError, OSError):
        if "runs" in read_object(folder / "results.json"):
            return f"{folder} is of several runs, and keeps the weights of none; name a single run"
    return None


def load(
    path: Path,
    device: torch.device | str = "cpu",
    noun: str = "network",
    missing: str | None = None,
    **about: Any,
) -> tuple[nn.Module, dict[str, Any]]:
    """The trained network of a ``best.pt``, in evaluation mode, and what is stored beside it (data set, classes,
    normalisation).

    Args:
        noun: what messages call it. missing: what they say where there is no file.
        about: the type of each thing that must be stored beside it; ``[float]`` is a list of numbers.

    Raises:
        UsageError: where there is no such file, or it is no network of this lab.
        RunFailed: where the system cannot read it.
    """
    path = Path(path)
    try:
        content = checkpoint.load(path, device)
    except FileNotFoundError:
        raise UsageError(_series(path.parent) or missing or f"no file {path}; train a network first") from None
    except checkpoint.UnreadableCheckpoint as error:
        raise RunFailed(f"{error}; try again") from None
    except checkpoint.BrokenCheckpoint as error:
        raise UsageError(str(error)) from None
    try:
        model, beside = build(content["model"]), content["about"]
        require(isinstance(beside, dict), f"beside its weights is {in_words(beside)}")
        for name, kind in about.items():
            each, kind = (beside[name], kind[0]) if isinstance(kind, list) else ([beside[name]], kind)
            fits = isinstance(each, list) and all(isinstance(value, kind) for value in each)
            require(fits, f"its {name} is {in_words(beside[name])} of another kind")
        model.load_state_dict(content["weights"])
    except (*MISFITS, UsageError) as error:
        raise UsageError(f"{path} holds no {noun} of this lab: {reason(error)}") from None
    _require_finite(model, path)
    return model.to(device).eval(), beside
