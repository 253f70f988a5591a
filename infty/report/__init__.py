"""Tables and figures from run folders. Imports no torch."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from infty.errors import MissingError, UsageError
from infty.files import write_text
from infty.report.figures import draw_accuracy, draw_distance
from infty.report.results import collect
from infty.report.tables import accuracy_table, cost_table, runs_csv, to_markdown
from infty.report.texts import perplexity_table
from infty.table import Table

FORMATS = ("md", "csv")


@dataclass(frozen=True)
class Written:
    """What a report consists of."""

    tables: list[Table]
    files: list[Path]


def write_report(folders: Sequence[Path], out: Path, formats: Iterable[str], experiments: Path) -> Written:
    """Write `<experiment>-<scale>.md`, `.csv` and the figure as `.svg` and `.png` for all finished runs in `folders`.

    UsageError for an unknown format or a folder that isn't there; MissingError where nothing is finished.
    """
    formats = list(formats)
    if unknown := [name for name in formats if name not in FORMATS]:
        raise UsageError(f"--format {','.join(unknown)}: wanted {' or '.join(FORMATS)}")
    if absent := [folder for folder in folders if not folder.is_dir()]:
        raise MissingError(f"no folder {absent[0]}; finished runs come from, for example: infty train sort --case x8")
    sets = collect(folders, experiments)
    if not sets:
        raise MissingError(
            f"no finished runs in {', '.join(map(str, folders))}; make one with: infty train sort --case x8"
        )
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is no folder")
    out.mkdir(parents=True, exist_ok=True)
    written = Written([], [])
    for results in sets:
        quality = (
            [perplexity_table(results, c) for c in results.cases] if results.is_text else [accuracy_table(results)]
        )
        tables = [*quality, cost_table(results)]
        written.tables.extend(tables)
        texts = {"md": to_markdown(results, tables), "csv": runs_csv(results)}
        for name in formats:
            path = out / f"{results.name}.{name}"
            write_text(path, texts[name])
            written.files.append(path)
        if results.is_text:
            for case in results.cases:
                written.files.extend(draw_distance(results, case, out / results.picture(case)))
        else:
            written.files.extend(draw_accuracy(results, out / results.picture()))
    return written


__all__ = ["Written", "write_report"]
