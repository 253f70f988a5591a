"""`infty reproduce`: whole tables in one command."""

from pathlib import Path
from typing import Annotated, Any

import typer

from infty.cli.completion import complete_experiment
from infty.cli.options import Device, Json, Precision, Runs, Scale, Threads
from infty.cli.output import print_json, settings

Names = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="EXPERIMENT",
        help="Names or YAML files; by default all that read no text of yours.",
        autocompletion=complete_experiment,
    ),
]


def reproduce(
    experiments: Names = None,
    scale: Scale = "laptop",
    jobs: Annotated[int, typer.Option(min=1, help="Cells that are trained at once.")] = 1,
    out: Annotated[
        Path | None, typer.Option(help="Where the report goes; by default `report` beside the runs.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="What is missing, with commands and time; writes nothing.")
    ] = False,
    as_json: Json = False,
    runs: Runs = None,
    device: Device = None,
    precision: Precision = None,
    threads: Threads = None,
) -> None:
    """Train and test every cell that the tables lack, and report. Stopped, the same command goes on."""
    from infty.commands.reproduce import find_missing, train_missing

    machine = settings(runs=runs, device=device, precision=precision, threads=threads)
    given = {"--runs": runs, "--device": device, "--precision": precision, "--threads": threads}
    options = [word for name, value in given.items() if value is not None for word in (name, str(value))]
    tables = find_missing(machine, experiments or [], scale, options, jobs)
    if dry_run:
        _show_forecast(tables.forecast(jobs), as_json)
        tables.refuse_failures()
        return
    train_missing(tables, jobs)
    files = _report(machine, out) if tables.done or tables.trained else []
    if as_json:
        print_json({**tables.document(), "files": files})
    else:
        print(*files, sep="\n", end="\n" * bool(files))
    tables.refuse_failures()


def _show_forecast(forecast: dict[str, Any], as_json: bool) -> None:
    """Commands that can be pasted, with the time of each behind it."""
    from infty.commands.reproduce import clock

    if as_json:
        print_json(forecast)
        return
    for job in forecast["missing"]:
        print(f"{job['command']}  # about {clock(job['expected_seconds'])}")
    print(f"# {len(forecast['missing'])} to train, about {clock(forecast['seconds'])}")


def _report(machine: Any, out: Path | None) -> list[str]:
    """The files of a report on all runs."""
    from infty.report import FORMATS, write_report

    folder: Path = out or machine.runs.absolute().parent / "report"
    return [str(file) for file in write_report([machine.runs], folder, FORMATS, machine.experiments).files]
