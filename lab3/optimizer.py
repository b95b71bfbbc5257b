"""Adam over one vector that holds all parameters: for small networks most of a step is calling one kernel a layer."""

import torch
from torch import nn


class FlatAdam(torch.optim.Adam):
    """Adam (Kingma & Ba 2015), fused, over a single vector, of which a module's parameters become views, and their
    gradients views of its gradient. It computes what Adam over the parameters themselves does.
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
        super().__init__([flat], lr=lr, eps=eps, fused=True)

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
