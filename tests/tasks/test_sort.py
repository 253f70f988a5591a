"""The sorting task against a slow double, counted by hand, and by its statistics."""

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from infty.base.batch import UNSCORED
from infty.tasks import kept as kept_rows
from infty.tasks import sort
from infty.tasks.generated import FIRST_SEED
from infty.tasks.sort import SortConfig, SortTask, find_nearest_lengths, make_sequences, tally


def task(vocabulary: int = 7, length: int = 41, train: int = 13) -> SortTask:
    return SortTask(
        SortConfig(
            vocabulary=vocabulary, length=length, train_sequences=train, validation_sequences=11, test_sequences=5
        )
    )


def ranked(symbols: np.ndarray, vocabulary: int) -> np.ndarray:
    return task().order_symbols(*tally(symbols, vocabulary))


def slow_sequence(seed: int, vocabulary: int, length: int) -> list[int]:
    """Token by token, from the same random numbers, with exact fractions instead of shifts."""
    random = [int(r) for r in np.random.Philox(key=seed).random_raw(2 * vocabulary + length)]
    weights = [1 + ((r >> 32) * 9 >> 32) for r in random[: 2 * vocabulary]]
    distributions = weights[:vocabulary], weights[vocabulary:]
    symbols = []
    for j, r in enumerate(random[2 * vocabulary :]):
        late = (r >> 32) * length < j << 32  # probability j / length
        chosen = distributions[1 if late else 0]
        place = (r & (2**32 - 1)) * sum(chosen) >> 32
        symbol = 0
        while place >= chosen[symbol]:
            place -= chosen[symbol]
            symbol += 1
        symbols.append(symbol)
    return symbols


def test_vectorised_sequences_equal_the_slow_ones() -> None:
    seeds = np.array([0, 5, FIRST_SEED["validation"] + 2, FIRST_SEED["test"] + 4])
    symbols = make_sequences(seeds, 7, np.arange(41))
    answers = ranked(symbols, 7)
    for row, seed in enumerate(seeds.tolist()):
        expected = slow_sequence(seed, 7, 41)
        assert symbols[row].tolist() == expected
        order = sorted(range(7), key=lambda s: (-expected.count(s), expected.index(s) if s in expected else 41 + s))
        assert answers[row].tolist() == order


def test_ties_by_first_appearance_and_unseen_symbols_last() -> None:
    symbols = np.array([[2, 0, 0, 2, 1, 0, 0, 1], [4, 3, 4, 3, 4, 3, 4, 3]])
    assert ranked(symbols, 5).tolist() == [[0, 2, 1, 3, 4], [4, 3, 0, 1, 2]]


@given(
    st.integers(1, 9).flatmap(lambda v: st.tuples(st.just(v), st.lists(st.integers(0, v - 1), min_size=1, max_size=30)))
)
def test_ranking_equals_a_sort_by_count_and_first_place(drawn: tuple[int, list[int]]) -> None:
    vocabulary, symbols = drawn
    first = {symbol: symbols.index(symbol) for symbol in symbols}
    expected = sorted(range(vocabulary), key=lambda s: (-symbols.count(s), first.get(s, len(symbols) + s)))
    assert ranked(np.array([symbols]), vocabulary)[0].tolist() == expected


def test_same_seed_same_bytes_everywhere() -> None:
    """The stream is fixed for good: results of different machines and versions must be of the same data."""
    symbols = make_sequences(FIRST_SEED["test"] + np.arange(3), 20, np.arange(236))
    answers = ranked(symbols, 20)
    digest = hashlib.sha256(np.concatenate([symbols, answers], 1).astype("<i8").tobytes()).hexdigest()
    assert digest == "b9d989587da9cadc266e366ae4f6972f900852cc534c5edf5183d51e9e779a71"


