"""`infty report`: tables and figures of runs, and whether what is stored of them is so."""

from pathlib import Path
from typing import Annotated, Any

import typer

from infty.cli.options import Json
from infty.cli.output import console, given_of, print_json, print_table, settings


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
    from infty.base.errors import UsageError

    machine = settings()
    folders = folders or [machine.runs]
    if check:
        if given := given_of((("--out", out), ("--format", formats), ("--keep", keep))):
            raise UsageError(f"{given[0]} has no meaning with --check, which writes nothing")
        _check(folders, machine, as_json)
        return
    from infty.report import FORMATS, write_report
    from infty.report.keep import keep_runs

    if keep:
        console(stderr=True).print(f"kept in {keep}: {len(keep_runs(folders, keep))} runs", soft_wrap=True)
    out = out or folders[0].absolute().parent / "report"
    wanted = FORMATS if formats is None else [name.strip() for name in formats.split(",")]
    written = write_report(folders, out, wanted, machine.experiments)
    if as_json:
        print_json({"tables": [table.document() for table in written.tables], "files": [str(f) for f in written.files]})
        return
    for table in written.tables:
        print_table(table)
    for file in written.files:
        print(file)


def _check(folders: list[Path], machine: Any, as_json: bool) -> None:
    from infty.base.errors import DifferenceError
    from infty.commands.check import check_runs, checks_table

    checked = check_runs(folders, machine)
    if as_json:
        print_json([vars(one) for one in checked])
    else:
        print_table(checks_table(checked))
    if faults := [f"{one.run}: {fault}" for one in checked for fault in one.faults]:
        raise DifferenceError("\n".join(faults))
