"""A trained run: its model back from disk, and its evaluation under a named protocol."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from rich.console import Console

from infty.errors import DifferenceError, MissingError, Stopped, UsageError
from infty.evaluation import evaluate
from infty.experiment import Experiment, Task, build_model, build_task
from infty.files import write_json
from infty.inspection import inspect_memory
from infty.interfaces import ALL, Batch, Share
from infty.knockout import KnockOut, knocked_out
from infty.machine import Machine
from infty.memory.exact import HOST
from infty.model.segments import SegmentModel
from infty.model.weights import load_weights
from infty.protocols import SORT, TEXT_PROTOCOLS, EvaluationProtocol
from infty.runs import SCHEMA, RunFolder
from infty.settings import load_settings
from infty.tasks.corpus import CorpusTask
from infty.tasks.details import details
from infty.tasks.sort import SortTask
from infty.tracking import track
from infty.training.checkpoint import load_best
from infty.training.distributed import ALONE, Group
from infty.training.signals import StopSignals

CHECKED_BATCHES, TOLERANCE = (1, 2, 7), 1e-6


@dataclass(frozen=True)
class TrainedRun:
    """A trained model, what it was trained on and what it was asked to be; `step`: of its checkpoint."""

    model: SegmentModel
    task: Task
    experiment: Experiment
    step: int


@dataclass(frozen=True)
class Asked:
    """How a run is evaluated. protocol, batch_size: None for the experiment's own. knock_out: None for none."""

    split: str = "test"
    batch_size: int | None = None
    protocol: str | None = None
    knock_out: KnockOut | None = None


def load_run(path: str | Path, device: str | torch.device = HOST, data: Path | None = None) -> TrainedRun:
    """The best checkpoint of a run folder, in evaluation mode. MissingError where there is none or it is damaged.

    data: the folder of corpora; by default the settings' own.
    """
    run = RunFolder(Path(path))
    values = run.config()
    values.pop("cell")
    try:
        experiment = Experiment.model_validate(values)
    except ValidationError as fault:
        why = fault.errors()[0]["msg"]
        raise MissingError(f"{run.path / 'config.yaml'} is no configuration of this version: {why}") from None
    checkpoint = load_best(run.checkpoints)
    task = build_task(experiment, data or load_settings().data)
    refuse_other_data(checkpoint.state.tokens, task)
    with torch.random.fork_rng():  # the initial weights are overwritten; the caller's random numbers are not ours
        model = build_model(experiment, task.vocab_size, seed=0)
    try:
        load_weights(model, checkpoint.tensors["model"])
    except RuntimeError:
        raise MissingError(
            f"{run.checkpoints}: the best checkpoint is another model's; train again with --fresh"
        ) from None
    return TrainedRun(model.to(device).eval(), task, experiment, checkpoint.state.step)


def refuse_other_data(tokens: str | None, task: Task) -> None:
    """MissingError where a checkpoint was trained on another text, or in other tokens, than there is now.

    tokens: the digest that it was trained on; None for a task without a text.
    """
    if isinstance(task, CorpusTask) and tokens != task.tokens.digest:
        raise MissingError(
            f"this run was trained on another text than the corpus {task.config.corpus!r} is now (tokens "
            f"{str(tokens)[:12]}, now {task.tokens.digest[:12]}): bring that back, or start over with --fresh"
        )


def evaluate_run(
    run: RunFolder,
    machine: Machine,
    asked: Asked,
    console: Console,
    data: Path,
    stop: StopSignals | None = None,
    group: Group = ALONE,
) -> dict[str, Any]:
    """Evaluate a run's best checkpoint, keep the outcome in `eval/` and return it.

    group: with whom; what is kept and returned then is by the one that leads, and the others return nothing.
    Raises MissingError where there is no checkpoint, UsageError where what is asked has no meaning for it, and
    Stopped after a signal.
    """
    with group.in_turn():  # the one that leads may have written it
        trained = load_run(run.path, data=data)
    outcome, memory = assess(trained, machine, asked, console, stop, group)
    if not group.leads:
        return {}
    folder, name = run.path / "eval", f"{outcome['protocol']['name']}-{asked.split}"
    folder.mkdir(exist_ok=True)
    if memory:
        about = {"schema": SCHEMA, "step": outcome["step"], "protocol": outcome["protocol"]["name"]}
        write_json(folder / f"{name}-memory.json", {**about, **memory})
    without = f"-without-{asked.knock_out}" if asked.knock_out else ""
    write_json(folder / f"{name}{without}.json", outcome)
    return outcome


