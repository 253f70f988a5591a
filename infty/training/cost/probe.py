"""A few real steps of training, timed, and the memory that they take: what a forecast is reckoned from."""

import time
from dataclasses import dataclass

import numpy as np
from torch.utils.flop_counter import FlopCounterMode

from infty.machine.ram import forget_peak, peak_memory_bytes
from infty.model.interface import SegmentModel
from infty.model.state_tensors import state_tensors
from infty.tasks.task import TrainingData
from infty.training.config import TrainingConfig
from infty.training.data_parallel import Memory, Replica
from infty.training.optimizer import make_optimizer
from infty.training.step import optimize

SECONDS = 5.0  # that the timed steps may take
WARM, SLOW = 4, 2  # steps that fill memories and caches; of those that take over a second
TIMED = 3, 15  # the fewest and the most that are timed; one where a step takes more than twice SECONDS
FEW = 4  # sequences that are tried beside one
MADE = 20  # batches made, to tell how much quicker than training that is


@dataclass(frozen=True)
class Line:
    """A straight line through one measurement at each of two batch sizes: `rows` and `values`, the fewer first."""

    rows: tuple[int, int]
    values: tuple[float, float]

    @property
    def each(self) -> float:
        """What one sequence more adds, in the unit of `values` (seconds or bytes); at least nothing."""
        few, more = self.rows
        return max(0.0, (self.values[1] - self.values[0]) / (more - few)) if more > few else 0.0

    def at(self, rows: int) -> float:
        """The line's value at so many sequences, in the unit of `values` (seconds or bytes)."""
        return self.values[1] + (rows - self.rows[1]) * self.each


@dataclass(frozen=True)
class Probe:
    """What real steps took.

    seconds, peak: of a step whose sequences all go through at once; bytes are all that the process holds, None where
    the system doesn't tell. piece: seconds that as many sequences again add as a second piece. state: bytes a sequence.
    """

    seconds: Line
    peak: Line | None
    piece: float
    state: int
    flops_a_token: int
    made_to_trained: float

    def step_seconds(self, own: int, at_once: int) -> float:
        """Seconds of a step with `own` sequences on a device, so many of them at once."""
        piece = self.piece * self.seconds.at(at_once) / self.seconds.values[1]
        return self.seconds.at(at_once) + piece * (own / at_once - 1)


def probe(
    model: SegmentModel, task: TrainingData, training: TrainingConfig, seed: int, own: int, at_once: int
) -> Probe:
    """Steps with one sequence, with a few or as many of `at_once` as seconds allow; if `own` is more in two pieces."""
    steps = _Steps(model, task, training, seed)
    few, few_peak = steps.run(1)
    rows = min(at_once, max(FEW, int(SECONDS / 5 / few)))  # one alone says little of more
    more, peak = steps.run(rows) if rows > 1 else (few, few_peak)
    twice = steps.run(2 * rows, rows)[0] if own > at_once else more
    state, replica = steps.memory, Replica(model)
    with FlopCounterMode(display=False) as counter:
        steps.once(replica, rows)
    batch = task.training_batch(steps.step - 1, rows, seed)
    start = time.perf_counter()
    for later in range(steps.step, steps.step + MADE):
        task.training_batch(later, rows, seed)
    made = (time.perf_counter() - start) / MADE
    return Probe(
        seconds=Line((1, rows), (few, more)),
        peak=None if few_peak is None or peak is None else Line((1, rows), (few_peak, peak)),
        piece=max(0.0, twice - more),
        state=_bytes(state),
        flops_a_token=round(counter.get_total_flops() / batch.tokens.numel()),
        made_to_trained=more / made,
    )


class _Steps:
    """Training that goes on for as long as it is asked to, and anew where the number of sequences changes."""

    def __init__(self, model: SegmentModel, task: TrainingData, training: TrainingConfig, seed: int) -> None:
        self.model, self.task, self.training, self.seed = model, task, training, seed
        self.optimizer = make_optimizer(model, training.learning_rate, training.memory_learning_rate)
        self.memory: Memory | None = None
        self.step = 0

    def run(self, rows: int, micro_batch: int | None = None) -> tuple[float, int | None]:
        """Median seconds of a step with so many sequences, and the most bytes that are held meanwhile."""
        replica = Replica(self.model, micro_batch=micro_batch)
        self.memory, self.step = None, 0
        known = forget_peak(self.model.device)
        warm: list[float] = []
        while len(warm) < (SLOW if warm and warm[-1] > 1 else WARM):
            warm.append(self.once(replica, rows))
        fewest = 1 if warm[-1] > 2 * SECONDS else TIMED[0]
        times: list[float] = []
        while len(times) < fewest or (len(times) < TIMED[1] and sum(times) < SECONDS / 3):
            times.append(self.once(replica, rows))
        return float(np.median(times)), peak_memory_bytes(self.model.device) if known else None

    def once(self, replica: Replica, rows: int) -> float:
        """One step; its seconds."""
        start = time.perf_counter()
        config = self.training.model_copy(update={"batch_size": rows})
        _, self.memory = optimize(replica, self.optimizer, self.task, config, self.step, self.seed, self.memory)
        self.step += 1
        return time.perf_counter() - start


def _bytes(memory: Memory | None) -> int:
    """Bytes of one sequence's memory."""
    states = [state for state in memory or () if state is not None]
    rows = sum(len(state[0].short_term.hidden) for state in states)
    return sum(tensor.nbytes for state in states for tensor in state_tensors(state).values()) // max(rows, 1)
