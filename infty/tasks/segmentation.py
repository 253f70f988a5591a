"""Cut a text into rows of segments (Dai et al. 2019): the tokens of a batch are a pure function of the step.

A row reads its part of the text from left to right, `length` tokens at a time. When its memory is reset, a segment ends
early, so that no segment holds two documents (length = 4, | a reset):

    text      a b c d e f | g h i j k
    segments  abcd, ef··, ghij, k···      fresh: yes, no, yes, no
"""

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Bool, Int64
from numpy import ndarray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from infty.base.batch import UNSCORED, Batch
from infty.corpora.tokenizers import Tokenizer
from infty.corpora.tokens import TokenPart

Places = Int64[ndarray, " n"]


class TokenReset(BaseModel):
    """A reset of the memory every so many tokens (2,048 in the released GPT-2 code)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    tokens: int = Field(gt=0, description="tokens between two resets")
    documents: bool = Field(
        default=False,
        exclude_if=lambda on: not on,
        description="where a document begins as well, and counted from there",
    )


@dataclass(frozen=True)
class Spans:
    """The segments of one row in order: [start, stop) of each. fresh: those that begin with an empty memory."""

    start: Places
    stop: Places
    fresh: Bool[ndarray, " n"]

    def __len__(self) -> int:
        return len(self.start)


def cut_segments(parts: Int64[ndarray, "parts 2"], length: int) -> Spans:
    """Cut parts [start, stop), each with a memory of its own, into segments of `length`; the last may be shorter."""
    sizes = parts[:, 1] - parts[:, 0]
    counts = -(-sizes // length)
    within = np.arange(counts.sum()) - np.repeat(counts.cumsum() - counts, counts)
    start = np.repeat(parts[:, 0], counts) + within * length
    return Spans(start, np.minimum(start + length, np.repeat(parts[:, 1], counts)), within == 0)


def cut_at_resets(total: int, resets: Places) -> Int64[ndarray, "parts 2"]:
    """Cut 0 … total at the resets into non-empty parts [start, stop)."""
    edges = np.unique(np.concatenate([[0], resets[(resets > 0) & (resets < total)], [total]]))
    return np.stack([edges[:-1], edges[1:]], 1)


def cut_even_rows(total: int, rows: int, resets: Places, length: int) -> list[Spans]:
    """Cut the training text into `rows` contiguous streams of equal size, which hold every token once.

    Each row begins with an empty memory, even if the text before it is another row's.
    """
    edges = np.arange(rows + 1) * total // rows
    return [
        cut_segments(low + cut_at_resets(high - low, resets - low), length)
        for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)
    ]


def pack_rows(parts: Int64[ndarray, "parts 2"], rows: int, length: int) -> list[Spans]:
    """Distribute whole parts over rows of evaluation, the longest first, each to the row with the fewest segments."""
    rows = min(rows, len(parts))
    given: list[list[int]] = [[] for _ in range(rows)]
    heap = [(0, row) for row in range(rows)]
    segments = -(-(parts[:, 1] - parts[:, 0]) // length)
    for part in np.argsort(-segments, kind="stable").tolist():
        load, row = heapq.heappop(heap)
        given[row].append(part)
        heapq.heappush(heap, (load + int(segments[part]), row))
    return [cut_segments(parts[sorted(indices)], length) for indices in given]


def cut_windows(tokenizer: Tokenizer, pieces: Iterable[str], segment_length: int) -> Iterator[Int64[ndarray, " n"]]:
    """Cut a text, after a separator, into windows: a segment and the first token of the next one.

    The last window is the rest: 1 to `segment_length` tokens. Only one piece of the text is held at a time.
    """
    left = np.array([tokenizer.separator], dtype=np.int64)
    for tokens in tokenizer.encode(pieces):
        left = np.concatenate([left, tokens])
        while len(left) > segment_length:
            yield left[: segment_length + 1]
            left = left[segment_length:]
    yield left


def find_resets(part: TokenPart, reset: str | TokenReset) -> Places:
    """Find the places at which memory is emptied: document starts, every so many tokens, or none."""
    if isinstance(reset, TokenReset):
        edges = part.starts.tolist() if reset.documents else [0, len(part.tokens)]
        return np.concatenate([np.arange(low, high, reset.tokens) for low, high in pairwise(edges)])
    return part.starts if reset == "document" else part.starts[:0]


def make_batch(
    part: TokenPart,
    separator: int,
    length: int,
    places: list[tuple[Spans, int]],
    names: Int64[ndarray, " batch"],
    *,
    streams: bool,
) -> Batch:
    """Make a batch of the spans at these indices, padded to `length`; a row without a span scores nothing.

    streams: the rows are streams cut at any token, and each begins with the separator, like a document.
    """
    tokens = np.full((len(places), length), separator, dtype=np.int64)
    targets = np.full_like(tokens, UNSCORED)
    fresh, firsts = np.zeros(len(places), dtype=bool), np.zeros(len(places), dtype=np.int64)
    for row, (spans, index) in enumerate(places):
        if index < len(spans):
            start, stop = int(spans.start[index]), int(spans.stop[index])
            fresh[row], firsts[row] = spans.fresh[index], start
            targets[row, : stop - start] = part.tokens[start:stop]
            tokens[row, 1 : stop - start] = part.tokens[start : stop - 1]
            if start and not (index == 0 and streams):
                tokens[row, 0] = part.tokens[start - 1]
            begins = part.starts[np.searchsorted(part.starts, start) : np.searchsorted(part.starts, stop)]
            tokens[row, begins - start] = separator
    return Batch(*map(torch.from_numpy, (tokens, targets, names, fresh, firsts)))


def mark_block_starts(batch: Batch) -> Bool[Tensor, "batch length"]:
    """Mark the target after a full segment's last token: it begins the next block, where nothing precedes it."""
    aside = torch.zeros_like(batch.targets, dtype=torch.bool)
    aside[:, -1] = batch.targets[:, -1] != UNSCORED
    return aside
