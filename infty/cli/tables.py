"""`infty report`, `reproduce` and `tune`: tables and figures of runs, the runs that they lack, and their settings."""

from itertools import chain
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from infty.base.errors import DifferenceError, count
from infty.cli.completion import complete_experiment
from infty.cli.options import Experiment, Json, Scale, TableOptions, expand
from infty.cli.output import open_console, print_json, read_settings, refuse_given, show_tables, show_values


def report(
    folders: Annotated[list[Path] | None, Argument(metavar="[DIR]...", help="Folders of runs.")] = None,
    out: Annotated[Path | None, Option(help="Where to write; by default `report` beside the runs.")] = None,
    formats: Annotated[
        str | None, Option("--format", help="Some of md, tex, csv, html, with commas; by default all.")
    ] = None,
    check: Annotated[
        bool, Option("--check", help="Write nothing: hold stored figures against totals and checkpoints.")
    ] = False,
    keep: Annotated[
        Path | None, Option(metavar="FOLDER", help="Copy the runs' small files there first, to be committed.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the tables and figures of all runs."""
    machine = read_settings()
    folders = folders or [machine.runs]
    if check:
        from infty.commands.check import check_runs, checks_table

        refuse_given({"--out": out, "--format": formats, "--keep": keep}, "--check, which writes nothing")
        checked = check_runs(folders, machine)
        show_tables(lambda: [checks_table(checked)], [vars(one) for one in checked], as_json)
        if faults := [f"{one.run}: {fault}" for one in checked for fault in one.faults]:
            raise DifferenceError("\n".join(faults))
        return
    if keep:
        from infty.report.keep import keep_runs

        open_console(stderr=True).print(
            f"kept in {keep}: {count(len(keep_runs(folders, keep)), 'run')}", soft_wrap=True
        )
    written = write_beside_runs(folders, machine, out, formats)
    files = [str(file) for file in written.files]
    document = {"tables": [vars(table) for table in written.tables], "files": files}
    show_tables(lambda: written.tables, document, as_json)
    if not as_json:
        print(*files, sep="\n")


def write_beside_runs(folders: list[Path], machine: Any, out: Path | None, formats: str | None = None) -> Any:
    """Write a report on folders of runs, by default in `report` beside the first. formats: with commas; None: all."""
    from infty.report import FORMATS, write_report

    wanted = FORMATS if formats is None else [name.strip() for name in formats.split(",")]
    return write_report(folders, out or folders[0].absolute().parent / "report", wanted, machine.experiments)


@expand
def reproduce(
    machine_options: TableOptions,
    experiments: Annotated[
        list[str] | None,
        Argument(
            metavar="EXPERIMENT",
            help="Names or YAML files; by default all that read no text of yours.",
            autocompletion=complete_experiment,
        ),
    ] = None,
    scale: Scale = "laptop",
    jobs: Annotated[int, Option(min=1, help="Cells that are trained at once.")] = 1,
    out: Annotated[Path | None, Option(help="Where the report goes; by default `report` beside the runs.")] = None,
    dry_run: Annotated[
        bool, Option("--dry-run", help="What is missing, with commands and time; writes nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train and test every cell that the tables lack, and report. Stopped, the same command goes on."""
    from infty.commands.reproduce.missing import find_missing, format_time
    from infty.commands.reproduce.workers import train_missing

    machine = machine_options.read_settings()
    given = {f"--{name}": str(value) for name, value in vars(machine_options).items() if value is not None}
    tables = find_missing(machine, experiments or [], scale, list(chain(*given.items())), jobs)
    if dry_run:  # commands that can be pasted, each with its time after it
        document = tables.forecast(jobs)
        lines = [f"{job['command']}  # about {format_time(job['expected_seconds'])}" for job in document["missing"]]
        lines.append(f"# {len(lines)} to train, about {format_time(document['seconds'])}")
    else:
        train_missing(tables, jobs)
        written = write_beside_runs([machine.runs], machine, out).files if tables.done or tables.trained else []
        lines = [str(file) for file in written]
        document = {**tables.document(), "files": lines}
    if as_json:
        print_json(document)
    else:
        print(*lines, sep="\n", end="\n" * bool(lines))
    tables.refuse_failures()


@expand
def tune(
    experiment: Experiment,
    machine_options: TableOptions,
    case: Annotated[str | None, Option(help="Column; by default each that has a grid.")] = None,
    scale: Scale = "laptop",
    as_json: Json = False,
) -> None:
    """Try the experiment's stated grid for every row, on validation only; stopped, the same command goes on."""
    from infty.commands.tune import tune
    from infty.config.definition import open_experiment

    machine = machine_options.read_settings()
    records = tune(open_experiment(experiment, machine.experiments), scale, case, machine)
    documents = {case: record.model_dump() for case, record in records.items()}
    show_values({case: record.chosen for case, record in records.items()}, as_json, document=documents)
