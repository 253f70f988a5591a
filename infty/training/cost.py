"""Measure what gradients of a few sequences cost in the real model, and predict the cost of any number of them."""

import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import count, islice
from math import inf, prod
from statistics import median
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from infty.base.errors import describe_fault
from infty.evaluation.evaluate import evaluate
from infty.machine.placement import Machine, is_gpu
from infty.machine.ram import count_held_bytes, count_peak_bytes, forget_peak
from infty.model.config import DecoderConfig, ModelConfig
from infty.model.interface import SegmentModel, State
from infty.model.tensors import state_tensors
from infty.tasks.task import TrainingData
from infty.training.config import TrainingConfig
from infty.training.data_parallel import compute_losses, weigh_losses
from infty.training.step import make_optimizer

FEW = 4  # sequences that are tried besides a single one
WRITTEN = 2  # steps that write a carried memory, for the next one to read
FULL, MOST = 5, 100  # steps until it was contracted too; their limit, if documents end before it is full
COUNTED = 256  # sequences of a batch whose FLOPs are counted at most; others cost as much
TIMED = 15  # limit of the timed steps
Size = torch.Size
Steps = Iterator[tuple[int, list[int]]]  # tokens of each step, and bytes of each tensor of the memory carried on


@dataclass(frozen=True)
class LinearCost:
    """Seconds or bytes, linear in the number of sequences at once: a `fixed` part, and `each` per sequence."""

    fixed: float
    each: float

    @classmethod
    def fit(cls, measured: Mapping[int, float], always: float = 0.0) -> "LinearCost":
        """Fit a line that never falls to the costs of the fewest and the most sequences; `always` is added to it."""
        (few, low), (many, high) = min(measured.items()), max(measured.items())
        each = max(0.0, (high - low) / (many - few)) if many > few else 0.0
        return cls(high - many * each + always, each)

    def predict(self, sequences: int) -> float:
        """Predict the cost of this many sequences at once."""
        return self.fixed + self.each * sequences

    def count_fitting(self, limit: float, most: int) -> int:
        """Count the sequences at once that cost no more than `limit`, up to `most`; 0 if not even one does."""
        if self.predict(most) <= limit:
            return most
        return max(0, int((limit - self.fixed) // self.each)) if self.each else 0


@dataclass(frozen=True)
class RunCost:
    """The cost of training in one process."""

    own: int  # sequences of a batch that the process trains on
    at_once: int  # the most of them that are computed at once
    tried: tuple[int, ...]  # numbers of sequences that were measured, ascending
    seconds: LinearCost  # of gradients, by sequences at once
    parts: dict[str, int]  # bytes beyond program and weights that can be counted; "memory" is carried from step to step
    training: LinearCost  # peak bytes beyond program and weights in steps, by sequences at once
    evaluation: LinearCost  # the same in validations


def measure_run(
    model: SegmentModel, task: TrainingData, config: TrainingConfig, seed: int, machine: Machine, seconds: float = 0.0
) -> RunCost:
    """Measure the gradients of one sequence per batch, then of a few or as many as time allows; then validations.

    seconds: limit for filling memories, and again for the timed steps; 0: only the steps needed to count bytes.
    """
    own, together = config.batch_size // machine.launch.size, machine.launch.size > 1
    at_once = min(own, machine.micro_batch or own)
    _, longest = task.list_stages(config.total_steps)[-1]

    def try_out(sequences: int) -> tuple[float, int, Steps]:
        steps = take_steps(model, longest, config, seed, sequences)
        fill_memories(steps, seconds=seconds)
        return *repeat(partial(next, steps), machine.device, seconds), steps

    def validate(sequences: int) -> None:
        batches = task.evaluation_batches("validation", sequences)
        evaluate(model, islice(batches, WRITTEN + 1 if task.continues else 1), choices=task.has_answers)

    # The time of one sequence decides how many more are tried. The first validation allocates much that stays, so it is
    # not measured.
    with preserve_model(model):
        quickest, least, _ = try_out(1)
        tried = min(at_once, max(FEW, int(seconds / 5 / quickest)))
        slowest, most, steps = try_out(tried)
        _, sizes = next(steps)
        validate(1)
        evaluated = (1, min(FEW, config.evaluation_batch_size))
        validations = {some: repeat(partial(validate, some), machine.device)[1] for some in evaluated}

    # Optimiser and memory stay between steps; so do gradients' buffers, if processes exchange them.
    gradients = sum(parameter.nbytes for parameter in model.parameters() if parameter.requires_grad)
    kept = {"optimizer": 2 * gradients, "memory": own * (sum(sizes) // tried)}
    return RunCost(
        own=own,
        at_once=at_once,
        tried=tuple(sorted({1, tried})),
        seconds=LinearCost.fit({1: quickest, tried: slowest}),
        parts={"gradients": gradients, **kept},
        training=LinearCost.fit({1: least, tried: most}, sum(kept.values())),
        evaluation=LinearCost.fit(validations, sum(kept.values()) + gradients * together),
    )


def _count_solving(system: Size, known: Size, *_: Any, **__: Any) -> int:
    """Count the FLOPs of one triangular solve, which torch's counter leaves out: a product with half a matrix."""
    return prod(known) * system[-1]


SOLVED = {torch.ops.aten.linalg_solve_triangular: _count_solving}


def measure_update(model: SegmentModel, seconds: float) -> float:
    """Measure the seconds of clipping and Adam's update, at a learning rate of 0, which changes no weight."""
    optimizer, parameters = make_optimizer(model, learning_rate=0.0), list(model.parameters())
    with preserve_model(model):
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
        clip = partial(nn.utils.clip_grad_norm_, parameters, max_norm=1.0)
        return repeat(lambda: (clip(), optimizer.step()), model.device, seconds)[0]


def count_step_flops(config: ModelConfig, task: TrainingData, training: TrainingConfig, seed: int) -> tuple[int, int]:
    """Count the FLOPs of the matrix products in one optimiser step, forward and backward, with full memories; tokens.

    Each product as it is made, attention's as the plain equation has it: whatever the device, precision, dropout and
    kernels are, and however much is computed twice.
    """
    # Nothing is computed on the meta device. Dropout on attention's weights makes it plain, which decides nothing else.
    counter, sequences = FlopCounterMode(display=False, custom_mapping=SOLVED), min(training.batch_size, COUNTED)
    changes = {"attention_dropout": 0.5} if isinstance(config, DecoderConfig) else {}
    with torch.random.fork_rng([]), torch.device("meta"):
        model = config.model_copy(update=changes).build(task.vocab_size, seed)
    model.to("meta").train()
    tokens = fill_memories(take_steps(model, task, training, seed, sequences), within=counter)
    return counter.get_total_flops() * training.batch_size // sequences, tokens * training.batch_size // sequences


def count_training_flops(
    config: ModelConfig, task: TrainingData, training: TrainingConfig, seed: int, steps: int
) -> int:
    """Count the FLOPs of so many optimiser steps, each counted as `count_step_flops` does."""
    stages = task.list_stages(steps)
    return sum(number * count_step_flops(config, data, training, seed)[0] for number, data in stages)


def try_to_count_flops(
    config: ModelConfig, task: TrainingData, training: TrainingConfig, seed: int, steps: int
) -> int | None:
    """Count as `count_training_flops`; None, with a warning, if a memory of one's own asks for numbers meta lacks."""
    try:
        return count_training_flops(config, task, training, seed, steps)
    except Exception as fault:  # any kind: a run is not to lose its result by it
        warnings.warn(f"FLOPs were not counted: {describe_fault(fault)}", stacklevel=2)
        return None


def take_steps(model: SegmentModel, task: TrainingData, config: TrainingConfig, seed: int, sequences: int) -> Steps:
    """Compute the gradients of the first `sequences` of each batch, one batch after the other, and drop them."""
    state: State | None = None
    for step in count():
        segments = config.gradient_segments
        batches = task.training_batches(step, config.batch_size, seed, range(sequences), segments)
        losses, state = compute_losses(model, batches, state, gradient_segments=segments)
        weigh_losses(losses, model).backward()
        del losses  # frees their graph, as the end of an optimiser step does
        model.zero_grad()
        state = state if task.continues else None
        tokens = sum(batch.tokens.numel() for batch in batches)
        yield tokens, [tensor.nbytes for tensor in state_tensors(state or ()).values()]


def fill_memories(steps: Steps, within: AbstractContextManager[object] | None = None, seconds: float = inf) -> int:
    """Take steps, each `within` a context, until a carried memory stops growing or time is up; one without memory.

    Returns the tokens of the last one.
    """
    start, before, taken = time.perf_counter(), None, 0
    while True:
        taken += 1
        with within or nullcontext():
            tokens, sizes = next(steps)
        late = taken >= WRITTEN and time.perf_counter() - start >= seconds
        if not sizes or late or (taken >= FULL and (sizes == before or taken >= MOST)):
            return tokens
        before = sizes


def repeat(act: Callable[[], object], device: torch.device, seconds: float = 0.0) -> tuple[float, int]:
    """Repeat an act for this many seconds, at least once. Returns the median seconds of one, and bytes of memory.

    The bytes are the peak beyond what was held before; 0 if the system doesn't report them.
    """
    known = forget_peak(device)
    held, times = count_held_bytes(device) if known else 0, []
    while not times or (len(times) < TIMED and sum(times) < seconds):
        start = time.perf_counter()
        act()
        if is_gpu(device):
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return median(times), max(0, count_peak_bytes(device) - held) if known else 0


@contextmanager
def preserve_model(model: SegmentModel) -> Iterator[None]:
    """Preserve a model while the block trains it: gradients, mode and torch's random state are restored."""
    training, gradients = model.training, [parameter.grad for parameter in model.parameters()]
    with torch.random.fork_rng([model.device] if is_gpu(model.device) else []):
        try:
            model.zero_grad()
            model.train()
            yield
        finally:
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter.grad = gradient
            model.train(training)
