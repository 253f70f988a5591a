"""Run a layer's memory (M9): what enters it, when it is read, and which state is carried on."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from infty.memory.contract import ExtraKeys, KnockOut, Losses, Memory, MemoryState, PerRow, Rows, Wanted
from infty.memory.equations import Hidden, Weight
from infty.memory.rows import interleave
from infty.model.short_term import KeyValue, ShortTermState


@dataclass(frozen=True)
class Part:
    """Part of a segment that is read in several calls: does the segment begin with it, and does it end with it?"""

    begins: bool = True
    ends: bool = True

    @property
    def is_whole(self) -> bool:
        """Tell whether it is all of the segment."""
        return self.begins and self.ends

    def collect(
        self, before: Float[Tensor, "batch n hidden"], x: Hidden, length: int
    ) -> Float[Tensor, "batch seen hidden"]:
        """Collect what a memory is to see of a segment of `length`: x, or at its end all of it. before: precedes x."""
        return x if self.begins or not self.ends else torch.cat([before, x], 1)[:, -length:]


WHOLE = Part()


def unfold_segments(x: Float[Tensor, "rows length hidden"], texts: int) -> Float[Tensor, "texts several hidden"]:
    """Put the segments of each text, rows of one batch, one after the other."""
    return x.unflatten(0, (texts, -1)).flatten(1, 2)


@dataclass(frozen=True)
class LayerState:
    """State that one layer carries from segment to segment."""

    short_term: ShortTermState
    long_range: MemoryState | None
    prepared: Any = None  # what reading makes of the memory, within a segment that is read in parts
    extra: KeyValue | None = None  # likewise of the memory's extra keys

    @classmethod
    def concatenate(cls, parts: Sequence["LayerState"]) -> "LayerState":
        """Make one state of those of several batches. TypeError if their memories are of different kinds."""
        far: list[Any] = [part.long_range for part in parts]
        if len({type(state) for state in far}) > 1:
            raise TypeError("memories of different kinds are no one batch's")
        short_term = ShortTermState.concatenate([part.short_term for part in parts])
        return cls(short_term, None if far[0] is None else type(far[0]).concatenate(far))

    def detach(self) -> "LayerState":
        """Cut the state from its graph: no gradient flows into earlier segments."""
        far = None if self.long_range is None else self.long_range.detach()
        return replace(self, short_term=self.short_term.detach(), long_range=far)

    def reset(self, rows: Rows, seeds: PerRow) -> "LayerState":
        """Forget everything in the marked rows; `seeds` name the streams that begin there."""
        far = None if self.long_range is None else self.long_range.reset(rows, seeds)
        return LayerState(self.short_term.reset(rows), far)


@dataclass(frozen=True)
class Recollection:
    """What a layer has of its memory for one segment, or for a part of one."""

    extra: ExtraKeys | None = None  # for attention
    far: Wanted | None = None  # what was read; None: nothing
    state: MemoryState | None = None  # to keep
    losses: Losses = field(default_factory=Losses)
    prepared: Any = None  # for the other parts of the segment


class MemoryLayer(nn.Module):
    """A layer with or without a memory; its other parts are ours (`Layer`) or another library's (`GraftedLayer`)."""

    to_compile: ClassVar[tuple[str, ...]] = ()  # methods worth compiling, as in `Memory`
    segment_length: int
    short_term_length: int
    long_range: Memory[Any] | None
    knocked_out: KnockOut | None = None  # what is read instead of the memory; never kept

    def initial_state(self, seeds: PerRow, like: Float[Tensor, " hidden"]) -> LayerState:
        """Make the state before the first token. like: a vector of the hidden size, precision and device."""
        short_term = ShortTermState(like.new_zeros(len(seeds), 0, len(like)))
        far = None if self.long_range is None else self.long_range.initial_state(len(seeds), seeds)
        return LayerState(short_term, far)

    def complete(self, states: Sequence[LayerState]) -> Sequence[LayerState]:
        """Make states alike before they are concatenated; by default they are, or what they lack is made again."""
        return states

    def read_by_content(
        self, x: Hidden, rows: Rows | slice, vectors: Float[Tensor, "some n hidden"]
    ) -> Float[Tensor, "some length hidden"]:
        """Read `vectors` as some rows of x would by content alone, with x and the projections held constant."""
        raise NotImplementedError

    def is_settled(self, state: LayerState) -> bool:
        """Tell whether the next segments are alike: each attends to as many tokens, and as many leave before it."""
        short_term = state.short_term
        return short_term.filled is None and short_term.hidden.shape[1] == self.short_term_length + self.segment_length

    def recall_in_turn(
        self,
        queries: Wanted,
        x: Hidden,
        before: LayerState,
        evicted: Float[Tensor, "texts left hidden"],
        projection: Weight | None = None,
    ) -> Recollection:
        """Recall for several segments that are rows of one batch, without a gradient. evicted: what left before each.

        Equal to `recall` for one after the other: a memory takes in what left in turn, and is read for all at once,
        unless reading changes it.

        Raises:
            TypeError: The state is another kind of memory's.
        """
        self._refuse_another(before.long_range)
        memory, state, rows = self.long_range, before.long_range, len(evicted)
        count = len(x) // rows
        if memory is None or state is None:
            return Recollection()
        if memory.notes_reading:
            turns = (part.unflatten(0, (rows, count)).unbind(1) for part in (queries, x))
            found = []
            for asked, own, gone in zip(*turns, evicted.chunk(count, 1), strict=True):
                found.append(self.recall(asked, own, before, gone, None, projection))
                before = replace(before, long_range=found[-1].state)
            far = [each.far for each in found if each.far is not None]
            return replace(found[-1], far=interleave(far) if far else None)
        states = memory.advance_in_turn(state, evicted, count)
        known = [memory.knock_out(each, self.knocked_out) for each in states] if self.knocked_out else states
        together = type(state).interleave(known)
        far, _, _ = memory.read(queries, x, together, projection)
        return Recollection(memory.extra_keys(together), far, states[-1])

    def recall(
        self,
        queries: Wanted,
        x: Hidden,
        before: LayerState,
        evicted: Float[Tensor, "batch left hidden"],
        rows: Rows | None,
        projection: Weight | None = None,
        part: Part = WHOLE,
    ) -> Recollection:
        """Update the long-range memory with what left the short-term one, then read it, in one autograd graph.

        Arguments are those of `Memory.advance` and `Memory.read`.

        Raises:
            TypeError: The state is another kind of memory's.
        """
        self._refuse_another(before.long_range)
        memory, state, losses = self.long_range, before.long_range, Losses()
        if memory is None:
            return Recollection()

        # What left enters; there may be nothing yet.
        if evicted.shape[1]:
            state, losses = memory.advance(state, evicted, rows, partial(self.read_by_content, x))

        # It is read as it is, or knocked out. Reading changes a state: if it was knocked out, the true one is read as
        # well, and that is kept.
        known = memory.knock_out(state, self.knocked_out) if self.knocked_out else state
        prepared = None if part.begins else before.prepared
        if not part.is_whole and prepared is None:
            prepared = memory.prepare(known)
        more = {} if prepared is None else {"prepared": prepared}
        far, after, of_reading = memory.read(queries, x, known, projection, **more)
        if self.knocked_out:
            _, after, _ = memory.read(queries, x, state, projection)
        return Recollection(memory.extra_keys(known), far, after, {**losses, **of_reading}, prepared)

    def _refuse_another(self, state: MemoryState | None) -> None:
        if not isinstance(state, type(None) if self.long_range is None else self.long_range.state_type):
            raise TypeError(f"a state of {type(state).__name__} for a memory of {type(self.long_range).__name__}")

    def mix(self, near: Wanted, far: Wanted | None) -> Wanted:
        """Join what attention read and what was read from the memory, if there was anything."""
        return near if far is None or self.long_range is None else self.long_range.mix(near, far)
