"""Streams: every token once, whatever the rows, the resets and the segment; against plain loops."""

from itertools import chain

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from infty.tasks.segmentation import Spans, cut_at_resets, cut_rows, cut_segments, pack_rows

resets = st.lists(st.integers(0, 200), max_size=9).map(lambda x: np.array(sorted(set(x)), dtype=np.int64))


def tokens_of(spans: Spans) -> list[int]:
    return [t for a, b in zip(spans.start.tolist(), spans.stop.tolist(), strict=True) for t in range(a, b)]


def test_the_example_of_the_docstring() -> None:
    spans = cut_segments(cut_at_resets(11, np.array([0, 6])), 4)
    assert list(zip(spans.start.tolist(), spans.stop.tolist(), strict=True)) == [(0, 4), (4, 6), (6, 10), (10, 11)]
    assert spans.fresh.tolist() == [True, False, True, False]


@given(st.integers(1, 200), resets, st.integers(1, 31))
def test_cut_equals_a_loop(total: int, at: np.ndarray, length: int) -> None:
    wanted, place = [], 0
    while place < total:
        following = [reset for reset in at.tolist() if reset > place]
        stop = min([place + length, total, *following])
        wanted.append((place, stop, place == 0 or place in at or False))
        place = stop
    # a segment is fresh where a part begins; a loop cannot tell those from reset places, so compare all three
    spans = cut_segments(cut_at_resets(total, at), length)
    found = list(zip(spans.start.tolist(), spans.stop.tolist(), spans.fresh.tolist(), strict=True))
    assert found == wanted


@given(st.integers(7, 200), st.integers(1, 7), resets, st.integers(1, 13))
def test_rows_for_training_hold_every_token_once_and_are_equally_long(
    total: int, rows: int, at: np.ndarray, length: int
) -> None:
    made = cut_rows(total, rows, at, length)
    read = [tokens_of(spans) for spans in made]
    assert list(chain.from_iterable(read)) == list(range(total))
    assert max(map(len, read)) - min(map(len, read)) <= 1
    for spans in made:
        begins = {int(start) for start, fresh in zip(spans.start, spans.fresh, strict=True) if fresh}
        assert begins == {int(spans.start[0])} | {r for r in at.tolist() if spans.start[0] < r < spans.stop[-1]}
        assert (spans.stop - spans.start <= length).all()


@given(st.integers(1, 200), st.integers(1, 9), resets, st.integers(1, 13))
def test_rows_for_evaluation_hold_every_part_whole_and_once(total: int, rows: int, at: np.ndarray, length: int) -> None:
    parts = cut_at_resets(total, at)
    made = pack_rows(parts, rows, length)
    assert sorted(chain.from_iterable(map(tokens_of, made))) == list(range(total))
    assert len(made) == min(rows, len(parts))
    where = {token: row for row, spans in enumerate(made) for token in tokens_of(spans)}
    for low, high in parts.tolist():
        assert len({where[token] for token in range(low, high)}) == 1
    loads = [len(spans) for spans in made]
    assert max(loads) - min(loads) <= max(-(-(high - low) // length) for low, high in parts.tolist())
