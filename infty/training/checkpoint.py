"""Save and load checkpoints: safetensors and JSON only, written whole or not at all, verified before use."""

import secrets
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file

from infty.base.errors import InftyError, MissingError, describe_fault
from infty.base.files import (
    OLD,
    FileSums,
    Strict,
    parse_json,
    refuse_broken_link,
    replace_folder,
    restore_folder,
    sum_files,
    write_json,
)
from infty.model.tensors import Named, write_tensors

MANIFEST = "MANIFEST.json"
NOT_THERE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)  # other OSErrors may be transient
KEPT = 2  # number of last checkpoints that stay, besides the best one
ATTEMPTS = 2  # to save one: a network's file system may fail for a moment
NEEDED = {"model.safetensors", "optimizer.safetensors", "state.json"}
FRESH = "train again with --fresh"
_MANIFEST = TypeAdapter(FileSums)


class TrainingState(Strict, frozen=False):
    """The progress of a run: `state.json`. Data and random numbers are functions of `step` (see `train`)."""

    step: int = Field(default=0, ge=0, lt=10**8, description="optimiser steps done")
    validated_step: int = Field(default=0, ge=0, description="steps done at the last validation")
    best_step: int | None = Field(default=None, ge=0, lt=10**8, description="of the lowest loss; null: not validated")
    best_loss: float | None = Field(default=None, description="in validation; null: its checkpoint is lost as well")
    seconds: float = Field(default=0.0, ge=0, description="of optimiser steps")
    wandb_id: str = Field(
        default_factory=lambda: secrets.token_hex(4),
        pattern=r"^[0-9a-f]{1,32}$",
        description="so that a run continued is one run of W&B",
    )
    tokens: str | None = Field(default=None, description="digest of the text's tokens")
    starting_weights: dict[str, str] | None = Field(default=None, description="what a GPT-2 was fine-tuned from")


@dataclass(frozen=True)
class Checkpoint:
    """All that a run needs to continue; without tensors, all that it needs to begin."""

    state: TrainingState
    tensors: dict[str, Named]  # by the stem of their file


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write `folder/step-…`, update `last.json` and `best.json`, and remove all but the last two and the best.

    The pointers are written once the folder is whole: an interruption at any moment leaves the last one usable.

    Raises:
        InftyError: Saving fails twice: on a full disk, say.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with replace_folder(folder / _name(checkpoint.state.step)) as temporary:
                for stem, tensors in checkpoint.tensors.items():
                    write_tensors(temporary / f"{stem}.safetensors", tensors)
                write_json(temporary / "state.json", checkpoint.state.model_dump(exclude_none=True))
                write_json(temporary / MANIFEST, sum_files(temporary))
            write_pointers(folder, checkpoint.state)
            break
        except (OSError, SafetensorError) as fault:
            if attempt == ATTEMPTS:
                raise InftyError(
                    f"the checkpoint of step {checkpoint.state.step} could not be saved ({_explain(fault)}); earlier "
                    f"ones stay. Once {folder} can be written to, the same command continues from the last one"
                ) from None
    _drop_old(folder, checkpoint.state)


def write_pointers(folder: Path, state: TrainingState) -> None:
    """Write `last.json` and `best.json`, which name the checkpoints of a state's own step and of its best step."""
    write_json(folder / "last.json", {"checkpoint": _name(state.step)})
    if state.best_step is not None:
        write_json(folder / "best.json", {"checkpoint": _name(state.best_step)})


