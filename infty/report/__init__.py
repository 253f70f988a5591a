"""Tables and figures from run folders. Imports no torch."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from infty.base.errors import MissingError, UsageError
from infty.base.files import write_text
from infty.base.table import Table
from infty.report.figures import draw, make_pictures
from infty.report.load.collect import collect
from infty.report.load.results import ResultSet
from infty.report.tables.beside_the_paper import compare_with_print
from infty.report.tables.differences import compare_by_distance, compare_knock_outs, compare_neighbours
from infty.report.tables.memory_influence import describe_memories
from infty.report.tables.recall import list_by_distance
from infty.report.tables.scores import list_accuracies, list_text_figures
from infty.report.tables.training import list_costs, list_tunings
from infty.report.write import Part, to_csv, to_latex, to_markdown, to_page

WRITERS: dict[str, Callable[[Part], str]] = {"md": to_markdown, "tex": to_latex, "csv": to_csv}
FORMATS = (*WRITERS, "html")
TABLES: tuple[Callable[[ResultSet], list[Table]], ...] = (
    list_accuracies,
    list_text_figures,
    list_by_distance,
    compare_neighbours,
    compare_by_distance,
    compare_with_print,
    compare_knock_outs,
    describe_memories,
    list_costs,
    list_tunings,
)


@dataclass(frozen=True)
class Written:
    """The tables and files of a report."""

    tables: list[Table]
    files: list[Path]


def write_report(folders: Sequence[Path], out: Path, formats: Iterable[str], experiments: Path) -> Written:
    """Write `<experiment>-<scale>.md`, `.tex` and `.csv`, the figures, and `index.html` for all finished runs.

    A figure is drawn again only if its data changed.

    Raises:
        UsageError: A format is unknown, or `out` is no folder.
        MissingError: Nothing is finished, or a folder of runs isn't there.
    """
    formats = list(dict.fromkeys(formats))
    if unknown := [name for name in formats if name not in FORMATS]:
        raise UsageError(f"--format {','.join(unknown)}: wanted some of {', '.join(FORMATS)}")
    sets = collect(folders, experiments)
    if not sets:
        raise MissingError(
            f"none of the finished runs in {', '.join(map(str, folders))} can be read: the warnings say why, and what "
            "mends each"
        )
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is no folder")
    out.mkdir(parents=True, exist_ok=True)
    parts = [Part(results, make_tables(results), make_pictures(results)) for results in sets]
    files: list[Path] = []
    for part, name in itertools.product(parts, formats):
        if name in WRITERS:
            files.append(out / f"{part.results.name}.{name}")
            write_text(files[-1], WRITERS[name](part))
    files += draw({part.results.name: part.pictures for part in parts}, out)
    if "html" in formats:
        write_text(out / "index.html", to_page(parts, out))
        files.append(out / "index.html")
    return Written([table for part in parts for table in part.tables], files)


def make_tables(results: ResultSet) -> list[Table]:
    """Make the tables that have rows; none if all runs have other settings."""
    return [table for make in TABLES for table in make(results) if table.rows] if results.cases else []
