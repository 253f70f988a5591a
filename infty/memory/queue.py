"""Share what memories have in common that keep the newest of some vectors: first in, first out (M12, M16)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import assert_never

import torch
from jaxtyping import Float
from torch import Tensor

from infty.memory.contract import KnockOut, Memory, MemoryState, PerRow, Rows
from infty.memory.precision import HOST
from infty.memory.rows import (
    concatenate_rows,
    draw_fixed_numbers,
    exchange_halves,
    mark_own,
    replace_rows,
    send,
    visible,
)

Slots = Float[Tensor, "batch slots hidden"]


@dataclass(frozen=True)
class QueueState(MemoryState):
    """Vectors (M12, M16), oldest first, in the precision and on the device of the weights."""

    slots: Slots  # as many as there are so far
    filled: PerRow | None = None  # how many of them, the newest, each stream may see; None: all

    @classmethod
    def concatenate(cls, parts: Sequence["QueueState"]) -> "QueueState":
        """Make one state of those of several batches; their rows follow each other."""
        return cls(*concatenate_rows([part.slots for part in parts], [part.filled for part in parts]))

    @classmethod
    def interleave(cls, parts: Sequence["QueueState"]) -> "QueueState":
        """Make one batch of a batch's states at several times, those of a row one after the other."""
        whole, times = cls.concatenate(parts), (len(parts), -1)
        filled = None if whole.filled is None else whole.filled.unflatten(0, times).T.flatten()
        return cls(whole.slots.unflatten(0, times).transpose(0, 1).flatten(0, 1), filled)

    def reset(self, rows: Rows, seeds: PerRow | None = None) -> "QueueState":
        """Forget everything in the marked rows: a new document begins there. `seeds` are unused."""
        return replace(self, filled=visible(self.slots, self.filled).masked_fill(rows, 0))


class QueueMemory(Memory[QueueState]):
    """Memory whose state is a queue of vectors (M12, M16)."""

    state_type = QueueState

    def __init__(self, capacity: int, hidden_size: int) -> None:
        """Prepare a queue. capacity: vectors that are kept at most."""
        super().__init__()
        self.capacity, self.hidden_size = capacity, hidden_size

    def initial_state(self, batch: int, seeds: PerRow | None = None) -> QueueState:
        """Make an empty memory for `batch` streams: no vector yet. `seeds` are unused."""
        return QueueState(next(self.parameters()).new_zeros(batch, 0, self.hidden_size))

    def append(self, state: QueueState, slots: Slots, rows: Rows | None = None) -> QueueState:
        """Append new vectors, and drop the oldest beyond `capacity`. Rows that are not marked stay as they are."""
        kept = torch.cat([state.slots, slots], 1)[:, -self.capacity :]
        if rows is None and state.filled is None:
            return QueueState(kept)
        more = slots.shape[1]
        if rows is not None:  # a row that isn't marked has the new ones where it doesn't see them: before its own
            others = torch.cat([slots, state.slots], 1)[:, -self.capacity :]
            kept, more = replace_rows(others, rows, kept), more * rows
        return QueueState(kept, (visible(state.slots, state.filled) + more).clamp(max=kept.shape[1]))

    def knock_out(self, state: QueueState, kind: KnockOut) -> QueueState:
        """Make the vectors that are read in the place of the true ones; shuffled, a row's own still come last."""
        match kind:
            case "zero":
                return state.reset(torch.ones(state.slots.shape[0], dtype=torch.bool, device=HOST))
            case "shuffle":
                count, own = state.slots.shape[1], mark_own(state.slots, state.filled)
                places = torch.arange(count, device=HOST)
                order = torch.where(own, draw_fixed_numbers(count), places - count).argsort(1)
                chosen = send(order, state.slots.device)[..., None].expand_as(state.slots)
                return replace(state, slots=state.slots.gather(1, chosen))
            case "other":
                filled = None if state.filled is None else exchange_halves(state.filled)
                return QueueState(exchange_halves(state.slots), filled)
            case _:
                assert_never(kind)