def assess(
    trained: TrainedRun,
    machine: Machine,
    asked: Asked,
    console: Console,
    stop: StopSignals | None = None,
    group: Group = ALONE,
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """What an evaluation finds; and of a test without a knock-out what a look into the memory sees, where there is one.

    Writes nothing. Raises UsageError and Stopped as above. Of several processes only the one that leads finds it all.
    """
    machine.place(trained.model)
    task, protocol = _under(trained.task, asked)
    split, model = asked.split, trained.experiment.model
    losses = np.zeros(len(task.parts[split].tokens), dtype=np.float32) if isinstance(task, CorpusTask) else None
    right = np.zeros(task.sizes[split] * task.sequence_length, dtype=bool) if isinstance(task, SortTask) else None
    with knocked_out(trained.model, asked.knock_out) if asked.knock_out else nullcontext():
        batches = _batches(trained, task, asked, console, group.share)
        heard = stop.until_received(batches) if stop else batches
        totals = evaluate(trained.model, heard, choices=task.has_answers, losses=losses, right=right)
    if number := group.largest(stop.received or 0 if stop else 0):
        raise Stopped("stopped while testing; the same command tests what was trained", number)
    totals = group.totals(totals)
    losses, right = (None if noted is None else group.summed(noted) for noted in (losses, right))
    if not group.leads:
        return {}, None
    outcome = {
        "schema": SCHEMA,
        "protocol": {
            **_described(protocol, task),
            "segment_length": model.segment_length,
            "memory_slots": model.memory_slots,
        },
        "split": split,
        "knock_out": asked.knock_out,
        "step": trained.step,
        "metrics": task.metrics(split, totals),
        "totals": vars(totals),
        "calibration": {},
        "data": task.data(split),
    }
    if isinstance(task, SortTask):
        assert right is not None
        by_sequence = right.reshape(-1, task.sequence_length).sum(1).tolist()
        outcome["calibration"] = task.calibration(split, model.memory_slots, model.segment_length)
        outcome["details"] = {"answers": {"right": by_sequence, "symbols": task.config.vocabulary}}
    else:
        assert losses is not None
        found = details(losses, task.parts[split].starts, task.distances(split), task.config.far)
        if found["far"]["tokens"]:
            outcome["metrics"][f"{split}/far_loss"] = found["far"]["nats"] / found["far"]["tokens"]
        outcome["totals"] = {**vars(totals), **task.sizes(split)}
        outcome["details"] = found
    memory = inspect_memory(trained.model, task, split) if split == "test" and not asked.knock_out else None
    if memory:
        outcome["metrics"]["test/regression_error"] = memory["regression_error_mean"]
    return outcome, memory


def check_batches(run: RunFolder, machine: Machine, asked: Asked, console: Console, data: Path) -> dict[str, Any]:
    """Evaluate with 1, 2 and 7 rows at once. DifferenceError where the total differs by more than 1e-6 of it."""
    trained = load_run(run.path, data=data)
    machine.place(trained.model)
    task, protocol = _under(trained.task, replace(asked, batch_size=max(CHECKED_BATCHES)))
    nats = {}
    for size in CHECKED_BATCHES:
        batches = _batches(trained, task, replace(asked, batch_size=size), console)
        nats[size] = evaluate(trained.model, batches, choices=False).nats
    worst = max(abs(value - nats[1]) / nats[1] for value in nats.values())
    if worst > TOLERANCE:
        raise DifferenceError(f"{protocol.name}: nats {nats} by batch size differ by {worst:.2g} of the total")
    return {"protocol": protocol.name, "split": asked.split, "nats": nats, "relative_difference": worst}


def _under(task: Task, asked: Asked) -> tuple[Task, EvaluationProtocol]:
    """The task under the protocol asked for. UsageError where the two, or what else is asked, do not go together."""
    if isinstance(task, SortTask):
        if asked.protocol not in (None, SORT.name):
            raise UsageError(f"--protocol {asked.protocol}: the sorting task has {SORT.name} only")
        return task, SORT
    if asked.protocol is not None:
        if asked.protocol not in TEXT_PROTOCOLS:
            raise UsageError(f"--protocol {asked.protocol}: there is {', '.join(TEXT_PROTOCOLS)}")
        task = task.under(TEXT_PROTOCOLS[asked.protocol])
    task.refuse_misnamed(asked.split)
    if task.one_stream and (asked.batch_size or 1) > 1:
        raise UsageError(
            f"--batch {asked.batch_size}: {task.protocol.name} is one stream whose memory is never reset, read alone; "
            "--protocol text-documents-v1 reads documents side by side"
        )
    if asked.knock_out == "other" and task.protocol.memory_reset != "document":
        raise UsageError("--knock-out other reads another document's memory: --protocol text-documents-v1")
    if asked.knock_out == "other" and len(task.parts[asked.split].documents) < 2:
        raise UsageError(f"--knock-out other: the {asked.split} part has one document only")
    return task, task.protocol


def _batches(trained: TrainedRun, task: Task, asked: Asked, console: Console, share: Share = ALL) -> Iterator[Batch]:
    size = asked.batch_size or trained.experiment.training.evaluation_batch_size
    if asked.knock_out == "other":
        return task.pairs(asked.split, size, share)
    steps = task.evaluation_steps(asked.split, size, share)
    return track(task.evaluation_batches(asked.split, size, share), steps, console, f"evaluating {asked.split}")


def _described(protocol: EvaluationProtocol, task: Task) -> dict[str, Any]:
    """The protocol as results keep it."""
    described = {
        key: value for key, value in asdict(protocol).items() if key not in ("whole", "tokenizer", "block", "by_blocks")
    }
    if isinstance(task, CorpusTask):
        reset = protocol.memory_reset or task.config.model_dump()["memory_reset"]
        return {**described, "memory_reset": reset, "words": "published" if protocol.whole else "counted here"}
    return described
