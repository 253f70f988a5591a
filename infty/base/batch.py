"""What tasks, training and evaluation know of each other, and no more."""

from collections.abc import Iterator
from dataclasses import astuple, dataclass, replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor

UNSCORED = -100  # target of a position that no loss counts, as in torch's cross_entropy


@dataclass(frozen=True)
class Batch:
    """Sequences, or the next tokens of streams.

    targets: the token after each of `tokens`, or UNSCORED. streams: what names each row, for sticky draws.
    fresh: the rows that begin with an empty memory; the others go on from the state before. None: every row.
    places: where in its split each row's first target stands; None where nobody asks.
    aside: targets that a protocol does not score, and that are summed apart (a block's first tokens); None: none.
    """

    tokens: Int[Tensor, "batch length"]
    targets: Int[Tensor, "batch length"]
    streams: Int[Tensor, " batch"]
    fresh: Bool[Tensor, " batch"] | None = None
    places: Int[Tensor, " batch"] | None = None
    aside: Bool[Tensor, "batch length"] | None = None

    def to(self, device: torch.device) -> "Batch":
        """These sequences on another device; what only the host asks for stays there."""
        return replace(self, tokens=self.tokens.to(device), targets=self.targets.to(device))

    def segments(self, length: int) -> Iterator["Batch"]:
        """The sequences in pieces of `length` tokens, one after the other; the last may be shorter."""
        goes_on = torch.zeros(len(self.streams), dtype=torch.bool)
        pieces = zip(self.tokens.split(length, 1), self.targets.split(length, 1), strict=True)
        for i, (tokens, targets) in enumerate(pieces):
            places = None if self.places is None else self.places + i * length
            aside = None if self.aside is None else self.aside[:, i * length : (i + 1) * length]
            fresh = goes_on if i else self.fresh
            yield replace(self, tokens=tokens, targets=targets, places=places, aside=aside, fresh=fresh)


@dataclass(frozen=True)
class Share:
    """One process's share of what several go through: every `of`-th thing, from `index` on."""

    index: int = 0
    of: int = 1

    def places(self, count: int) -> range:
        """Which of `count` things are this share's; none may be, where there are fewer of them than processes."""
        return range(self.index, count, self.of)


ALL = Share()


@dataclass(frozen=True)
class Totals:
    """Sums over the targets of a split, from which every metric is made.

    nats: summed cross-entropy. scored: targets. correct: those that were the most likely one, where that is counted.

    aside, aside_nats: targets that the protocol does not score. With them it is all of a text.

    Means of means would weigh a smaller last batch wrongly; totals add up whatever the batches are.
    """

    nats: float = 0.0
    scored: int = 0
    correct: int = 0
    aside: int = 0
    aside_nats: float = 0.0

    def __add__(self, other: "Totals") -> "Totals":
        return Totals(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))
