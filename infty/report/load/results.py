"""The finished runs of one table, and the cells it lacks."""

import re
import statistics
from dataclasses import dataclass, field
from typing import Any

from infty.config.definition import CellKey


@dataclass(frozen=True)
class Run:
    """A finished run: its cell and its `result.json`; and where it has them, what else pictures and pages need.

    length: of its sequences; texts have none. details: of its test (see `runs.parts`). curve: validations, as
    steps and figures without their `validation/`. memory: what a look into its memory saw. knock_outs: the
    same with its memory emptied (zero), shuffled or another document's (other). environment: of its run.
    """

    cell: CellKey
    result: dict[str, Any]
    length: int | None = None
    details: dict[str, Any] | None = None
    num_basis: int | None = None
    curve: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    memory: dict[str, Any] | None = None
    knock_outs: "dict[str, Run]" = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)

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
    """Runs of one experiment at one scale under one protocol. `wanted`: every cell × seed of the table, in order.

    tunings: what was tried for it, by column, where that is told.
    """

    experiment: str
    scale: str
    protocol: str
    runs: list[Run]
    wanted: list[CellKey]
    name: str  # stem of the files of this table
    tunings: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """What a table of it begins with; with what tells it from others of the same experiment and scale."""
        more = self.name.removeprefix(f"{self.experiment}-{self.scale}").removeprefix("-")
        return ", ".join(filter(None, [self.experiment, f"{self.scale} scale", more]))

    @property
    def id(self) -> str:
        """The name as a page's anchor: whatever the user called an experiment."""
        return re.sub(r"[^A-Za-z0-9.-]", lambda sign: f"_{ord(sign[0]):x}_", self.name)

    @property
    def is_text(self) -> bool:
        """Whether this is language modelling; else it is sorting."""
        return self.runs[0].length is None

    @property
    def higher_is_better(self) -> bool:
        """Whether a higher value of the metric that rows are compared by is better."""
        return not self.is_text

    @property
    def metric(self) -> str:
        """What rows are compared by."""
        return "test/loss" if self.is_text else "test/accuracy"

    @property
    def unit(self) -> str:
        """The unit of differences between rows."""
        return "nats a token" if self.is_text else "points"

    @property
    def digits(self) -> int:
        """The number of decimal digits of differences between rows."""
        return 4 if self.is_text else 1

    def anchor(self, model: str, case: str) -> str:
        """Where a page tells of the runs of a cell; rows and columns have no such sign in their names."""
        return f"{self.id}~{model}~{case}"

    def place(self, model: str, case: str) -> str:
        """A row, and its column where there are several."""
        return model if self.cases == ["main"] else f"{model}, {case}"

    @property
    def models(self) -> list[str]:
        """The rows of the table, in order."""
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
        """The columns of the table, in order."""
        return list(dict.fromkeys([cell.case for cell in self.wanted] + [run.cell.case for run in self.plain()]))

    def plain(self) -> list[Run]:
        """Runs with the experiment's own settings; the others belong to no cell."""
        return [run for run in self.runs if not run.cell.variant]

    def of(self, model: str | None, case: str) -> list[Run]:
        """Runs of a cell, or of a whole column."""
        return [run for run in self.plain() if run.cell.case == case and model in (None, run.cell.model)]

    def missing(self) -> list[CellKey]:
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

    def mixed_training(self) -> list[str]:
        """Columns whose rows were trained on different numbers of tokens."""
        return [c for c in self.cases if len({run.result["tokens_seen"] for run in self.of(None, c)}) > 1]

    def mixed_slots(self) -> list[str]:
        """Columns whose rows keep different numbers of memory slots."""
        return [c for c in self.cases if len({run.result["memory_slots"] for run in self.of(None, c)}) > 1]


def mean_and_deviation(values: list[float]) -> tuple[float, float | None]:
    """Mean, and sample standard deviation where there are at least two values."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def signed(value: float, digits: int) -> str:
    """A number with its sign, as typography has it."""
    return f"{value:+,.{digits}f}".replace("-", "−")
