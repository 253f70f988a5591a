"""Tables and figures from run folders. Imports no torch."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from infty.base.errors import MissingError, UsageError
from infty.base.files import write_text
from infty.base.table import Table
from infty.report.figures import all_pictures, draw
from infty.report.load.collect import collect
from infty.report.tables import all_tables
from infty.report.write.html import Part, to_page
from infty.report.write.markdown import runs_csv, to_markdown

FORMATS = ("md", "tex", "csv", "html")


@dataclass(frozen=True)
class Written:
    """What a report consists of."""

    tables: list[Table]
    files: list[Path]


def write_report(folders: Sequence[Path], out: Path, formats: Iterable[str], experiments: Path) -> Written:
    """Write `<experiment>-<scale>.md`, `.tex` and `.csv`, the figures, and `index.html` for all finished runs.

    A figure is drawn again only where its data changed. UsageError for an unknown format or where `out` is no folder;
    MissingError where nothing is finished, or a folder of runs isn't there.
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
    parts = [Part(results, all_tables(results), all_pictures(results)) for results in sets]
    files: list[Path] = []
    for part in parts:
        files += _write_tables(part, out, formats)
    files += draw({part.results.name: part.pictures for part in parts}, out)
    if "html" in formats:
        write_text(out / "index.html", to_page(parts, out))
        files.append(out / "index.html")
    return Written([table for part in parts for table in part.tables], files)


def _write_tables(part: Part, out: Path, formats: list[str]) -> list[Path]:
    """One file a format, but for the page, which is one for all."""
    files = []
    for name in formats:
        match name:
            case "md":
                text = to_markdown(part.results, part.tables, part.pictures)
            case "tex":
                from infty.report.write.latex import to_latex

                text = to_latex(part.results, part.tables)
            case "csv":
                text = runs_csv(part.results)
            case _:
                continue
        files.append(out / f"{part.results.name}.{name}")
        write_text(files[-1], text)
    return files


__all__ = ["Written", "write_report"]
