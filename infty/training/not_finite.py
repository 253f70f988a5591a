"""Keep the batch of a step whose loss or gradient was not finite."""

from dataclasses import fields
from pathlib import Path

from safetensors import SafetensorError
from torch import Tensor

from infty.base.batch import Batch
from infty.base.files import write_json
from infty.model.weight_tensors import write_tensors


def keep_batch(run: Path, step: int, batch: Batch, figures: dict[str, float]) -> str:
    """Write the batch of optimiser step `step` (from 0) below a run's folder, with the figures measured on it.

    Returns its folder, or why it could not be written. Figures are written as text: JSON has no NaN or infinity.
    """
    folder = run / "not-finite" / f"step-{step:08d}"
    parts = {field.name: getattr(batch, field.name) for field in fields(batch)}
    tensors = {name: part for name, part in parts.items() if isinstance(part, Tensor)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_tensors(folder / "batch.safetensors", tensors)
        write_json(folder / "figures.json", {"step": step, **{name: str(value) for name, value in figures.items()}})
    except (OSError, SafetensorError) as fault:
        return f"could not be kept: {fault}"
    return str(folder)
