"""Break a mean loss down by position, by recurrence of words, by chunk and by document (section 4.2: means alone).

Only a model with a long memory can expect a word whose previous occurrence is further back than attention reaches
(distances in tokens, · if there is none):

    text      the cat sat . the dog saw the cat
    distance   ·   ·   ·  ·  4   ·   ·   3   7
"""

import math
import re
from collections.abc import Collection, Iterable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64
from numpy import ndarray

from infty.base.batch import Totals
from infty.tasks.protocols import MOST_NATS, Metrics, has_words

NEW, NO_WORD = 0, -1  # in place of distances
WORD = re.compile(rb"[^\s]+")
CHUNK = 5_000  # approximate tokens per chunk, the unit that a paired bootstrap resamples

Losses = Float32[ndarray, " tokens"]
Counts = Int64[ndarray, " tokens"]


def break_down_losses(losses: Losses, starts: Int64[ndarray, " edges"], distances: Counts, far: int) -> dict[str, Any]:
    """Sum nats and tokens by position in the document, by distance to the word's last use, by chunk and by document."""
    sizes = np.diff(starts)
    position = np.arange(len(losses)) - np.repeat(starts[:-1], sizes)
    chunks = max(1, round(len(losses) / CHUNK))
    return {
        "by_position": _by_power_of_two(losses, position + 1),
        "by_distance": {
            **_by_power_of_two(losses, distances),
            "new_word": _sum(losses, distances == NEW),
            "no_word": _sum(losses, distances == NO_WORD),
        },
        "far": {"more_than": far, **_sum(losses, distances > far)},
        "chunks": _in_order(losses, np.arange(chunks + 1) * len(losses) // chunks),
        "documents": _in_order(losses, starts),
    }


def _by_power_of_two(losses: Losses, values: Counts) -> dict[str, Any]:
    """Sum nats and tokens by values in [1, 2), [2, 4), [4, 8) …, with lower edges `from`; other values are left out."""
    kept = values > 0
    bins = np.log2(values[kept]).astype(np.int64)
    count = int(bins.max(initial=-1)) + 1
    nats = np.bincount(bins, weights=losses[kept].astype(np.float64), minlength=count)
    tokens = np.bincount(bins, minlength=count)
    return {"from": [2**i for i in range(count)], "nats": _round(nats), "tokens": tokens.tolist()}


def _in_order(losses: Losses, edges: Int64[ndarray, " edges"]) -> dict[str, Any]:
    """Sum nats and tokens of consecutive pieces."""
    sums = np.concatenate([[0.0], losses.astype(np.float64).cumsum()])
    return {"nats": _round(sums[edges[1:]] - sums[edges[:-1]]), "tokens": np.diff(edges).tolist()}


def _sum(losses: Losses, kept: np.ndarray) -> dict[str, Any]:
    return {"nats": round(float(losses[kept].astype(np.float64).sum()), 4), "tokens": int(kept.sum())}


def _round(nats: Iterable[float]) -> list[float]:
    return [round(float(value), 4) for value in nats]


def compute_text_metrics(split: str, totals: Totals, sizes: dict[str, int]) -> Metrics:
    """Compute loss, perplexities and bits per byte of a text; None for a perplexity that would be no measurement.

    ln(word perplexity) · words = bits per byte · ln 2 · bytes = nats of all tokens, whereas loss and token perplexity
    are over the tokens that the protocol scores.
    """
    whole, words, size = totals.nats + totals.aside_nats, sizes["words"], sizes["bytes"]
    return {
        f"{split}/loss": totals.nats / totals.scored,
        f"{split}/token_perplexity": _compute_perplexity(totals.nats, totals.scored),
        f"{split}/word_perplexity": _compute_perplexity(whole, words) if has_words(size, words) else None,
        f"{split}/bits_per_byte": whole / math.log(2) / size,
    }


def _compute_perplexity(nats: float, units: int) -> float | None:
    return math.exp(nats / units) if nats <= MOST_NATS * units else None


def measure_distances(
    tokens: Counts, text: bytes, lengths: Int64[ndarray, " vocab"] | None, no_words: Collection[int] = ()
) -> Counts:
    """Measure the distance in tokens from each token to its word's previous beginning in the document.

    A word's first occurrence is NEW, a token outside words NO_WORD. lengths: bytes of each token if tokens are pieces
    of words; None if tokens are words, except those in `no_words`.
    """
    if lengths is None:
        words = ((token, i, i + 1) for i, token in enumerate(tokens.tolist()) if token not in no_words)
    else:
        words = _words_of_pieces(tokens, text, lengths)
    found = np.full(len(tokens), NO_WORD, dtype=np.int64)
    last: dict[int | bytes, int] = {}
    for word, first, stop in words:
        found[first:stop] = first - last[word] if word in last else NEW
        last[word] = first
    return found


def _words_of_pieces(
    tokens: Counts, text: bytes, lengths: Int64[ndarray, " vocab"]
) -> Iterator[tuple[bytes, int, int]]:
    """Yield the words of a text with their tokens [first, stop). A token belongs to the word that has its last byte."""
    ends = lengths[tokens].cumsum()
    spans = np.array([match.span() for match in WORD.finditer(text)], dtype=np.int64).reshape(-1, 2)
    first, stop = np.searchsorted(ends, spans[:, 0], side="right"), np.searchsorted(ends, spans[:, 1], side="left") + 1
    for (low, high), a, b in zip(spans.tolist(), first.tolist(), stop.tolist(), strict=True):
        yield text[low:high], a, b
