"""The command line. A command is a few lines that call one function; everything heavy is imported inside."""

import io
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

app = typer.Typer(
    help="Experiments on ∞-former's unbounded long-term memory (arXiv 2109.00301).",
    epilog="Start with: infty train sort --case x8  ·  infty eval sort --case x8  ·  infty report",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _complete_experiment(incomplete: str) -> list[str]:
    from infty.catalog import experiment_files

    return [name for name in experiment_files(_settings().experiments) if name.startswith(incomplete)]


def _complete_from(key: str) -> Any:
    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        from infty.catalog import open_experiment

        # An option that still lacks its value leaves the words before it unparsed, in ctx.args.
        name = ctx.params.get("experiment") or next(iter(ctx.args), "sort")
        names = open_experiment(name, _settings().experiments).names(key)
        return [found for found in names if found.startswith(incomplete)]

    return complete


Name = Annotated[
    str, typer.Argument(metavar="EXPERIMENT", help="Name or YAML file.", autocompletion=_complete_experiment)
]
Model = Annotated[str, typer.Option(help="Row of the table.", autocompletion=_complete_from("models"))]
Case = Annotated[str | None, typer.Option(help="Column; by default the first.", autocompletion=_complete_from("cases"))]
Scale = Annotated[str, typer.Option(help="laptop, paper or smoke.", autocompletion=_complete_from("scales"))]
Seed = Annotated[
    int, typer.Option(min=0, max=2**31 - 1, help="Decides initial weights, order of the data and dropout.")
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY.PATH=VALUE", help="Change a setting; repeatable.")
]
RunName = Annotated[str | None, typer.Option("--name", help="Name of a run with other settings.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, all else on stderr.")]
Runs = Annotated[Path | None, typer.Option(help="Folder of the run folders.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Precision = Annotated[str | None, typer.Option(help="float32, or bf16: products in bfloat16, the memory's in float32.")]
Compile = Annotated[bool | None, typer.Option("--compile", help="Let torch.compile fuse what it can.")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(version("infty-former"))
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Experiments on ∞-former's unbounded long-term memory (arXiv 2109.00301)."""


@app.command(epilog="Example: infty train sort --model infty --case x8 --seed 0")
def train(
    experiment: Name,
    model: Model = "infty",
    case: Case = None,
    scale: Scale = "laptop",
    seed: Seed = 0,
    overrides: Overrides = None,
    name: RunName = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Sizes and predicted time; writes nothing.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Remove what this run left, and start over.")] = False,
    as_json: Json = False,
    runs: Runs = None,
    device: Device = None,
    precision: Precision = None,
    compile: Compile = None,
    threads: Threads = None,
) -> None:
    """Train one cell of an experiment, or go on where it stopped, and test it."""
    from infty import workflow
    from infty.forecast import forecast
    from infty.headline import headline

    settings = _settings(runs=runs, device=device, precision=precision, compile=compile, threads=threads)
    resolved = _resolve(settings, experiment, model, case, scale, seed, overrides, name)
    if dry_run:
        _show(forecast(resolved, settings), as_json)
        return
    result = workflow.train_cell(resolved, settings, _console(stderr=True), fresh=fresh)
    _show(headline(result), as_json, document=result)


@app.command("eval", epilog="Example: infty eval sort --model infty --case x8  ·  infty eval sort --stream symbols.txt")
def evaluate(
    experiment: Name,
    model: Model = "infty",
    case: Case = None,
    scale: Scale = "laptop",
    seed: Seed = 0,
    overrides: Overrides = None,
    name: RunName = None,
    split: Annotated[Literal["test", "validation"], typer.Option(help="Which sequences.")] = "test",
    batch: Annotated[int | None, typer.Option(min=1, help="Sequences at once; never changes the result.")] = None,
    stream: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Read one text of any length, at constant memory.")
    ] = None,
    as_json: Json = False,
    runs: Runs = None,
    device: Device = None,
    precision: Precision = None,
    compile: Compile = None,
    threads: Threads = None,
) -> None:
    """Evaluate the best checkpoint of a cell."""
    from infty import workflow
    from infty.headline import headline, stream_headline
    from infty.trained import Asked

    settings = _settings(runs=runs, device=device, precision=precision, compile=compile, threads=threads)
    resolved = _resolve(settings, experiment, model, case, scale, seed, overrides, name)
    if stream is not None:
        outcome = workflow.stream_cell(resolved, settings, stream, _console(stderr=True), batch)
        _show(stream_headline(outcome), as_json, document=outcome)
        return
    outcome = workflow.evaluate_cell(resolved, settings, Asked(split, batch), _console(stderr=True))
    _show(headline(outcome), as_json, document=outcome)


@app.command(epilog="Example: infty report data/runs --format md,csv")
def report(
    folders: Annotated[list[Path] | None, typer.Argument(metavar="[DIR]...", help="Folders of runs.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where to write; by default `report` beside the runs.")] = None,
    formats: Annotated[str, typer.Option("--format", help="md and csv, with commas.")] = "md,csv",
    as_json: Json = False,
) -> None:
    """Write the tables and figures of all runs."""
    from infty.report import write_report

    settings = _settings()
    folders = folders or [settings.runs]
    out = out or folders[0].absolute().parent / "report"
    written = write_report(folders, out, formats.split(","), settings.experiments)
    if as_json:
        _print_json(
            {"tables": [table.document() for table in written.tables], "files": [str(f) for f in written.files]}
        )
        return
    for table in written.tables:
        _print_table(table)
    for file in written.files:
        print(file)


@app.command("list", epilog="Example: infty list --scale laptop")
def list_experiments(
    scale: Scale = "laptop",
    as_json: Json = False,
    runs: Runs = None,
) -> None:
    """List the experiments, and the state of each of their cells."""
    from infty.overview import list_cells, overview_tables

    rows = list_cells(_settings(runs=runs), scale)
    if as_json:
        _print_json(rows)
        return
    for table in overview_tables(rows, scale):
        _print_table(table)


@app.command(epilog="Example: infty show sort --model compressive --case x16 --scale paper")
def show(
    experiment: Name,
    model: Model = "infty",
    case: Case = None,
    scale: Scale = "laptop",
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Show a cell's resolved configuration: each value, where it comes from, and what it is in the paper."""
    from infty.overview import explain, explanation_table

    resolved = _resolve(_settings(), experiment, model, case, scale, 0, overrides, None)
    if as_json:
        _print_json([vars(value) for value in explain(resolved)])
        return
    _print_table(explanation_table(resolved))


@app.command(epilog="Example: infty bench step read --against literal.py --json")
def bench(
    measures: Annotated[
        list[str] | None, typer.Argument(metavar="[MEASURE]...", help="step, read, update, stream, data, start.")
    ] = None,
    against: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A plain implementation to hold against; it is run.")
    ] = None,
    length: Annotated[int, typer.Option(min=1, help="Symbols of a sequence in a step.")] = 4000,
    batch: Annotated[int, typer.Option(min=1, help="Sequences in a step.")] = 2,
    rounds: Annotated[int, typer.Option(min=1, help="How often each takes its turn.")] = 5,
    as_json: Json = False,
    threads: Threads = 2,
) -> None:
    """Measure speed and memory on the CPU, as ratios taken in turn in fresh processes. Wants a quiet machine."""
    from infty.bench.measures import Bench, run_measures

    say = _console(stderr=True).print if sys.stderr.isatty() else lambda _: None
    setting = Bench(against, length, batch, rounds, threads or 2, say)
    for measure in run_measures(setting, measures or []):
        document = {**measure.document(), "environment": setting.environment()}
        print(json.dumps(document) if as_json else measure.line(), flush=True)


@app.command(epilog="Example: infty env --json")
def env(as_json: Json = False, runs: Runs = None, device: Device = None, threads: Threads = None) -> None:
    """Show versions, device, threads and paths, to paste into a bug report."""
    from infty.environment import describe_environment
    from infty.settings import find_toml
    from infty.workflow import prepare_machine

    settings = _settings(runs=runs, device=device, threads=threads)
    chosen = prepare_machine(settings)
    paths = {"infty.toml": str(find_toml()), **{key: str(value) for key, value in settings.model_dump().items()}}
    _show({**describe_environment(chosen), "settings": paths}, as_json)


def main() -> None:
    """The entry point: our own errors become one message and their exit code, and no traceback reaches a user."""
    import warnings

    from infty.errors import InftyError

    warnings.showwarning = lambda message, *_: print(f"infty: warning: {message}", file=sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without Greek gets question marks, not a fault
    try:
        app()
    except InftyError as fault:
        print(f"infty: {fault}", file=sys.stderr)
        code = fault.exit_code
    except OSError as fault:
        if os.environ.get("INFTY_DEBUG"):
            raise
        hint = "other folders: --runs, INFTY_RUNS or infty.toml"
        print(f"infty: {fault.filename or 'a file'}: {fault.strerror or fault} ({hint})", file=sys.stderr)
        code = 1
    except Exception as fault:
        if os.environ.get("INFTY_DEBUG"):
            raise
        print(f"infty: {type(fault).__name__}: {fault} (INFTY_DEBUG=1 shows where)", file=sys.stderr)
        code = 1
    else:
        code = 0
    sys.exit(code)


def _settings(**options: Any) -> Any:
    from infty.settings import load_settings

    return load_settings(**options)


def _resolve(
    settings: Any,
    experiment: str,
    model: str,
    case: str | None,
    scale: str,
    seed: int,
    overrides: list[str] | None,
    name: str | None,
) -> Any:
    """The checked cell that the options name."""
    from infty.catalog import open_experiment
    from infty.definition import Cell, variant_of
    from infty.experiment import resolve

    definition = open_experiment(experiment, settings.experiments)
    cell = Cell(
        definition.name, scale, model, case or definition.names("cases")[0], seed, variant_of(overrides or [], name)
    )
    return resolve(definition, cell, overrides or [])


def _console(stderr: bool = False) -> Any:
    from rich.console import Console

    class Lasting(Console):
        """Goes on in silence where its reader went away: `| head` must not end a training."""

        def on_broken_pipe(self) -> None:
            self.quiet = True

    return Lasting(stderr=stderr, markup=False, highlight=False)


def _show(values: dict[str, Any], as_json: bool, document: Any = None) -> None:
    """A line each, or the whole document as JSON."""
    if as_json:
        _print_json(values if document is None else document)
        return
    for key, value in values.items():
        if isinstance(value, dict):
            print(f"{key}:")
            for inner, detail in value.items():
                print(f"  {inner}: {detail}")
        else:
            print(f"{key}: {value}")


def _print_table(table: Any) -> None:
    """Drawn on a terminal; elsewhere whole lines, which other programs can read."""
    console = _console()
    if console.is_terminal:
        console.print(table.rich())
    else:
        print("\n".join([table.title, "", table.markdown(), *table.notes, ""]))


def _print_json(document: Any) -> None:
    print(json.dumps(document, indent=2, allow_nan=False))
