"""Share what memories have in common that sum the past up in numbers, all 0 as long as there is none (M13 to M15)."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, TypeVar

import torch
from torch import Tensor

from infty.memory.contract import Attend, KnockOut, Losses, Memory, MemoryState, PerRow, Rows
from infty.memory.equations import Hidden
from infty.memory.precision import HOST, full_precision
from infty.memory.rows import exchange_halves, replace_rows

AnySummary = TypeVar("AnySummary", bound="SummaryState")


@dataclass(frozen=True)
class SummaryState(MemoryState):
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

    def _change(self: AnySummary, change: Callable[[str, Tensor], Tensor]) -> AnySummary:
        return replace(self, **{name: change(name, numbers) for name, numbers in vars(self).items()})


class SummaryMemory(Memory[AnySummary]):
    """Memory whose state is a `SummaryState` (M13 to M15). In which order the past came can't be told from that."""

    knock_outs: ClassVar[tuple[KnockOut, ...]] = ("zero", "other")

    def advance(
        self, state: AnySummary, evicted: Hidden, rows: Rows | None, attend: Attend
    ) -> tuple[AnySummary, Losses]:
        """Take in what left the short-term memory, in the precision of the weights. There is no loss."""
        weight = next(self.parameters())
        with full_precision(weight.device):
            after = self.take_in(state, evicted.to(weight.dtype))
        return (after if rows is None else state.update(rows, after)), {}

    @abstractmethod
    def take_in(self, state: AnySummary, x: Hidden) -> AnySummary:
        """Take in vectors, oldest first, in all rows."""

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
