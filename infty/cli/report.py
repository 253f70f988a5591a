"""`infty report`: tables and figures of runs, and whether what is stored of them is so."""

from pathlib import Path
from typing import Annotated, Any

import typer

from infty.base.errors import DifferenceError
from infty.cli.options import Json
from infty.cli.output import open_console, read_settings, refuse_given, show_tables


def report(
    folders: Annotated[list[Path] | None, typer.Argument(metavar="[DIR]...", help="Folders of runs.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where to write; by default `report` beside the runs.")] = None,
    formats: Annotated[
        str | None, typer.Option("--format", help="Some of md, tex, csv, html, with commas; by default all.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing: hold stored figures against totals and checkpoints.")
    ] = False,
    keep: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Copy the runs' small files there first, to be committed.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the tables and figures of all runs."""
    machine = read_settings()
    folders = folders or [machine.runs]
    if check:
        refuse_given({"--out": out, "--format": formats, "--keep": keep}, "--check, which writes nothing")
        _check(folders, machine, as_json)
        return
    if keep:
        from infty.report.keep import keep_runs

        open_console(stderr=True).print(f"kept in {keep}: {len(keep_runs(folders, keep))} runs", soft_wrap=True)
    written = write_beside_runs(folders, machine, out, formats)
    files = [str(file) for file in written.files]
    document = {"tables": [vars(table) for table in written.tables], "files": files}
    show_tables(lambda: written.tables, document, as_json)
    if not as_json:
        print(*files, sep="\n")


def write_beside_runs(folders: list[Path], machine: Any, out: Path | None, formats: str | None = None) -> Any:
    """Write a report on folders of runs, by default in `report` beside the first. Raises as `write_report`.

    formats: names with commas between them; `None` for all.
    """
    from infty.report import FORMATS, write_report

    wanted = FORMATS if formats is None else [name.strip() for name in formats.split(",")]
    return write_report(folders, out or folders[0].absolute().parent / "report", wanted, machine.experiments)


def _check(folders: list[Path], machine: Any, as_json: bool) -> None:
    from infty.commands.check import check_runs, checks_table

    checked = check_runs(folders, machine)
    show_tables(lambda: [checks_table(checked)], [vars(one) for one in checked], as_json)
    if faults := [f"{one.run}: {fault}" for one in checked for fault in one.faults]:
        raise DifferenceError("\n".join(faults))
