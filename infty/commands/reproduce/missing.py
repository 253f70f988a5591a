"""Cells that tables lack: which they are, how long they will take, and what came of each."""

import logging
import os
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from infty.base.errors import InftyError, MissingError, UsageError
from infty.base.messages import one_line
from infty.config.catalog import experiments_with, open_experiment
from infty.config.definition import CellKey, Definition, overlay
from infty.config.faults import raise_faults
from infty.config.settings import Settings
from infty.corpora.manifest import MANIFEST
from infty.corpora.registry import KNOWN
from infty.runs.folder import RunFolder, differences

logger = logging.getLogger(__name__)

TAKEN = "another process trains it"
Values = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """A cell, and the words after `infty` that train it."""

    cell: CellKey
    words: tuple[str, ...]
    settings: Values = field(default_factory=dict, compare=False)  # as its experiment's file has them

    def __str__(self) -> str:
        return f"{self.cell.experiment} {self.cell.model}@{self.cell.case} seed {self.cell.seed}"

    @property
    def command(self) -> str:
        """The command that trains the cell, ready to be pasted."""
        return shlex.join(["infty", *self.words])

    def document(self, **more: Any) -> Values:
        """Describe the job for JSON; `more` is added."""
        place = {key: getattr(self.cell, key) for key in ("experiment", "scale", "case", "model", "seed")}
        return {**place, "command": self.command, **more}


@dataclass(frozen=True)
class Untrained:
    """A job that failed, or that was left out: then it has no exit code."""

    job: Job
    why: str
    exit_code: int | None = None

    def document(self) -> Values:
        """Describe the failure for JSON."""
        code = {} if self.exit_code is None else {"exit_code": self.exit_code}
        return self.job.document(**code, why=self.why)


@dataclass
class Tables:
    """The cells of tables by their state. missing: in the order in which they are trained.

    done: finished before. trained: now. seconds: that finished cells were trained for. took: seconds that each process
    took now; beside: those of them in which it did not train. spent: seconds altogether.
    """

    runs: Path
    missing: list[Job] = field(default_factory=list)
    done: list[Job] = field(default_factory=list)
    trained: list[Job] = field(default_factory=list)
    failed: list[Untrained] = field(default_factory=list)
    left_out: list[Untrained] = field(default_factory=list)
    seconds: dict[CellKey, float] = field(default_factory=dict)
    took: list[float] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)
    spent: float = 0.0

    def is_open(self, job: Job) -> bool:
        """Tell if a cell is to be trained; note it if it is done, damaged or in another process's hands."""
        run = RunFolder(self.runs / job.cell.folder)
        state, why = run.condition()
        again = replace(job, words=(*job.words, "--fresh"))
        match state:
            case "done" if changed := differences(run.config(), job.settings, shared=True):
                other = f"it was trained with other settings: {one_line('; '.join(changed), 500)}"
                self.failed.append(Untrained(again, other, UsageError.exit_code))
            case "done":
                self.done.append(job)
                self.seconds[job.cell] = run.result().wall_seconds
            case "damaged":
                self.failed.append(Untrained(again, why, MissingError.exit_code))
            case "running":
                self.leave_out([job], TAKEN)
                logger.info(f"{job} is left out: {TAKEN}")
            case _:
                return True
        return False

    def leave_out(self, jobs: Iterable[Job], why: str) -> None:
        """Note what is not to be trained."""
        self.left_out += [Untrained(job, why) for job in jobs]

    def predict_cell(self, cell: CellKey) -> float | None:
        """Predict the seconds of a cell from those of its column, else its table, else any now; None: unknown."""
        alike = {other: seconds for other, seconds in self.seconds.items() if other.experiment == cell.experiment}
        of_case = [seconds for other, seconds in alike.items() if other.case == cell.case]
        if trained := of_case or list(alike.values()):
            return fmean(trained) + (fmean(self.beside) if self.beside else 0.0)
        return fmean(self.took) if self.took else None

    def predict_all(self, jobs: int, running: Iterable[tuple[CellKey, float]] = ()) -> float | None:
        """Predict the seconds until all are trained; None: unknown. running: cells, and seconds so far."""
        total = 0.0
        for cell, spent in [*((job.cell, 0.0) for job in self.missing), *running]:
            if (seconds := self.predict_cell(cell)) is None:
                return None
            total += max(0.0, seconds - spent)
        return total / jobs

    def forecast(self, jobs: int) -> Values:
        """Describe for JSON what would be trained."""
        left = [job.document(expected_seconds=self.predict_cell(job.cell)) for job in self.missing]
        return {"missing": left, **self._describe_others(), "seconds": self.predict_all(jobs)}

    def document(self) -> Values:
        """Describe for JSON what was done."""
        trained = [job.document() for job in self.trained]
        return {"trained": trained, **self._describe_others(), "seconds": round(self.spent, 1)}

    def refuse_failures(self) -> None:
        """Raise, if cells failed, the error that all of them ended with, else InftyError; with a reason for each."""
        if not self.failed:
            return
        codes = {failure.exit_code for failure in self.failed}
        kind = next((kind for kind in (UsageError, MissingError) if codes == {kind.exit_code}), InftyError)
        told = [f"{failure.job}: {failure.why}\n  again with: {failure.job.command}" for failure in self.failed]
        raise kind("\n".join([f"{format_cells(len(told))} could not be trained", *told]))

    def _describe_others(self) -> Values:
        return {
            "done": [job.document() for job in self.done],
            "failed": [failure.document() for failure in self.failed],
            "left_out": [other.document() for other in self.left_out],
        }


