"""Whether memories are read at all: how much of a layer's output comes from them, and whether the loss's gradient
reaches their parameters through the read.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from infty.base.batch import UNSCORED, Batch
from infty.evaluation.evaluate import evaluating
from infty.memory.longterm import LongTermMemory
from infty.model.interface import SegmentModel
from infty.model.memory_layer import Hidden, Seat


def measure_reach(model: SegmentModel, batch: Batch) -> dict[str, Any]:
    """How far memories reach in a stream's last segment, by layer with one; evaluation mode, and nothing is kept.

    share: ‖Z_LTM‖ / ‖Z_STM‖ over all its positions. gate, where, what: root mean square of the gradient of its mean
    loss in nats, the KL left out, over the parameters of the gate (None without one), of what says where to look (W_K,
    w_μ, w_σ) and of what is then read (W_V, W_O). rest: over all parameters of no memory, to compare with.
    """
    seats = [seat for seat in model.seats if isinstance(seat.long_range, LongTermMemory)]
    with evaluating(model), _shares(seats) as shares:
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
    memories = set(model.memory_parameters())
    groups = [_groups(seat.long_range) for seat in seats if isinstance(seat.long_range, LongTermMemory)]
    return {
        "share": [shares[seat] for seat in seats],
        **{name: [_root_mean_square(gradients, group[name]) for group in groups] for name in ("gate", "where", "what")},
        "rest": _root_mean_square(gradients, [parameter for parameter in parameters if parameter not in memories]),
    }


@contextmanager
def _shares(seats: Iterable[Seat]) -> Iterator[dict[Seat, float]]:
    """Within the block each seat's last ‖Z_LTM‖ / ‖Z_STM‖ is noted; 0 where nothing was read."""
    found = dict.fromkeys(seats, 0.0)

    def join(seat: Seat, near: Hidden, far: Hidden | None) -> Hidden:
        found[seat] = 0.0 if far is None else (far.float().norm() / near.float().norm()).item()
        return Seat.join(seat, near, far)

    for seat in found:
        seat.join = partial(join, seat)
    try:
        yield found
    finally:
        for seat in found:
            del seat.join


def _groups(memory: LongTermMemory) -> dict[str, list[Tensor]]:
    return {
        "gate": list(memory.gate.parameters()) if memory.gate else [],
        "where": [memory.key.weight, memory.mean.weight, memory.variance.weight],
        "what": [memory.value.weight, memory.output.weight],
    }


def _root_mean_square(gradients: dict[Tensor, Tensor], group: list[Tensor]) -> float | None:
    """Root mean square of the gradients of a group of parameters; None of an empty group."""
    count = sum(parameter.numel() for parameter in group)
    squares = sum(gradients[parameter].double().square().sum().item() for parameter in group)
    return (squares / count) ** 0.5 if count else None
