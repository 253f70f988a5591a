"""`infty report --check`: compare stored figures with their totals, their evaluations and their checkpoints."""

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from infty.base.batch import Totals
from infty.base.errors import InftyError, MissingError
from infty.base.files import refuse_broken_link
from infty.base.table import Table
from infty.commands.evaluate import EvaluationRequest, evaluate_run
from infty.commands.load import load_with_task
from infty.config.settings import Settings
from infty.machine.placement import Machine, prepare_machine
from infty.runs.folder import RunFolder, find_finished_runs
from infty.runs.metrics import describe_damage, parse_lines
from infty.runs.parts import AnswerDetails, TextDetails
from infty.runs.schemas import Environment, Evaluation, Result
from infty.tasks.loss_breakdown import compute_text_metrics
from infty.training.checkpoint import verify_best

logger = logging.getLogger(__name__)

EXACT, AGAIN = 1e-12, 1e-4  # relative tolerances: metrics from stored totals; a new evaluation, perhaps elsewhere
STORED = 2e-7  # relative: it may be of a later evaluation, whose products were rounded otherwise
ROUNDED = 1e-4  # nats: rounding of each chunk's stored sum


@dataclass
class Checked:
    """A run that was checked. how: what it was compared with. faults: what was found wrong."""

    run: str
    how: str
    faults: list[str] = field(default_factory=list)


def check_runs(folders: Sequence[Path], settings: Settings) -> list[Checked]:
    """Check all finished runs in `folders`. MissingError if there is none, or a folder is not there."""
    runs, machine = find_finished_runs(folders), prepare_machine(settings)
    return [_check_run(run, machine, settings) for run in runs]


def checks_table(checked: Sequence[Checked]) -> Table:
    """Make a table with a line per run."""
    rows = [[one.run, one.how, "; ".join(one.faults) or "as stored"] for one in checked]
    return Table("check", ["run", "held against", "found"], rows, figures=False)


def _check_run(run: RunFolder, machine: Machine, settings: Settings) -> Checked:
    # Compare the result with its totals and its evaluation; a run that can't be read or computed with ends here.
    name = str(run.path)
    try:
        result = run.read().result
        faults = [*_check_totals(result), *_check_evaluation(run, result), *_check_records(run)]
    except MissingError as fault:
        return Checked(name, "nothing: it can't be read", [str(fault)])
    except ArithmeticError as fault:
        return Checked(name, "nothing: its totals are damaged", [f"totals: {type(fault).__name__} {fault}"])

    # Load its checkpoint, if it has a whole one and its text is on this machine.
    try:
        refuse_broken_link(run.checkpoints)
        if not (run.checkpoints / "best.json").is_file():
            return Checked(name, "stored totals only: it has no checkpoint", faults)
        verify_best(run.checkpoints)
    except MissingError as fault:
        return Checked(name, "stored totals and a checkpoint", [*faults, str(fault)])
    try:
        trained, task = load_with_task(run, settings.data)
    except MissingError as fault:
        return Checked(name, f"stored totals only: {fault}", faults)

    # Evaluate it again.
    logger.info(f"evaluating again: {name}")
    machine.place(trained.model)
    try:
        again = evaluate_run(trained, task, EvaluationRequest())
    except InftyError as fault:
        return Checked(name, "stored totals only: it can't be evaluated", [*faults, str(fault)])
    assert again is not None, "one process leads"
    faults += [f"evaluated again, {fault}" for fault in _find_differences(result, again, AGAIN)]
    if again.step != result.best_step:
        faults.append(f"the best checkpoint is of step {again.step}, and not of {result.best_step}")
    return Checked(name, "an evaluation of its checkpoint", faults)


def _check_totals(result: Result) -> Iterator[str]:
    """Find metrics that do not follow from the totals."""
    t = result.totals
    whole = Totals(t.nats, t.scored, t.correct, t.aside, t.aside_nats)
    if result.is_text:
        expected = compute_text_metrics("test", whole, {"words": t.words or 0, "bytes": t.bytes or 0})
    else:
        expected = {"test/loss": t.nats / t.scored, "test/accuracy": t.correct / t.scored}
    for key, value in expected.items():
        if not _is_close(stored := result.find_metric(key), value, EXACT):
            yield f"{key} is {stored}, and by its totals {'no measurement' if value is None else value}"


def _check_evaluation(run: RunFolder, result: Result) -> Iterator[str]:
    """Find differences between the result and the evaluation beside it, and parts of that which do not add up."""
    file = run.path / "eval" / f"{result.protocol.name}-test.json"
    try:
        stored = Evaluation.read(file, "evaluate it again with infty eval")
    except MissingError as fault:
        yield str(fault)
        return
    yield from (f"in {file.name}, {fault}" for fault in _find_differences(result, stored, STORED))
    totals = result.totals
    match stored.details:
        case AnswerDetails(answers=answers):
            if (right := sum(answers.right)) != totals.correct:
                yield f"in {file.name}, {right} are right by sequence, and stored {totals.correct}"
        case TextDetails(chunks=chunks):
            nats, whole = math.fsum(chunks.nats), totals.nats + totals.aside_nats
            if abs(nats - whole) > ROUNDED * len(chunks.nats):
                yield f"in {file.name}, chunks sum up to {nats} nats, and not to {whole}"


def _check_records(run: RunFolder) -> Iterator[str]:
    """Find damage in what the run recorded beside its result; a file that is not there is none."""
    environment = run.path / "environment.json"
    try:
        if environment.is_file():
            Environment.read(environment, "the result stands without it")
    except MissingError as fault:
        yield str(fault)
    if damaged := parse_lines(run.metrics)[1]:
        yield f"{run.metrics.name} has {describe_damage(damaged)}"


def _find_differences(result: Result, other: Evaluation, tolerance: float) -> Iterator[str]:
    """Find the metrics, totals, data and protocol in which an evaluation differs from the stored result."""
    for stored, values in ((result.metrics, other.metrics), (result.totals.model_dump(), other.totals.model_dump())):
        for key, value in stored.items():
            if not _is_close(value, found := values.get(key), tolerance):
                yield f"{key} is {found}, and stored is {value}"
    if other.data != result.data:
        yield "data is not what is stored"
    if other.protocol != result.protocol:
        yield "protocol is not what is stored"


def _is_close(value: float | None, other: float | None, tolerance: float) -> bool:
    """Tell if two figures agree, of which each may be None: a figure that can't be made."""
    if value is None or other is None:
        return value is other
    return math.isclose(value, other, rel_tol=tolerance)
