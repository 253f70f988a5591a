"""`infty list` and `infty show`: cells and their states, and a cell's values explained."""

import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from infty.base.errors import one_line
from infty.base.table import Table
from infty.config.definition import CellKey, experiments_with
from infty.config.settings import Settings
from infty.runs.folder import RunFolder, find_runs

# <model>@<case>+<variant>/seed-N, as training names folders
RUN_NAME = re.compile(r"([a-z0-9][a-z0-9_-]*)@([a-z0-9][a-z0-9_-]*)(\+[a-z0-9][a-z0-9_.-]*)?/seed-(0|[1-9]\d*)")
LONGEST_WHY = 160  # characters
Keys = tuple[str, ...]


def list_cells(settings: Settings, scale: str) -> list[dict[str, Any]]:
    """List each cell × seed of experiments with the scale, then other runs: state, why, metrics and next command."""
    rows = []
    for name, definition in experiments_with(scale, settings.experiments, warnings.warn).items():
        cells = list(dict.fromkeys(definition.cells(scale)))
        rows += [_row(cell, settings.runs, cell.command(), " --fresh") for cell in cells]
        for cell in _on_disk(settings.runs, name, scale):
            if cell not in cells:
                # What is trained first has the command of a row, and --fresh would remove that row's own run.
                fresh = " --fresh" if cell.model in definition.names("models") else ""
                rows.append(_row(cell, settings.runs, RunFolder(settings.runs / cell.folder).command(), fresh))
    return rows


def overview_tables(rows: list[dict[str, Any]], scale: str) -> list[Table]:
    """Make a table per experiment: a row per model and variant, a column per case, in it the states of the seeds."""
    tables = []
    for name in dict.fromkeys(row["experiment"] for row in rows):
        own = [row for row in rows if row["experiment"] == name]
        cases = list(dict.fromkeys(row["case"] for row in own))
        open_ones = [row for row in own if row["next"] and not row["variant"]]
        begun = [row for row in open_ones if row["state"] != "missing"]  # runs that have begun are continued first
        missing = next((row["next"] for row in begun + open_ones), None)
        cells: dict[str, dict[str, list[dict[str, Any]]]] = {}  # rows of a label, by case
        for row in own:
            cells.setdefault(row["model"] + row["variant"], {}).setdefault(row["case"], []).append(row)
        body = [[label, *(_states(by_case.get(case, [])) for case in cases)] for label, by_case in cells.items()]
        notes = [f"next: {missing}" if missing else "complete", *filter(None, map(_note, own))]
        tables.append(Table(f"{name}, {scale} scale", ["model", *cases], body, notes, figures=False))
    return tables


def explain(config: BaseModel, origins: dict[Keys, str], path: Keys = ()) -> Iterator[dict[str, Any]]:
    """Explain each value of a resolved configuration, in order: its key, where it comes from, and what it is."""
    for name, field in type(config).model_fields.items():
        value, here = getattr(config, name), (*path, name)
        if isinstance(value, BaseModel):
            yield from explain(value, origins, here)
        else:
            origin = origins.get(here) or ("default" if not field.is_required() else f"model.{name}")
            yield {"key": ".".join(here), "value": value, "origin": origin, "meaning": field.description or ""}


def explanation_table(key: CellKey, values: list[dict[str, Any]]) -> Table:
    """Make a table of `explain` for the screen."""
    headings = ["key", "value", "from", "what it is, and where in the paper"]
    title = f"{key.experiment}: {key.model}@{key.case}, {key.scale} scale"
    return Table(title, headings, [[str(part) for part in value.values()] for value in values], figures=False)


def _row(cell: CellKey, runs: Path, command: str | None, fresh: str) -> dict[str, Any]:
    """Describe what is known of one run. fresh: the option that its command needs if the run is damaged."""
    run = RunFolder(runs / cell.folder)
    state, why = run.condition()
    place = {key: getattr(cell, key) for key in ("experiment", "case", "model", "variant", "seed")}
    metrics = run.result().metrics if state == "done" else {}
    if state in ("done", "running"):
        command = None
    elif command and state == "damaged":
        command += fresh
    return {**place, "state": state, "why": why, "metrics": metrics, "next": command}


def _on_disk(runs: Path, experiment: str, scale: str) -> Iterator[CellKey]:
    """Find runs by the names of their folders, as the files in them may be damaged."""
    top = runs / experiment / scale
    for run in find_runs([top]):
        if named := RUN_NAME.fullmatch(run.path.relative_to(top).as_posix()):
            model, case, variant, seed = named.groups(default="")
            yield CellKey(experiment, scale, model, case, int(seed), variant)


def _note(row: dict[str, Any]) -> str | None:
    """Describe in one line what went wrong with a run, if anything did, and which command helps."""
    if row["state"] not in ("failed", "interrupted", "damaged"):
        return None
    why = f": {one_line(' '.join(row['why'].split()), LONGEST_WHY)}" if row["why"] else ""
    helps = "start over with" if row["state"] == "damaged" else "continue with"
    command = f"{helps}: {row['next']}" if row["next"] else "its command is not known"
    return f"{row['model']}@{row['case']}{row['variant']} seed {row['seed']}: {row['state']}{why}; {command}"


def _states(cell: list[dict[str, Any]]) -> str:
    """Write `2 of 3 done, 54.1 %` (or a perplexity per word), and the states that are not done."""
    if not cell:
        return "–"
    done = [row for row in cell if row["state"] == "done"]
    others = [f"{row['state']} (seed {row['seed']})" for row in cell if row["state"] not in ("done", "missing")]
    mean = ""
    for metric, shown in (("test/accuracy", "{:.1%}"), ("test/word_perplexity", "{:,.1f} a word")):
        if figures := [value for row in done if (value := row["metrics"].get(metric)) is not None]:
            mean = ", " + shown.format(sum(figures) / len(figures)).replace("%", " %")
    return ", ".join([f"{len(done)} of {len(cell)} done{mean}", *others])
