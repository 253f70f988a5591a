"""What `infty eval` does: trained runs under a named protocol, and what is asked of them."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from infty.base.batch import ALL, Batch, Share
from infty.base.errors import MissingError, Stopped, UsageError
from infty.base.files import write_json
from infty.base.progress import open_text, track
from infty.commands.load import TrainedRun, load_with_task
from infty.config.settings import Settings
from infty.corpora.text_pieces import CountedText
from infty.evaluation.evaluate import evaluate
from infty.evaluation.knockout import KnockOut, knock_out_memories
from infty.evaluation.memory_trace import inspect_memory
from infty.evaluation.stream import read_stream
from infty.experiment import Experiment, ResolvedCell, Task
from infty.machine.placement import prepare_machine
from infty.machine.ram import peak_memory_bytes
from infty.runs.folder import SCHEMA, RunFolder
from infty.tasks.corpus import CorpusTask
from infty.tasks.loss_breakdown import details
from infty.tasks.protocols import TEXT_PROTOCOLS, EvaluationProtocol
from infty.tasks.sort import SortTask
from infty.training.distributed import ALONE, Group, joined
from infty.training.signals import StopSignals

Values = dict[str, Any]
CHECKED_BATCHES, TOLERANCE = (1, 2, 7), 1e-6


@dataclass(frozen=True)
class Asked:
    """How a run is evaluated. protocol, batch_size: None for the experiment's own. knock_out: None for none."""

    split: str = "test"
    batch_size: int | None = None
    protocol: str | None = None
    knock_out: KnockOut | None = None


def evaluate_cell(resolved: ResolvedCell, settings: Settings, asked: Asked, console: Console) -> Values:
    """Evaluate the best checkpoint of a cell's run.

    Several processes share the texts or sequences; only the one that leads returns what was found.
    Raises MissingError, with the command that trains it, where there is none, and UsageError where the
    run has other settings than the cell.
    """
    machine, run = prepare_machine(settings), trained_run(resolved, settings)
    with joined(machine.launch, machine.device) as group:
        with group.in_turn():  # the one that leads may have to tokenise the text
            trained, task = load_with_task(run, settings.data)
        machine.place(trained.model)
        return evaluate_run(run, trained, task, asked, console, group=group)


def stream_cell(
    resolved: ResolvedCell, settings: Settings, file: Path, console: Console, batch_size: int | None
) -> Values:
    """Read one text of any length with the best checkpoint of a cell's run: what it answers, and at what pace.

    Raises MissingError where there is no checkpoint or no such text, and UsageError as `evaluate_cell` does, or
    where more than one stream is asked for.
    """
    if batch_size not in (None, 1):
        raise UsageError(f"--stream reads one text as one stream: --batch {batch_size} has no meaning with it")
    machine, run = prepare_machine(settings), trained_run(resolved, settings)
    trained, task = load_with_task(run, settings.data)
    machine.place(trained.model)
    length = trained.experiment.model.segment_length
    with open_text(file, console) as opened:
        text = CountedText(opened)
        segments = task.stream(text, length)
        totals, answers, pace = read_stream(
            trained.model,
            segments,
            lambda: peak_memory_bytes(machine.device),
            choices=task.has_answers,
        )
    return {
        "schema": SCHEMA,
        "file": file.name,
        "step": trained.step,
        "segment_length": length,
        "metrics": task.stream_metrics(text, totals),
        "totals": vars(totals),
        "answer": [wanted for wanted, _ in answers],
        "model_answer": [chosen for _, chosen in answers],
        "pace": pace.figures(),
    }


def trained_run(resolved: ResolvedCell, settings: Settings) -> RunFolder:
    """The cell's run. MissingError where it has no checkpoint, UsageError where it has other settings."""
    run = RunFolder(settings.runs / resolved.cell.folder)
    if not (run.checkpoints / "best.json").is_file():
        if run.finished:
            raise MissingError(f"the checkpoints of {run.path} are gone; train it with: {resolved.command()} --fresh")
        raise MissingError(f"nothing trained yet in {run.path}; train it with: {resolved.command()}")
    run.refuse_another(resolved.config(), "evaluate it with the --set options that it was trained with")
    return run


