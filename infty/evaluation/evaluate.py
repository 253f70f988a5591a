"""Evaluate a model: totals over a split or a long text, divided once at the end; and what it owes to its memory."""

import statistics
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from infty.base.batch import UNSCORED, Batch, Totals
from infty.base.errors import UsageError
from infty.model.interface import Output, SegmentModel, unroll
from infty.tasks.protocols import KnockOut
from infty.tasks.task import PerTarget

EARLY = (10, 20)  # segments of a stream that the last ones are compared with: the memory is full by then
LATE = 100  # number of last segments


def evaluate(
    model: SegmentModel, batches: Iterable[Batch], *, choices: bool, record: PerTarget | None = None
) -> Totals:
    """Sum the totals of a model in evaluation mode over all batches, and restore its mode.

    choices: count how often the target was the most likely token. record: array to fill, at the batches' places, with
    the nats of each target or, if `choices`, with True if it was the most likely token.
    """
    total = Totals()
    segments = (segment for batch in batches for segment in batch.segments(model.config.segment_length))
    with use_evaluation_mode(model):
        for output, segment in unroll(model, segments):
            nats = output.nats(segment.targets, segment.known)
            total += sum_segment(nats, output, segment, choices)
            if record is not None:
                _note(record, output.logits.argmax(-1) == segment.targets if choices else nats.float(), segment)
    return total


def sum_segment(nats: Float[Tensor, "batch wanted"], output: Output, segment: Batch, choices: bool) -> Totals:
    """Sum the totals of one segment."""
    scored = segment.known_targets != UNSCORED
    correct = int((output.logits.argmax(-1) == segment.targets).sum()) if choices else 0  # none chooses UNSCORED
    if segment.aside is None:
        return Totals(nats.double().sum().item(), int(scored.sum()), correct)
    aside = segment.aside
    marked = aside.to(nats.device)
    apart, rest = (nats.double() * marked).sum().item(), (nats.double() * ~marked).sum().item()
    return Totals(rest, int((scored & ~aside).sum()), correct, int(aside.sum()), apart)


def _note(noted: PerTarget, found: Shaped[Tensor, "batch wanted"], segment: Batch) -> None:
    """Write the values of the scored targets into an array, at their places."""
    assert segment.places is not None, "only batches with places can be recorded per target"
    for row, targets, place in zip(found.cpu(), segment.known_targets, segment.places.tolist(), strict=True):
        scored = (targets != UNSCORED).numpy()
        noted[place : place + len(scored)][scored[: len(noted) - place]] = row.numpy()[scored]


@contextmanager
def use_evaluation_mode(model: SegmentModel) -> Iterator[None]:
    """Use evaluation mode without gradients within the block; then set those modules back that trained."""
    trained = [module for module in model.modules() if module.training]  # to set all is slow, for each token
    for module in trained:
        module.training = False
    try:
        with torch.no_grad():
            yield
    finally:
        for module in trained:
            module.training = True


@contextmanager
def knock_out_memories(model: SegmentModel, kind: KnockOut) -> Iterator[None]:
    """Read every long-range memory emptied, in another order, or as another row's, within the block.

    other: rows of the first half read what those of the second half remember.

    Raises:
        UsageError: There is no memory, or one that can't be knocked out in this way.
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


def read_stream(
    model: SegmentModel, segments: Iterable[Batch], peak_bytes: Callable[[], int], *, choices: bool
) -> tuple[Totals, list[list[int]], dict[str, Any]]:
    """Read one text of any length: totals, with `choices` pairs of target and most likely token, and the pace as JSON.

    Only the state is kept between segments: constant memory and time. They are read one by one, to measure their pace.
    peak_bytes: returns the most memory held so far.
    """
    total, answers, meter = Totals(), [], _Meter(segments, peak_bytes)
    with use_evaluation_mode(model):
        for output, segment in unroll(model, meter, at_once=1):
            total += sum_segment(output.nats(segment.targets, segment.known), output, segment, choices)
            if choices:
                pairs = zip(segment.targets[0].tolist(), output.logits[0].argmax(-1).tolist(), strict=True)
                answers += [[wanted, chosen] for wanted, chosen in pairs if wanted != UNSCORED]
    return total, answers, meter.describe_pace()


class _Meter:
    """An iterator over segments that measures time and memory when each is requested: the previous one is then done."""

    def __init__(self, segments: Iterable[Batch], peak_bytes: Callable[[], int]) -> None:
        self.segments, self.peak_bytes = segments, peak_bytes
        self.tokens = self.count = 0
        self.first: list[float] = []
        self.last: deque[float] = deque(maxlen=LATE + 1)
        self.early_peak: int | None = None

    def __iter__(self) -> Iterator[Batch]:
        for segment in self.segments:
            self._note()
            self.count += 1
            self.tokens += segment.tokens.numel()
            yield segment
        self._note()

    def _note(self) -> None:
        now = time.perf_counter()
        if len(self.first) <= EARLY[1]:
            self.first.append(now)
        self.last.append(now)
        if self.count == EARLY[1]:
            self.early_peak = self.peak_bytes()

    def describe_pace(self) -> dict[str, Any]:
        """Describe the speed of reading, and the memory it took: early at the 10th to 20th segment, late at the last.

        Segment seconds are medians, peak bytes the most held until then; None if the stream is too short to compare.
        """
        seconds = self.last[-1] - self.first[0]
        early = late = held = peak = None
        if self.count >= EARLY[1] + LATE:
            early, late = _median_step(self.first[EARLY[0] - 1 :]), _median_step(self.last)
            held, peak = self.early_peak, self.peak_bytes()
        return {
            "tokens": self.tokens,
            "segments": self.count,
            "seconds": seconds,
            "early_segment_seconds": early,
            "late_segment_seconds": late,
            "early_peak_bytes": held,
            "late_peak_bytes": peak,
            "tokens_per_second": round(self.tokens / seconds),
            **(
                {"late_to_early": late / early, "growth_bytes": peak - held} if early and late and held and peak else {}
            ),
        }


def _median_step(times: Iterable[float]) -> float:
    return statistics.median(after - before for before, after in pairwise(times))
