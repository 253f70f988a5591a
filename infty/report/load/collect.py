"""Collect run folders into the runs of each table. Damaged runs, or parts of one, are left out with a warning."""

import math
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar

from infty.base.errors import MissingError, UsageError, one_line
from infty.base.folders import walk_folder
from infty.config.definition import CellKey, experiment_files, open_experiment
from infty.report.load.results import ResultSet
from infty.runs.folder import Run, differences, find_finished_runs
from infty.runs.metrics import read_lines
from infty.runs.record import Record
from infty.runs.schemas import Environment, Evaluation, MemoryTrace, Result, Tuning, Validation
from infty.tasks.protocols import KNOCK_OUTS, MOST_NATS, has_words

AGAIN = "evaluate it again with infty eval"
Part = TypeVar("Part", bound=Record)


def collect(folders: Sequence[Path], experiments: Path) -> list[ResultSet]:
    """Collect finished runs by experiment, scale, corpus if the user's, protocol, and how memories of a graft began.

    Raises:
        MissingError: There is none.
    """
    groups: dict[tuple[str, str, str, str, str], list[Run]] = {}
    for run in _read_runs(folders):
        own = run.key.variant[1:] if run.key.variant[1:] == run.result.data.name else ""
        kept = replace(run, key=replace(run.key, variant="")) if own else run
        start = "start-base" if run.begins_as_base else ""
        groups.setdefault((run.key.experiment, run.key.scale, own, run.result.protocol.name, start), []).append(kept)
    tables = Counter(group[:3] for group in groups)  # files are named after a protocol only if there are two
    sets, tunings = [], find_tunings(folders)
    for (experiment, scale, own, protocol, start), runs in sorted(groups.items()):
        name = [experiment, scale, own, *([protocol, start] if tables[experiment, scale, own] > 1 else [])]
        wanted = [] if own else _list_cells(experiment, scale, experiments)
        tuned = {} if own else {case: one for case, (_, one) in tunings.get((experiment, scale), {}).items()}
        sets.append(ResultSet(experiment, scale, protocol, runs, wanted, "-".join(filter(None, name)), tuned))
    return sets


def _read_runs(folders: Sequence[Path]) -> Iterator[Run]:
    """Read finished runs, each cell and seed once, seeds of a cell with the same settings. MissingError as above."""
    known: set[CellKey] = set()
    settings: dict[CellKey, dict[str, Any]] = {}  # of the first seed of a cell
    for folder in find_finished_runs(folders):
        try:
            run = folder.read()
            if run.key in known:
                raise MissingError("another run of the same cell and seed came first")
            known.add(run.key)
            config = {key: value for key, value in run.config.items() if key != "cell"}
            if changed := differences(settings.setdefault(replace(run.key, seed=0), config), config):
                listing = one_line("; ".join(changed), 500)
                raise MissingError(f"not with the settings of the seeds before it ({listing})")
        except MissingError as fault:
            warnings.warn(f"{folder.path} is left out: {fault}", stacklevel=3)
        else:
            yield read_parts(run)


def _drop_clamped(result: Result) -> Result:
    """Drop a perplexity that is no measurement, and that 0.1.0 cut off at e^700: a dash stands for it."""
    totals = result.totals
    in_words = has_words(totals.bytes or 0, totals.words or 0)
    metrics = dict(result.metrics)
    for name, value in metrics.items():
        if name.endswith("perplexity") and value is not None:
            measured = value <= math.exp(MOST_NATS) and (in_words or not name.endswith("word_perplexity"))
            metrics[name] = value if measured else None
    return result.model_copy(update={"metrics": metrics})


def read_parts(run: Run) -> Run:
    """Add to a finished run the records beside its result."""
    test = f"eval/{run.result.protocol.name}-test"
    names = {kind: f"{test}-without-{kind}.json" for kind in KNOCK_OUTS}
    knock_outs = {kind: _read_evaluation(run, name, f"no knock-out: {AGAIN}") for kind, name in names.items()}
    return replace(
        run,
        result=_drop_clamped(run.result),
        evaluation=_read_evaluation(run, f"{test}.json", f"no details of this run: {AGAIN}"),
        knock_outs={kind: found for kind, found in knock_outs.items() if found},
        trace=_read(MemoryTrace, run, f"{test}-memory.json", f"no pictures of its memory: {AGAIN}"),
        curve=list(_read_curve(run.folder.metrics)),
        environment=_read(Environment, run, "environment.json", "nothing is told of its environment") or Environment(),
    )


def _read_evaluation(run: Run, name: str, otherwise: str) -> Evaluation | None:
    """Read an evaluation of the result's checkpoint and data; None, with a warning, if it is of others or damaged."""
    found, result = _read(Evaluation, run, name, otherwise), run.result
    if found and (found.step, found.data.sha256) != (result.best_step, result.data.sha256):
        file = run.folder.path / name
        warnings.warn(f"{file} is of another checkpoint or other data than the result: evaluate it again", stacklevel=4)
        return None
    return found


def _read(kind: type[Part], run: Run, name: str, otherwise: str) -> Part | None:
    """Read a file beside the result; None if it is not there, or damaged, with a warning: the run stands without it."""
    file = run.folder.path / name
    try:
        return kind.read(file, "the run stands without it") if file.is_file() else None
    except MissingError as fault:
        warnings.warn(f"{otherwise} ({fault})", stacklevel=5)
        return None


def _read_curve(file: Path) -> Iterator[Validation]:
    """Read the validations in `metrics.jsonl`; damaged lines are left out, with a warning."""
    with suppress(OSError):
        for line in read_lines(file):
            if "validation/loss" in line:
                try:
                    yield Validation.model_validate(line)
                except ValueError:
                    warnings.warn(
                        f"{file}: the validation of step {line['step']} is damaged and left out", stacklevel=4
                    )


def find_tunings(folders: Iterable[Path]) -> dict[tuple[str, str], dict[str, tuple[Path, Tuning]]]:
    """Find files and their tunings by experiment and scale, then column; damaged ones are left out with a warning."""
    found: dict[tuple[str, str], dict[str, tuple[Path, Tuning]]] = {}
    files = (path for folder in folders for path in walk_folder(folder))
    for path in sorted(path for path in files if fnmatchcase(path.name, "tuning-*.json")):
        try:
            tuning = Tuning.read(path, "tune again with infty tune")
        except MissingError as fault:
            warnings.warn(f"{path} is left out: {fault}", stacklevel=2)
        else:
            found.setdefault((tuning.experiment, tuning.scale), {}).setdefault(tuning.case, (path, tuning))
    return found


def _list_cells(experiment: str, scale: str, experiments: Path) -> list[CellKey]:
    """List the cells that the experiment's file names, if it is there; its faults, if it has any, become a warning."""
    if experiment not in experiment_files(experiments):
        return []
    try:
        definition = open_experiment(experiment, experiments)
        return list(definition.cells(scale)) if scale in definition.names("scales") else []
    except UsageError as fault:  # its runs stand all the same
        warnings.warn(f"{experiment}: what is missing is not told: {fault}", stacklevel=3)
        return []
