"""State of the ∞-former's long-term memory: what one update hands to the next (M6, M11)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from infty.memory.contract import MemoryState, PerRow, Rows
from infty.memory.equations import Histogram
from infty.memory.rows import send


@dataclass(frozen=True)
class LongTermState(MemoryState):
    """State of one memory for a batch of streams (M6, M11). An empty memory is the zero signal."""

    coefficients: Float[Tensor, "batch basis hidden"]  # B of X̄(t) = Bᵀψ(t), in the precision of the weights
    updates: PerRow  # how many each stream has had since its memory was empty; 0: there is nothing to read yet
    histogram: Histogram  # share of the last segment's attention per bin; uniform before the first; none: not sticky
    seeds: PerRow  # identity of each stream, from which its sampling points are drawn

    def reset(self, rows: Rows, seeds: PerRow | None = None) -> "LongTermState":
        """Forget everything in the marked rows: a new document begins there, with new `seeds`."""
        marked = send(rows, self.coefficients.device)
        return LongTermState(
            coefficients=self.coefficients.masked_fill(marked[:, None, None], 0),
            updates=self.updates.masked_fill(rows, 0),
            histogram=self.histogram.masked_fill(marked[:, None], 1 / max(self.histogram.shape[1], 1)),
            seeds=self.seeds if seeds is None else torch.where(rows, seeds, self.seeds),
        )
