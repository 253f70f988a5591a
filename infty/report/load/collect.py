"""Run folders made the runs of each table. Damaged ones are left out with a warning; so is a damaged part of one."""

import json
import math
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from infty.base.errors import MissingError, UsageError
from infty.base.messages import one_line
from infty.config.catalog import experiment_files, open_experiment
from infty.config.definition import CellKey
from infty.report.load.results import ResultSet, Run
from infty.report.load.tuning import find_tunings
from infty.runs.folder import Finished, RunFolder, differences, finished_runs
from infty.runs.record import Record
from infty.runs.schemas import Environment, Evaluation, MemoryTrace, Result
from infty.tasks.protocols import KNOCK_OUTS

STANDS = "the run stands without it"
Part = TypeVar("Part", bound=Record)


def collect(folders: Sequence[Path], experiments: Path) -> list[ResultSet]:
    """Finished runs by experiment, scale, protocol, and corpus where it is the user's own.

    MissingError where none is finished, or a folder is not there.
    """
    groups: dict[tuple[str, str, str, str], list[Run]] = {}
    for folder, found in _finished(folders):
        run, protocol = read_run(folder, found), found.result.protocol.name
        own = run.cell.variant[1:] if run.cell.variant[1:] == run.result["data"]["name"] else ""
        run = replace(run, cell=replace(run.cell, variant="")) if own else run
        groups.setdefault((run.cell.experiment, run.cell.scale, own, protocol), []).append(run)
    tables = Counter(key[:3] for key in groups)  # files are named after a protocol only where there are two
    sets, tunings = [], find_tunings(folders)
    for (experiment, scale, own, protocol), runs in sorted(groups.items()):
        named = [experiment, scale, own, protocol if tables[experiment, scale, own] > 1 else ""]
        wanted = [] if own else _wanted(experiment, scale, experiments)
        tuned = {} if own else {case: one for case, (_, one) in tunings.get((experiment, scale), {}).items()}
        sets.append(ResultSet(experiment, scale, protocol, runs, wanted, "-".join(filter(None, named)), tuned))
    return sets


def _finished(folders: Sequence[Path]) -> Iterator[tuple[RunFolder, Finished]]:
    """Finished runs that can be read, each cell and seed once, all seeds of a cell with the same settings.

    MissingError as `finished_runs`.
    """
    known: set[CellKey] = set()
    settings: dict[CellKey, dict[str, Any]] = {}  # of the first seed of a cell
    for folder in finished_runs(folders):
        try:
            found = folder.read()
        except MissingError as fault:
            warnings.warn(f"{folder.path} is left out: {fault}", stacklevel=3)
            continue
        if found.cell in known:
            warnings.warn(f"{folder.path} is left out: another run of the same cell and seed came first", stacklevel=3)
            continue
        known.add(found.cell)
        config = {key: value for key, value in found.config.items() if key != "cell"}
        if changed := differences(settings.setdefault(replace(found.cell, seed=0), config), config):
            text = f"not with the settings of the seeds before it ({one_line('; '.join(changed), 500)})"
            warnings.warn(f"{folder.path} is left out: {text}", stacklevel=3)
            continue
        yield folder, found


def read_run(folder: RunFolder, found: Finished) -> Run:
    """A finished run with all that is told beside its result."""
    test, result = f"{found.result.protocol.name}-test", found.result
    again = "evaluate it again with infty eval"
    evaluation = _part(Evaluation, folder.path / "eval" / f"{test}.json", f"no details of this run: {again}")
    knocked: dict[str, Evaluation] = {}
    for kind in KNOCK_OUTS:
        file = folder.path / "eval" / f"{test}-without-{kind}.json"
        one = _part(Evaluation, file, f"no knock-out: {again}")
        if one and _is_of(one, result, file):
            knocked[kind] = one
    memory = _part(MemoryTrace, folder.path / "eval" / f"{test}-memory.json", f"no pictures of its memory: {again}")
    if evaluation and not _is_of(evaluation, result, folder.path / "eval" / f"{test}.json"):
        evaluation = None
    environment = _part(Environment, folder.path / "environment.json", "nothing is told of its environment")
    run = Run(
        found.cell,
        found.result.dump(),
        found.length,
        details=evaluation.details.dump() if evaluation else None,
        num_basis=_num_basis(found.config),
        curve=list(_curve(folder.metrics)),
        memory=memory.dump() if memory else None,
        environment=environment.dump() if environment else {},
    )
    knock_outs = {
        kind: replace(run, result={**run.result, "metrics": one.metrics}, details=one.details.dump())
        for kind, one in knocked.items()
    }
    return replace(run, knock_outs=knock_outs)


def _is_of(evaluation: Evaluation, result: Result, file: Path) -> bool:
    """Whether an evaluation is of the result's checkpoint and data; with a warning where it is not."""
    if (evaluation.step, evaluation.data.sha256) != (result.best_step, result.data.sha256):
        warnings.warn(f"{file} is of another checkpoint or other data than the result: evaluate it again", stacklevel=4)
        return False
    return True


def _part(kind: type[Part], path: Path, otherwise: str) -> Part | None:
    """What a file beside the result says; None where it is not there, or damaged: the run stands without it."""
    try:
        return kind.read(path, STANDS) if path.is_file() else None
    except MissingError as fault:
        warnings.warn(f"{otherwise} ({fault})", stacklevel=5)
        return None


def _num_basis(config: dict[str, Any]) -> int | None:
    """N of the long-term memory of a row that has one."""
    found: Any = config
    for key in ("model", "long_range", "num_basis"):
        found = found.get(key) if isinstance(found, dict) else None
    return found if type(found) is int and 0 < found < 2**31 else None


def _curve(path: Path) -> Iterator[tuple[int, dict[str, float]]]:
    """Validations in `metrics.jsonl`; what is damaged there is passed over."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    except (OSError, ValueError):
        return
    for line in lines:
        try:
            values = json.loads(line) if '"validation/' in line else {}
        except (ValueError, RecursionError):
            continue
        found = _numbers(values) if isinstance(values, dict) else {}
        if "step" in found and {"validation/loss"} <= found.keys():
            yield int(found["step"]), {key.removeprefix("validation/"): value for key, value in found.items()}


def _numbers(values: dict[str, Any]) -> dict[str, float]:
    """The values that are finite numbers of a sane size."""
    return {
        key: value
        for key, value in values.items()
        if type(value) in (int, float) and math.isfinite(value) and abs(value) < 1e15
    }


def _wanted(experiment: str, scale: str, experiments: Path) -> list[CellKey]:
    """The cells that the experiment's file names, if the file is at hand; where it has faults they are a warning."""
    if experiment not in experiment_files(experiments):
        return []
    try:
        definition = open_experiment(experiment, experiments)
        return list(definition.cells(scale)) if scale in definition.names("scales") else []
    except UsageError as fault:  # its runs stand all the same
        warnings.warn(f"{experiment}: what is missing is not told: {fault}", stacklevel=3)
        return []
