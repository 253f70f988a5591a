"""`infty compare`: settings, surroundings and figures in which runs differ. Imports no torch."""

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

NOT_SETTINGS = ("cell",)  # of config.yaml: where a run stands
FIGURES = ("parameters", "memory_slots", "tokens_seen", "wall_seconds", "training_flops", "best_step")


@dataclass(frozen=True)
class Compared:
    """Runs by the names that they were asked for by, and what differs: key, and a value per run (None: none)."""

    runs: list[str]
    settings: dict[str, list[Any]]
    environment: dict[str, list[Any]]
    metrics: dict[str, list[Any]]
    intervals: list[str]

    def document(self) -> dict[str, Any]:
        """Return the comparison as JSON holds it."""
        return vars(self)

    def tables(self) -> list[Table]:
        """Make a table of settings, one of surroundings if they differ, and one of figures."""
        notes = {"metrics": self.intervals}
        parts = {"settings": self.settings, "environment": self.environment, "metrics": self.metrics}
        return [
            Table(f"what differs: {title}", ["", *self.runs], _make_rows(values), notes.get(title, []))
            for title, values in parts.items()
            if values or title == "settings"
        ]


def compare_runs(asked: Sequence[str], runs: Path) -> Compared:
    """Compare runs, named by folder or by their place below `runs` (`sort/laptop/infty@x8/seed-0`).

    UsageError for fewer than two or a folder of several; MissingError if one is not there or damaged.
    """
    if len(asked) < 2:
        raise UsageError("compare wants two runs or more, for example: infty compare RUN RUN")
    folders = [find_run(name, runs) for name in asked]
    read = [read_parts(folder.read()) if folder.finished else None for folder in folders]
    configs = [_flatten({k: v for k, v in folder.config().items() if k not in NOT_SETTINGS}) for folder in folders]
    around = [_flatten(_read_environment(folder)) for folder in folders]
    figures = [_list_figures(run) if run else {} for run in read]
    settings, environment, metrics = (_find_differences(values) for values in (configs, around, figures))
    return Compared(_choose_names(asked, folders), settings, environment, metrics, _describe_pairs(read))


def _choose_names(asked: Sequence[str], folders: list[RunFolder]) -> list[str]:
    """Name runs by row, column and seed if that tells them apart; else as they were asked for."""
    short = ["/".join(folder.path.resolve().parts[-2:]) for folder in folders]
    return short if len(set(short)) == len(short) else list(asked)


def _read_environment(folder: RunFolder) -> dict[str, Any]:
    """Read the run's environment without the command, which names the cell; empty if nothing is told."""
    try:
        return {key: value for key, value in read_json(folder.path / "environment.json").items() if key != "command"}
    except MissingError:
        return {}


def _list_figures(run: Run) -> dict[str, Any]:
    r = run.result
    inputs = {"protocol": r.protocol.name, "data": r.data.sha256[:12]}
    figures = {key: getattr(r, key) for key in FIGURES}
    return {**r.metrics, **inputs, **figures, "training_flops": r.training_flops and float(r.training_flops)}


def _describe_pairs(read: list[Run | None]) -> list[str]:
    """Describe the paired difference of each run to the first, if there is one."""
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
    """Find the keys whose values are not the same everywhere, in the order of the first that has each."""
    keys = dict.fromkeys(key for one in values for key in one)
    rows = {key: [one.get(key) for one in values] for key in keys}
    return {key: row for key, row in rows.items() if any(value != row[0] for value in row)}


def _make_rows(values: dict[str, list[Any]]) -> list[list[str]]:
    return [[key, *map(_format, row)] for key, row in values.items()]


def _format(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:,.6g}" if isinstance(value, float) else str(value)
