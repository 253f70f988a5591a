"""Refuse a run that this machine can't finish: too little memory for its steps, or disk for its checkpoints."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch

from infty.base.errors import InftyError, describe_fault
from infty.machine.placement import Machine, is_gpu
from infty.machine.ram import count_free_bytes, forget_peak
from infty.model.interface import SegmentModel
from infty.tasks.task import Task, TrainingData
from infty.training.checkpoint import KEPT
from infty.training.config import TrainingConfig
from infty.training.cost import measure_run

LONG_RUN = 100  # steps; a shorter run fails as early as a trial would
COPIES = KEPT + 2  # number of checkpoints on disk at once: the last ones, the best, and the one being written
OTHER_FILES = 2**23  # bytes: metrics, results, W&B's run


def refuse_too_little_memory(
    model: SegmentModel, task: Task, config: TrainingConfig, seed: int, machine: Machine
) -> None:
    """Try a few sequences before a long run, if the system reports the memory in use; neither model nor run changes.

    Raises:
        InftyError: More memory is needed than is free; the message says what would fit.
    """
    if config.total_steps < LONG_RUN or count_usable_bytes(machine) is None:
        return
    with explain_out_of_memory(machine.device):
        cost = measure_run(model, task, config, seed, machine)
    free = count_usable_bytes(machine) or 0  # counted after the trial, which loads code that stays
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
    """Raise InftyError if the disk is too full for the checkpoints in `folder` that a run keeps at once."""
    here = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    needed = count_disk_bytes(model, task, config) - here
    place = folder if folder.is_dir() else folder.parent  # it may be a link to another disk
    free = shutil.disk_usage(place).free
    if needed > free:
        raise InftyError(
            f"{place}: {needed / 1e6:,.0f} MB are needed for checkpoints and {free / 1e6:,.0f} MB are free: "
            "make room, or choose another folder with --runs; nothing was changed"
        )


def count_disk_bytes(model: SegmentModel, task: TrainingData, config: TrainingConfig) -> int:
    """Count the most bytes that a run's folder takes: all checkpoints it has at once, and small files."""
    weights = sum(parameter.nbytes for parameter in model.parameters())
    sizes = model.config
    vectors = len(model.memory_layers) * (sizes.memory_slots + sizes.segment_length) if task.continues else 0
    memory = 4 * config.batch_size * vectors * sizes.hidden_size
    return COPIES * (3 * weights + memory) + OTHER_FILES


def count_usable_bytes(machine: Machine) -> int | None:
    """Count the free bytes that this process can take, on a CPU its share; None if the system doesn't report them."""
    try:
        known = forget_peak(machine.device)  # it returns freed memory to the system
        share = 1 if is_gpu(machine.device) else machine.launch.local_size
        return count_free_bytes(machine.device) // share if known else None
    except OSError:
        return None


@contextlib.contextmanager
def explain_out_of_memory(device: torch.device) -> Iterator[None]:
    """Raise InftyError, with what to do, if memory runs out within the block."""
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
