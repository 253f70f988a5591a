"""A layer's seat for a memory (section 3.1): what enters it, when it is read, what a layer carries between segments."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from infty.memory.attention import AttentionDensity
from infty.memory.compressive import CompressedState, CompressiveMemory, reconstruction_loss
from infty.memory.longterm import LongTermMemory, LongTermState
from infty.model.memory_kinds import LongRange, LongRangeState
from infty.model.short_term import Evicted, ShortTermState

Hidden = Float[Tensor, "batch length hidden"]
Auxiliary = dict[str, Float[Tensor, ""]]
AnyState = TypeVar("AnyState", bound=LongRangeState)
Lesion = Callable[[LongRangeState], LongRangeState]


@dataclass(frozen=True)
class LayerState:
    """What one layer carries from segment to segment."""

    short_term: ShortTermState
    long_range: LongRangeState | None

    @classmethod
    def joined(cls, parts: Sequence["LayerState"]) -> "LayerState":
        """States of several batches as that of one. TypeError where their memories are of different kinds."""
        far: list[Any] = [part.long_range for part in parts]
        if len({type(state) for state in far}) > 1:
            raise TypeError("memories of different kinds are no one batch's")
        short_term = ShortTermState.joined([part.short_term for part in parts])
        return cls(short_term, None if far[0] is None else type(far[0]).joined(far))

    def reset(self, rows: Bool[Tensor, " batch"], seeds: Int[Tensor, " batch"]) -> "LayerState":
        """Forget everything in the marked rows; `seeds` name the streams that begin there."""
        far = None if self.long_range is None else self.long_range.reset(rows, seeds)
        return LayerState(self.short_term.reset(rows), far)


class Seat(nn.Module):
    """What every layer with a seat has, whether the rest of it is ours (`Block`) or another's (`GraftedLayer`).

    What leaves the short-term memory enters the long-range one *before* it is read, in the same graph: so the task's
    loss reaches the gate or the compressor. lesion: what a knock-out does to the memory before it is read; never kept.
    """

    long_range: LongRange | None
    lesion: Lesion | None = None

    def initial_state(self, seeds: Int[Tensor, " batch"], like: Float[Tensor, " hidden"]) -> LayerState:
        """Nothing seen yet. like: gives hidden size, precision and device."""
        short_term = ShortTermState(like.new_zeros(len(seeds), 0, len(like)))
        far = None if self.long_range is None else self.long_range.initial_state(len(seeds), seeds)
        return LayerState(short_term, far)

    def recall(
        self,
        memory: LongTermMemory,
        state: LongTermState,
        evicted: Evicted,
        look: Callable[[LongTermState], AttentionDensity],
        wanted: int,
    ) -> tuple[Float[Tensor, "batch wanted hidden"] | None, LongTermState, Auxiliary]:
        """Update with what left, then what the last `wanted` positions read, None where there is nothing to read yet.

        look: where the layer's queries look in a signal.
        """
        if evicted.hidden.shape[1]:
            state = memory.update(state, evicted.hidden, evicted.rows)
        if state.is_empty:
            return None, state, {}
        known = self._lesioned(state)
        density = look(known)
        read = memory.read(density.last(wanted), known) if wanted else None
        auxiliary = {"kl": memory.kl(density, state)} if torch.is_grad_enabled() else {}
        if self.lesion and memory.sticky:  # what is kept stays true
            density = look(state)
        return read, memory.observe(state, density), auxiliary

    def compress(
        self,
        memory: CompressiveMemory,
        state: CompressedState,
        evicted: Evicted,
        attend: Callable[[Bool[Tensor, " batch"] | slice, Hidden], Hidden],
    ) -> tuple[CompressedState, CompressedState, Auxiliary]:
        """Compress what left: the slots as they are to be read, those to keep, and the reconstruction loss.

        That is a mean over streams; 0 of one that lost nothing of its own.
        attend: what the layer's queries in some rows read from vectors by content alone, held constant.
        """
        auxiliary = {}
        if evicted.hidden.shape[1]:
            fresh = memory.compressed(evicted.hidden)
            state = memory.update(state, fresh, evicted.rows)
            if torch.is_grad_enabled() and (evicted.rows is None or evicted.rows.any()):
                rows = slice(None) if evicted.rows is None else evicted.rows  # those that lost something of their own
                loss = reconstruction_loss(lambda vectors: attend(rows, vectors), evicted.hidden[rows], fresh[rows])
                auxiliary["reconstruction"] = loss * (len(fresh[rows]) / len(fresh))  # the others have none to lose
        return self._lesioned(state), state, auxiliary

    def join(self, near: Hidden, far: Hidden | None) -> Hidden:
        """Z = Z_STM + Z_LTM (section 3.1): what attention reads and what the long-term memory does, if there is any."""
        return near if far is None else near + far

    def _lesioned(self, state: AnyState) -> AnyState:
        """The memory as it is read: as it is, or knocked out."""
        return cast("AnyState", self.lesion(state)) if self.lesion else state
