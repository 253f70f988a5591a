"""Cut a text into rows of segments (Dai et al. 2019): the tokens of a batch are a pure function of the step.

A row reads its part of the text from left to right, `length` tokens at a time. When its memory is reset, a segment ends
early, so that no segment holds two documents (length = 4, | a reset):

    text      a b c d e f | g h i j k
    segments  abcd, ef··, ghij, k···      fresh: yes, no, yes, no
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Int64
from numpy import ndarray
from pydantic import Field

from infty.base.files import Strict, omit_default
from infty.corpora.tokenizers import Tokenizer

Places = Int64[ndarray, " n"]


class TokenReset(Strict):
    """A reset of the memory every so many tokens (2,048 in the released GPT-2 code)."""

    tokens: int = Field(gt=0, description="tokens between two resets")
    documents: bool = omit_default(False, description="where a document begins as well, and counted from there")


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


def cut_rows(total: int, rows: int, resets: Places, length: int) -> list[Spans]:
    """Cut a text into `rows` streams of equal size that hold every token once; each begins with an empty memory."""
    edges = (np.arange(rows + 1) * total // rows).tolist()
    parts = [low + cut_at_resets(high - low, resets - low) for low, high in pairwise(edges)]
    return [cut_segments(part, length) for part in parts]


def pack_rows(parts: Int64[ndarray, "parts 2"], rows: int, length: int) -> list[Spans]:
    """Distribute whole parts over rows of evaluation, the longest first, each to the row with the fewest segments."""
    load = [0] * min(rows, len(parts))
    given: list[list[int]] = [[] for _ in load]
    segments = -(-(parts[:, 1] - parts[:, 0]) // length)
    for part in np.argsort(-segments, kind="stable").tolist():
        row = load.index(min(load))
        given[row].append(part)
        load[row] += int(segments[part])
    return [cut_segments(parts[sorted(indices)], length) for indices in given]


def cut_windows(tokenizer: Tokenizer, pieces: Iterable[str], segment_length: int) -> Iterator[Int64[ndarray, " n"]]:
    """Cut a text, preceded by a separator, into windows: each is a segment and the first token of the next one.

    The last window is the rest: 1 to `segment_length` tokens. Only one piece of the text is held at a time.
    """
    left = np.array([tokenizer.separator], dtype=np.int64)
    for tokens in tokenizer.encode(pieces):
        left = np.concatenate([left, tokens])
        while len(left) > segment_length:
            yield left[: segment_length + 1]
            left = left[segment_length:]
    yield left
