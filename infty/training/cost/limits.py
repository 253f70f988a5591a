"""Refuse a run that can't end on this machine: memory for its steps and validations, disk for its checkpoints."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch

from infty.base.errors import InftyError
from infty.base.messages import describe_fault
from infty.machine.devices import is_gpu
from infty.machine.placement import Machine
from infty.machine.ram import forget_peak, free_memory_bytes
from infty.model.interface import SegmentModel
from infty.model.weight_tensors import weight_tensors
from infty.tasks.task import Task, TrainingData
from infty.training.checkpoint import KEPT
from infty.training.config import TrainingConfig
from infty.training.cost.measure import measure_run

LONG_RUN = 100  # steps; the steps of a shorter run tell as soon as a trial would
COPIES = KEPT + 2  # of a checkpoint on disk at once: the last ones, the best, and the one being written
OTHER_FILES = 2**23  # bytes: metrics, results, W&B's run


def refuse_too_little_memory(
    model: SegmentModel, task: Task, config: TrainingConfig, seed: int, machine: Machine
) -> None:
    """Try a few sequences before a long run: InftyError, with what would fit, if more memory is needed than is free.

    Changes neither the model nor what follows. Says nothing on systems that don't tell how much memory is held.
    """
    if config.total_steps < LONG_RUN or free_bytes(machine) is None:
        return
    with explained(machine.device):
        cost = measure_run(model, task, config, seed, machine)
    free = free_bytes(machine) or 0  # after the trial: what it left (loaded code, say) stays
    for line, wanted, where, option, other in (
        (cost.training, cost.at_once, "", "--micro-batch", ", less is kept with --recompute"),
        (cost.evaluation, config.evaluation_batch_size, " in evaluation", "--set training.evaluation_batch_size", ""),
    ):
        if (needed := line.predict(wanted)) > free:
            fits = line.count_fitting(free, wanted)
            raise InftyError(
                f"{wanted:,} sequences at once{where}: about {needed / 1e9:,.1f} GB of memory are needed and "
                f"{free / 1e9:,.1f} GB are free: {f'{option}={fits} fits' if fits else 'not even one fits'}{other}; "
                "or choose another device with --device. Nothing was changed"
            )


def refuse_full_disk(model: SegmentModel, task: Task, config: TrainingConfig, folder: Path) -> None:
    """Raise InftyError if the disk has no room for the checkpoints in `folder` that a run keeps at once."""
    here = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    needed = disk_bytes(model, task, config) - here
    free = shutil.disk_usage(folder.parent).free
    if needed > free:
        raise InftyError(
            f"{folder.parent}: {needed / 1e6:,.0f} MB are needed for checkpoints and {free / 1e6:,.0f} MB are free: "
            "make room, or choose another folder with --runs; nothing was changed"
        )


def disk_bytes(model: SegmentModel, task: TrainingData, config: TrainingConfig) -> int:
    """Count the most bytes that a run's folder takes: as many checkpoints as there are at once, and small files."""
    weights = sum(tensor.nbytes for tensor in weight_tensors(model).values())
    moments = 2 * sum(parameter.nbytes for parameter in model.parameters())
    sizes = model.config
    vectors = len(model.seats) * (sizes.memory_slots + sizes.segment_length) if task.continues else 0
    memory = 4 * config.batch_size * vectors * sizes.hidden_size
    return COPIES * (weights + moments + memory) + OTHER_FILES


def free_bytes(machine: Machine) -> int | None:
    """Count the free bytes for this process; on a CPU a machine's processes share them.

    None if the system doesn't tell, or has no peak that can be measured anew.
    """
    try:
        known = forget_peak(machine.device)  # which gives back what was freed
        share = 1 if is_gpu(machine.device) else machine.launch.local_size
        return free_memory_bytes(machine.device) // share if known else None
    except OSError:
        return None


@contextlib.contextmanager
def explained(device: torch.device) -> Iterator[None]:
    """Raise InftyError, with what helps, if memory runs out within the block."""
    try:
        yield
    except (MemoryError, RuntimeError) as fault:
        ours = isinstance(fault, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(fault)
        if not ours:
            raise
        raise InftyError(
            f"out of memory on {device} ({describe_fault(fault)}). Checkpoints stay. Less is needed with "
            "--micro-batch, --recompute or a lower training.evaluation_batch_size (--set, a run of its own), or take a "
            "larger device"
        ) from None
