"""Break a mean loss down by position, by recurrence of words, by chunk and by document (section 4.2 has means)."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64
from numpy import ndarray

from infty.base.batch import Totals
from infty.tasks.word_distances import NEW, NO_WORD

LARGEST = 700.0  # exponent of a perplexity that a float still holds
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


def compute_text_metrics(split: str, totals: Totals, sizes: dict[str, int]) -> dict[str, float]:
    """Compute loss, perplexities and bits per byte of a text.

    ln(word perplexity) · words = bits per byte · ln 2 · bytes = nats of all tokens, whereas loss and token perplexity
    are of the tokens that the protocol scores.
    """
    whole = totals.nats + totals.aside_nats
    return {
        f"{split}/loss": totals.nats / totals.scored,
        f"{split}/token_perplexity": math.exp(min(totals.nats / totals.scored, LARGEST)),
        f"{split}/word_perplexity": math.exp(min(whole / sizes["words"], LARGEST)),
        f"{split}/bits_per_byte": whole / math.log(2) / sizes["bytes"],
    }
