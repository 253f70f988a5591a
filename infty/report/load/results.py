"""The finished runs of one table, and the cells it lacks."""

import re
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from infty.base.table import Table
from infty.config.definition import CellKey
from infty.runs.folder import Run
from infty.runs.schemas import Result, Tuning

FEWEST = 100  # tokens in a bin, for its mean to be reported


@dataclass(frozen=True)
class Measure:
    """A metric that rows are compared by: `factor` times it is in `unit`; differences have `digits` digits."""

    metric: str
    factor: int
    unit: str
    digits: int
    higher_is_better: bool

    def of(self, run: Run) -> float:
        """Return a run's figure in points, or in nats per token."""
        return self.factor * run.result.metric(self.metric)

    def order(self, better: str, worse: str) -> tuple[str, str]:
        """Return the word for a difference above 0, and that for one below."""
        return (better, worse) if self.higher_is_better else (worse, better)


ACCURACY = Measure("test/accuracy", 100, "points", 1, higher_is_better=True)
LOSS = Measure("test/loss", 1, "nats a token", 4, higher_is_better=False)


def choose_measure(result: Result) -> Measure:
    """Choose the measure of a result's task."""
    return LOSS if result.is_text else ACCURACY


@dataclass(frozen=True)
class ResultSet:
    """Runs of one experiment at one scale under one protocol."""

    experiment: str
    scale: str
    protocol: str
    runs: list[Run]
    wanted: list[CellKey]  # every cell × seed of the table, in order
    name: str  # stem of its files
    tunings: dict[str, Tuning] = field(default_factory=dict)  # what was tried, by column

    @property
    def title(self) -> str:
        """The beginning of its tables' titles, with what tells this set from others of its experiment and scale."""
        more = self.name.removeprefix(f"{self.experiment}-{self.scale}").removeprefix("-")
        return ", ".join(filter(None, [self.experiment, f"{self.scale} scale", more]))

    @property
    def id(self) -> str:
        """The name as a page's anchor: whatever the user called an experiment."""
        return re.sub(r"[^A-Za-z0-9.-]", lambda sign: f"_{ord(sign[0]):x}_", self.name)

    @property
    def is_text(self) -> bool:
        """True for language modelling; False for sorting."""
        return self.runs[0].result.is_text

    @property
    def measure(self) -> Measure:
        """The measure that rows are compared by."""
        return choose_measure(self.runs[0].result)

    @property
    def models(self) -> list[str]:
        """The rows of the table, in order."""
        return list(dict.fromkeys([cell.model for cell in self.wanted] + [run.key.model for run in self.plain()]))

    @property
    def cases(self) -> list[str]:
        """The columns of the table, in order."""
        return list(dict.fromkeys([cell.case for cell in self.wanted] + [run.key.case for run in self.plain()]))

    @property
    def baseline(self) -> str:
        """The row that the others are compared with: the first."""
        return self.models[0]

    @property
    def rows(self) -> list[str]:
        """The models that the table is made for; others, run on request, would crowd a figure."""
        return list(dict.fromkeys(cell.model for cell in self.wanted)) or self.models

    def plain(self) -> list[Run]:
        """Return the runs with the experiment's own settings; the others belong to no cell."""
        return [run for run in self.runs if not run.key.variant]

    def of(self, model: str | None, case: str) -> list[Run]:
        """Return the runs of a cell, or of a whole column."""
        return [run for run in self.plain() if run.key.case == case and model in (None, run.key.model)]

    def cells(self) -> Iterator[tuple[str, str, list[Run]]]:
        """Go through the table by column: row, column and the cell's runs."""
        return ((model, case, self.of(model, case)) for case in self.cases for model in self.models)

    def missing(self, *place: str) -> list[CellKey]:
        """Return the cells × seeds without a finished run. place: row and column; without it, all of them."""
        done = {run.key for run in self.runs}
        return [cell for cell in self.wanted if cell not in done and place in ((), (cell.model, cell.case))]

    def anchor(self, model: str, case: str) -> str:
        """Return the page's anchor of a cell's runs; no name of a row or column has a `~`."""
        return f"{self.id}~{model}~{case}"

    def place(self, model: str, case: str) -> str:
        """Name a row, and its column if there are several."""
        return model if self.cases == ["main"] else f"{model}, {case}"

    def table(
        self, name: str, headings: list[str], rows: list[list[str]], notes: Sequence[str] = (), *, figures: bool = True
    ) -> Table:
        """Make a table of these runs."""
        return Table(f"{self.title}: {name}", headings, rows, [*notes], figures)


def list_metric(runs: Sequence[Run], metric: str) -> list[float]:
    """List a metric of those runs that have it."""
    return [value for run in runs if (value := run.result.find_metric(metric)) is not None]


def average(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean, and the sample standard deviation of at least two values."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def format_average(values: Sequence[float], digits: int) -> str:
    """Write mean ± deviation; a dash if there is nothing."""
    if not values:
        return "–"
    mean, deviation = average(values)
    return f"{mean:,.{digits}f}" + ("" if deviation is None else f" ± {deviation:,.{digits}f}")


def add_sign(value: float, digits: int) -> str:
    """Write a number with its sign; a minus is U+2212."""
    return f"{value:+,.{digits}f}".replace("-", "−")
