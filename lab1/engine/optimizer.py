"""Adam over one vector that holds all parameters: for small networks most of a step is calling one kernel a layer."""

import inspect
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim.adam import adam

from lab1.engine.config import require


def spare_the_compiler() -> None:
    """Keep ``torch.optim`` from importing torch's compiler, where nothing is to be compiled: a second of every start.

    At their first call some methods of every optimizer import it for one purpose, to make a version of themselves that
    is never compiled; that version is noted on the method, and here the method itself is. A torch that does this in
    another way imports it as before.
    """
    for method in vars(torch.optim.Optimizer).values():
        if (inner := getattr(method, "__wrapped__", None)) is not None:
            setattr(inner, "__dynamo_disable", inner)


def bare_step(optimizer: Any) -> Callable[[], Any]:
    """An optimizer's ``step`` as its class defines it, without what torch wraps around it: a mark for the profiler,
    hooks, and the compiler, which it imports. Of small networks that is a tenth of a training step. What is no
    optimizer of torch's keeps its own ``step``."""
    if not isinstance(optimizer, torch.optim.Optimizer):
        return optimizer.step
    return torch.no_grad()(partial(inspect.unwrap(type(optimizer).step), optimizer))


def remaining(parameters: Iterable[torch.Tensor], taken: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    """The parameters that are none of those taken, in their order."""
    places = {id(each) for each in taken}
    return [each for each in parameters if id(each) not in places]


class FlatAdam:
    """Adam (Kingma & Ba 2015), fused, over a single vector, of which a module's parameters become views, and their
    gradients views of its gradient. It computes what ``torch.optim.Adam`` over the parameters themselves does, and has
    those of its methods that a Trainer calls.
    """

    def __init__(self, module: nn.Module, lr: float, eps: float = 1e-5):
        """``eps``: 1e-5 is usual in reinforcement learning."""
        parameters = list(module.parameters())
        flat = nn.Parameter(torch.cat([parameter.detach().flatten() for parameter in parameters]))
        flat.grad = torch.zeros_like(flat)
        sizes = [parameter.numel() for parameter in parameters]
        parts = zip(parameters, flat.data.split(sizes), flat.grad.split(sizes), strict=True)
        for parameter, values, gradients in parts:
            parameter.data, parameter.grad = values.view_as(parameter), gradients.view_as(parameter)
        self.adam = torch.optim.Adam([flat], lr=lr, eps=eps, fused=True)
        bare_step(self.adam)()  # with a gradient of zero it changes nothing but makes the state
        self.adam.state[flat]["step"].zero_()

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return self.adam.param_groups

    @property
    def vector(self) -> nn.Parameter:
        """All parameters, as one vector; its ``grad`` holds their gradients."""
        return self.param_groups[0]["params"][0]

    def zero_grad(self) -> None:
        """Set the gradient to zero; it is never taken away, as the parameters' gradients are views of it."""
        self.vector.grad.zero_()

    def clip(self, norm: float) -> None:
        """Scale the gradient down to this norm, where its own is greater."""
        gradient = self.vector.grad
        gradient.mul_((norm / (torch.linalg.vector_norm(gradient) + 1e-6)).clamp(max=1))

    @torch.no_grad()
    def step(self) -> None:
        """One step, by the function below ``torch.optim.Adam.step``, whose bookkeeping takes longer than the step."""
        vector, group = self.vector, self.param_groups[0]
        state = self.adam.state[vector]
        moments = ([state["exp_avg"]], [state["exp_avg_sq"]], [], [state["step"]])
        (beta1, beta2), rate, eps = group["betas"], group["lr"], group["eps"]
        options = {"weight_decay": 0.0, "amsgrad": False, "maximize": False, "fused": True}
        adam([vector], [vector.grad], *moments, beta1=beta1, beta2=beta2, lr=rate, eps=eps, **options)

    def state_dict(self) -> dict[str, Any]:
        return self.adam.state_dict()

    def load_state_dict(self, content: dict[str, Any]) -> None:
        self.adam.load_state_dict(content)


class KernelMuon:
    """``torch.optim.Muon`` (Jordan et al. 2024) for the kernels of convolutions, which it takes as matrices: a row for
    each output channel. The kernels' memory becomes ``channels_last``.

    Raises:
        UsageError: where this torch has no Muon.
    """

    def __init__(self, kernels: list[nn.Parameter], lr: float, momentum: float = 0.6, weight_decay: float = 0.0):
        known = hasattr(torch.optim, "Muon")
        require(known, f"--optimizer muon: torch {torch.__version__} has no Muon; use torch 2.9 or newer, or sgd")
        self.kernels = kernels
        for kernel in kernels:
            kernel.data = kernel.data.contiguous(memory_format=torch.channels_last)
        self.matrices = [nn.Parameter(_matrix(kernel.data)) for kernel in kernels]  # views of the kernels
        options = {"momentum": momentum, "weight_decay": weight_decay, "ns_steps": 3}
        self.muon = torch.optim.Muon(self.matrices, lr=lr, **options)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return self.muon.param_groups

    def zero_grad(self) -> None:
        for kernel in self.kernels:
            kernel.grad = None

    def step(self) -> None:
        for matrix, kernel in zip(self.matrices, self.kernels, strict=True):
            matrix.grad = _matrix(kernel.grad)
        self.muon.step()

    def state_dict(self) -> dict[str, Any]:
        return self.muon.state_dict()

    def load_state_dict(self, content: dict[str, Any]) -> None:
        self.muon.load_state_dict(content)


def _matrix(kernel: torch.Tensor) -> torch.Tensor:
    """``[out, in, h, w]`` -> ``[out, h * w * in]``; a view where the memory is ``channels_last``."""
    return kernel.permute(0, 2, 3, 1).flatten(1)


class Together:
    """Several optimizers as one, with those of their methods that a Trainer calls."""

    def __init__(self, *parts):
        self.parts = parts

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for part in self.parts for group in part.param_groups]

    def zero_grad(self) -> None:
        for part in self.parts:
            part.zero_grad()

    def step(self) -> None:
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        return {str(number): part.state_dict() for number, part in enumerate(self.parts)}

    def load_state_dict(self, content: dict[str, Any]) -> None:
        for number, part in enumerate(self.parts):
            part.load_state_dict(content[str(number)])
