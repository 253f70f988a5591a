"""`infty compare`: settings, environment and figures in which runs differ. Imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infty.base.errors import MissingError, UsageError
from infty.base.files import read_json
from infty.base.table import Table
from infty.report.load.collect import read_parts
from infty.report.load.results import add_sign, choose_measure
from infty.report.paired_bootstrap import compare_pair
from infty.runs.folder import Run, RunFolder, find_run

FIGURES = ("parameters", "memory_slots", "state_bytes", "tokens_seen", "wall_seconds", "training_flops", "best_step")


@dataclass(frozen=True)
class Compared:
    """Runs by name, and what differs: settings, environment and metrics, each by key with a value per run or None."""

    runs: list[str]
    differing: dict[str, dict[str, list[Any]]]
    intervals: list[str]

    def document(self) -> dict[str, Any]:
        """Describe the comparison for JSON."""
        return {"runs": self.runs, **self.differing, "intervals": self.intervals}

    def tables(self) -> list[Table]:
        """Make a table of settings, and tables of the environment and of metrics if those differ."""
        tables = []
        for title, found in self.differing.items():
            rows = [[key, *map(_format, values)] for key, values in found.items()]
            if rows or title == "settings":
                notes = self.intervals if title == "metrics" else []
                tables.append(Table(f"what differs: {title}", ["", *self.runs], rows, notes))
        return tables


def compare_runs(asked: Sequence[str], runs: Path) -> Compared:
    """Compare runs (see `find_run`). UsageError for fewer than two; MissingError if one is not there or damaged."""
    if len(asked) < 2:
        raise UsageError("compare wants two runs or more, for example: infty compare RUN RUN")
    folders = [find_run(name, runs) for name in asked]
    read = [read_parts(folder.read()) if folder.finished else None for folder in folders]
    parts = {
        "settings": [_flatten({k: v for k, v in folder.config().items() if k != "cell"}) for folder in folders],
        "environment": [_flatten(_read_environment(folder)) for folder in folders],
        "metrics": [_list_figures(run) if run else {} for run in read],
    }
    short = ["/".join(folder.path.resolve().parts[-2:]) for folder in folders]  # row, column and seed
    names = short if len(set(short)) == len(short) else list(asked)
    differing = {part: _find_differences(values) for part, values in parts.items()}
    return Compared(names, differing, _describe_pairs(read))


def _read_environment(folder: RunFolder) -> dict[str, Any]:
    """Read the run's environment without the command, which names the cell; empty if it can't be read."""
    try:
        return {key: value for key, value in read_json(folder.path / "environment.json").items() if key != "command"}
    except MissingError:
        return {}


def _list_figures(run: Run) -> dict[str, Any]:
    r = run.result
    figures = {"protocol": r.protocol.name, "data": r.data.sha256[:12], **{key: getattr(r, key) for key in FIGURES}}
    return {**r.metrics, **figures, "training_flops": r.comparable_flops and float(r.comparable_flops)}


def _describe_pairs(read: list[Run | None]) -> list[str]:
    first, notes = read[0], []
    for number, run in enumerate(read[1:], 2):
        if run and first and run.key.experiment == first.key.experiment and (pair := compare_pair(run, first)):
            measure = choose_measure(run.result)
            value, low, high = (add_sign(v, measure.digits) for v in (pair.difference, pair.low, pair.high))
            notes.append(
                f"Run {number} less run 1 on the same test data: {value} {measure.unit}, 95 % interval [{low}, {high}] "
                f"over {pair.samples} samples."
            )
    return notes


def _flatten(values: dict[str, Any], path: str = "") -> dict[str, Any]:
    """Flatten nested mappings to `key.path: value`."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _flatten(value, f"{path}{key}.") if isinstance(value, dict) and value else {f"{path}{key}": value}
    return found


def _find_differences(values: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Find the keys whose values differ between runs, in the order in which runs have them."""
    keys = dict.fromkeys(key for one in values for key in one)
    rows = {key: [one.get(key) for one in values] for key in keys}
    return {key: row for key, row in rows.items() if any(value != row[0] for value in row)}


def _format(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:,.6g}" if isinstance(value, float) else str(value)
