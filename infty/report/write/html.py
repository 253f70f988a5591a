"""One page with everything: opens from disk, asks nobody for anything, and each figure leads to its runs."""

import base64
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from infty.base.table import Table
from infty.report.figures import Picture
from infty.report.load.results import ResultSet, Run
from infty.report.write.markdown import commit_of, run_name


@dataclass(frozen=True)
class Part:
    """A set of runs with what was made of it."""

    results: ResultSet
    tables: list[Table]
    pictures: list[Picture]


def to_page(parts: list[Part], folder: Path) -> str:
    """The page as HTML. folder: where the pictures are, which become part of it."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.globals.clear()
    shown = [
        {
            "results": part.results,
            "tables": [_table(table) for table in part.tables],
            "pictures": [
                {"title": picture.title, "data": _data(folder / f"{picture.stem}.svg")} for picture in part.pictures
            ],
            "missing": [cell.command() for cell in part.results.missing()],
            "groups": _groups(part.results),
        }
        for part in parts
    ]
    count = sum(len(part.results.runs) for part in parts)
    return environment.get_template("page.html.j2").render(parts=shown, count=count)


def _table(table: Table) -> dict[str, object]:
    """A table as the page's template takes it, with what every cell of a page has."""
    rows = [
        [{"text": str(cell), "best": getattr(cell, "best", False), "runs": getattr(cell, "runs", "")} for cell in row]
        for row in table.rows
    ]
    return {**vars(table), "rows": rows}


def _groups(results: ResultSet) -> list[dict[str, object]]:
    """The runs of each cell, those that it lacks, and last the runs with other settings."""
    missing = results.missing()
    groups: list[dict[str, object]] = [
        {
            "anchor": results.anchor(model, case),
            "title": results.place(model, case),
            "runs": [_described(run) for run in results.of(model, case)],
            "missing": [cell.command() for cell in missing if (cell.model, cell.case) == (model, case)],
        }
        for case in results.cases
        for model in results.models
    ]
    others = [_described(run) for run in results.runs if run.cell.variant]
    if others:
        groups.append({"anchor": f"{results.id}~others", "title": "other settings", "runs": others, "missing": []})
    return groups


def _described(run: Run) -> dict[str, object]:
    """Where a run's figures come from."""
    r, at = run.result, run.environment
    versions = ", ".join(f"{name} {version}" for name, version in at.get("versions", {}).items())
    machine = ", ".join(
        filter(None, [at.get("system"), at.get("device"), f"{at['threads']} threads" if at.get("threads") else ""])
    )
    facts = {
        **{name.removeprefix("test/").replace("_", " "): f"{value:.6g}" for name, value in r["metrics"].items()},
        "command": r["command"] or "unknown",
        "seed": run.cell.seed,
        "commit": commit_of(run),
        "versions": versions or "unknown",
        "machine": machine or "unknown",
        "data": f"{r['data']['name']}, sha256 {r['data']['sha256']}",
        "protocol": r["protocol"]["name"],
        "best step": r["best_step"],
        "parameters": f"{r['parameters']:,}",
        "memory slots": f"{r['memory_slots']:,}",
        "training seconds": f"{r['wall_seconds']:,.1f}",
        "starting weights": run.start or "",
    }
    return {"name": run_name(run), "facts": [(key, value) for key, value in facts.items() if value != ""]}


def _data(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
