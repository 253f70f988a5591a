"""Knock-outs: what a result owes to the memory, seen by reading another thing in its place. What is kept stays true."""

from collections.abc import Iterator
from contextlib import contextmanager

from infty.base.errors import UsageError
from infty.model.interface import SegmentModel
from infty.tasks.protocols import KnockOut


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
