"""What gradients say of a network: their size in each layer, and how they change from one input to the next."""

import copy

import torch
from torch import Tensor, nn


def weight_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The weights of convolutions and linear layers, from input to output, by a name that sorts in this order:
    ``01 first convolution``, ``02 convolution``, ..., ``14 last dense layer``. Biases and norms are left out."""
    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    names = {}
    for number, layer in enumerate(layers, start=1):
        place = {1: "first ", len(layers): "last "}.get(number, "")
        kind = "convolution" if isinstance(layer, nn.Conv2d) else "dense layer"
        names[f"{number:02d} {place}{kind}"] = layer.weight
    return names


def gradient_norms(model: nn.Module) -> dict[str, float]:
    """The magnitude (L2 norm) of the gradient of each weight tensor after a backward pass, named as above."""
    weights = weight_tensors(model)
    norms = torch.stack([weight.grad.norm() for weight in weights.values()]).tolist()
    return dict(zip(weights, norms, strict=True))


def line(start: Tensor, end: Tensor, points: int) -> Tensor:
    """Evenly spaced inputs on the straight line between two, both included: ``[points, *shape]``."""
    share = torch.linspace(0, 1, points, device=start.device).reshape(-1, *[1] * start.ndim)
    return start + share * (end - start)


def input_gradients(model: nn.Module, inputs: Tensor, logit: int = 0) -> Tensor:
    """The gradient of one logit with respect to each input, flat: ``[N, ...] -> [N, D]``. The model must treat each
    input on its own, which batch normalisation does in evaluation mode alone."""
    inputs = inputs.detach().requires_grad_()
    (gradients,) = torch.autograd.grad(model(inputs)[:, logit].sum(), inputs)
    return gradients.flatten(1)


def correlations(gradients: Tensor) -> Tensor:
    """How much the gradients at inputs along a line ``[T, D]`` have in common, by distance: ``[T]``, the mean cosine
    between all pairs that are 0, 1, 2, ... places apart.

    It is 1 at any distance where the function is linear, and 0 from the first place on where the gradient is white
    noise: shattered, in the words of Balduzzi et al. (2017), who find plain deep networks near the latter. A gradient
    of zero has nothing in common with any.
    """
    gradients = gradients.cpu().double()  # in this order: MPS has no float64
    unit = gradients / gradients.norm(dim=1, keepdim=True).clamp(min=1e-300)
    cosines = unit @ unit.T
    return torch.stack([cosines.diagonal(places).mean() for places in range(len(gradients))])


def with_batch_statistics(model: nn.Module, inputs: Tensor) -> nn.Module:
    """A copy in evaluation mode that normalises by the statistics of these inputs ``[N, ...]``, instead of the running
    averages, which mean little before training."""
    model = copy.deepcopy(model).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model(inputs)
    return model.eval()
