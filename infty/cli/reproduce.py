"""`infty reproduce`: whole tables in one command."""

from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import typer

from infty.cli.completion import complete_experiment
from infty.cli.options import Json, Scale, TableOptions, expand
from infty.cli.output import print_json
from infty.cli.report import write_beside_runs


@expand
def reproduce(
    machine_options: TableOptions,
    experiments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="EXPERIMENT",
            help="Names or YAML files; by default all that read no text of yours.",
            autocompletion=complete_experiment,
        ),
    ] = None,
    scale: Scale = "laptop",
    jobs: Annotated[int, typer.Option(min=1, help="Cells that are trained at once.")] = 1,
    out: Annotated[
        Path | None, typer.Option(help="Where the report goes; by default `report` beside the runs.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="What is missing, with commands and time; writes nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train and test every cell that the tables lack, and report. Stopped, the same command goes on."""
    from infty.commands.reproduce import find_missing, train_missing

    machine = machine_options.read_settings()
    given = {f"--{name}": str(value) for name, value in vars(machine_options).items() if value is not None}
    tables = find_missing(machine, experiments or [], scale, list(chain(*given.items())), jobs)
    if dry_run:
        _show_forecast(tables.forecast(jobs), as_json)
        tables.refuse_failures()
        return
    train_missing(tables, jobs)
    written = write_beside_runs([machine.runs], machine, out).files if tables.done or tables.trained else []
    files = [str(file) for file in written]
    if as_json:
        print_json({**tables.document(), "files": files})
    else:
        print(*files, sep="\n", end="\n" * bool(files))
    tables.refuse_failures()


def _show_forecast(forecast: dict[str, Any], as_json: bool) -> None:
    """Print commands that can be pasted, with the time of each behind it."""
    from infty.commands.reproduce import format_time

    if as_json:
        print_json(forecast)
        return
    for job in forecast["missing"]:
        print(f"{job['command']}  # about {format_time(job['expected_seconds'])}")
    print(f"# {len(forecast['missing'])} to train, about {format_time(forecast['seconds'])}")
