"""Make Adam, and take its steps: losses and gradient of a batch over all processes, then an update."""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, assert_never

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from infty.base.batch import Batch
from infty.base.errors import InftyError
from infty.base.files import write_json
from infty.model.interface import SegmentModel
from infty.model.tensors import Named, write_tensors
from infty.tasks.task import StepData
from infty.training.adam import Adam
from infty.training.config import TrainingConfig
from infty.training.data_parallel import Memory, Replica, Work


def make_optimizer(model: SegmentModel, learning_rate: float, memory_rate: float | None = None) -> Adam:
    """Make Adam, each group with its `peak` rate. memory_rate: of long-range memories; None: as the others."""
    memories = set(model.memory_parameters() if memory_rate else ())
    groups = [
        {"params": [p for p in model.parameters() if p not in memories], "lr": learning_rate, "peak": learning_rate},
        {"params": [p for p in model.parameters() if p in memories], "lr": memory_rate, "peak": memory_rate},
    ]
    return Adam(group for group in groups if group["params"])


def schedule(step: int, steps: int, warmup_steps: int, kind: Literal["cosine", "linear"]) -> float:
    """Return the share of the peak rate: a linear warm-up from 0, then half a cosine or a line down to 0 at `steps`."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    done = (step - warmup_steps) / (steps - warmup_steps)
    match kind:
        case "cosine":
            return 0.5 * (1 + math.cos(math.pi * done))
        case "linear":
            return 1 - done
        case _:
            assert_never(kind)


def optimize(
    replica: Replica,
    optimizer: Adam,
    task: StepData,
    config: TrainingConfig,
    step: int,
    seed: int,
    memory: Memory | None = None,
    run: Path | None = None,
) -> tuple[dict[str, float], Memory | None]:
    """Take one optimiser step from `memory`. Returns its metrics, and the memory after it if the task continues.

    Raises:
        InftyError: Loss or gradient is not finite, before the update. The batch is kept in the folder `run`, if any.
    """
    # Each process makes its own rows only; the mean loss divides by the scored targets of all.
    start = time.perf_counter()
    group, model = replica.group, replica.model
    model.train()
    rows = replica.assign_rows(config.batch_size)
    depth = config.gradient_segments
    pieces = [task.training_batches(step, config.batch_size, seed, some, depth) for some in rows]
    own = sum(batch.count_scored() for piece in pieces for batch in piece)
    scored = int(group.sum_arrays(np.array(own)))

    # Compute the gradient; each piece draws its dropout from a seed of its first row, whichever process has it.
    seeds = [_derive_seed(seed, step, own.start) for own in rows]
    work = Work(pieces, seeds, scored, config.batch_size, depth, task.continues)
    found, after = replica.compute_gradient(work, memory, config.clip_norm)

    # Look at it: the one thing that a step asks of its device. If it is not finite, refuse to update.
    names = ("loss", *model.config.auxiliary_weights)
    *losses, norm = found.tolist()
    sums = sum(np.reshape(losses, (len(pieces), len(names))), np.zeros(len(names)))
    figures = dict(zip(names, group.sum_arrays(sums).tolist(), strict=True))
    total = sum(figures[name] * weight for name, weight in {"loss": 1.0, **model.config.auxiliary_weights}.items())
    if not np.isfinite([total, norm]).all():
        found = {"loss": total, **{f"loss/{name}": value for name, value in figures.items()}, "gradient_norm": norm}
        kept = ""
        if run and group.leads:
            whole = task.training_batches(step, config.batch_size, seed, None, depth)
            kept = f" (the batch: {_keep_batches(run, step, whole, found)})"
        raise InftyError(
            f"loss {total:.4g}, gradient norm {norm:.4g} at step {step}: not finite, nothing was updated{kept}; "
            "try a lower training.learning_rate"
        )

    # Update at this step's learning rate, and free the gradients before a validation.
    share = schedule(step, config.total_steps, config.warmup_steps, config.schedule)
    for parameters in optimizer.param_groups:
        parameters["lr"] = share * parameters["peak"]
    optimizer.step()
    optimizer.zero_grad()

    tokens = group.size * sum(batch.tokens.numel() for piece in pieces for batch in piece)
    metrics = {
        **{f"train/{name}": value for name, value in figures.items()},
        "train/gradient_norm": norm,
        "train/learning_rate": share * config.learning_rate,
        "train/tokens_per_second": tokens / (time.perf_counter() - start),
    }
    return metrics, after if task.continues else None


def _derive_seed(seed: int, step: int, row: int) -> int:
    """Derive the dropout seed of a step's rows from `row` on, well mixed: a CPU's generator uses 32 bits of it."""
    return int(np.random.SeedSequence((seed, step, row)).generate_state(1, np.uint64)[0])


def _keep_batches(run: Path, step: int, batches: Sequence[Batch], figures: dict[str, float]) -> str:
    """Write what optimiser step `step` (from 0) read below a run's folder, with the figures measured on it.

    Returns its folder, or why it could not be written. Figures are written as text: JSON has no NaN or infinity.
    """
    folder = run / "not-finite" / f"step-{step:08d}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number, batch in enumerate(batches, 1):
            tensors = {name: part for name, part in vars(batch).items() if isinstance(part, Tensor)}
            write_tensors(folder / f"batch{f'-{number}' if len(batches) > 1 else ''}.safetensors", tensors)
        write_json(folder / "figures.json", {"step": step, **{name: str(value) for name, value in figures.items()}})
    except (OSError, SafetensorError) as fault:
        return f"could not be kept: {fault}"
    return str(folder)


def collect_optimizer_tensors(optimizer: Adam, model: nn.Module) -> Named:
    """Collect the optimiser's state as named tensors: `<parameter>.<quantity>`."""
    return {
        f"{name}.{quantity}": value
        for name, parameter in model.named_parameters()
        for quantity, value in optimizer.state.get(parameter, {}).items()
    }


def load_optimizer_tensors(optimizer: Adam, model: nn.Module, tensors: Named) -> None:
    """Load the tensors of `collect_optimizer_tensors`. KeyError or RuntimeError if they are another model's."""
    parameters = dict(model.named_parameters())
    names = {key.rpartition(".")[0] for key in tensors}
    for name in names:
        parameter = parameters[name]
        templates = {"step": torch.zeros(()), "exp_avg": parameter, "exp_avg_sq": parameter}
        found = {quantity: tensors[f"{name}.{quantity}"] for quantity in templates}
        if any((found[q].shape, found[q].dtype) != (part.shape, part.dtype) for q, part in templates.items()):
            raise RuntimeError(f"what is kept of {name} is not of its shape or type")
        optimizer.state[parameter] = {quantity: value.to(parameter.device) for quantity, value in found.items()}
    if len(tensors) != 3 * len(names):
        raise RuntimeError("more is kept of the parameters than Adam keeps")
