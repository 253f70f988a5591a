"""Totals over a split, divided once at the end."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float, Float32
from numpy import ndarray
from torch import Tensor

from infty.interfaces import UNSCORED, Batch, Totals
from infty.model.segments import Output, SegmentModel
from infty.model.unroll import unroll


def evaluate(
    model: SegmentModel,
    batches: Iterable[Batch],
    *,
    choices: bool,
    losses: Float32[ndarray, " tokens"] | None = None,
    right: list[int] | None = None,
) -> Totals:
    """Run the model in evaluation mode over all batches and restore its mode. Touches no other state.

    choices: count how often the target was the most likely one. losses: filled with the nats of each target, at
    the batches' places. right: told for each row of a segment with answers how many of its choices were right.
    """
    total = Totals()
    segments = (segment for batch in batches for segment in batch.segments(model.config.segment_length))
    with evaluating(model):
        for output, segment in unroll(model, segments):
            nats = output.nats(segment.targets)
            total += count(nats, output, segment, choices)
            if right is not None:
                scored = segment.targets != UNSCORED
                right += ((output.logits.argmax(-1) == segment.targets) & scored).sum(1)[scored.any(1)].tolist()
            if losses is not None:
                _note(losses, nats, segment)
    return total


def count(nats: Float[Tensor, "batch wanted"], output: Output, segment: Batch, choices: bool) -> Totals:
    """The totals of one segment."""
    scored = segment.targets != UNSCORED
    correct = int(((output.logits.argmax(-1) == segment.targets) & scored).sum()) if choices else 0
    if segment.aside is None:
        return Totals(nats.double().sum().item(), int(scored.sum()), correct)
    aside = segment.aside.to(nats.device)
    apart, rest = (nats.double() * aside).sum().item(), (nats.double() * ~aside).sum().item()
    return Totals(rest, int((scored & ~aside).sum()), correct, int(aside.sum()), apart)


def _note(losses: Float32[ndarray, " tokens"], nats: Float[Tensor, "batch wanted"], segment: Batch) -> None:
    assert segment.places is not None, "a task without places has no losses to note"
    for row, targets, place in zip(nats.cpu(), segment.targets.cpu(), segment.places.tolist(), strict=True):
        scored = (targets != UNSCORED).numpy()
        losses[place : place + len(scored)][scored[: len(losses) - place]] = row.float().numpy()[scored]


@contextmanager
def evaluating(model: SegmentModel) -> Iterator[None]:
    """Evaluation mode without gradient, and the mode from before afterwards."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)
