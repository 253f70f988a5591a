"""`infty eval`: evaluation of trained runs under a named protocol, and of one long text as a stream."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from infty.base.batch import ALL, Batch, Share
from infty.base.errors import LONG, MissingError, Stopped, UsageError, one_line
from infty.base.files import refuse_broken_link
from infty.base.progress import open_text, track
from infty.commands.load import TrainedModel, load_with_task
from infty.config.settings import Settings
from infty.corpora.text_pieces import CountedText
from infty.evaluation.evaluate import evaluate, knock_out_memories, read_stream
from infty.evaluation.memory_trace import inspect_memory
from infty.experiment import Cell
from infty.machine.placement import prepare_machine
from infty.machine.ram import count_peak_bytes
from infty.runs.folder import SCHEMA, RunFolder
from infty.runs.schemas import Evaluation, MemoryTrace
from infty.tasks.protocols import KnockOut
from infty.tasks.task import Task, Values
from infty.training.distributed import ALONE, Group, process_group
from infty.training.signals import StopSignals

CHECKED_BATCHES, TOLERANCE = (1, 2, 7), 1e-6


@dataclass(frozen=True)
class EvaluationRequest:
    """An evaluation to be made. protocol, batch_size: None for the experiment's own. knock_out: None for none."""

    split: str = "test"
    batch_size: int | None = None
    protocol: str | None = None
    knock_out: KnockOut | None = None


def evaluate_cell(cell: Cell, settings: Settings, request: EvaluationRequest) -> Evaluation | None:
    """Evaluate the best checkpoint of a cell's run. Only the process that leads returns the evaluation."""
    with _load_cell(cell, settings) as (run, trained, task, group):
        return evaluate_run(trained, task, request, group=group, folder=run.path / "eval", may_be_others=True)


def stream_cell(cell: Cell, settings: Settings, file: Path, batch_size: int | None) -> Values:
    """Read one text with a cell's best checkpoint; return answers and pace. UsageError if `batch_size` exceeds 1."""
    if batch_size not in (None, 1):
        raise UsageError(f"--stream reads one text as one stream: --batch {batch_size} has no meaning with it")
    with _load_cell(cell, settings) as (_, trained, task, _), open_text(file) as opened:
        # Words and bytes of the text are counted while it is read, segment by segment.
        text, length = CountedText(opened), trained.experiment.model.segment_length
        segments, memory = task.cut_stream(text, length), partial(count_peak_bytes, trained.model.device)
        totals, answers, pace = read_stream(trained.model, segments, memory, choices=task.has_answers)
    return {
        "schema": SCHEMA,
        "file": file.name,
        "step": trained.step,
        "segment_length": length,
        "metrics": task.compute_stream_metrics(text, totals),
        "totals": vars(totals),
        "answer": [wanted for wanted, _ in answers],
        "model_answer": [chosen for _, chosen in answers],
        "pace": pace,
    }


def find_trained_run(cell: Cell, settings: Settings) -> RunFolder:
    """Find the cell's run. MissingError if it has no checkpoint, UsageError if it has other settings."""
    run = RunFolder(settings.runs / cell.key.folder)
    if not (run.checkpoints / "best.json").is_file():
        refuse_broken_link(run.checkpoints)
        if run.finished:
            raise MissingError(f"the checkpoints of {run.path} are gone; train it with: {cell.command} --fresh")
        if run.begun:
            raise MissingError(f"no validation yet in {run.path}; continue it with: {cell.command}")
        where = f"{run.path}{_describe_others(run)}"
        raise MissingError(f"nothing trained yet in {where}; train it with: {cell.command}")
    run.refuse_another(cell.config, "evaluate it with the --set options that it was trained with")
    return run


def _describe_others(run: RunFolder) -> str:
    """Describe, in brackets, which other rows and cases of a run's scale were trained, such as those of own texts."""
    scale = run.path.parent.parent
    names = sorted({best.parents[2].name for best in scale.glob("*/seed-*/checkpoints/best.json")})
    return f" (beside it, with options of their own: {one_line(', '.join(names))})" if names else ""


@contextmanager
def _load_cell(cell: Cell, settings: Settings) -> Iterator[tuple[RunFolder, TrainedModel, Task, Group]]:
    """Connect the processes, and load the best checkpoint of a cell's run and its task."""
    machine, run = prepare_machine(settings), find_trained_run(cell, settings)
    with process_group(machine.launch, machine.device) as group:
        with group.take_turns():  # the one that leads may have to tokenise the text
            trained, task = load_with_task(run, settings.data)
        machine.place(trained.model)
        yield run, trained, task, group


