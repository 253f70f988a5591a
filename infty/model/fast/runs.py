"""Read several small segments at once (not in the paper): a layer's inputs are known once the layer below has run.

They are rows of one batch, those of a text one after the other. A memory takes in what left in turn (`take_in_turn`).
Without a gradient, and only if each attends to as many tokens, and as many leave before it: `SegmentModel.is_settled`.
Equal to one segment after the other: tests/model/fast/test_runs.py.
"""

from collections import deque
from collections.abc import Iterable
from itertools import islice
from typing import Any

import torch
from torch import nn

from infty.base.batch import UNSCORED, Batch
from infty.memory.precision import HOST

# Most numbers in the hidden states of a run. On a CPU 1 MB in float32, half a core's second-level cache.
CPU_NUMBERS, GPU_NUMBERS = 2**18, 2**22


class Queue:
    """Segments to be read, from which as many are taken at once as are alike."""

    def __init__(self, segments: Iterable[Batch], length: int) -> None:
        self._coming, self._waiting, self._length = iter(segments), deque[Batch](), length

    def peek(self) -> Batch | None:
        """Return the next segment; None: there is none."""
        self._fill(1)
        return self._waiting[0] if self._waiting else None

    def take(self, most: int) -> list[Batch]:
        """Take the next segment, and up to `most` in all that are full, go on where it ends, and score as much."""
        self._fill(most)
        run = [self._waiting.popleft()]
        while self._waiting and len(run) < most and self._continues(run[-1], self._waiting[0]):
            run.append(self._waiting.popleft())
        return run

    def _fill(self, count: int) -> None:
        self._waiting.extend(islice(self._coming, max(0, count - len(self._waiting))))

    def _continues(self, before: Batch, segment: Batch) -> bool:
        full = before.tokens.shape == segment.tokens.shape and segment.tokens.shape[1] == self._length
        goes_on = segment.fresh is not None and not segment.fresh.any()
        return full and goes_on and count_wanted(before) == count_wanted(segment)


def count_wanted(segment: Batch) -> int:
    """Count the last tokens of a segment, from the first that is scored in any row."""
    return int((segment.known_targets != UNSCORED).any(0).cummax(0).values.sum())


def count_at_once(model: nn.Module, numbers: int, device: torch.device) -> int:
    """Count the segments with `numbers` hidden values each that are read at once; 1 if dropout draws for each alone."""
    if any(isinstance(part, nn.Dropout) and part.training and part.p for part in model.modules()):
        return 1
    return max(1, (CPU_NUMBERS if device.type == HOST.type else GPU_NUMBERS) // numbers)


def join(run: list[Batch]) -> Batch:
    """Make one batch of a run: the segments of a text are rows that follow each other."""
    if len(run) == 1:
        return run[0]
    fields = {name: [vars(segment)[name] for segment in run] for name in vars(run[0]) if name != "fresh"}
    tensors: dict[str, Any] = {
        name: None if some[0] is None else torch.stack(some, 1).flatten(0, 1) for name, some in fields.items()
    }
    return Batch(**tensors)
