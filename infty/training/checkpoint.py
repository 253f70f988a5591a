"""Checkpoints: safetensors and JSON only, whole or not there, checked before they are believed."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from infty.errors import InftyError, MissingError
from infty.files import flush, read_json, sha256, write_json

Tensors = dict[str, dict[str, Tensor]]  # file stem -> named tensors


@dataclass(frozen=True)
class Checkpoint:
    """What a run needs to go on after `step` optimiser steps."""

    step: int
    tensors: Tensors
    state: dict[str, Any]


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write `folder/step-…`, point `last.json` and `best.json`, and drop all but the last two and the best.

    Everything goes to a temporary folder, is flushed, and gets its name in one rename; the pointers
    follow. An interruption at any moment leaves the previous checkpoint good. InftyError on a full disk.
    """
    final = folder / _name(checkpoint.step)
    temporary = folder / f".{final.name}.tmp"
    try:
        _clear(temporary)
        temporary.mkdir(parents=True)
        for stem, tensors in checkpoint.tensors.items():
            save_file({key: value.contiguous() for key, value in tensors.items()}, temporary / f"{stem}.safetensors")
        write_json(temporary / "state.json", {"step": checkpoint.step, **checkpoint.state})
        files = sorted(temporary.iterdir())
        for path in files:
            flush(path)
        write_json(
            temporary / "MANIFEST.json", {p.name: {"bytes": p.stat().st_size, "sha256": sha256(p)} for p in files}
        )
        flush(temporary)
        _clear(final)
        temporary.replace(final)
        flush(folder)
        point(folder, checkpoint)
    except (OSError, SafetensorError) as fault:
        shutil.rmtree(temporary, ignore_errors=True)
        raise InftyError(
            f"the checkpoint of step {checkpoint.step} could not be saved ({fault}); earlier ones stay"
        ) from None
    _drop_old(folder, checkpoint)


def point(folder: Path, checkpoint: Checkpoint) -> None:
    """Name a checkpoint as the last, and the best step that it knows of as the best.

    Done again when a run continues: an interruption may have come between a checkpoint and its pointers.
    """
    write_json(folder / "last.json", {"checkpoint": _name(checkpoint.step)})
    if checkpoint.state.get("best_step") is not None:
        write_json(folder / "best.json", {"checkpoint": _name(checkpoint.state["best_step"])})


def load_last(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that is whole, and a warning for each newer one that isn't."""
    warnings: list[str] = []
    for path in sorted(folder.glob("step-*"), reverse=True):
        try:
            return _load(path), warnings
        except MissingError as fault:
            warnings.append(f"{fault}; it is skipped")
    return None, warnings


def load_best(folder: Path) -> Checkpoint:
    """The checkpoint that `best.json` names. MissingError where there is none or it is damaged."""
    try:
        return _load(best_path(folder))
    except MissingError as fault:
        raise MissingError(f"{fault}; train again with --fresh") from None


def best_path(folder: Path) -> Path:
    """Where the checkpoint is that `best.json` names. MissingError where it names none."""
    name = read_json(folder / "best.json").get("checkpoint")
    if not isinstance(name, str) or Path(name).name != name:
        raise MissingError(f"{folder / 'best.json'} names no checkpoint; train again with --fresh")
    return folder / name


def _load(path: Path) -> Checkpoint:
    try:
        manifest = read_json(path / "MANIFEST.json")
        for name, entry in manifest.items():
            whole = Path(name).name == name and (path / name).stat().st_size == entry["bytes"]
            if not whole or sha256(path / name) != entry["sha256"]:
                raise MissingError(f"{path}: {name} is not what was saved")
        if absent := {"model.safetensors", "optimizer.safetensors", "state.json"} - set(manifest):
            raise MissingError(f"{path} lacks {', '.join(sorted(absent))}")
        state = read_json(path / "state.json")
        tensors = {Path(n).stem: load_file(path / n) for n in manifest if n.endswith(".safetensors")}
        return Checkpoint(int(state.pop("step")), tensors, state)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as fault:
        raise MissingError(f"{path} is damaged ({type(fault).__name__}: {fault})") from None


def _clear(path: Path) -> None:
    if path.exists():
        shutil.rmtree(path)


def _drop_old(folder: Path, checkpoint: Checkpoint) -> None:
    """Remove what is neither among the last two nor the best, and what interruptions left."""
    best = checkpoint.state.get("best_step")
    for path in sorted(folder.glob("step-*"))[:-2]:
        if best is None or path.name != _name(best):
            shutil.rmtree(path, ignore_errors=True)
    for path in folder.glob(".step-*.tmp"):
        shutil.rmtree(path, ignore_errors=True)


def _name(step: int) -> str:
    return f"step-{step:08d}"
