"""Run a layer's memory (M9): what enters it, when it is read, and which state is carried on."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from infty.memory.contract import Chosen, ExtraKeys, KnockOut, Losses, Memory, MemoryState, PerRow, Rows, Wanted
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
class Known:
    """What a layer's memory knows for one segment, for a part of one, or for several."""

    state: MemoryState | None = None  # to keep, unless reading changes it
    shown: MemoryState | None = None  # what is read: the state, or what a knock-out leaves of it
    extra: ExtraKeys | None = None  # for attention
    losses: Losses = field(default_factory=Losses)
    prepared: Any = None  # for the other parts of the segment
    entering: Hidden | None = None  # of several segments: what is to enter before each, where reading changes the state


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
        self, x: Hidden, rows: Chosen, vectors: Float[Tensor, "some n hidden"]
    ) -> Float[Tensor, "some length hidden"]:
        """Read `vectors` as some rows of x would by content alone, with x and the projections held constant."""
        raise NotImplementedError

    def is_settled(self, state: LayerState) -> bool:
        """Tell whether the next segments are alike: each attends to as many tokens, and as many leave before it."""
        short_term = state.short_term
        return short_term.filled is None and short_term.hidden.shape[1] == self.short_term_length + self.segment_length

    def take_in(
        self,
        x: Hidden,
        before: LayerState,
        evicted: Float[Tensor, "batch left hidden"],
        rows: Rows | None,
        part: Part = WHOLE,
    ) -> Known:
        """Update the long-range memory with what left the short-term one, as `Memory.advance`; there may be nothing.

        Raises:
            TypeError: The state is another kind of memory's.
        """
        self._refuse_another(before.long_range)
        memory, state, losses = self.long_range, before.long_range, Losses()
        if memory is None:
            return Known()
        if evicted.shape[1]:
            state, losses = memory.advance(state, evicted, rows, partial(self.read_by_content, x))
        shown = self._knock_out(state)
        prepared = None if part.begins else before.prepared
        if not part.is_whole and prepared is None:
            prepared = memory.prepare(shown)
        return Known(state, shown, memory.extra_keys(shown), losses, prepared)

    def take_in_turn(self, before: LayerState, evicted: Float[Tensor, "texts left hidden"], count: int) -> Known:
        """Update for `count` segments that are rows of one batch, without a gradient. evicted: what left before each.

        With `recall`, equal to `take_in` and `recall` for one after the other: a memory takes in what left in turn, and
        is read for all at once, unless reading changes it.

        Raises:
            TypeError: The state is another kind of memory's.
        """
        self._refuse_another(before.long_range)
        memory, state = self.long_range, before.long_range
        if memory is None or state is None:
            return Known()
        if memory.notes_reading:
            return Known(state, entering=evicted)
        states = memory.advance_in_turn(state, evicted, count)
        shown = type(state).interleave([self._knock_out(each) for each in states])
        return Known(states[-1], shown, memory.extra_keys(shown))

    def recall(
        self, known: Known, queries: Wanted, x: Hidden, projection: Weight | None = None
    ) -> tuple[Wanted | None, MemoryState | None, Losses]:
        """Read the long-range memory, as `Memory.read`, in one autograd graph with what it took in."""
        memory = self.long_range
        if memory is None:
            return None, known.state, known.losses
        if known.entering is not None:
            return self._recall_in_turn(known, queries, x, projection)
        more = {} if known.prepared is None else {"prepared": known.prepared}
        far, state, losses = memory.read(queries, x, known.shown, projection, **more)
        if not memory.notes_reading:
            state = known.state
        elif self.knocked_out:  # the true memory is read as well, and that is kept
            _, state, _ = memory.read(queries, x, known.state, projection)
        return far, state, {**known.losses, **losses}

    def _recall_in_turn(
        self, known: Known, queries: Wanted, x: Hidden, projection: Weight | None
    ) -> tuple[Wanted | None, MemoryState | None, Losses]:
        """Take in and read for one segment after the other."""
        state, entering, found = known.state, cast("Hidden", known.entering), []
        memory, texts = cast("Memory[Any]", self.long_range), len(entering)
        asking, seeing = (part.unflatten(0, (texts, -1)).unbind(1) for part in (queries, x))
        for asked, seen, entered in zip(asking, seeing, entering.chunk(len(seeing), 1), strict=True):
            state = memory.advance_in_turn(state, entered, 1)[0]
            far, state, _ = self.recall(Known(state, self._knock_out(state)), asked, seen, projection)
            found += [] if far is None else [far]
        return interleave(found) if found else None, state, {}

    def _knock_out(self, state: MemoryState | None) -> MemoryState | None:
        return self.long_range.knock_out(state, self.knocked_out) if self.knocked_out and self.long_range else state

    def _refuse_another(self, state: MemoryState | None) -> None:
        if not isinstance(state, type(None) if self.long_range is None else self.long_range.state_type):
            raise TypeError(f"a state of {type(state).__name__} for a memory of {type(self.long_range).__name__}")

    def mix(self, near: Wanted, far: Wanted | None) -> Wanted:
        """Join what attention read and what was read from the memory, if there was anything."""
        return near if far is None or self.long_range is None else self.long_range.mix(near, far)
