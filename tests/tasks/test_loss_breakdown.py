"""Figures of a text, and those that can't be made."""

import math

import pytest

from infty.base.batch import Totals
from infty.tasks.loss_breakdown import compute_text_metrics

SIZES = {"words": 20, "bytes": 100}


def test_three_views_of_one_total() -> None:
    metrics = compute_text_metrics("test", Totals(nats=90.0, scored=30, aside=2, aside_nats=6.0), SIZES)
    assert metrics["test/loss"] == 3.0
    assert metrics["test/token_perplexity"] == pytest.approx(math.e**3)
    assert metrics["test/word_perplexity"] == pytest.approx(math.e ** (96 / 20))
    assert metrics["test/bits_per_byte"] == pytest.approx(96 / math.log(2) / 100)


@pytest.mark.parametrize(
    ("nats", "scored", "words", "size", "lacking"),
    [
        (400.0, 20, 20, 2000, []),  # both at their bounds
        (400.1, 20, 20, 2000, ["test/token_perplexity", "test/word_perplexity"]),
        (400.1, 40, 20, 2000, ["test/word_perplexity"]),  # 20 nats a word, and more
        (40.0, 20, 20, 2001, ["test/word_perplexity"]),  # a "word" of over 100 bytes, however well it is predicted
        (40.0, 20, 0, 20, ["test/word_perplexity"]),
        (1e6, 20, 20, 100, ["test/token_perplexity", "test/word_perplexity"]),  # beyond what a float holds
    ],
)
def test_a_perplexity_that_is_no_measurement_is_none(
    nats: float, scored: int, words: int, size: int, lacking: list[str]
) -> None:
    metrics = compute_text_metrics("test", Totals(nats=nats, scored=scored), {"words": words, "bytes": size})
    assert [name for name, value in metrics.items() if value is None] == lacking
    assert metrics["test/loss"] == nats / scored
    assert metrics["test/bits_per_byte"] == nats / math.log(2) / size
