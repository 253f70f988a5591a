"""What `infty tune` tried for a table, as its `tuning-<column>.json` say."""

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from infty.errors import MissingError, one_line
from infty.files import read_json
from infty.records import Tuning, checked
from infty.report.results import ResultSet
from infty.table import Entry, Table

AGAIN = "tune again with infty tune"


def find_tunings(folders: Iterable[Path]) -> dict[tuple[str, str], dict[str, tuple[Path, dict[str, Any]]]]:
    """Files and what they say, by experiment and scale, then column; damaged ones are left out with a warning."""
    found: dict[tuple[str, str], dict[str, tuple[Path, dict[str, Any]]]] = {}
    for path in sorted(file for folder in folders for file in folder.rglob("tuning-*.json")):
        try:
            tuning = checked(Tuning, read_json(path, AGAIN), path, AGAIN)
        except MissingError as fault:
            warnings.warn(f"{path} is left out: {fault}", stacklevel=2)
            continue
        columns = found.setdefault((tuning.experiment, tuning.scale), {})
        columns.setdefault(tuning.case, (path, tuning.model_dump()))
    return found


def tuned_tables(results: ResultSet) -> list[Table]:
    """A column each: validation loss of each row at each point of its grid, the row's best in bold."""
    several = len(results.tunings) > 1
    return [
        _tuned_table(f"{results.title}: tuning" + (f", {case}" if several else ""), tuning)
        for case, tuning in results.tunings.items()
    ]


def _tuned_table(title: str, tuning: dict[str, Any]) -> Table:
    losses = {(trial["model"], _point(trial)): trial["validation_loss"] for trial in tuning["trials"]}
    rows, points = (list(dict.fromkeys(key[i] for key in losses)) for i in (0, 1))
    table = [[row, *(_shown(losses, row, point, points) for point in points)] for row in rows]
    notes = [
        f"Validation loss after {tuning['steps']:,} steps each, column {tuning['case']}, seed {tuning['seed']}: "
        "every row had the same grid (in bold its best), and the test split was not read. Made by: " + tuning["command"]
        + f" (commit {(tuning['commit'] or 'unknown')[:12]})."
    ]  # fmt: skip
    return Table(title, ["model", *(f"{point} ↓" for point in points)], table, notes)


def _point(trial: dict[str, Any]) -> str:
    return ", ".join(f"{key.rpartition('.')[2]} {one_line(str(value), 40)}" for key, value in trial["settings"].items())


def _shown(losses: dict[tuple[str, str], float | None], row: str, point: str, points: list[str]) -> str:
    loss = losses.get((row, point))
    if loss is None:
        return "failed" if (row, point) in losses else "–"
    known = [value for other in points if (value := losses.get((row, other))) is not None]
    return Entry(f"{loss:.4f}", best=loss == min(known))
