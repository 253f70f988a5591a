"""Pairs to recall: where they stand, what is asked for, what counts, and that test sequences are no training ones."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from infty.base.batch import UNSCORED, Totals
from infty.tasks.recall import RecallConfig, RecallTask

SEGMENT, KEYS, VALUES, FILLERS, PAIRS = 14, 11, 7, 3, 2
DISTANCES = (1, 2, 5)
START = 5 * SEGMENT


def configure(**changes: Any) -> RecallConfig:
    sizes = {"train_sequences": 23, "validation_sequences": 5, "test_sequences": 13}
    values = {"keys": KEYS, "values": VALUES, "fillers": FILLERS, "pairs": PAIRS, "distances": DISTANCES, **sizes}
    return RecallConfig(**{**values, **changes})


def task(**changes: Any) -> RecallTask:
    return configure(**changes).open(Path(), SEGMENT)


def read_pairs(tokens: list[int]) -> dict[int, tuple[int, int]]:
    """Each key before the last segment: its place, and the value after it."""
    return {token: (place, tokens[place + 1]) for place, token in enumerate(tokens[:START]) if token < KEYS}


def test_pairs_stand_at_their_distances_and_all_are_asked_for_once() -> None:
    (batch,) = task().evaluation_batches("test", 20)
    assert batch.tokens.shape == (13, START + 2 * 6 - 1)
    for tokens, targets in zip(batch.tokens.tolist(), batch.targets.tolist(), strict=True):
        pairs = read_pairs(tokens)
        segments = [5 - place // SEGMENT for place, _ in pairs.values()]
        assert sorted(segments) == [1, 1, 2, 2, 5, 5]
        assert all(place % 2 == 0 and KEYS <= value < KEYS + VALUES for place, value in pairs.values())
        assert sum(token >= KEYS + VALUES for token in tokens[:START]) == START - 12
        assert sorted(tokens[START::2]) == sorted(pairs)
        assert targets[START::2] == [pairs[key][1] for key in tokens[START::2]]
        assert set(targets[:START] + targets[START + 1 :: 2]) == {UNSCORED}
    assert len({tuple(tokens) for tokens in batch.tokens[:, START::2].tolist()}) == 13, "in orders of their own"


def test_a_sequence_is_its_seeds_whatever_batch_it_is_in_and_no_test_sequence_is_trained_on() -> None:
    once, (whole,) = task(), task().evaluation_batches("test", 13)
    parts = torch.cat([batch.tokens for batch in once.evaluation_batches("test", 4)])
    assert torch.equal(parts, whole.tokens)
    trained = {tuple(row) for step in range(23) for row in once.training_batch(step, 1, seed=3).tokens.tolist()}
    assert len(trained) == 23
    assert not trained & {tuple(row) for row in whole.tokens.tolist()}


def test_pairs_at_distance_0_begin_the_segment_that_asks() -> None:
    source = task(distances=(0, 1, 5), pairs=1)
    (batch,) = source.evaluation_batches("test", 20)
    start = 5 * SEGMENT + 2
    assert batch.tokens.shape == (13, start + 2 * 3 - 1)
    for tokens, targets in zip(batch.tokens.tolist(), batch.targets.tolist(), strict=True):
        pairs = {token: (place, tokens[place + 1]) for place, token in enumerate(tokens[:start]) if token < KEYS}
        places = sorted(place for place, _ in pairs.values())
        assert places[0] // SEGMENT == 0
        assert places[1] // SEGMENT == 4
        assert places[2] == 5 * SEGMENT
        assert sorted(tokens[start::2]) == sorted(pairs)
        assert targets[start::2] == [pairs[key][1] for key in tokens[start::2]]
        assert set(targets[:start] + targets[start + 1 :: 2]) == {UNSCORED}
    distances = source.list_distances("test", np.arange(13))
    assert np.array_equal(np.sort(distances, 1), np.tile([0, 1, 5], (13, 1)))


def test_a_curriculum_asks_for_near_pairs_first_in_shorter_sequences() -> None:
    """Two steps, three, and the rest, with as many pairs as fit into 14 tokens, or as there are keys."""
    source = task(distances=(0, 1, 5), pairs=1, curriculum=(2, 3))
    expected = [(0, 3), (0, 3), (1, 2), (1, 2), (1, 2), (5, 1), (5, 1)]  # the greatest distance, pairs at each
    seen = 0
    for step, (farthest, pairs) in enumerate(expected):
        asked = pairs * (1 + (0, 1, 5).index(farthest))
        start = farthest * SEGMENT + 2 * pairs
        batch = source.training_batch(step, 3, seed=0)
        assert batch.tokens.shape == (3, start + 2 * asked - 1)
        assert batch.count_scored() == 3 * asked
        for tokens, targets in zip(batch.tokens.tolist(), batch.targets.tolist(), strict=True):
            known = {token: tokens[place + 1] for place, token in enumerate(tokens[:start]) if token < KEYS}
            assert targets[start::2] == [known[key] for key in tokens[start::2]]
        seen += batch.tokens.numel()
        assert source.count_tokens_seen(step + 1, 3) == seen
    assert [count for count, _ in source.list_stages(7)] == [2, 3, 2]
    assert [count for count, _ in source.list_stages(3)] == [2, 1]
    assert next(source.evaluation_batches("validation", 5)).count_scored() == 5 * 3
    plain = task(distances=(0, 1, 5), pairs=1)
    assert torch.equal(source.training_batch(6, 3, 0).tokens, plain.training_batch(6, 3, 0).tokens)
    assert plain.list_stages(7) == [(7, plain)]


def test_accuracy_is_counted_by_distance() -> None:
    """All pairs at distance 2 are right, one of the others."""
    source, record = task(), task().make_record("test")
    right = record.reshape(13, -1)
    batch = next(source.evaluation_batches("test", 13))
    for row, tokens in zip(right, batch.tokens.tolist(), strict=True):
        row[
            [place for place in range(START, len(tokens), 2) if read_pairs(tokens)[tokens[place]][0] // SEGMENT == 3]
        ] = True
    first = next(p for p in range(START, START + 12, 2) if not right[0, p])
    right[0, first] = True
    scores = source.score("test", Totals(10.0, 78, 27), record, 28, SEGMENT)
    metrics = scores["metrics"]
    assert metrics["test/accuracy_2"] == 1
    assert sorted([metrics["test/accuracy_1"], metrics["test/accuracy_5"]]) == [0, 1 / 26]
    assert metrics["test/accuracy"] == 27 / 78
    assert scores["details"]["answers"] == {"right": [3] + [2] * 12, "symbols": 6}
    assert {distance: sum(row) for distance, row in scores["details"]["recall"]["right"].items()}["2"] == 26


@pytest.mark.parametrize(("slots", "share"), [(0, 0.0), (SEGMENT, 1 / 3), (SEGMENT * 3 // 2, 1 / 2), (START, 1.0)])
def test_an_oracle_knows_what_is_in_its_window_and_guesses_the_rest(slots: int, share: float) -> None:
    calibration = task().calibrate(slots)
    assert calibration["chance"] == 1 / VALUES
    assert calibration["oracle"] == pytest.approx(share + (1 - share) / VALUES)


@pytest.mark.parametrize(
    ("changes", "key", "message"),
    [
        ({"distances": (2, 1)}, "task.distances", "do not rise"),
        ({"distances": (-1, 1)}, "task.distances", "do not rise"),
        (
            {"distances": (0, 1, 2)},
            "task.pairs",
            "6 pairs do not fit into a segment of 14; at most 1 at each distance do",
        ),
        ({"curriculum": (3,)}, "task.curriculum", "[3] are not 2 numbers of steps"),
        ({"keys": 5}, "task.keys", "5 are fewer than the 6 pairs"),
        ({"pairs": 3}, "task.pairs", "9 pairs do not fit into a segment of 14; at most 2 at each distance do"),
    ],
)
def test_sizes_that_do_not_fit_are_faults(changes: dict[str, Any], key: str, message: str) -> None:
    faults = configure(**{"keys": 20, **changes}).find_faults(SEGMENT)
    assert [(name, message in why) for name, why in faults] == [(key, True)]
    assert configure().find_faults(SEGMENT) == []


def test_keys_and_values_are_drawn_evenly() -> None:
    """Of 2,000 sequences: no key or value is off its share by more than five standard deviations."""
    source = task(test_sequences=2000)
    tokens = torch.cat([batch.tokens for batch in source.evaluation_batches("test", 500)]).numpy()
    asked = tokens[:, START::2]
    keys = np.bincount(asked.ravel(), minlength=KEYS) / 2000
    assert np.abs(keys - 6 / KEYS).max() < 5 * (6 / KEYS * (1 - 6 / KEYS) / 2000) ** 0.5
    values = np.bincount(tokens[:, START + 1 :: 2].ravel() - KEYS, minlength=VALUES) / (2000 * 5)
    assert np.abs(values - 1 / VALUES).max() < 5 * (1 / VALUES / 10000) ** 0.5