def load_last(folder: Path) -> Checkpoint | None:
    """Load the newest checkpoint that is whole, with a warning for each newer one that isn't; None if there are none.

    If the best checkpoint is damaged, the one that is loaded takes its place until the next validation.

    Raises:
        MissingError: There are checkpoints but none is whole: beginning again would remove them.
    """
    for old in folder.glob(f".step-*{OLD}"):
        restore_folder(folder / old.name[1 : -len(OLD)])

    # The first one that loads is returned; older ones are not read.
    paths = sorted(folder.glob("step-*"), reverse=True)
    for path in paths:
        try:
            found = _load(path, "it is skipped")
        except MissingError as fault:
            warnings.warn(str(fault), stacklevel=2)
            continue

        # The best checkpoint must be whole too, since it is the one that is tested in the end.
        best = found.state.best_step
        if best is not None and best != found.state.step:
            try:
                _check_sums(folder / _name(best), FRESH)
            except MissingError:
                text = f"the best checkpoint so far, {folder / _name(best)}, is damaged: {path.name} takes its place"
                warnings.warn(text, stacklevel=2)
                found.state.best_step, found.state.best_loss = found.state.step, None
        return found
    if paths:
        raise MissingError(f"no checkpoint in {folder} is whole; start over with --fresh, which removes them")
    return None


def load_best(folder: Path) -> Checkpoint:
    """Load the checkpoint that `best.json` names. MissingError if there is none or it is damaged."""
    return _load(find_best_checkpoint(folder), FRESH)


def verify_best(folder: Path) -> None:
    """Raise MissingError if there is no best checkpoint, or the checksums of its files are not those saved."""
    _check_sums(find_best_checkpoint(folder), FRESH)


def find_best_checkpoint(folder: Path) -> Path:
    """Return the folder of the checkpoint that `best.json` names. MissingError if it names none, or is not there."""
    refuse_broken_link(folder)
    name = _read(folder / "best.json", FRESH).get("checkpoint")
    if not isinstance(name, str) or Path(name).name != name:
        raise MissingError(f"{folder / 'best.json'} names no checkpoint; {FRESH}")
    return folder / name


def _load(path: Path, then: str) -> Checkpoint:
    """Load a checkpoint from its folder. MissingError, which ends with `then`, if damaged; OSError if a disk fails."""
    manifest = _check_sums(path, then)
    try:
        state = TrainingState.model_validate(_read(path / "state.json", then))
        tensors = {Path(n).stem: load_file(path / n) for n in manifest if n.endswith(".safetensors")}
    except (*NOT_THERE, SafetensorError, ValidationError) as fault:
        raise MissingError(f"{path} is damaged ({_explain(fault)}); {then}") from None
    if path.name != _name(state.step):
        raise MissingError(f"{path} is damaged (it holds step {state.step}); {then}")
    return Checkpoint(state, tensors)


def _check_sums(path: Path, then: str) -> FileSums:
    """Check each file against the manifest. MissingError, as `_load`, if one is missing or not what was saved."""
    try:
        manifest = _MANIFEST.validate_python(_read(path / MANIFEST, then))
        for name, entry in manifest.items():
            if not entry.fits(path / name):
                raise MissingError(f"{path}: {name} is not what was saved; {then}")
    except (*NOT_THERE, ValueError) as fault:
        raise MissingError(f"{path} is damaged ({_explain(fault)}); {then}") from None
    if absent := NEEDED - set(manifest):
        raise MissingError(f"{path} lacks {', '.join(sorted(absent))}; {then}")
    return manifest


def _read(path: Path, then: str) -> dict[str, Any]:
    """Read a JSON file. MissingError if it is damaged; OSError if a disk fails, perhaps for a moment only."""
    try:
        return parse_json(path.read_bytes(), path, then)
    except NOT_THERE as fault:
        raise MissingError(f"{path} can't be read ({fault.strerror}); {then}") from None


def _drop_old(folder: Path, state: TrainingState) -> None:
    """Remove checkpoints that are older, damaged or half written; keep the last ones up to this step and the best."""
    saved = [path for path in sorted(folder.glob("step-*")) if path.name <= _name(state.step)]
    kept = {*saved[-KEPT:], *([folder / _name(state.best_step)] if state.best_step is not None else [])}
    for path in {*folder.glob("step-*"), *folder.glob(".step-*.tmp")} - kept:
        shutil.rmtree(path, ignore_errors=True)


def _explain(fault: Exception) -> str:
    """Say why it failed, in one line; for an OSError without its number and path, which the message has already."""
    return (fault.strerror if isinstance(fault, OSError) else None) or describe_fault(fault)


def _name(step: int) -> str:
    return f"step-{step:08d}"
