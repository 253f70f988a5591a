"""The count of needed products against a count one query and one key at a time."""

from itertools import product

import pytest

from infty.commands.bench.contestants import read_paper_decoder
from infty.commands.bench.products import count_step_products
from infty.memory.longterm import LongTermMemoryConfig
from infty.model.config import DecoderConfig

# Distinct primes: layers 2, heads 3, hidden 3 · 2 · 7, feed-forward 23, segment 11, vocabulary 5.
E, F, N, L, V = 42, 23, 26, 11, 5
LONG_TERM = LongTermMemoryConfig(hidden_size=E, num_heads=3, segment_length=L, num_basis=N, num_samples=13)


def by_hand(length: int, scored: int, long_term: bool, cached: int, wanted_only: bool) -> int:
    """Multiply-adds of every matrix product, listed one by one, twice."""
    total, segments = 0, [range(start, min(start + L, length)) for start in range(0, length, L)]
    for layer, (index, segment) in product(range(2), enumerate(segments)):
        is_last = index == len(segments) - 1
        passes = 3 if is_last else 1
        rows = segment
        if wanted_only and layer == 1:
            rows = [t for t in segment if t >= length - scored]
        for t in segment:
            total += passes * 2 * E * E  # key, value
            if t in rows:
                total += passes * (2 * E * E + 2 * E * F)  # query, output; feed-forward
                for _key in range(max(segment.start - cached, 0), t + 1):
                    total += passes * 3 * E  # content score, position score, value
        if long_term and index >= 2:
            total += passes * L * (3 * E * E + N * E)  # gate, C x
            total += passes * N * N * E * (index >= 3)  # A B
            total += passes * (2 * N * E + 2 * E * E)  # w B, (w B) W_K
            looking = segment if is_last or not wanted_only or layer == 0 else rows
            for t in looking:
                total += passes * 2 * E  # two scores
                total += passes * E * E * (t not in rows)  # its query
            total += passes * N * E * E * bool(rows)  # values
            total += passes * len(rows) * (N * E + E * E)  # read, output
        if is_last and layer == 0:
            total += 3 * scored * E * V  # logits
    return 2 * total


@pytest.mark.parametrize("length", [L, 2 * L, 4 * L, 5 * L - 3])
@pytest.mark.parametrize("long_term", [False, True])
def test_every_product_is_counted_once(length: int, long_term: bool) -> None:
    short, batch, scored = L if long_term else 2 * L, 7, 4
    config = DecoderConfig(
        num_layers=2, num_heads=3, hidden_size=E, feed_forward_size=F, dropout=0.0, segment_length=L,
        short_term_length=short, long_range=LONG_TERM if long_term else None,
    )  # fmt: skip
    positions = 3 * 2 * 2 * E * E * (short + L)
    counted = count_step_products(config, V, length, scored, batch)
    assert counted[0] == batch * by_hand(length, scored, long_term, short, wanted_only=False) + positions
    assert counted[1] == batch * by_hand(length, scored, long_term, short, wanted_only=True) + positions


def test_the_papers_step_needs_what_was_reckoned() -> None:
    """About 170 GFLOP at length 4,000, batch 2, N 512."""
    full, done = count_step_products(read_paper_decoder(), 21, 4020, 20, 2)
    assert 160e9 < full < 175e9
    assert 0.6 * full < done < full
