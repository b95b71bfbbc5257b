"""Networks that can be made again from what a run's file says: the name of a registered class, and plain arguments.

Nothing is ever imported by a name that stands in a file: a class is known here once the module that defines it has been
imported, such as ``lab1.models``.
"""

import functools
import inspect
import io
import pickle
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from lab1.engine import checkpoint
from lab1.engine.config import UsageError, require

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
    name = description.get("class")
    require(name in NETWORKS, f"a network of class {name!r} is none of this lab's ({', '.join(NETWORKS)})")
    try:
        return NETWORKS[name](**description["arguments"])
    except (TypeError, KeyError) as error:
        raise UsageError(f"the description of a {name} does not fit: {error}") from None


def load(path: Path, device: torch.device | str = "cpu") -> tuple[nn.Module, dict[str, Any]]:
    """The trained network of a ``best.pt``, in evaluation mode, and what is stored beside it (data set, classes,
    normalisation).

    Raises:
        UsageError: where there is no such file, or it is no network of this lab.
    """
    try:
        content = checkpoint.load(Path(path), device)
        require(isinstance(content, dict), f"{path} holds no network of this lab")
        model, about = build(content["model"]), content["about"]
        model.load_state_dict(content["weights"])
    except FileNotFoundError:
        raise UsageError(f"no file {path}; train a network first") from None
    except checkpoint.BrokenCheckpoint as error:
        raise UsageError(str(error)) from None
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(f"{path} holds no network of this lab: {reason}") from None
    return model.to(device).eval(), about
