"""Evaluate a model: totals over a split, which are divided once at the end; and what it owes to its memory."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from infty.base.batch import UNSCORED, Batch, Totals
from infty.base.errors import UsageError
from infty.model.interface import Output, SegmentModel, unroll
from infty.tasks.protocols import KnockOut
from infty.tasks.task import PerTarget


def evaluate(
    model: SegmentModel, batches: Iterable[Batch], *, choices: bool, record: PerTarget | None = None
) -> Totals:
    """Sum the totals of a model in evaluation mode over all batches, and restore its mode.

    choices: count how often the target was the most likely token. record: array to fill, at the batches' places, with
    the nats of each target; with `choices` with True if it was the most likely token.
    """
    total = Totals()
    segments = (segment for batch in batches for segment in batch.segments(model.config.segment_length))
    with use_evaluation_mode(model):
        for output, segment in unroll(model, segments):
            nats = output.nats(segment.targets)
            total += sum_segment(nats, output, segment, choices)
            if record is not None:
                _note(record, output.logits.argmax(-1) == segment.targets if choices else nats.float(), segment)
    return total


def sum_segment(nats: Float[Tensor, "batch wanted"], output: Output, segment: Batch, choices: bool) -> Totals:
    """Sum the totals of one segment."""
    scored = segment.targets != UNSCORED
    correct = int(((output.logits.argmax(-1) == segment.targets) & scored).sum()) if choices else 0
    if segment.aside is None:
        return Totals(nats.double().sum().item(), int(scored.sum()), correct)
    aside = segment.aside.to(nats.device)
    apart, rest = (nats.double() * aside).sum().item(), (nats.double() * ~aside).sum().item()
    return Totals(rest, int((scored & ~aside).sum()), correct, int(aside.sum()), apart)


def _note(noted: PerTarget, found: Shaped[Tensor, "batch wanted"], segment: Batch) -> None:
    """Write the values of the scored targets into an array, at their places."""
    assert segment.places is not None, "only batches with places can be recorded per target"
    for row, targets, place in zip(found.cpu(), segment.targets.cpu(), segment.places.tolist(), strict=True):
        scored = (targets != UNSCORED).numpy()
        noted[place : place + len(scored)][scored[: len(noted) - place]] = row.numpy()[scored]


@contextmanager
def use_evaluation_mode(model: SegmentModel) -> Iterator[None]:
    """Use evaluation mode without gradients within the block; then restore the mode from before."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


@contextmanager
def knock_out_memories(model: SegmentModel, kind: KnockOut) -> Iterator[None]:
    """Read every long-range memory emptied, in another order, or as another row's, within the block.

    other: rows of the first half read what those of the second half remember. UsageError if there is no memory, or one
    of which this can't be asked.
    """
    layers = [(layer, layer.long_range) for layer in model.memory_layers if layer.long_range is not None]
    if not layers:
        raise UsageError("this row has no memory beyond the short-term one: there is nothing to knock out")
    for layer, memory in layers:
        if kind not in memory.knock_outs:
            raise UsageError(f"--knock-out {kind} is not known of a {type(memory).__name__}")
        layer.knocked_out = kind
    try:
        yield
    finally:
        for layer, _ in layers:
            layer.knocked_out = None
