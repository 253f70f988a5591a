"""Adam with a cosine schedule that is a pure function of the step."""

import math

import torch
from torch import Tensor, nn


def make_optimizer(model: nn.Module, learning_rate: float) -> torch.optim.Adam:
    """Adam over all parameters, in one pass over each."""
    return torch.optim.Adam(model.parameters(), lr=learning_rate, fused=True)


def cosine_learning_rate(step: int, steps: int, peak: float, warmup_steps: int) -> float:
    """Linear from 0 to `peak` over `warmup_steps`, then half a cosine down to 0 at `steps`."""
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    return 0.5 * peak * (1 + math.cos(math.pi * (step - warmup_steps) / (steps - warmup_steps)))


def optimizer_tensors(optimizer: torch.optim.Adam, model: nn.Module) -> dict[str, Tensor]:
    """The optimiser's state as named tensors: `<parameter>.<quantity>`."""
    return {
        f"{name}.{quantity}": value
        for name, parameter in model.named_parameters()
        for quantity, value in optimizer.state.get(parameter, {}).items()
    }


def load_optimizer_tensors(optimizer: torch.optim.Adam, model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """The inverse of `optimizer_tensors`: everything goes to its parameter's device."""
    parameters = dict(model.named_parameters())
    for key, value in tensors.items():
        name, _, quantity = key.rpartition(".")
        optimizer.state[parameters[name]][quantity] = value.to(parameters[name].device)
