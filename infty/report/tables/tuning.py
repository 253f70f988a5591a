"""The points that `infty tune` tried for a table, as its `tuning-<column>.json` say."""

from infty.base.messages import one_line
from infty.base.table import Entry, Table
from infty.report.load.results import ResultSet
from infty.runs.schemas import Trial, Tuning


def list_tunings(results: ResultSet) -> list[Table]:
    """List per column the validation loss of each row at each point of its grid, the row's best in bold."""
    several = len(results.tunings) > 1
    return [
        _list_tuning(results, "tuning" + (f", {case}" if several else ""), tuning)
        for case, tuning in results.tunings.items()
    ]


def _list_tuning(results: ResultSet, name: str, tuning: Tuning) -> Table:
    losses = {(trial.model, _describe_point(trial)): trial.validation_loss for trial in tuning.trials}
    rows, points = (list(dict.fromkeys(key[i] for key in losses)) for i in (0, 1))
    table = [[row, *(_format_loss(losses, row, point, points) for point in points)] for row in rows]
    notes = [
        f"Validation loss after {tuning.steps:,} steps each, column {tuning.case}, seed {tuning.seed}: "
        "every row had the same grid (in bold its best), and the test split was not read. Made by: "
        f"{tuning.command} (commit {(tuning.commit or 'unknown')[:12]})."
    ]
    return results.table(name, ["model", *(f"{point} ↓" for point in points)], table, notes)


def _describe_point(trial: Trial) -> str:
    return ", ".join(f"{key.rpartition('.')[2]} {one_line(str(value), 40)}" for key, value in trial.settings.items())


def _format_loss(losses: dict[tuple[str, str], float | None], row: str, point: str, points: list[str]) -> str:
    loss = losses.get((row, point))
    if loss is None:
        return "failed" if (row, point) in losses else "–"
    known = [value for other in points if (value := losses.get((row, other))) is not None]
    return Entry(f"{loss:.4f}", best=loss == min(known))
