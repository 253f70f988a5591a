"""Whether memories are read at all: their part of a layer's output, and the gradient that reaches their parameters."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from infty.base.batch import UNSCORED, Batch
from infty.evaluation.evaluate import use_evaluation_mode
from infty.memory.contract import Hidden, Memory
from infty.model.interface import SegmentModel

GROUPS = ("gate", "where", "what")


def measure_reach(model: SegmentModel, batch: Batch) -> dict[str, Any]:
    """Measure how far memories reach in a stream's last segment, by layer with one that can be looked into.

    It is done in evaluation mode, and nothing is kept.

    share: ‖Z_LTM‖ / ‖Z_STM‖ over all its positions. gate, where, what: root mean square of the gradient of its mean
    loss in nats, the KL left out, over the parameters of the gate (None without one), of what says where to look (W_K,
    w_μ, w_σ) and of what is then read (W_V, W_O). rest: over all parameters of no memory, to compare with.
    """
    memories = [layer.long_range for layer in model.memory_layers if layer.long_range is not None]
    groups = {memory: found for memory in memories if (found := memory.parameter_groups())}
    with use_evaluation_mode(model), _note_shares(groups) as shares:
        state, positions = model.initial_state(batch.streams), model.positions()
        *earlier, last = batch.segments(model.config.segment_length)
        for segment in earlier:
            state = model(segment.tokens.to(model.device), state, positions).state
        with torch.enable_grad():
            output = model(last.tokens.to(model.device), state, model.positions())
            targets = last.targets.to(model.device)
            loss = output.nats(targets).sum() / (targets != UNSCORED).sum()
        parameters: list[Tensor] = list(model.parameters())
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
    gradients = {p: torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)}
    of_memories = set(model.memory_parameters())
    return {
        "share": list(shares.values()),
        **{name: [_root_mean_square(gradients, group[name]) for group in groups.values()] for name in GROUPS},
        "rest": _root_mean_square(gradients, [parameter for parameter in parameters if parameter not in of_memories]),
    }


@contextmanager
def _note_shares(memories: Iterable[Memory[Any]]) -> Iterator[dict[Memory[Any], float]]:
    """Within the block the last ‖Z_LTM‖ / ‖Z_STM‖ of each memory is noted; 0 if nothing was read."""
    found = dict.fromkeys(memories, 0.0)

    def mix(memory: Memory[Any], near: Hidden, far: Hidden) -> Hidden:
        found[memory] = (far.float().norm() / near.float().norm()).item()
        return type(memory).mix(memory, near, far)

    for memory in found:
        memory.mix = partial(mix, memory)
    try:
        yield found
    finally:
        for memory in found:
            del memory.mix


def _root_mean_square(gradients: dict[Tensor, Tensor], group: Sequence[Tensor]) -> float | None:
    """Root mean square of the gradients of a group of parameters; None of an empty group."""
    count = sum(parameter.numel() for parameter in group)
    squares = sum(gradients[parameter].double().square().sum().item() for parameter in group)
    return (squares / count) ** 0.5 if count else None