def evaluate_run(
    trained: TrainedModel,
    task: Task,
    request: EvaluationRequest,
    stop: StopSignals | None = None,
    group: Group = ALONE,
    folder: Path | None = None,
    *,
    may_be_others: bool = False,
) -> Evaluation | None:
    """Evaluate a run, and trace its memories in a plain test. Only the process that leads returns the evaluation.

    folder: where both are written; None: nowhere. may_be_others: only warn if it can't be written to.

    Raises:
        UsageError: The request does not fit.
        Stopped: A signal came.
        OSError: The folder can't be written to.
    """
    # Set the protocol, and let the task make the array that records the outcome of each target.
    task = _prepare_task(task, request)
    split, model, record = request.split, trained.experiment.model, task.make_record(request.split)

    # Read this process's share of the split, and sum over all processes.
    with knock_out_memories(trained.model, request.knock_out) if request.knock_out else nullcontext():
        batches = _make_batches(trained, task, request, group.share)
        heard = stop.yield_until_signal(batches) if stop else batches
        totals = evaluate(trained.model, heard, choices=task.has_answers, record=record)
    if number := group.find_largest(stop.received or 0 if stop else 0):
        raise Stopped("stopped while testing; the same command tests what was trained", number)
    totals = group.sum_totals(totals)
    record = group.sum_arrays(record)
    if not group.leads:
        return None

    # Compute the metrics from the sums, and trace the memories.
    score = task.score(split, totals, record, model.memory_slots, model.segment_length)
    traced = split == "test" and not request.knock_out
    trace = inspect_memory(trained.model, task, split, trained.step) if traced else None
    sizes = {"segment_length": model.segment_length, "memory_slots": model.memory_slots}
    evaluation = Evaluation.model_validate(
        {
            "protocol": {**task.describe_protocol(), **sizes},
            "split": split,
            "knock_out": request.knock_out,
            "step": trained.step,
            **score,
            "metrics": score["metrics"] | ({"test/regression_error": trace.regression_error_mean} if trace else {}),
            "data": task.describe_data(split),
        }
    )

    # Write both, if there is a folder for them.
    if folder:
        try:
            _store(evaluation, trace, folder)
        except OSError as fault:
            if not may_be_others:
                raise
            why = f"{fault.filename or folder}: {fault.strerror or fault}"
            warnings.warn(one_line(f"the evaluation was not stored: {why}", LONG), stacklevel=2)
    return evaluation


def _store(evaluation: Evaluation, trace: MemoryTrace | None, folder: Path) -> None:
    """Write an evaluation, and the trace of its memories if there is one. OSError if that fails."""
    name, without = f"{evaluation.protocol.name}-{evaluation.split}", evaluation.knock_out
    folder.mkdir(exist_ok=True)
    if trace:
        trace.write(folder / f"{name}-memory.json")
    evaluation.write(folder / f"{name}{f'-without-{without}' if without else ''}.json")


def check_cell(cell: Cell, settings: Settings, request: EvaluationRequest) -> Values:
    """Evaluate with 1, 2 and 7 rows at once. same: if totals agree to 1e-6 of them. UsageError if the task can't."""
    nats: dict[int, float] = {}
    with _load_cell(cell, settings) as (_, trained, task, _):
        task = _prepare_task(task, request)
        if task.one_stream:
            one = f"{task.protocol.name} is one stream whose memory is never reset"
            raise UsageError(f"--check-batch: {one}, read alone: there is nothing to compare")
        for size in CHECKED_BATCHES:
            batches = _make_batches(trained, task, replace(request, batch_size=size))
            nats[size] = evaluate(trained.model, batches, choices=False).nats
    worst = max(abs(value - nats[1]) / nats[1] for value in nats.values())
    return {
        "protocol": task.protocol.name,
        "split": request.split,
        "nats": nats,
        "relative_difference": worst,
        "same": worst <= TOLERANCE,
    }


def _prepare_task(task: Task, request: EvaluationRequest) -> Task:
    """Return the task under the request's protocol. Raises UsageError if the task and the request do not fit."""
    task = task.use_protocol(request.protocol)
    if why := task.explain_unfit(request.split, request.batch_size, request.knock_out):
        raise UsageError(why)
    return task


def _make_batches(trained: TrainedModel, task: Task, request: EvaluationRequest, share: Share = ALL) -> Iterator[Batch]:
    split, size = request.split, request.batch_size or trained.experiment.training.evaluation_batch_size
    if request.knock_out == "other":
        return task.pair_samples(split, size, share)
    steps = task.count_evaluation_steps(split, size, share)
    return track(task.evaluation_batches(split, size, share), steps, f"evaluating {split}")
