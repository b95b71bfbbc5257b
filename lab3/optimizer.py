"""Adam over one vector that holds all parameters: for small networks most of a step is calling one kernel a layer."""

import math

import torch
from torch import nn


class FlatAdam(torch.optim.Optimizer):
    """Adam (Kingma & Ba 2015, algorithm 1) over a single vector, of which a module's parameters become views, and their
    gradients views of its gradient. It computes what ``torch.optim.Adam`` does.
    """

    def __init__(self, module: nn.Module, lr: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-5):
        """``eps``: 1e-5 is usual in reinforcement learning."""
        parameters = list(module.parameters())
        flat = nn.Parameter(torch.cat([parameter.detach().flatten() for parameter in parameters]))
        flat.grad = torch.zeros_like(flat)
        sizes = [parameter.numel() for parameter in parameters]
        parts = zip(parameters, flat.data.split(sizes), flat.grad.split(sizes), strict=True)
        for parameter, values, gradients in parts:
            parameter.data, parameter.grad = values.view_as(parameter), gradients.view_as(parameter)
        super().__init__([flat], {"lr": lr, "betas": betas, "eps": eps})
        self.state[flat] = {"step": 0, "exp_avg": torch.zeros_like(flat), "exp_avg_sq": torch.zeros_like(flat)}

    @property
    def vector(self) -> nn.Parameter:
        """All parameters, as one vector; its ``grad`` holds their gradients."""
        return self.param_groups[0]["params"][0]

    def zero_grad(self, set_to_none: bool = False) -> None:
        """Set the gradient to zero; it is never taken away, as the parameters' gradients are views of it."""
        self.vector.grad.zero_()

    def clip(self, norm: float) -> None:
        """Scale the gradient down to this norm, where its own is greater."""
        gradient = self.vector.grad
        gradient.mul_((norm / (gradient.norm() + 1e-6)).clamp(max=1))

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One step of Adam."""
        group, state, gradient = self.param_groups[0], self.state[self.vector], self.vector.grad
        (beta1, beta2), mean, square = group["betas"], state["exp_avg"], state["exp_avg_sq"]
        state["step"] += 1
        mean.lerp_(gradient, 1 - beta1)
        square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        # Both averages begin at zero: what that leaves out is divided out.
        mean_share, square_share = 1 - beta1 ** state["step"], 1 - beta2 ** state["step"]
        spread = square.sqrt().div_(math.sqrt(square_share)).add_(group["eps"])
        self.vector.addcdiv_(mean, spread, value=-group["lr"] / mean_share)
