"""What tasks, training and evaluation know of each other, and no more."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from jaxtyping import Int
from torch import Tensor

UNSCORED = -100  # target of a position that no loss counts, as in torch's cross_entropy


@dataclass(frozen=True)
class Batch:
    """Sequences that start with an empty memory.

    targets: the token after each of `tokens`, or UNSCORED. streams: what names each sequence, for sticky draws.
    """

    tokens: Int[Tensor, "batch length"]
    targets: Int[Tensor, "batch length"]
    streams: Int[Tensor, " batch"]

    def to(self, device: torch.device) -> "Batch":
        """The same sequences on another device."""
        return Batch(self.tokens.to(device), self.targets.to(device), self.streams.to(device))

    def segments(self, length: int) -> Iterator["Batch"]:
        """The sequences in pieces of `length` tokens, one after the other; the last may be shorter."""
        for tokens, targets in zip(self.tokens.split(length, 1), self.targets.split(length, 1), strict=True):
            yield replace(self, tokens=tokens, targets=targets)


class Task(Protocol):
    """A source of sequences. Every batch is a pure function of the arguments, so no position is ever lost."""

    vocab_size: int

    def training_batch(self, step: int, batch_size: int, seed: int) -> Batch:
        """The batch of optimiser step `step` (from 0) in a run with this seed."""
        ...

    def evaluation_batches(self, split: str, batch_size: int) -> Iterator[Batch]:
        """All sequences of `split` ("validation" or "test"), in a fixed order."""
        ...
