"""Make the next step's batches while this one trains."""

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from infty.base.batch import Batch
from infty.tasks.task import StepData


class Ahead:
    """A task's batches, to the byte: those of the next of `steps`, of the same rows, are made in a thread meanwhile."""

    def __init__(self, task: StepData, steps: int) -> None:
        self.continues = task.continues
        self._task, self._steps, self._thread = task, steps, ThreadPoolExecutor(1, "batches")
        self._coming: dict[tuple[Any, ...], Future[list[Batch]]] = {}

    def training_batches(
        self, step: int, batch_size: int, seed: int, rows: range | None = None, segments: int = 1
    ) -> list[Batch]:
        """Take what a step reads, and begin to make what the next one does."""
        what = batch_size, seed, rows, segments
        coming = self._coming.pop((step, *what), None)
        found = coming.result() if coming else self._task.training_batches(step, *what)
        if step + 1 < self._steps:
            self._coming[step + 1, *what] = self._thread.submit(self._task.training_batches, step + 1, *what)
        return found
