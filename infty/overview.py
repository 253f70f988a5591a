"""What `infty list` and `infty show` say."""

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from infty.catalog import experiment_files, open_experiment
from infty.definition import nearest, refuse
from infty.errors import UsageError
from infty.runs import RunFolder
from infty.settings import Settings
from infty.table import Table

if TYPE_CHECKING:
    from infty.experiment import ResolvedCell


def list_cells(settings: Settings, scale: str) -> list[dict[str, Any]]:
    """Every cell × seed of every experiment that has the scale: its state, accuracy and next command.

    UsageError where no experiment has such a scale.
    """
    rows, scales = [], set()
    for name in experiment_files(settings.experiments):
        try:
            definition = open_experiment(name, settings.experiments)
            refuse(definition.faults)
        except UsageError as fault:  # one broken file must not hide the others
            warnings.warn(f"{name} is left out: {fault}", stacklevel=2)
            continue
        scales.update(definition.names("scales"))
        if scale not in definition.names("scales"):
            continue
        for cell in definition.cells(scale):
            run = RunFolder(settings.runs / cell.folder)
            state = run.state()
            metrics = run.result()["metrics"] if state == "done" else {}
            command = None if state in ("done", "running") else cell.command() + " --fresh" * (state == "damaged")
            place = {"experiment": name, "case": cell.case, "model": cell.model, "seed": cell.seed}
            rows.append({**place, "state": state, "metrics": metrics, "next": command})
    if scale not in scales:
        raise UsageError(f"no experiment has a scale {scale!r}; {nearest(scale, sorted(scales))}")
    return rows


def overview_tables(rows: list[dict[str, Any]], scale: str) -> list[Table]:
    """One table an experiment: a row a model, a column a case, the states of its seeds in each."""
    tables = []
    for name in dict.fromkeys(row["experiment"] for row in rows):
        own = [row for row in rows if row["experiment"] == name]
        cases = list(dict.fromkeys(row["case"] for row in own))
        open_ones = [row for row in own if row["next"]]
        begun = [row for row in open_ones if row["state"] != "missing"]  # what was begun is continued first
        missing = next((row["next"] for row in begun + open_ones), None)
        body = []
        for model in dict.fromkeys(row["model"] for row in own):
            cells = [[row for row in own if (row["model"], row["case"]) == (model, case)] for case in cases]
            body.append([model, *(_states(cell) for cell in cells)])
        notes = [f"next: {missing}" if missing else "complete"]
        tables.append(Table(f"{name}, {scale} scale", ["model", *cases], body, notes, figures=False))
    return tables


@dataclass(frozen=True)
class Explanation:
    """One value of a resolved configuration: its key, where it comes from, and what it is."""

    key: str
    value: Any
    origin: str
    meaning: str


def explain(resolved: "ResolvedCell") -> list[Explanation]:
    """Every value of a cell, in the order of its configuration."""
    return list(_explain(resolved.experiment, (), resolved.origins))


def explanation_table(resolved: "ResolvedCell") -> Table:
    """`explain` for the screen."""
    cell = resolved.cell
    rows = [[line.key, str(line.value), line.origin, line.meaning] for line in explain(resolved)]
    headings = ["key", "value", "from", "what it is, and where in the paper"]
    title = f"{cell.experiment}: {cell.model}@{cell.case}, {cell.scale} scale"
    return Table(title, headings, rows, figures=False)


def _explain(config: BaseModel, path: tuple[str, ...], origins: dict[tuple[str, ...], str]) -> Any:
    for name, field in type(config).model_fields.items():
        value, here = getattr(config, name), (*path, name)
        if isinstance(value, BaseModel):
            yield from _explain(value, here, origins)
        else:
            origin = origins.get(here) or ("default" if not field.is_required() else f"model.{name}")
            yield Explanation(".".join(here), value, origin, field.description or "")


def _states(cell: list[dict[str, Any]]) -> str:
    """`2 of 3 done, 54.1 %` (or a perplexity a word), and the states that are not done."""
    done = [row for row in cell if row["state"] == "done"]
    others = [f"{row['state']} (seed {row['seed']})" for row in cell if row["state"] not in ("done", "missing")]
    mean = ""
    for metric, shown in (("test/accuracy", "{:.1%}"), ("test/word_perplexity", "{:,.1f} a word")):
        if figures := [row["metrics"][metric] for row in done if metric in row["metrics"]]:
            mean = ", " + shown.format(sum(figures) / len(figures)).replace("%", " %")
    return ", ".join([f"{len(done)} of {len(cell)} done{mean}", *others])
