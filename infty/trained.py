"""A trained run: its model back from disk, and its test under a named protocol."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from rich.console import Console

from infty.errors import MissingError, Stopped
from infty.evaluation import PROTOCOLS, evaluate
from infty.experiment import Experiment, build_model, build_task
from infty.files import write_json
from infty.interfaces import Batch
from infty.machine import Machine
from infty.model.decoder import Decoder
from infty.runs import SCHEMA, RunFolder
from infty.tasks.sort import SortTask
from infty.tracking import track
from infty.training.checkpoint import load_best
from infty.training.signals import StopSignals


@dataclass(frozen=True)
class TrainedRun:
    """A trained model, what it was trained on and what it was asked to be; `step`: of its checkpoint."""

    model: Decoder
    task: SortTask
    experiment: Experiment
    step: int


def load_run(path: str | Path, device: str = "cpu") -> TrainedRun:
    """The best checkpoint of a run folder, in evaluation mode. MissingError where there is none or it is damaged."""
    run = RunFolder(Path(path))
    values = run.config()
    values.pop("cell")
    try:
        experiment = Experiment.model_validate(values)
    except ValidationError as fault:
        why = fault.errors()[0]["msg"]
        raise MissingError(f"{run.path / 'config.yaml'} is no configuration of this version: {why}") from None
    checkpoint = load_best(run.checkpoints)
    task = build_task(experiment)
    with torch.random.fork_rng():  # the initial weights are overwritten; the caller's random numbers are not ours
        model = build_model(experiment, task.vocab_size, seed=0)
    model.load_state_dict(checkpoint.tensors["model"])
    return TrainedRun(model.to(device).eval(), task, experiment, checkpoint.step)


def evaluate_run(
    run: RunFolder,
    machine: Machine,
    split: str,
    console: Console,
    batch_size: int | None = None,
    stop: StopSignals | None = None,
) -> dict[str, Any]:
    """Evaluate a run's best checkpoint under its task's protocol, keep the outcome in `eval/` and return it.

    Raises MissingError where there is no checkpoint, and Stopped after a signal.
    """
    trained = load_run(run.path)
    machine.place(trained.model)
    task, model, kind = trained.task, trained.experiment.model, trained.experiment.task.kind
    size = batch_size or trained.experiment.training.evaluation_batch_size
    digest = hashlib.sha256()
    batches = track(task.evaluation_batches(split, size), -(-task.sizes[split] // size), console, f"evaluating {split}")
    totals = evaluate(trained.model, _hashed(_until(stop, batches), digest))
    sizes = {"segment_length": model.segment_length, "memory_slots": model.memory_slots}
    outcome = {
        "schema": SCHEMA,
        "protocol": {**PROTOCOLS[kind], **sizes},
        "split": split,
        "step": trained.step,
        "metrics": totals.metrics(split),
        "totals": vars(totals),
        "calibration": task.calibration(split, model.memory_slots, model.segment_length),
        "data": {"name": kind, "sha256": digest.hexdigest()},
    }
    folder = run.path / "eval"
    folder.mkdir(exist_ok=True)
    write_json(folder / f"{PROTOCOLS[kind]['name']}-{split}.json", outcome)
    return outcome


def _until(stop: StopSignals | None, batches: Iterator[Batch]) -> Iterator[Batch]:
    """Hand batches on until a signal comes."""
    for batch in batches:
        if stop is not None and stop.received is not None:
            raise Stopped("stopped while testing; the same command tests what was trained", stop.received)
        yield batch


def _hashed(batches: Iterator[Batch], digest: Any) -> Iterator[Batch]:
    """Hand batches on, and their tokens and targets to the digest, a row after the other: whatever their sizes."""
    for batch in batches:
        digest.update(torch.cat([batch.tokens, batch.targets], 1).numpy().astype("<i8").tobytes())
        yield batch
