"""Totals over a split, divided once at the end."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn import functional as F

from infty.interfaces import UNSCORED, Batch
from infty.model.decoder import Decoder, Output
from infty.model.unroll import unroll

# What a result of each kind of task means. A change to any of this is a new version of the name.
PROTOCOLS = {
    "sort": {
        "name": "sort-accuracy-v1",
        "unit": "symbol",
        "memory_reset": "sequence",
        "scored": "all symbols of the answer, teacher-forced",
    }
}


@dataclass(frozen=True)
class Totals:
    """nats: summed cross-entropy. scored: targets. correct: those that were the most likely symbol.

    Means of means would weigh a smaller last batch wrongly; totals add up whatever the batches are.
    """

    nats: float = 0.0
    scored: int = 0
    correct: int = 0

    def __add__(self, other: "Totals") -> "Totals":
        return Totals(self.nats + other.nats, self.scored + other.scored, self.correct + other.correct)

    def metrics(self, split: str) -> dict[str, float]:
        """`<split>/loss` in nats a target, and `<split>/accuracy` from 0 to 1."""
        return {f"{split}/loss": self.nats / self.scored, f"{split}/accuracy": self.correct / self.scored}


def evaluate(model: Decoder, batches: Iterable[Batch]) -> Totals:
    """Run the model in evaluation mode over all batches and restore its mode. Touches no other state."""
    total = Totals()
    with evaluating(model):
        for batch in batches:
            for output, targets in unroll(model, batch.segments(model.config.segment_length)):
                total += count(output, targets)
    return total


def count(output: Output, targets: Int[Tensor, "batch wanted"]) -> Totals:
    """The totals of one segment."""
    losses = F.cross_entropy(output.logits.mT, targets, ignore_index=UNSCORED, reduction="none")
    scored = targets != UNSCORED
    correct = (output.logits.argmax(-1) == targets) & scored
    return Totals(losses.double().sum().item(), int(scored.sum()), int(correct.sum()))


@contextmanager
def evaluating(model: Decoder) -> Iterator[None]:
    """Evaluation mode without gradient, and the mode from before afterwards."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)
