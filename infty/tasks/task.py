"""The contract of a task: all that training, evaluation and results ask of it."""

from collections.abc import Iterator
from typing import Protocol

from infty.base.batch import ALL, Batch, Share, Totals


class TrainingData(Protocol):
    """What is trained on. Every batch is a pure function of the arguments, so no position is ever lost.

    continues: whether a batch goes on where the one before ended, so that memory is carried from step to step.
    """

    vocab_size: int
    continues: bool

    def training_batch(self, step: int, batch_size: int, seed: int, rows: range | None = None) -> Batch:
        """The batch of optimiser step `step` (from 0) in a run with this seed. rows: which of it; None: all."""
        ...

    def steps_an_epoch(self, batch_size: int) -> int:
        """Steps in which everything has been trained on at least once."""
        ...


class Task(TrainingData, Protocol):
    """A source of sequences to train on and to be tested with.

    has_answers: whether a target is right or wrong, so that accuracy means something.
    """

    has_answers: bool

    def evaluation_batches(self, split: str, batch_size: int, share: Share = ALL) -> Iterator[Batch]:
        """All of `split` ("validation" or "test"), in a fixed order; or one process's share of it."""
        ...

    def metrics(self, split: str, totals: Totals) -> dict[str, float]:
        """What the totals over a split mean, named `<split>/<name>`; `<split>/loss` is nats a target."""
        ...
