"""Run a layer's memory (M9): what enters it, when it is read, and which state is carried on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from infty.memory.contract import Attend, ExtraKeys, KnockOut, Losses, Memory, MemoryState, PerRow, Rows, Wanted
from infty.memory.equations import Hidden, Weight
from infty.model.short_term import ShortTermState


@dataclass(frozen=True)
class LayerState:
    """State that one layer carries from segment to segment."""

    short_term: ShortTermState
    long_range: MemoryState | None

    @classmethod
    def concatenate(cls, parts: Sequence["LayerState"]) -> "LayerState":
        """Make one state of those of several batches. TypeError if their memories are of different kinds."""
        far: list[Any] = [part.long_range for part in parts]
        if len({type(state) for state in far}) > 1:
            raise TypeError("memories of different kinds are no one batch's")
        short_term = ShortTermState.concatenate([part.short_term for part in parts])
        return cls(short_term, None if far[0] is None else type(far[0]).concatenate(far))

    def reset(self, rows: Rows, seeds: PerRow) -> "LayerState":
        """Forget everything in the marked rows; `seeds` name the streams that begin there."""
        far = None if self.long_range is None else self.long_range.reset(rows, seeds)
        return LayerState(self.short_term.reset(rows), far)


class MemoryLayer(nn.Module):
    """A layer with or without a memory; its other parts are ours (`Layer`) or another library's (`GraftedLayer`)."""

    to_compile: ClassVar[tuple[str, ...]] = ()  # methods worth compiling, as in `Memory`
    long_range: Memory[Any] | None
    knocked_out: KnockOut | None = None  # what is read instead of the memory; never kept

    def initial_state(self, seeds: PerRow, like: Float[Tensor, " hidden"]) -> LayerState:
        """Make the state before the first token. like: a vector of the hidden size, precision and device."""
        short_term = ShortTermState(like.new_zeros(len(seeds), 0, len(like)))
        far = None if self.long_range is None else self.long_range.initial_state(len(seeds), seeds)
        return LayerState(short_term, far)

    def recall(
        self,
        queries: Wanted,
        x: Hidden,
        state: MemoryState | None,
        evicted: Float[Tensor, "batch left hidden"],
        rows: Rows | None,
        attend: Attend,
        projection: Weight | None = None,
    ) -> tuple[ExtraKeys | None, Wanted | None, MemoryState | None, Losses]:
        """Update the long-range memory with what left the short-term one, then read it, in one autograd graph.

        Arguments are those of `Memory.advance` and `Memory.read`. Returns extra keys for attention, what was read, if
        anything, the state to keep, detached, and losses.

        Raises:
            TypeError: The state is another kind of memory's.
        """
        memory = self.long_range
        if not isinstance(state, type(None) if memory is None else memory.state_type):
            raise TypeError(f"a state of {type(state).__name__} for a memory of {type(memory).__name__}")
        if memory is None:
            return None, None, None, {}

        # What left enters; there may be nothing yet.
        losses: Losses = {}
        if evicted.shape[1]:
            state, losses = memory.advance(state, evicted, rows, attend)

        # It is read as it is, or knocked out. Reading changes a state: if it was knocked out, the true one is read as
        # well, and that is kept.
        known = memory.knock_out(state, self.knocked_out) if self.knocked_out else state
        far, after, more = memory.read(queries, x, known, projection)
        if self.knocked_out:
            _, after, _ = memory.read(queries, x, state, projection)
        return memory.extra_keys(known), far, after.detach(), {**losses, **more}

    def mix(self, near: Wanted, far: Wanted | None) -> Wanted:
        """Join what attention read and what was read from the memory, if there was anything."""
        return near if far is None or self.long_range is None else self.long_range.mix(near, far)
