"""Share what memories have in common that sum the past up in numbers, all 0 as long as there is none (M13 to M15)."""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from infty.memory.contract import Attend, KnockOut, Losses, Memory, MemoryState, PerRow, Rows
from infty.memory.equations import Hidden
from infty.memory.precision import HOST, full_precision
from infty.memory.rows import exchange_halves, replace_rows

AnyPart = TypeVar("AnyPart", bound="SummaryPart")


@dataclass(frozen=True)
class SummaryPart:
    """Some vectors summed up (M13 to M15): tensors of as many rows, or None."""

    def chunk(self: AnyPart, count: int) -> Iterator[AnyPart]:
        """Cut the rows into `count` parts."""
        cut = {name: part.chunk(count) for name, part in vars(self).items() if part is not None}
        for at in range(count):
            yield replace(self, **{name: parts[at] for name, parts in cut.items()})

    def _change(self: AnyPart, change: Callable[[str, Tensor], Tensor]) -> AnyPart:
        return replace(self, **{name: change(name, part) for name, part in vars(self).items() if part is not None})


AnySummary = TypeVar("AnySummary", bound="SummaryState")


@dataclass(frozen=True)
class SummaryState(MemoryState, SummaryPart):
    """State of numbers alone (M13 to M15), on the device of the weights; those of an empty memory are 0."""

    def reset(self: AnySummary, rows: Rows, seeds: PerRow | None = None) -> AnySummary:
        """Forget everything in the marked rows: a new document begins there. `seeds` are unused."""
        return self._change(lambda _, numbers: replace_rows(numbers, rows, torch.zeros_like(numbers)))

    def update(self: AnySummary, rows: Rows, after: AnySummary) -> AnySummary:
        """Take the marked rows of another state; the others stay as they are."""
        return self._change(lambda name, numbers: replace_rows(numbers, rows, getattr(after, name)))

    def exchange_halves(self: AnySummary) -> AnySummary:
        """Give each row what another one knows."""
        return self._change(lambda _, numbers: exchange_halves(numbers))


class SummaryMemory(Memory[AnySummary], Generic[AnySummary, AnyPart]):
    """Memory whose state is a `SummaryState` (M13 to M15). In which order the past came can't be told from that."""

    knock_outs: ClassVar[tuple[KnockOut, ...]] = ("zero", "other")

    def advance(
        self, state: AnySummary, evicted: Hidden, rows: Rows | None, attend: Attend
    ) -> tuple[AnySummary, Losses]:
        """Take in what left the short-term memory, in the precision of the weights. There is no loss."""
        (after,) = self.advance_in_turn(state, evicted, 1)
        return (after if rows is None else state.update(rows, after)), {}

    def advance_in_turn(self, state: AnySummary, evicted: Hidden, count: int) -> list[AnySummary]:
        """Take in what left before each of several segments, in all rows: only what is joined needs their order."""
        # Equal to one after the other: tests/memory/test_kinds.py::test_segments_at_once_are_taken_in_as_in_turn.
        weight, states = next(self.parameters()), []
        with full_precision(weight.device):
            segments = evicted.to(weight.dtype).unflatten(1, (count, -1)).transpose(0, 1)
            for one in self.summarise(segments.flatten(0, 1)).chunk(count):
                states.append(state := self.join(state, one))
        return states

    @abstractmethod
    def summarise(self, x: Hidden) -> AnyPart:
        """Sum up vectors, oldest first, as far as that can be done before it is known what is there already."""

    @abstractmethod
    def join(self, state: AnySummary, part: AnyPart) -> AnySummary:
        """Join what is known and what comes after it."""

    def knock_out(self, state: AnySummary, kind: KnockOut) -> AnySummary:
        """Make the numbers that are read in the place of the true ones: zeros, or another row's.

        Raises:
            ValueError: The kind is not one of `knock_outs`.
        """
        if kind not in self.knock_outs:
            raise ValueError(f"a {type(self).__name__} knows no knock-out {kind!r}; available: zero, other")
        if kind == "other":
            return state.exchange_halves()
        some = next(iter(vars(state).values()))
        return state.reset(torch.ones(len(some), dtype=torch.bool, device=HOST))
