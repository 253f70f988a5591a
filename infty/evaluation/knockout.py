"""Knock-outs: what a result owes to the memory, seen by reading another thing in its place. What is kept stays true."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache, partial

import torch
from jaxtyping import Float
from torch import Tensor

from infty.base.errors import UsageError
from infty.memory.basis import GaussianBasis
from infty.memory.compressive import CompressedState, CompressiveMemory
from infty.memory.longterm import LongTermMemory, LongTermState
from infty.memory.ragged import visible
from infty.memory.signal import first_grid, ridge_operator
from infty.model.interface import SegmentModel
from infty.model.memory_kinds import LongRange, LongRangeState
from infty.model.memory_layer import Lesion
from infty.tasks.protocols import KnockOut

POINTS, PENALTY = 8, 1e-2


@contextmanager
def knocked_out(model: SegmentModel, kind: KnockOut) -> Iterator[None]:
    """Within the block every long-range memory is read emptied, in another order, or as another row's.

    other: rows of the first half read what those of the second half remember. UsageError where there is no memory.
    """
    blocks = [block for block in model.seats if block.long_range is not None]
    if not blocks:
        raise UsageError("this row has no memory beyond the short-term one: there is nothing to knock out")
    for block in blocks:
        block.lesion = _lesion(kind, block.long_range)
    try:
        yield
    finally:
        for block in blocks:
            block.lesion = None


def _lesion(kind: KnockOut, memory: LongRange | None) -> Lesion:
    match kind, memory:
        case "zero", _:
            return lambda state: state.emptied()
        case "other", _:
            return lambda state: state.exchanged()
        case "shuffle", LongTermMemory():
            return partial(_shuffled_signal, memory)
        case "shuffle", CompressiveMemory():
            return _shuffled_slots
        case _:
            raise UsageError(f"--knock-out {kind} is not known of a {type(memory).__name__}")


def _shuffled_signal(memory: LongTermMemory, state: LongRangeState) -> LongTermState:
    """A signal as if what it holds had come in another order."""
    assert isinstance(state, LongTermState)
    order = _reordering(memory.config.num_basis, memory.config.widths).to(state.coefficients)
    return replace(state, coefficients=order @ state.coefficients)


def _shuffled_slots(state: LongRangeState) -> CompressedState:
    """Slots in another order; those that are not a row's own stay before."""
    assert isinstance(state, CompressedState)
    count, device = state.slots.shape[1], state.slots.device
    places = torch.arange(count, device=device)
    own = places >= count - visible(state.slots, state.filled)[:, None]
    keys = torch.where(own, _numbers(count).to(device), places - count)
    return replace(state, slots=state.slots.gather(1, keys.argsort(1)[..., None].expand_as(state.slots)))


@lru_cache(maxsize=4)
def _reordering(num_basis: int, widths: tuple[float, ...]) -> Float[Tensor, "basis basis"]:
    """Coefficients of a signal to those of its pieces in another order, as many as there are centres.

    The signal is read at POINTS places a piece and fitted again; that alone, without another order, changes it by
    1 to 4 % (of its norm, at N from 64 to 512).
    """
    pieces = num_basis // len(widths)
    basis, grid = GaussianBasis(num_basis, widths).double(), first_grid(POINTS * pieces)
    order = _numbers(pieces).argsort()[:, None] * POINTS + torch.arange(POINTS)
    return ridge_operator(basis, grid, PENALTY) @ basis.evaluate(grid.inside)[order.flatten()]


def _numbers(count: int) -> Float[Tensor, " n"]:
    """Random numbers in [0, 1), the same each time."""
    return torch.rand(count, generator=torch.Generator().manual_seed(count))
