"""Knock-outs: what a result owes to the memory, seen by reading another thing in its place. What is kept stays true."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from infty.errors import UsageError
from infty.memory.compressive import CompressedState
from infty.memory.longterm import LongTermMemory, LongTermState
from infty.memory.rows import visible
from infty.memory.signal import evaluate_signal, first_grid
from infty.model.block import Block, LongRangeState
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
        block.lesion = partial(_LESIONS[kind], block)
    try:
        yield
    finally:
        for block in blocks:
            block.lesion = None


def _zero(block: Block, state: LongRangeState) -> LongRangeState:
    if isinstance(state, LongTermState):
        return replace(state, coefficients=torch.zeros_like(state.coefficients))
    return replace(state, filled=torch.zeros_like(visible(state.slots, state.filled)))


def _shuffle(block: Block, state: LongRangeState) -> LongRangeState:
    """Slots in another order; a signal as if what it holds had come in another order."""
    if isinstance(state, CompressedState):
        own = visible(state.slots, state.filled)[:, None] - state.slots.shape[1] + torch.arange(state.slots.shape[1]) >= 0
        keys = torch.where(own, _numbers(state.slots.shape[1]), torch.arange(-state.slots.shape[1], 0.0))
        return replace(state, slots=state.slots.gather(1, keys.argsort(1)[..., None].expand_as(state.slots)))
    assert isinstance(block.long_range, LongTermMemory)
    memory = block.long_range
    places = first_grid(memory.config.segment_length).inside.to(state.coefficients)
    values = evaluate_signal(state.coefficients, memory.basis.evaluate(places))
    return replace(state, coefficients=memory.first @ values[:, _numbers(len(places)).argsort()])


def _other(block: Block, state: LongRangeState) -> LongRangeState:
    half = len(state.updates if isinstance(state, LongTermState) else state.slots) // 2
    if isinstance(state, LongTermState):
        return replace(state, coefficients=state.coefficients.roll(half, 0))
    return replace(
        state, slots=state.slots.roll(half, 0), filled=None if state.filled is None else state.filled.roll(half, 0)
    )


def _numbers(count: int) -> Float[Tensor, " n"]:
    """The same random numbers each time."""
    return torch.rand(count, generator=torch.Generator().manual_seed(count))


_LESIONS = {"zero": _zero, "shuffle": _shuffle, "other": _other}
