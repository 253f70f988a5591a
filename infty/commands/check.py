"""`infty report --check`: are stored figures what their totals, their evaluations and their checkpoints say?"""

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infty.base.batch import Totals
from infty.base.errors import InftyError, MissingError
from infty.base.files import read_json
from infty.base.table import Table
from infty.commands.evaluate import Asked, assess
from infty.commands.load import load_with_task
from infty.config.settings import Settings
from infty.machine.placement import Machine, prepare_machine
from infty.runs.folder import RunFolder, finished_runs
from infty.tasks.loss_breakdown import compute_text_metrics
from infty.training.checkpoint import verify_best

logger = logging.getLogger(__name__)

EXACT, AGAIN = 1e-12, 1e-4  # relative: of what is reckoned from stored totals; of another machine's or threads' sums
STORED = 2e-7  # it may have been evaluated once more, with products that are rounded otherwise
ROUNDED = 1e-4  # nats: of each of the stored sums of chunks


@dataclass
class Checked:
    """One run that was checked. how: what it was held against. faults: what is not so."""

    run: str
    how: str
    faults: list[str] = field(default_factory=list)


def check_runs(folders: Sequence[Path], settings: Settings) -> list[Checked]:
    """All finished runs in `folders`. MissingError where there is none, or a folder is not there."""
    runs, machine = finished_runs(folders), prepare_machine(settings)
    return [_check(run, machine, settings) for run in runs]


def checks_table(checked: Sequence[Checked]) -> Table:
    """A line a run."""
    rows = [[one.run, one.how, "; ".join(one.faults) or "as stored"] for one in checked]
    return Table("check", ["run", "held against", "found"], rows, figures=False)


def _check(run: RunFolder, machine: Machine, settings: Settings) -> Checked:
    name = str(run.path)
    try:
        run.read()
        result = run.result()
    except MissingError as fault:
        return Checked(name, "nothing: it can't be read", [str(fault)])
    try:
        faults = [*_against_totals(result), *_against_evaluation(run, result)]
    except (ArithmeticError, KeyError, TypeError) as fault:
        return Checked(name, "nothing: its totals are damaged", [f"totals: {type(fault).__name__} {fault}"])
    if not (run.checkpoints / "best.json").is_file():
        return Checked(name, "stored totals only: it has no checkpoint", faults)
    try:
        verify_best(run.checkpoints)
    except MissingError as fault:
        return Checked(name, "stored totals and a checkpoint", [*faults, str(fault)])
    try:
        trained, task = load_with_task(run, settings.data)
    except MissingError as fault:  # a text that is not on this machine, say
        return Checked(name, f"stored totals only: {fault}", faults)
    logger.info(f"evaluating again: {name}")
    machine.place(trained.model)
    try:
        outcome, _ = assess(trained, task, Asked())
    except InftyError as fault:
        return Checked(name, "stored totals only: it can't be evaluated", [*faults, str(fault)])
    again = [f"evaluated again, {fault}" for fault in _differing(result, outcome, AGAIN)]
    if outcome["step"] != result["best_step"]:
        again.append(f"the best checkpoint is of step {outcome['step']}, and not of {result['best_step']}")
    return Checked(name, "an evaluation of its checkpoint", [*faults, *again])


def _against_totals(result: dict[str, Any]) -> Iterator[str]:
    """Metrics are shares of totals."""
    totals = result["totals"]
    if result["calibration"]:
        expected = {
            "test/loss": totals["nats"] / totals["scored"],
            "test/accuracy": totals["correct"] / totals["scored"],
        }
    else:
        sizes = {key: totals[key] for key in ("words", "bytes")}
        whole = Totals(**{key: value for key, value in totals.items() if key not in sizes})
        expected = compute_text_metrics("test", whole, sizes)
    for key, value in expected.items():
        if not math.isclose(result["metrics"][key], value, rel_tol=EXACT):
            yield f"{key} is {result['metrics'][key]}, and by its totals {value}"


def _against_evaluation(run: RunFolder, result: dict[str, Any]) -> Iterator[str]:
    """The evaluation beside the result says the same, and its parts add up."""
    file = run.path / "eval" / f"{result['protocol']['name']}-test.json"
    try:
        stored = read_json(file, "evaluate it again with infty eval")
        yield from (f"in {file.name}, {fault}" for fault in _differing(result, stored, STORED))
        details = stored.get("details") or {}
        if right := details.get("answers", {}).get("right"):
            if sum(right) != result["totals"]["correct"]:
                yield f"in {file.name}, {sum(right)} are right by sequence, and stored {result['totals']['correct']}"
        elif chunks := details.get("chunks", {}).get("nats"):
            nats, whole = math.fsum(chunks), result["totals"]["nats"] + result["totals"].get("aside_nats", 0)
            if abs(nats - whole) > ROUNDED * len(chunks):
                yield f"in {file.name}, chunks sum up to {nats} nats, and not to {whole}"
    except MissingError as fault:
        yield str(fault)
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as fault:
        yield f"{file.name} is no evaluation ({type(fault).__name__})"


def _differing(result: dict[str, Any], other: dict[str, Any], tolerance: float) -> Iterator[str]:
    """Metrics, totals, data and protocol that another outcome has otherwise."""
    for part in ("metrics", "totals"):
        for key, value in result[part].items():
            found = other[part].get(key)
            if found is None or not math.isclose(value, found, rel_tol=tolerance):
                yield f"{key} is {found}, and stored is {value}"
    for part in ("data", "protocol"):
        if other[part] != result[part]:
            yield f"{part} is not what is stored"
