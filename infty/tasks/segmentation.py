"""Streams of segments (Dai et al. 2019): which tokens each row of a batch reads at a step, a pure function of it.

A row reads its part of the text from left to right, `length` tokens at a time. Where its memory is reset, a segment
ends early and the next begins there, so that no segment holds two documents (length = 4, | a reset):

    text      a b c d e f | g h i j k
    segments  abcd, ef··, ghij, k···      fresh: yes, no, yes, no
"""

import heapq
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64
from numpy import ndarray

Places = Int64[ndarray, " n"]


@dataclass(frozen=True)
class Spans:
    """Segments of one row in order: [start, stop) of each, and whether its memory begins empty."""

    start: Places
    stop: Places
    fresh: Bool[ndarray, " n"]

    def __len__(self) -> int:
        return len(self.start)


def cut(parts: Int64[ndarray, "parts 2"], length: int) -> Spans:
    """Each part, [start, stop) with a memory of its own, in pieces of `length`, the last one shorter."""
    sizes = parts[:, 1] - parts[:, 0]
    counts = -(-sizes // length)
    within = np.arange(counts.sum()) - np.repeat(counts.cumsum() - counts, counts)
    start = np.repeat(parts[:, 0], counts) + within * length
    return Spans(start, np.minimum(start + length, np.repeat(parts[:, 1], counts)), within == 0)


def parts_of(total: int, resets: Places) -> Int64[ndarray, "parts 2"]:
    """[start, stop) of the pieces of 0 … total between resets; none of them empty."""
    edges = np.unique(np.concatenate([[0], resets[(resets > 0) & (resets < total)], [total]]))
    return np.stack([edges[:-1], edges[1:]], 1)


def even_rows(total: int, rows: int, resets: Places, length: int) -> list[Spans]:
    """Rows of training: `rows` contiguous streams of equal size that together hold every token once.

    A row whose memory should go on from text that another row reads begins with an empty one.
    """
    edges = np.arange(rows + 1) * total // rows
    return [
        cut(low + parts_of(high - low, resets - low), length)
        for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)
    ]


def packed_rows(parts: Int64[ndarray, "parts 2"], rows: int, length: int) -> list[Spans]:
    """Rows of evaluation: whole parts dealt out, the longest first, each to the row that has the least to read."""
    rows = min(rows, len(parts))
    given: list[list[int]] = [[] for _ in range(rows)]
    heap = [(0, row) for row in range(rows)]
    segments = -(-(parts[:, 1] - parts[:, 0]) // length)
    for part in np.argsort(-segments, kind="stable").tolist():
        load, row = heapq.heappop(heap)
        given[row].append(part)
        heapq.heappush(heap, (load + int(segments[part]), row))
    return [cut(parts[sorted(indices)], length) for indices in given]
