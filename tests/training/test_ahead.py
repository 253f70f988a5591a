"""Batches that are made ahead are the task's own, whatever is asked for."""

import threading
from collections import Counter

import pytest
import torch

from infty.base.batch import Batch
from infty.tasks.sort import SortConfig
from infty.training.ahead import Ahead

TASK = SortConfig(vocabulary=5, length=41, train_sequences=12, validation_sequences=2, test_sequences=2).open()


class Noted:
    """The task's batches, and by which thread each step's were made."""

    continues = False

    def __init__(self) -> None:
        self.made: Counter[tuple[int, range | None, bool]] = Counter()

    def training_batches(
        self, step: int, batch_size: int, seed: int, rows: range | None = None, segments: int = 1
    ) -> list[Batch]:
        if step == 7:
            raise OSError("the disk is gone")
        self.made[step, rows, threading.current_thread() is threading.main_thread()] += 1
        return TASK.training_batches(step, batch_size, seed, rows, segments)


def test_each_step_s_batches_are_made_once_and_all_but_the_first_in_another_thread() -> None:
    noted, pieces = Noted(), (range(2), range(2, 4))
    ahead = Ahead(noted, steps=5)
    for step in range(5):
        for rows in pieces:
            found, wanted = ahead.training_batches(step, 4, 3, rows), TASK.training_batches(step, 4, 3, rows)
            for one, other in zip(found, wanted, strict=True):
                assert torch.equal(one.tokens, other.tokens)
                assert torch.equal(one.streams, other.streams)
    assert noted.made == {(step, rows, step == 0): 1 for step in range(5) for rows in pieces}


def test_a_step_that_was_not_expected_is_made_then() -> None:
    ahead = Ahead(Noted(), steps=20)
    for step in (0, 1, 5, 2):
        (batch,) = ahead.training_batches(step, 4, 0)
        assert torch.equal(batch.tokens, TASK.training_batch(step, 4, 0).tokens)


def test_what_goes_wrong_in_the_thread_is_told_at_its_step() -> None:
    ahead = Ahead(Noted(), steps=20)
    ahead.training_batches(6, 4, 0)
    with pytest.raises(OSError, match="the disk is gone"):
        ahead.training_batches(7, 4, 0)
