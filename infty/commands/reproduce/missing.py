"""Cells that tables lack: which they are, how long they will take, and what came of each."""

import logging
import os
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from infty.base.errors import InftyError, MissingError, UsageError, one_line
from infty.config.definition import CellKey, Values, experiments_with, open_experiment, overlay
from infty.config.faults import raise_faults
from infty.config.settings import Settings
from infty.corpora.manifest import MANIFEST
from infty.corpora.registry import KNOWN
from infty.runs.folder import RunFolder, differences

logger = logging.getLogger(__name__)

TAKEN = "another process trains it"


@dataclass(frozen=True)
class Job:
    """A cell, the words after `infty` that train it, and why it was not trained: it failed, or was left out."""

    cell: CellKey
    words: tuple[str, ...]
    settings: Values = field(default_factory=dict, compare=False)  # as the experiment's file has them
    why: str = ""
    exit_code: int | None = None  # None if it was left out

    def __str__(self) -> str:
        return f"{self.cell.experiment} {self.cell.model}@{self.cell.case} seed {self.cell.seed}"

    @property
    def command(self) -> str:
        """The command that trains the cell, ready to be pasted."""
        return shlex.join(["infty", *self.words])

    def document(self, **more: Any) -> Values:
        """Describe the job for JSON; `more` is added."""
        place = {key: getattr(self.cell, key) for key in ("experiment", "scale", "case", "model", "seed")}
        failure = {key: value for key in ("exit_code", "why") if (value := getattr(self, key))}
        return {**place, "command": self.command, **failure, **more}


@dataclass
class Tables:
    """The cells of tables by their state, and the seconds that were spent on them."""

    runs: Path
    missing: list[Job] = field(default_factory=list)  # in the order in which they are trained
    done: list[Job] = field(default_factory=list)  # finished before
    trained: list[Job] = field(default_factory=list)  # by this command
    failed: list[Job] = field(default_factory=list)
    left_out: list[Job] = field(default_factory=list)
    seconds: dict[CellKey, float] = field(default_factory=dict)  # of training, by finished cell
    took: list[float] = field(default_factory=list)  # seconds of each process of this command
    beside: list[float] = field(default_factory=list)  # of these, the seconds in which it did not train
    spent: float = 0.0  # seconds altogether

    def is_open(self, job: Job) -> bool:
        """Tell if a cell is to be trained; note it if it is done, damaged or in another process's hands."""
        run = RunFolder(self.runs / job.cell.folder)
        state, why = run.condition()
        again = replace(job, words=(*job.words, "--fresh"))
        match state:
            case "done" if changed := differences(run.config(), job.settings, shared=True):
                other = f"it was trained with other settings: {one_line('; '.join(changed), 500)}"
                self.fail(again, other, UsageError.exit_code)
            case "done":
                self.done.append(job)
                self.seconds[job.cell] = run.result().wall_seconds
            case "damaged":
                self.fail(again, why, MissingError.exit_code)
            case "running":
                self.leave_out([job], TAKEN)
                logger.info(f"{job} is left out: {TAKEN}")
            case _:
                return True
        return False

    def fail(self, job: Job, why: str, exit_code: int) -> None:
        """Note a job that failed."""
        self.failed.append(replace(job, why=why, exit_code=exit_code))

    def leave_out(self, jobs: Iterable[Job], why: str) -> None:
        """Note what is not to be trained."""
        self.left_out += [replace(job, why=why) for job in jobs]

    def predict_cell(self, cell: CellKey) -> float | None:
        """Predict the seconds of a cell from those of its column, else its table, else any run now; None: unknown."""
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
        return {"missing": left, **self._describe("done", "failed", "left_out"), "seconds": self.predict_all(jobs)}

    def document(self) -> Values:
        """Describe for JSON what was done."""
        return {**self._describe("trained", "done", "failed", "left_out"), "seconds": round(self.spent, 1)}

    def refuse_failures(self) -> None:
        """Raise an error with the reason of each failed cell, if any: of the kind of all of them, else InftyError."""
        if not self.failed:
            return
        codes = {job.exit_code for job in self.failed}
        kind = next((kind for kind in (UsageError, MissingError) if codes == {kind.exit_code}), InftyError)
        told = [f"{job}: {job.why}\n  again with: {job.command}" for job in self.failed]
        raise kind("\n".join([f"{format_cells(len(told))} could not be trained", *told]))

    def _describe(self, *lists: str) -> Values:
        return {name: [job.document() for job in getattr(self, name)] for name in lists}


def find_missing(settings: Settings, names: Sequence[str], scale: str, options: Sequence[str], jobs: int) -> Tables:
    """Find what tables lack, ordered by seed, experiment, column and row, so that a column can soon be compared.

    names: of experiments or files; none: all that have the scale and read no text of the user's. options: of `train`.

    Raises:
        UsageError: An experiment isn't there, has faults or no such scale, or reads a text that only the user has.
    """
    every = {} if names else experiments_with(scale, settings.experiments, logger.info)
    threads = ["--threads", str(max(1, (os.cpu_count() or 1) // jobs))] if jobs > 1 and not settings.threads else []
    found: dict[CellKey, Job] = {}
    for name in names or every:
        definition = every.get(name) or open_experiment(name, settings.experiments)
        raise_faults(definition.faults)
        definition.check_names(scales=scale)
        cells = {cell: overlay(definition.layers(cell))[0] for cell in definition.cells(scale)}
        if any(_needs_own_text(values.get("task"), settings) for values in cells.values()):
            helps = f"train its cells one by one with: infty train {shlex.quote(name)} --data FOLDER"
            why = f"at {scale} scale {name} reads texts of your own; {helps}"
            if names:
                raise UsageError(why)
            logger.info(f"{name} is left out: {why}")
            continue
        for cell, values in cells.items():
            words = (*shlex.split(cell.command(name))[1:], *options, *threads)
            found.setdefault(cell, Job(cell, words, values))
    tables = Tables(settings.runs)
    tables.missing = [job for job in sorted(found.values(), key=lambda job: job.cell.seed) if tables.is_open(job)]
    return tables


def _needs_own_text(task: Any, settings: Settings) -> bool:
    """Tell if a task reads a text that only the user has, under a name that depends on it."""
    corpus = task.get("corpus") if isinstance(task, dict) else None
    return isinstance(corpus, str) and corpus not in KNOWN and not (settings.data / corpus / MANIFEST).is_file()


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
