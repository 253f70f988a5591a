"""What differs between runs: settings, surroundings and figures. Imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infty.base.errors import MissingError, UsageError
from infty.base.files import read_json
from infty.base.table import Table
from infty.report.load.collect import read_run
from infty.report.load.results import Run, signed
from infty.report.paired_bootstrap import paired_difference
from infty.runs.folder import RunFolder, find_run

NOT_SETTINGS = ("cell",)  # of config.yaml: where a run stands
FIGURES = ("parameters", "memory_slots", "tokens_seen", "wall_seconds", "training_flops", "best_step")


@dataclass(frozen=True)
class Compared:
    """Runs by the names that they were asked for by, and what differs: key, and a value a run (None: it has none)."""

    names: list[str]
    settings: dict[str, list[Any]]
    environment: dict[str, list[Any]]
    metrics: dict[str, list[Any]]
    intervals: list[str]

    def document(self) -> dict[str, Any]:
        """The comparison as JSON holds it."""
        return {"runs": self.names, **{key: value for key, value in vars(self).items() if key != "names"}}

    def tables(self) -> list[Table]:
        """One of settings, one of surroundings where they differ, one of figures."""
        parts = [("settings", self.settings), ("environment", self.environment), ("metrics", self.metrics)]
        return [
            Table(
                f"what differs: {title}", ["", *self.names], _rows(values), self.intervals if title == "metrics" else []
            )
            for title, values in parts
            if values or title == "settings"
        ]


def compare_runs(asked: Sequence[str], runs: Path) -> Compared:
    """Runs by folder, or by their place below `runs` (`sort/laptop/infty@x8/seed-0`).

    UsageError for fewer than two or a folder of several; MissingError where one is not there or damaged.
    """
    if len(asked) < 2:
        raise UsageError("compare wants two runs or more, for example: infty compare RUN RUN")
    folders = [find_run(name, runs) for name in asked]
    read = [read_run(folder, folder.read()) if folder.finished else None for folder in folders]
    configs = [_flat({k: v for k, v in folder.config().items() if k not in NOT_SETTINGS}) for folder in folders]
    around = [_flat(_environment(folder)) for folder in folders]
    figures = [_figures(run) if run else {} for run in read]
    return Compared(_names(asked, folders), _differing(configs), _differing(around), _differing(figures), _pairs(read))


def _names(asked: Sequence[str], folders: list[RunFolder]) -> list[str]:
    """Row, column and seed where that tells them apart; else as they were asked for."""
    short = ["/".join(folder.path.resolve().parts[-2:]) for folder in folders]
    return short if len(set(short)) == len(short) else list(asked)


def _environment(folder: RunFolder) -> dict[str, Any]:
    """The run's environment without the command, which names the cell; empty where nothing is told."""
    try:
        return {key: value for key, value in read_json(folder.path / "environment.json").items() if key != "command"}
    except MissingError:
        return {}


def _figures(run: Run) -> dict[str, Any]:
    result = run.result
    named = {"protocol": result["protocol"]["name"], "data": result["data"]["sha256"][:12]}
    return {**result["metrics"], **named, **{key: result[key] for key in FIGURES}}


def _pairs(read: list[Run | None]) -> list[str]:
    """The paired difference of each run to the first, where there is one."""
    first, notes = read[0], []
    for number, run in enumerate(read[1:], 2):
        pair = paired_difference(run, first) if run and first and run.cell.experiment == first.cell.experiment else None
        if pair:
            unit, digits = ("points", 1) if run and run.length else ("nats a token", 4)
            values = ", ".join(signed(value, digits) for value in (pair.low, pair.high))
            notes.append(
                f"Run {number} less run 1 on the same test data: {signed(pair.difference, digits)} {unit}, 95 % "
                f"interval [{values}] over {pair.samples} samples."
            )
    return notes


def _flat(values: dict[str, Any], path: str = "") -> dict[str, Any]:
    """Nested mappings as `key.path: value`."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _flat(value, f"{path}{key}.") if isinstance(value, dict) and value else {f"{path}{key}": value}
    return found


def _differing(values: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """The keys whose values are not the same everywhere, in the order of the first that has each."""
    keys = dict.fromkeys(key for one in values for key in one)
    rows = {key: [one.get(key) for one in values] for key in keys}
    return {key: row for key, row in rows.items() if any(value != row[0] for value in row)}


def _rows(values: dict[str, list[Any]]) -> list[list[str]]:
    return [[key, *map(_shown, row)] for key, row in values.items()]


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:,.6g}" if isinstance(value, float) else str(value)
