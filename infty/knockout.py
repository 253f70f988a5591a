"""Knock-outs: what a result owes to the memory, seen by reading another thing in its place. What is kept stays true."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from infty.errors import UsageError
from infty.memory.compressive import CompressedState, CompressiveMemory
from infty.memory.longterm import LongTermMemory, LongTermState
from infty.memory.rows import visible
from infty.memory.signal import evaluate_signal, first_grid
from infty.model.block import Lesion, LongRangeState
from infty.model.decoder import Decoder

KnockOut = Literal["zero", "shuffle", "other"]
KINDS = get_args(KnockOut)


@contextmanager
def knocked_out(model: Decoder, kind: KnockOut) -> Iterator[None]:
    """Within the block every long-range memory is read emptied, in another order, or as another row's.

    other: rows of the first half read what those of the second half remember. UsageError where there is no memory.
    """
    blocks = [block for block in model.blocks if block.long_range is not None]
    if not blocks:
        raise UsageError("this row has no memory beyond the short-term one: there is nothing to knock out")
    for block in blocks:
        assert block.long_range is not None
        block.lesion = _shuffled(block.long_range) if kind == "shuffle" else {"zero": _zero, "other": _other}[kind]
    try:
        yield
    finally:
        for block in blocks:
            block.lesion = None


def _zero(state: LongRangeState) -> LongRangeState:
    if isinstance(state, LongTermState):
        return replace(state, coefficients=torch.zeros_like(state.coefficients))
    return replace(state, filled=torch.zeros_like(visible(state.slots, state.filled)))


def _shuffled(memory: LongTermMemory | CompressiveMemory) -> Lesion:
    """Slots in another order; a signal as if what it holds had come in another order."""

    def shuffle(state: LongRangeState) -> LongRangeState:
        if isinstance(state, CompressedState):
            count = state.slots.shape[1]
            own = torch.arange(count) >= count - visible(state.slots, state.filled)[:, None]
            keys = torch.where(own, _numbers(count), torch.arange(-count, 0.0))  # what is not its own stays before
            return replace(state, slots=state.slots.gather(1, keys.argsort(1)[..., None].expand_as(state.slots)))
        assert isinstance(memory, LongTermMemory)
        places = first_grid(memory.config.segment_length).inside.to(state.coefficients)
        values = evaluate_signal(state.coefficients, memory.basis.evaluate(places))
        return replace(state, coefficients=memory.first @ values[:, _numbers(len(places)).argsort()])

    return shuffle


def _other(state: LongRangeState) -> LongRangeState:
    half = len(state.updates if isinstance(state, LongTermState) else state.slots) // 2
    if isinstance(state, LongTermState):
        return replace(state, coefficients=state.coefficients.roll(half, 0))
    return replace(
        state, slots=state.slots.roll(half, 0), filled=None if state.filled is None else state.filled.roll(half, 0)
    )


def _numbers(count: int) -> Float[Tensor, " n"]:
    """The same random numbers each time."""
    return torch.rand(count, generator=torch.Generator().manual_seed(count))
