"""Read one text of any length with a trained model, in constant memory and constant time per segment."""

import statistics
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import Any

from infty.base.batch import UNSCORED, Batch, Totals
from infty.evaluation.evaluate import sum_segment, use_evaluation_mode
from infty.model.interface import SegmentModel, unroll

EARLY = (10, 20)  # segments that the last ones are compared with: the memory is full by then
LATE = 100  # number of last segments


def read_stream(
    model: SegmentModel, segments: Iterable[Batch], peak_bytes: Callable[[], int], *, choices: bool
) -> tuple[Totals, list[list[int]], dict[str, Any]]:
    """Read a stream. Returns totals, with `choices` the pairs of target and most likely token, and the pace as JSON.

    Only the model's state is kept from segment to segment. peak_bytes: returns the most memory held so far.
    """
    total, answers, meter = Totals(), [], _Meter(segments, peak_bytes)
    with use_evaluation_mode(model):
        for output, segment in unroll(model, meter):
            total += sum_segment(output.nats(segment.targets), output, segment, choices)
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
