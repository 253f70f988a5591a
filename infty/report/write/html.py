"""One page with everything: opens from disk, asks nobody for anything, and each figure leads to its runs."""

import base64
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from infty.config.definition import CellKey
from infty.report.load.results import ResultSet
from infty.report.write.text import Part, name_commit, name_run
from infty.runs.folder import Run


def to_page(parts: list[Part], folder: Path) -> str:
    """Write the page as HTML. folder: of the pictures, which become part of it."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.globals.clear()
    environment.filters |= {
        "facts": _list_facts,
        "group": _group_runs,
        "name": name_run,
        "read": lambda picture: base64.b64encode((folder / f"{picture.stem}.svg").read_bytes()).decode(),
    }
    count = sum(len(part.results.runs) for part in parts)
    return environment.get_template("page.html.j2").render(parts=parts, count=count)


def _group_runs(results: ResultSet) -> list[tuple[str, str, list[Run], list[CellKey]]]:
    """Group runs by cell, and last those with other settings: anchor, title, runs, and what is missing."""
    groups = [
        (results.anchor(m, c), results.place(m, c), runs, results.missing(m, c)) for m, c, runs in results.cells()
    ]
    others = [run for run in results.runs if run.key.variant]
    return [*groups, *([(f"{results.id}~others", "other settings", others, [])] if others else [])]


def _list_facts(run: Run) -> list[tuple[str, object]]:
    """List where a run's figures come from."""
    r, at = run.result, run.environment
    machine = ", ".join(filter(None, [at.system, at.device, f"{at.threads} threads" if at.threads else ""]))
    facts = {
        **{name.removeprefix("test/").replace("_", " "): f"{value:.6g}" for name, value in r.metrics.items()},
        "command": r.command or "unknown",
        "seed": run.key.seed,
        "commit": name_commit(run),
        "versions": ", ".join(f"{name} {version}" for name, version in at.versions.items()) or "unknown",
        "machine": machine or "unknown",
        "data": f"{r.data.name}, sha256 {r.data.sha256}",
        "protocol": r.protocol.name,
        "best step": r.best_step,
        "parameters": f"{r.parameters:,}",
        "memory slots": f"{r.memory_slots:,}",
        "training seconds": f"{r.wall_seconds:,.1f}",
        "starting weights": run.start or "",
    }
    return [(key, value) for key, value in facts.items() if value != ""]
