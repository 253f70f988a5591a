"""`infty compare`, `export` and `clean`: commands that work on run folders."""

from pathlib import Path
from typing import Annotated

import typer

from infty.cli.completion import complete_run
from infty.cli.options import Json, Runs
from infty.cli.output import read_settings, show_tables, show_values


def compare(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN RUN...", help="Run folders, or their place below --runs.", autocompletion=complete_run
        ),
    ],
    as_json: Json = False,
    runs: Runs = None,
) -> None:
    """Show what differs between runs: settings, versions and figures."""
    from infty.commands.compare import compare_runs

    compared = compare_runs(names, read_settings(runs=runs).runs)
    show_tables(compared.tables, compared.document(), as_json)


def export(
    name: Annotated[
        str, typer.Argument(metavar="RUN", help="Run folder, or its place below --runs.", autocompletion=complete_run)
    ],
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="By default named after the run, here.")] = None,
    as_json: Json = False,
    runs: Runs = None,
) -> None:
    """Write one archive of a finished run: its configuration, results and best checkpoint."""
    from infty.commands.export import export_run
    from infty.runs.folder import find_run

    file = export_run(find_run(name, read_settings(runs=runs).runs), out)
    show_values({"file": str(file), "megabytes": round(file.stat().st_size / 1e6, 1)}, as_json)


def clean(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN]...", help="By default every finished run and trial.", autocompletion=complete_run
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Remove what is listed.")] = False,
    as_json: Json = False,
    runs: Runs = None,
) -> None:
    """List what finished runs keep that no report needs (checkpoints, W&B's files), and remove it."""
    from infty.commands.clean import find_dispensable, remove

    found = find_dispensable(read_settings(runs=runs).runs, names or [])
    if yes:
        remove(found)
    show_tables(lambda: [found.table(removed=yes)], {**found.document(), "removed": yes}, as_json)