def find_missing(settings: Settings, names: Sequence[str], scale: str, options: Sequence[str], jobs: int) -> Tables:
    """Find what the tables of experiments lack, by seed, experiment, column and row: so a column can soon be compared.

    names: of experiments, or paths of their files; none: all that have the scale and read no text of the user's.
    options: of `infty train`. Cells that are trained at once share the processors, unless the settings name threads.
    Raises UsageError if an experiment isn't there, has faults or no such scale, or reads a text that only the user has.
    """
    definitions = {name: _open_experiment(settings, name, scale) for name in names} or _open_all(settings, scale)
    threads = ["--threads", str(max(1, (os.cpu_count() or 1) // jobs))] if jobs > 1 and not settings.threads else []
    found: dict[CellKey, Job] = {}
    for name, definition in definitions.items():
        for cell in definition.cells(scale):
            words = (*shlex.split(cell.command(name))[1:], *options, *threads)
            found.setdefault(cell, Job(cell, words, overlay(definition.layers(cell))[0]))
    tables = Tables(settings.runs)
    tables.missing = [job for job in sorted(found.values(), key=lambda job: job.cell.seed) if tables.is_open(job)]
    return tables


def _open_experiment(settings: Settings, name: str, scale: str) -> Definition:
    """Open an experiment whose cells can be trained as they are. Raises UsageError as `find_missing` does."""
    definition = open_experiment(name, settings.experiments)
    raise_faults(definition.faults)
    definition.check_names(scales=scale)
    _refuse_own_texts(definition, settings, name, scale)
    return definition


def _refuse_own_texts(definition: Definition, settings: Settings, name: str, scale: str) -> None:
    """Raise UsageError if cells read a text that only the user has, under a name that depends on it."""
    for cell in definition.cells(scale):
        task = overlay(definition.layers(cell))[0].get("task")
        corpus = task.get("corpus") if isinstance(task, dict) else None
        if isinstance(corpus, str) and corpus not in KNOWN and not (settings.data / corpus / MANIFEST).is_file():
            helps = f"train its cells one by one with: infty train {shlex.quote(name)} --data FOLDER"
            raise UsageError(f"at {scale} scale {name} reads texts of your own; {helps}")


def _open_all(settings: Settings, scale: str) -> dict[str, Definition]:
    """Open every experiment that has the scale and can be trained as it is; log a line on each that can't."""
    found = experiments_with(scale, settings.experiments, logger.info)
    for name, definition in list(found.items()):
        try:
            _refuse_own_texts(definition, settings, name, scale)
        except UsageError as fault:
            logger.info(f"{name} is left out: {fault}")
            del found[name]
    return found


def format_time(seconds: float | None) -> str:
    """Format seconds as `1:01` or `1:00:01`; None as `?`."""
    if seconds is None:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def format_cells(cells: int) -> str:
    """Format a number of cells: `1 cell`, `2 cells`."""
    return f"{cells} cell{'s' * (cells != 1)}"