def test_frequencies_drift_from_the_first_distribution_to_the_second() -> None:
    """One seed, many tokens: the first and the last tenth follow mixtures whose mean r is .05 and .95."""
    vocabulary, length = 5, 200_000
    symbols = make_sequences(np.array([3]), vocabulary, np.arange(length))[0]
    raw = np.random.Philox(key=3).random_raw(2 * vocabulary) >> np.uint64(32)
    weights = (1 + (raw * np.uint64(9) >> np.uint64(32)).astype(int)).reshape(2, vocabulary)
    p0, p1 = weights / weights.sum(1, keepdims=True)
    for start, r in ((0, 0.05), (length * 9 // 10, 0.95)):
        part = np.bincount(symbols[start : start + length // 10], minlength=vocabulary)
        assert stats.chisquare(part, part.sum() * ((1 - r) * p0 + r * p1)).pvalue > 0.001
    assert np.abs(p0 - p1).max() > 0.05


def test_weights_are_uniform_on_1_to_9() -> None:
    raw = np.stack([np.random.Philox(key=s).random_raw(40) for s in range(500)]) >> np.uint64(32)
    counts = np.bincount((1 + (raw * np.uint64(9) >> np.uint64(32))).astype(int).reshape(-1), minlength=10)
    assert counts[0] == 0
    assert stats.chisquare(counts[1:]).pvalue > 0.001


def test_a_batch_is_sequence_separator_answer() -> None:
    batch = task().make_batch("test", np.array([1, 3]))
    assert batch.tokens.shape == batch.targets.shape == (2, 41 + 7)
    assert batch.tokens[:, 41].tolist() == [7, 7]
    assert (batch.targets[:, :41] == UNSCORED).all()
    assert torch.equal(batch.tokens[:, 42:], batch.targets[:, 41:-1])
    assert sorted(batch.targets[0, 41:].tolist()) == list(range(7))


def test_splits_have_no_seed_in_common() -> None:
    assert 0 <= FIRST_SEED["train"] < FIRST_SEED["validation"] < FIRST_SEED["test"]
    largest = SortConfig.model_fields["train_sequences"].metadata
    assert any(getattr(bound, "le", None) == FIRST_SEED["validation"] for bound in largest)
    assert FIRST_SEED["test"] - FIRST_SEED["validation"] >= FIRST_SEED["validation"]


def sequences_of(source: SortTask, steps: range, batch_size: int, seed: int) -> list[int]:
    """Which training sequences the batches hold, found by their tokens."""
    size = source.sizes["train"]
    known = {tuple(row): i for i, row in enumerate(source.make_batch("train", np.arange(size)).tokens.tolist())}
    assert len(known) == size
    batches = [source.training_batch(step, batch_size, seed).tokens for step in steps]
    return [known[tuple(row)] for row in torch.cat(batches).tolist()]


def test_a_sequence_is_made_once_and_is_then_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if it were made each time, as it is if all of them are too large to keep, or symbols larger than a byte."""
    made, kept = list[int](), task(train=12)
    make = sort.make_sequences
    monkeypatch.setattr(sort, "make_sequences", lambda seeds, *sizes: made.extend(seeds) or make(seeds, *sizes))
    twice = [kept.training_batch(step, 5, 1) for step in (*range(6), *range(6))]
    assert len(made) == len(set(made)) == 12
    twice[0].tokens.zero_()  # a batch is its owner's
    monkeypatch.setattr(kept_rows, "MOST", 0)
    anew = task(train=12)
    for one, other in zip(twice[6:], [anew.training_batch(step, 5, 1) for step in range(6)], strict=True):
        assert torch.equal(one.tokens, other.tokens)
        assert torch.equal(one.targets, other.targets)
        assert one.tokens.is_contiguous()
    assert len(made) == 12 + 30


def test_every_pass_sees_each_training_sequence_once_in_another_order() -> None:
    source = task(train=12)
    first, second = sequences_of(source, range(3), 4, seed=1), sequences_of(source, range(3, 6), 4, seed=1)
    assert sorted(first) == sorted(second) == list(range(12))
    assert first != second
    assert first != sequences_of(source, range(3), 4, seed=2)


def test_a_batch_may_cross_from_one_pass_to_the_next() -> None:
    source = task(train=5)
    places = sequences_of(source, range(5), 3, seed=0)
    assert [sorted(places[i : i + 5]) for i in (0, 5, 10)] == [list(range(5))] * 3


def test_each_reading_of_a_sequence_is_a_stream_of_its_own() -> None:
    source = task(train=5)
    streams = [source.training_batch(step, 3, seed).streams for seed in (0, 1, 2**31 - 1) for step in range(5)]
    assert len(set(torch.cat(streams).tolist())) == 3 * 5 * 3


def test_evaluation_covers_the_split_in_order_whatever_the_batch() -> None:
    for size in (1, 2, 11, 50):
        batches = list(task().evaluation_batches("validation", size))
        assert torch.cat([b.streams for b in batches]).tolist() == [FIRST_SEED["validation"] + i for i in range(11)]


@pytest.mark.parametrize(
    ("length", "expected"),
    [(236, [236]), (492, [492]), (4000, [4000]), (237, [236, 256]), (255, [236, 256]), (256, [256]), (50, [44, 64])],
)
def test_lengths_whose_targets_straddle_segments_name_the_nearest_that_work(length: int, expected: list[int]) -> None:
    assert find_nearest_lengths(length, vocabulary=20, segment_length=64) == expected


def test_allowed_lengths_by_trying_every_position() -> None:
    for length in range(1, 60):
        segments = {(length + i) // 13 for i in range(5)}
        assert (find_nearest_lengths(length, 5, 13) == [length]) == (len(segments) == 1)
    assert find_nearest_lengths(30, vocabulary=14, segment_length=13) == []


def test_chance_equals_a_simulation() -> None:
    random = np.random.default_rng(0)
    hits = [random.integers(7 - named) == 0 for _ in range(20_000) for named in range(7)]
    assert task().calibrate("test", 128, 32)["chance"] == pytest.approx(np.mean(hits), abs=0.005)


def test_the_oracle_knows_all_with_the_whole_sequence_and_less_with_a_window() -> None:
    source = task(vocabulary=10, length=300)
    chance = source.calibrate("test", 128, 32)["chance"]
    assert source.compute_window_oracle("test", 300) == 1
    assert source.compute_window_oracle("test", 0) == pytest.approx(chance, abs=0.15)
    assert chance < source.compute_window_oracle("test", 60) < source.compute_window_oracle("test", 200) < 1


def test_the_oracle_equals_naming_the_most_frequent_symbol_left() -> None:
    source = task(vocabulary=6, length=90)
    right = 0
    for batch in source.evaluation_batches("test", 1):
        window, answer = batch.tokens[0, 60:90].tolist(), batch.targets[0, 90:].tolist()
        for i, wanted in enumerate(answer):
            left = answer[i:]
            key = lambda s, w=window: (-w.count(s), w.index(s) if s in w else 90 + s)  # noqa: E731
            right += min(left, key=key) == wanted
    assert source.compute_window_oracle("test", 30) == pytest.approx(right / (5 * 6))


@pytest.mark.parametrize("vocabulary", [2, 3, 50, 300])
def test_any_vocabulary(vocabulary: int) -> None:
    batch = task(vocabulary=vocabulary, length=500).make_batch("train", np.array([0, 1]))
    assert batch.tokens[:, :500].max() < vocabulary
    assert sorted(batch.targets[1, 500:].tolist()) == list(range(vocabulary))
