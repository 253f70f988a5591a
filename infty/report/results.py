"""The finished runs of one table, and the cells it lacks."""

import statistics
import warnings
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from infty.catalog import experiment_files, open_experiment
from infty.definition import Cell
from infty.errors import MissingError, UsageError, one_line
from infty.files import read_json
from infty.records import Evaluation, checked
from infty.runs import RunFolder, differences, find_runs


@dataclass(frozen=True)
class Run:
    """A finished run: its cell, its `result.json`, and the length of its sequences or the details of its text."""

    cell: Cell
    result: dict[str, Any]
    length: int | None = None
    details: dict[str, Any] | None = None

    @property
    def start(self) -> str | None:
        """Sum of the weights that it was fine-tuned from, if it was."""
        return (self.result.get("starting_weights") or {}).get("sha256")

    @property
    def accuracy(self) -> float:
        """Test accuracy from 0 to 1."""
        return self.result["metrics"]["test/accuracy"]


@dataclass(frozen=True)
class ResultSet:
    """Runs of one experiment at one scale under one protocol. `wanted`: every cell × seed of the table, in order."""

    experiment: str
    scale: str
    protocol: str
    runs: list[Run]
    wanted: list[Cell]
    name: str  # stem of the files of this table

    @property
    def is_text(self) -> bool:
        """Whether this is language modelling; else it is sorting."""
        return self.runs[0].length is None

    def picture(self, case: str = "main") -> str:
        """Stem of the figure's file; of texts there is one a column."""
        kind = "distance" if self.is_text else "accuracy"
        return "-".join([self.name, *([case] if case != "main" and self.is_text else []), kind])

    @property
    def models(self) -> list[str]:
        """Rows."""
        return list(dict.fromkeys([cell.model for cell in self.wanted] + [run.cell.model for run in self.plain()]))

    @property
    def baseline(self) -> str:
        """The row that the others are compared with: the first."""
        return self.models[0]

    @property
    def rows(self) -> list[str]:
        """Models that make the table: more, run on request, would crowd a figure."""
        return list(dict.fromkeys(cell.model for cell in self.wanted)) or self.models

    @property
    def cases(self) -> list[str]:
        """Columns."""
        return list(dict.fromkeys([cell.case for cell in self.wanted] + [run.cell.case for run in self.plain()]))

    def plain(self) -> list[Run]:
        """Runs with the experiment's own settings; the others belong to no cell."""
        return [run for run in self.runs if not run.cell.variant]

    def of(self, model: str | None, case: str) -> list[Run]:
        """Runs of a cell, or of a whole column."""
        return [run for run in self.plain() if run.cell.case == case and model in (None, run.cell.model)]

    def missing(self) -> list[Cell]:
        """Cells × seeds without a finished run."""
        done = {run.cell for run in self.runs}
        return [cell for cell in self.wanted if cell not in done]

    def mixed_data(self) -> list[str]:
        """Columns whose runs were tested on different data: their figures can't be compared."""
        return [c for c in self.cases if len({run.result["data"]["sha256"] for run in self.of(None, c)}) > 1]

    def mixed_starts(self) -> list[str]:
        """Columns whose runs were fine-tuned from different weights: their figures can't be compared."""
        return [c for c in self.cases if len({run.start for run in self.of(None, c)}) > 1]

    def resets(self, case: str) -> dict[str, list[str]]:
        """Where the memory was emptied in testing, and the rows of a column with which it was there."""
        found: dict[str, list[str]] = {}
        for run in self.of(None, case):
            reset = run.result["protocol"].get("memory_reset")
            if isinstance(reset, dict):
                reset = f"every {reset['tokens']:,} tokens" + " and document" * bool(reset.get("documents"))
            rows = found.setdefault(str(reset), [])
            rows += [run.cell.model] * (run.cell.model not in rows)
        return found

    def mixed_slots(self) -> list[str]:
        """Columns whose rows keep different numbers of memory slots."""
        return [c for c in self.cases if len({run.result["memory_slots"] for run in self.of(None, c)}) > 1]


def mean_and_deviation(values: list[float]) -> tuple[float, float | None]:
    """Mean, and sample standard deviation where there are at least two values."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def collect(folders: Iterable[Path], experiments: Path) -> list[ResultSet]:
    """Finished runs by experiment, scale, protocol, and corpus where it is the user's own.

    Damaged ones are left out with a warning.
    """
    groups: dict[tuple[str, str, str, str], list[Run]] = {}
    known: set[Cell] = set()
    settings: dict[Cell, dict[str, Any]] = {}  # of the first seed of a cell: the others must be the same
    for folder in find_runs(folders):
        if folder.finished:
            try:
                found = folder.read()
            except MissingError as fault:
                warnings.warn(f"{folder.path} is left out: {fault}", stacklevel=2)
                continue
            protocol = found.result.protocol.name
            config = {key: value for key, value in found.config.items() if key != "cell"}
            run = Run(found.cell, found.result.model_dump(by_alias=True), found.length)
            if run.cell in known:
                warnings.warn(
                    f"{folder.path} is left out: another run of the same cell and seed came first", stacklevel=2
                )
                continue
            known.add(run.cell)
            if changed := differences(settings.setdefault(replace(run.cell, seed=0), config), config):
                text = f"not with the settings of the seeds before it ({one_line('; '.join(changed), 500)})"
                warnings.warn(f"{folder.path} is left out: {text}", stacklevel=2)
                continue
            own = run.cell.variant[1:] if run.cell.variant[1:] == run.result["data"]["name"] else ""
            run = replace(run, cell=replace(run.cell, variant="")) if own else run
            run = run if run.length else replace(run, details=_details(folder, protocol))
            groups.setdefault((run.cell.experiment, run.cell.scale, own, protocol), []).append(run)
    tables = Counter(key[:3] for key in groups)  # files are named after a protocol only where there are two
    sets = []
    for (experiment, scale, own, protocol), runs in sorted(groups.items()):
        named = [experiment, scale, own, protocol if tables[experiment, scale, own] > 1 else ""]
        wanted = [] if own else _wanted(experiment, scale, experiments)
        sets.append(ResultSet(experiment, scale, protocol, runs, wanted, "-".join(filter(None, named))))
    return sets


def _details(folder: RunFolder, protocol: str) -> dict[str, Any] | None:
    """What the evaluation beside the result says of distances and chunks; None where it is not there.

    A damaged one can be made again, so the run stands without it, with a warning.
    """
    path = folder.path / "eval" / f"{protocol}-test.json"
    try:
        found = checked(Evaluation, read_json(path), path).details if path.is_file() else None
    except MissingError as fault:
        warnings.warn(f"no details of this run: evaluate it again with infty eval ({fault})", stacklevel=3)
        return None
    return found.model_dump(by_alias=True) if found else None


def _wanted(experiment: str, scale: str, experiments: Path) -> list[Cell]:
    """The cells that the experiment's file names, if the file is at hand; where it has faults they are a warning."""
    if experiment not in experiment_files(experiments):
        return []
    try:
        definition = open_experiment(experiment, experiments)
        return list(definition.cells(scale)) if scale in definition.names("scales") else []
    except UsageError as fault:  # its runs stand all the same
        warnings.warn(f"{experiment}: what is missing is not told: {fault}", stacklevel=2)
        return []