def evaluate_run(
    run: RunFolder,
    trained: TrainedRun,
    task: Task,
    asked: Asked,
    console: Console,
    stop: StopSignals | None = None,
    group: Group = ALONE,
) -> Values:
    """Evaluate a run's best checkpoint, keep the outcome in its `eval/` and return it.

    group: with whom; what is kept and returned then is by the one that leads, and the others return nothing.
    Raises UsageError where what is asked has no meaning for it, and Stopped after a signal.
    """
    outcome, memory = assess(trained, task, asked, console, stop, group)
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
    task: Task,
    asked: Asked,
    console: Console,
    stop: StopSignals | None = None,
    group: Group = ALONE,
) -> tuple[Values, Values | None]:
    """What an evaluation finds of a run; of a test without a knock-out also what a look into its memory sees, if any.

    Writes nothing. Raises UsageError and Stopped as above. Of several processes only the one that leads finds it all.
    """
    task, protocol = _under(task, asked)
    split, model = asked.split, trained.experiment.model
    losses = np.zeros(len(task.parts[split].tokens), dtype=np.float32) if isinstance(task, CorpusTask) else None
    right = np.zeros(task.sizes[split] * task.sequence_length, dtype=bool) if isinstance(task, SortTask) else None
    with knock_out_memories(trained.model, asked.knock_out) if asked.knock_out else nullcontext():
        batches = _batches(trained.experiment, task, asked, console, group.share)
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


def check_cell(resolved: ResolvedCell, settings: Settings, asked: Asked, console: Console) -> Values:
    """Evaluate with 1, 2 and 7 rows at once, to show that the batch size changes nothing.

    same: whether the totals differ by 1e-6 of them at most. MissingError and UsageError as `evaluate_cell`.
    """
    machine, run = prepare_machine(settings), trained_run(resolved, settings)
    trained, task = load_with_task(run, settings.data)
    machine.place(trained.model)
    task, protocol = _under(task, asked)
    if isinstance(task, CorpusTask) and task.one_stream:
        one = f"{protocol.name} is one stream whose memory is never reset"
        raise UsageError(f"--check-batch: {one}, read alone: there is nothing to compare")
    nats = {}
    for size in CHECKED_BATCHES:
        batches = _batches(trained.experiment, task, replace(asked, batch_size=size), console)
        nats[size] = evaluate(trained.model, batches, choices=False).nats
    worst = max(abs(value - nats[1]) / nats[1] for value in nats.values())
    return {
        "protocol": protocol.name,
        "split": asked.split,
        "nats": nats,
        "relative_difference": worst,
        "same": worst <= TOLERANCE,
    }


def _under(task: Task, asked: Asked) -> tuple[Task, EvaluationProtocol]:
    """The task under the protocol asked for. UsageError where the two, or what else is asked, do not go together."""
    if isinstance(task, SortTask):
        if asked.protocol not in (None, task.protocol.name):
            raise UsageError(f"--protocol {asked.protocol}: this task has {task.protocol.name} only")
        return task, task.protocol
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


def _batches(experiment: Experiment, task: Task, asked: Asked, console: Console, share: Share = ALL) -> Iterator[Batch]:
    size = asked.batch_size or experiment.training.evaluation_batch_size
    if asked.knock_out == "other":
        return task.pairs(asked.split, size, share)
    steps = task.evaluation_steps(asked.split, size, share)
    return track(task.evaluation_batches(asked.split, size, share), steps, console, f"evaluating {asked.split}")


def _described(protocol: EvaluationProtocol, task: Task) -> Values:
    """The protocol as results keep it."""
    described = {
        key: value for key, value in asdict(protocol).items() if key not in ("whole", "tokenizer", "block", "by_blocks")
    }
    if isinstance(task, CorpusTask):
        reset = protocol.memory_reset or task.config.model_dump()["memory_reset"]
        return {**described, "memory_reset": reset, "words": "published" if protocol.whole else "counted here"}
    return described
