"""Make Adam and its schedule: learning rates are pure functions of the step, memories may have their own."""

import math
from typing import Literal, assert_never

import torch
from torch import nn

from infty.model.interface import SegmentModel
from infty.model.tensors import Named


def make_optimizer(model: SegmentModel, learning_rate: float, memory_rate: float | None = None) -> torch.optim.Adam:
    """Make a fused Adam, each group with its `peak` rate. memory_rate: of long-range memories; None: as the others."""
    memories = set(model.memory_parameters() if memory_rate else ())
    groups = [
        {"params": [p for p in model.parameters() if p not in memories], "peak": learning_rate},
        {"params": [p for p in model.parameters() if p in memories], "peak": memory_rate},
    ]
    return torch.optim.Adam([group for group in groups if group["params"]], lr=learning_rate, fused=True)


def schedule(step: int, steps: int, warmup_steps: int, kind: Literal["cosine", "linear"]) -> float:
    """Return the share of the peak rate: a linear warm-up from 0, then half a cosine or a line down to 0 at `steps`."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    done = (step - warmup_steps) / (steps - warmup_steps)
    match kind:
        case "cosine":
            return 0.5 * (1 + math.cos(math.pi * done))
        case "linear":
            return 1 - done
        case _:
            assert_never(kind)


def collect_optimizer_tensors(optimizer: torch.optim.Adam, model: nn.Module) -> Named:
    """Collect the optimiser's state as named tensors: `<parameter>.<quantity>`."""
    return {
        f"{name}.{quantity}": value
        for name, parameter in model.named_parameters()
        for quantity, value in optimizer.state.get(parameter, {}).items()
    }


def load_optimizer_tensors(optimizer: torch.optim.Adam, model: nn.Module, tensors: Named) -> None:
    """Load the tensors of `collect_optimizer_tensors`. KeyError or RuntimeError if they are of another model."""
    parameters = dict(model.named_parameters())
    names = {key.rpartition(".")[0] for key in tensors}
    for name in names:
        parameter = parameters[name]
        templates = {"step": torch.zeros(()), "exp_avg": parameter, "exp_avg_sq": parameter}
        found = {quantity: tensors[f"{name}.{quantity}"] for quantity in templates}
        if any((found[q].shape, found[q].dtype) != (part.shape, part.dtype) for q, part in templates.items()):
            raise RuntimeError(f"what is kept of {name} is not of its shape or type")
        optimizer.state[parameter] = {quantity: value.to(parameter.device) for quantity, value in found.items()}
    if len(tensors) != 3 * len(names):
        raise RuntimeError("more is kept of the parameters than Adam keeps")
