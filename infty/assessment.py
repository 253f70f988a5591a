"""What `infty eval` does with a cell's run."""

from pathlib import Path
from typing import Any

from rich.console import Console

from infty.corpora.pieces import CountedText
from infty.errors import MissingError, UsageError
from infty.experiment import ResolvedCell
from infty.machine import prepare_machine
from infty.resources import peak_memory_bytes
from infty.runs import SCHEMA, RunFolder
from infty.settings import Settings
from infty.streaming import read_stream
from infty.tracking import open_text
from infty.trained import Asked, check_batches, evaluate_run, load_run
from infty.training.distributed import joined

Values = dict[str, Any]


def evaluate_cell(resolved: ResolvedCell, settings: Settings, asked: Asked, console: Console) -> Values:
    """Evaluate the best checkpoint of a cell's run.

    Several processes share the texts or sequences; only the one that leads returns what was found.
    Raises MissingError, with the command that trains it, where there is none, and UsageError where the
    run has other settings than the cell.
    """
    machine, run = prepare_machine(settings), trained_run(resolved, settings)
    with joined(machine.launch, machine.device) as group:
        return evaluate_run(run, machine, asked, console, settings.data, group=group)


def check_cell(resolved: ResolvedCell, settings: Settings, asked: Asked, console: Console) -> Values:
    """Show that the batch size changes nothing. DifferenceError where it does; otherwise as `evaluate_cell`."""
    return check_batches(trained_run(resolved, settings), prepare_machine(settings), asked, console, settings.data)


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
    trained = load_run(run.path, data=settings.data)
    machine.place(trained.model)
    length = trained.experiment.model.segment_length
    with open_text(file, console) as opened:
        text = CountedText(opened)
        segments = trained.task.stream(text, length)
        totals, answers, pace = read_stream(
            trained.model,
            segments,
            lambda: peak_memory_bytes(machine.device),
            choices=trained.task.has_answers,
        )
    return {
        "schema": SCHEMA,
        "file": file.name,
        "step": trained.step,
        "segment_length": length,
        "metrics": trained.task.stream_metrics(text, totals),
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
