"""Other questions to the sorting task's sequences: the order of first coming, and the counts of a stretch."""

from collections import Counter
from io import StringIO
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from infty.base.errors import UsageError
from infty.tasks.first_seen import FirstSeenConfig
from infty.tasks.sort import SortConfig
from infty.tasks.sort_stretch import SortStretchConfig

VOCABULARY, LENGTH = 7, 40
SIZES: dict[str, Any] = {
    "vocabulary": VOCABULARY,
    "length": LENGTH,
    "train_sequences": 5,
    "validation_sequences": 3,
    "test_sequences": 300,
}


def read(config: SortConfig) -> list[tuple[list[int], list[int]]]:
    """Symbols and answer of each test sequence."""
    batches = config.open().evaluation_batches("test", 50)
    return [
        (tokens[: config.length], targets[config.length :])
        for batch in batches
        for tokens, targets in zip(batch.tokens.tolist(), batch.targets.tolist(), strict=True)
    ]


def test_symbols_are_named_in_the_order_in_which_they_first_came() -> None:
    unseen = 0
    for length in (LENGTH, 9):
        for symbols, answer in read(FirstSeenConfig(**{**SIZES, "length": length})):
            came = list(dict.fromkeys(symbols))
            assert answer == came + [symbol for symbol in range(VOCABULARY) if symbol not in came]
            unseen += len(came) < VOCABULARY
    assert unseen > 100


def test_the_sequences_are_those_of_sorting() -> None:
    sorting = read(SortConfig(**SIZES))
    for (symbols, answer), (same, other) in zip(sorting, read(FirstSeenConfig(**SIZES)), strict=True):
        assert symbols == same
        assert sorted(answer) == sorted(other) == list(range(VOCABULARY))


def test_the_counts_of_a_stretch_are_asked_for_and_of_nothing_else() -> None:
    alike = 0
    for symbols, answer in read(SortStretchConfig(**SIZES, begin=0.25, end=0.5)):
        counts, first = Counter(symbols[10:20]), {s: symbols[10:20].index(s) for s in symbols[10:20]}
        assert answer == sorted(range(VOCABULARY), key=lambda s: (-counts[s], first.get(s, LENGTH), s))
        whole, came = Counter(symbols), {s: symbols.index(s) for s in symbols}
        alike += answer == sorted(range(VOCABULARY), key=lambda s: (-whole[s], came.get(s, LENGTH), s))
    assert alike < 30, "the counts of everything are no answer"


def test_the_distribution_goes_to_the_second_and_returns() -> None:
    """Over 300 sequences of 400 symbols: ends and middle of a cycle, each against the weights it is drawn from."""
    assert SortStretchConfig(**SIZES, begin=0, end=1, returns=2).drift.tolist() == [
        *range(0, 40, 4), *range(40, 0, -4), *range(0, 40, 4), *range(40, 0, -4)
    ]  # fmt: skip
    config = SortStretchConfig(**{**SIZES, "length": 400}, begin=0, end=1)
    symbols = np.concatenate([batch.tokens[:, :400].numpy() for batch in config.open().evaluation_batches("test", 50)])
    begins, middle, ends = symbols[:, :60], symbols[:, 170:230], symbols[:, 340:]
    shares = [
        np.stack([np.bincount(row, minlength=VOCABULARY) / 60 for row in part]) for part in (begins, middle, ends)
    ]
    there, back = (np.abs(shares[0] - other).mean() for other in shares[1:])
    assert back < 0.75 * there


def test_an_oracle_of_the_window_counts_what_it_sees_of_the_stretch() -> None:
    """Of a window that ends with the sequence: nothing of the stretch is as good as a guess, all of it is exact."""
    task = SortStretchConfig(**SIZES, begin=0.25, end=0.5).open()
    nothing, some, all_of_it = (task.compute_window_oracle("test", window) for window in (20, 26, 30))
    chance = task.calibrate("test", 0, 64)["chance"]
    assert abs(nothing - chance) < 0.1 < some - nothing
    assert all_of_it == 1


def test_a_stretch_without_a_symbol_and_a_stream_are_refused() -> None:
    with pytest.raises(ValidationError, match="holds no symbol"):
        SortStretchConfig(**SIZES, begin=0.5, end=0.5)
    with pytest.raises(UsageError, match="asks for a part of a sequence"):
        SortStretchConfig(**SIZES, begin=0, end=0.5).open().cut_stream(StringIO("0 1"), 8)
