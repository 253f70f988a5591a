"""Batches, shares and totals: the records that tasks, training and evaluation exchange."""

from collections.abc import Iterator
from dataclasses import astuple, dataclass, replace

import torch
from jaxtyping import Bool, Int, Int64
from numpy import ndarray
from torch import Tensor

UNSCORED = -100  # target of a position that losses ignore, as torch's cross_entropy does


@dataclass(frozen=True)
class Batch:
    """A batch of sequences, or of the next tokens of streams."""

    tokens: Int[Tensor, "batch length"]
    targets: Int[Tensor, "batch length"]  # the token after each of `tokens`, or UNSCORED
    streams: Int[Tensor, " batch"]  # a number that identifies each row, for sticky draws
    fresh: Bool[Tensor, " batch"] | None = None  # rows that begin with an empty memory, others continue; None: all
    places: Int[Tensor, " batch"] | None = None  # index in its split of each row's first target; None: not recorded
    aside: Bool[Tensor, "batch length"] | None = None  # unscored targets, summed apart: a block's first ones
    known: Int[Tensor, "batch length"] | None = None  # the targets on the host, once they are elsewhere

    @classmethod
    def of_stream(cls, tokens: Int64[ndarray, " n"], targets: Int64[ndarray, " n"]) -> "Batch":
        """Make a batch of one row from the next tokens of a single stream."""
        one, goes_on = torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.bool)
        return cls(torch.from_numpy(tokens)[None], torch.from_numpy(targets)[None], one, goes_on)

    def to(self, device: torch.device) -> "Batch":
        """Copy tokens and targets to another device, without waiting; the rest is read on the host only."""
        if self.tokens.device == device:
            return self
        tokens, targets = (part.to(device, non_blocking=True) for part in (self.tokens, self.targets))
        return replace(self, tokens=tokens, targets=targets, known=self.known_targets)

    @property
    def known_targets(self) -> Int[Tensor, "batch length"]:
        """Get the targets that can be read without asking another device."""
        return self.targets if self.known is None else self.known

    def count_scored(self) -> int:
        """Count the scored targets."""
        return int((self.known_targets != UNSCORED).sum())

    def cut(self, start: int, stop: int | None = None) -> "Batch":
        """Cut out the tokens from `start` to `stop`, or to the end."""
        places = None if self.places is None else self.places + start
        aside = None if self.aside is None else self.aside[:, start:stop]
        tokens, targets = self.tokens[:, start:stop], self.targets[:, start:stop]
        known = None if self.known is None else self.known[:, start:stop]
        return replace(self, tokens=tokens, targets=targets, places=places, aside=aside, known=known)

    def segments(self, length: int) -> Iterator["Batch"]:
        """Yield the sequences in segments of `length` tokens, first to last; the last may be shorter."""
        goes_on = torch.zeros(len(self.streams), dtype=torch.bool)
        for start in range(0, self.tokens.shape[1], length):
            yield replace(self.cut(start, start + length), fresh=goes_on if start else self.fresh)


@dataclass(frozen=True)
class Share:
    """The share of one process in work divided among several: every `of`-th item, from `index` on."""

    index: int = 0
    of: int = 1

    def select_indices(self, count: int) -> range:
        """Return the indices, out of `count` items, that belong to this share; empty if processes outnumber items."""
        return range(self.index, count, self.of)


ALL = Share()


@dataclass(frozen=True)
class Totals:
    """Sums over the targets of a split, from which every metric is computed, however batches are made."""

    nats: float = 0.0  # summed cross-entropy of the scored targets
    scored: int = 0  # number of scored targets
    correct: int = 0  # scored targets that were the most likely token, if that is counted
    aside: int = 0  # targets that the protocol does not score; with them the totals cover all of a text
    aside_nats: float = 0.0

    def __add__(self, other: "Totals") -> "Totals":
        return Totals(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))
