"""What a run asks of this machine before its first step: memory for a step, and disk for its checkpoints."""

import contextlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import torch

from infty.base.errors import InftyError
from infty.base.messages import reason
from infty.evaluation.evaluate import evaluate
from infty.machine.devices import is_gpu
from infty.machine.placement import Machine
from infty.machine.ram import forget_peak, free_memory_bytes, held_memory_bytes, peak_memory_bytes
from infty.model.interface import SegmentModel, State
from infty.model.state_tensors import state_tensors
from infty.model.weight_tensors import weight_tensors
from infty.tasks.task import Task, TrainingData
from infty.training.checkpoint import KEPT
from infty.training.config import TrainingConfig
from infty.training.data_parallel import batch_losses

LONG_RUN = 100  # steps; the steps of a shorter run tell as soon as a probe would
FEW, MORE = 1, 4  # sequences that are tried
PASSES = 3  # so that a memory is written, and then read
COPIES = KEPT + 2  # of a checkpoint on disk at once: the last ones, the best, and the one being written
OTHER_FILES = 2**23  # bytes: metrics, results, W&B's run


@dataclass(frozen=True)
class Need:
    """Peak of memory by the number of sequences at once: `fixed` + `each` for every one. change: sets that number."""

    change: str
    fixed: int
    each: int

    def of(self, sequences: int) -> int:
        """Bytes that so many sequences at once take."""
        return self.fixed + self.each * sequences

    def largest(self, free: int) -> int:
        """How many sequences fit into `free` bytes; 0 where not even one does."""
        return max(0, (free - self.fixed) // max(self.each, 1))


def refuse_too_little_memory(
    model: SegmentModel, task: Task, config: TrainingConfig, seed: int, machine: Machine
) -> None:
    """Try a few sequences before a long run. InftyError, with what would fit, where more memory is wanted than is free.

    Changes neither weights nor what follows. Says nothing on systems that don't tell how much memory is held.
    """
    free = _free(machine)
    if config.total_steps < LONG_RUN or free is None:
        return
    own = config.batch_size // machine.launch.size
    free -= 2 * sum(parameter.nbytes for parameter in model.parameters() if parameter.requires_grad)  # Adam's moments
    with explained(machine.device):
        for find, wanted in (
            (partial(training_need, model, task, seed, own), min(own, machine.micro_batch or own)),
            (partial(evaluation_need, model, task), config.evaluation_batch_size),
        ):
            need = find(wanted)
            if need.of(wanted) > free:
                raise InftyError(_advice(need, wanted, free))


def training_need(model: SegmentModel, task: Task, seed: int, own: int, wanted: int) -> Need:
    """Bytes that training takes beyond what is held now, and the moments that Adam will keep.

    own: sequences of a step that are this process's; their memories are all held. wanted: of these at once; more than
    that are not tried.
    """
    held = 0

    def try_out(sequences: int) -> None:
        nonlocal held
        state: State | None = None
        for step in range(PASSES if task.continues else 1):
            losses, state = batch_losses(model, task.training_batch(step, sequences, seed), state)
            torch.stack(list(losses.values())).sum().backward()
        if task.continues and state is not None:
            held = sum(tensor.nbytes for tensor in state_tensors(state).values()) // sequences

    model.train()
    need = _measured("--micro-batch", try_out, model, wanted)
    return Need(need.change, need.fixed + held * own, max(need.each - held, 0))


def evaluation_need(model: SegmentModel, task: Task, wanted: int) -> Need:
    """Bytes that a validation takes beyond what is held now; wanted: as above."""

    def try_out(sequences: int) -> None:
        batches = task.evaluation_batches("validation", sequences)
        evaluate(model, islice(batches, PASSES if task.continues else 1), choices=task.has_answers)

    return _measured("--set training.evaluation_batch_size", try_out, model, wanted)


def refuse_full_disk(model: SegmentModel, task: Task, config: TrainingConfig, folder: Path) -> None:
    """InftyError where the disk has no room for the checkpoints in `folder` that a run keeps at once."""
    here = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    needed = disk_bytes(model, task, config) - here
    free = shutil.disk_usage(folder.parent).free
    if needed > free:
        raise InftyError(
            f"{folder.parent}: {needed / 1e6:,.0f} MB are needed for checkpoints and {free / 1e6:,.0f} MB are free: "
            "make room, or choose another folder with --runs; nothing was changed"
        )


def disk_bytes(model: SegmentModel, task: TrainingData, config: TrainingConfig) -> int:
    """Most bytes that a run's folder takes: as many checkpoints as there are at once, and small files."""
    weights = sum(tensor.nbytes for tensor in weight_tensors(model).values())
    moments = 2 * sum(parameter.nbytes for parameter in model.parameters())
    sizes = model.config
    vectors = len(model.memory_layers) * (sizes.memory_slots + sizes.segment_length) if task.continues else 0
    memory = 4 * config.batch_size * vectors * sizes.hidden_size
    return COPIES * (weights + moments + memory) + OTHER_FILES


@contextlib.contextmanager
def explained(device: torch.device) -> Iterator[None]:
    """Where memory runs out within the block: an InftyError that says what helps."""
    try:
        yield
    except (MemoryError, RuntimeError) as fault:
        ours = isinstance(fault, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(fault)
        if not ours:
            raise
        raise InftyError(
            f"out of memory on {device} ({reason(fault)}). Checkpoints stay. Less is needed with --micro-batch, "
            "--recompute or a lower training.evaluation_batch_size (--set, a run of its own), or take a larger device"
        ) from None


def _measured(change: str, try_out: Callable[[int], None], model: SegmentModel, wanted: int) -> Need:
    """The peaks of two runs, as a line."""
    peaks, more = [], max(FEW, min(MORE, wanted))
    for sequences in (FEW, FEW, more):  # the first time much is made that stays
        forget_peak(model.device)
        held = held_memory_bytes(model.device)
        try_out(sequences)
        peaks.append(peak_memory_bytes(model.device) - held)
        for parameter in model.parameters():
            parameter.grad = None
    if more == FEW:
        return Need(change, max(peaks[1:]), 0)
    each = max(0, peaks[2] - peaks[1]) // (more - FEW)
    return Need(change, max(0, peaks[1] - each * FEW), each)


def free_bytes(machine: Machine) -> int:
    """Free bytes for this process; on a CPU a machine's processes share them. OSError where the system doesn't tell."""
    return free_memory_bytes(machine.device) // (1 if is_gpu(machine.device) else machine.launch.local_size)


def _free(machine: Machine) -> int | None:
    """What `free_bytes` gives; None where the system doesn't tell, or has no peak that can be measured anew."""
    try:
        return free_bytes(machine) if forget_peak(machine.device) else None
    except OSError:
        return None


def _advice(need: Need, wanted: int, free: int) -> str:
    fits, evaluating = need.largest(free), need.change.startswith("--set")
    change = f"{need.change}={fits} fits" if fits else "not even one fits"
    return (
        f"{wanted:,} sequences at once{' in evaluation' if evaluating else ''}: about {need.of(wanted) / 1e9:,.1f} GB "
        f"of memory are needed and {free / 1e9:,.1f} GB are free: {change}"
        f"{'' if evaluating else ', less is kept with --recompute'}; or choose another device with --device. "
        "Nothing was changed"
    )
