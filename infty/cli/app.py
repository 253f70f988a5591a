"""The command line. A command is a few lines that call one function; everything heavy is imported inside."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer import Argument, Option

from infty.base.errors import DifferenceError, InftyError, UsageError
from infty.cli import output
from infty.cli.completion import complete_protocol, complete_run
from infty.cli.data import data_app
from infty.cli.options import CellOptions, Group, InferenceOptions, Json, MachineOptions, Runs, Scale, Threads, expand
from infty.cli.tables import report, reproduce, tune
from infty.machine.launch import detect_launch
from infty.tasks.protocols import KnockOut

TOGETHER = ("train", "eval")  # commands that several processes can run together

app = typer.Typer(
    cls=Group,
    help="Experiments on ∞-former's unbounded long-term memory (arXiv 2109.00301).",
    epilog="Start with: infty train sort --case x8  ·  infty eval sort --case x8  ·  infty report",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data_app)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(version("infty-former"))
        raise typer.Exit


@app.callback()
def begin(
    ctx: typer.Context,
    version: Annotated[  # noqa: ARG001
        bool, Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
    quiet: Annotated[
        bool, Option("-q", "--quiet", help="No progress on stderr: warnings, errors and results alone.")
    ] = False,
    verbose: Annotated[
        bool,
        Option(
            "-v", "--verbose", help="Where an unexpected fault comes from (as INFTY_DEBUG=1), and where settings do."
        ),
    ] = False,
) -> None:
    """Experiments on ∞-former's unbounded long-term memory (arXiv 2109.00301)."""
    output.CALL.quiet, output.CALL.verbose = quiet, verbose
    ctx.with_resource(output.show_progress(output.open_console(stderr=True)))
    if detect_launch().size > 1 and ctx.invoked_subcommand not in TOGETHER:
        raise UsageError(f"{ctx.invoked_subcommand} is one process's work; {' and '.join(TOGETHER)} are for several")


@app.command(epilog="Example: infty train sort --model infty --case x8 --seed 0")
@expand
def train(
    cell_options: CellOptions,
    machine_options: MachineOptions,
    dry_run: Annotated[bool, Option("--dry-run", help="Sizes and predicted time; writes nothing.")] = False,
    fresh: Annotated[bool, Option("--fresh", help="Remove what this run left, and start over.")] = False,
    as_json: Json = False,
) -> None:
    """Train one cell of an experiment, or go on where it stopped, and test it.

    On several GPUs or machines: torchrun … -m infty train …
    """
    from infty.commands import train as workflow
    from infty.commands.dry_run import forecast

    machine = machine_options.read_settings()
    cell = cell_options.resolve_cell(machine)
    if dry_run:
        if detect_launch().leads:
            output.show_values(forecast(cell, machine), as_json)
        return
    output.show_outcome(workflow.train_cell(cell, machine, fresh=fresh), as_json)


@app.command("eval", epilog="Example: infty eval sort --model infty --case x8  ·  infty eval sort --stream symbols.txt")
@expand
def evaluate(
    cell_options: CellOptions,
    machine_options: InferenceOptions,
    split: Annotated[
        Literal["test", "validation"] | None, Option(help="Which part of the data; by default test.")
    ] = None,
    protocol: Annotated[
        str | None, Option(help="By default the experiment's own.", autocompletion=complete_protocol)
    ] = None,
    batch: Annotated[int | None, Option(min=1, help="Sequences at once; never changes the result.")] = None,
    check_batch: Annotated[
        bool, Option("--check-batch", help="Show that it doesn't: evaluate with 1, 2 and 7.")
    ] = False,
    knock_out: Annotated[
        KnockOut | None, Option(help="Evaluate with the memory emptied, its past shuffled, or another document's.")
    ] = None,
    stream: Annotated[
        Path | None, Option(metavar="FILE", help="Read one text of any length, at constant memory; - is stdin.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Evaluate the best checkpoint of a cell."""
    from infty.commands import evaluate as assessment

    machine = machine_options.read_settings()
    cell = cell_options.resolve_cell(machine)

    # Refuse options that exclude each other before a model is loaded.
    if detect_launch().size > 1 and (check_batch or stream):
        raise UsageError("--check-batch and --stream are one process's work")
    if stream:
        others = {"--knock-out": knock_out, "--protocol": protocol, "--split": split}
        output.refuse_given(others, "--stream, which reads one text as it comes")
    if check_batch and (batch or stream or knock_out):
        raise UsageError("--check-batch evaluates with 1, 2 and 7 and nothing else changed: leave the others out")

    # Do one of three things: a stream, a comparison of batch sizes, or the evaluation itself.
    request = assessment.EvaluationRequest(split or "test", batch, protocol, knock_out)
    if stream:
        outcome = assessment.stream_cell(cell, machine, stream, batch)
        output.show_values(output.summarize_stream(outcome), as_json, document=outcome)
    elif check_batch:
        found = assessment.check_cell(cell, machine, request)
        output.show_values(found, as_json)
        if not found["same"]:
            raise DifferenceError(
                f"{found['protocol']}: nats by batch size differ by {found['relative_difference']:.2g} of the total, "
                "which is a fault of infty: please report it, with what `infty env` says"
            )
    else:
        output.show_outcome(assessment.evaluate_cell(cell, machine, request), as_json)


@app.command(epilog="Example: infty generate wikitext --prompt 'The city' --tokens 50")
@expand
def generate(
    cell_options: CellOptions,
    machine_options: InferenceOptions,
    prompt: Annotated[
        str | None, Option(metavar="TEXT", help="What it goes on from; by default a document begins.")
    ] = None,
    file: Annotated[Path | None, Option(metavar="FILE", help="The same from a file of any length; - is stdin.")] = None,
    tokens: Annotated[int, Option(min=1, help="Tokens to make.")] = 100,
    temperature: Annotated[
        float, Option(min=0.0, help="Low keeps to what is likely; 0 takes the most likely token.")
    ] = 0.8,
    top_k: Annotated[int, Option(min=1, help="Draw from so many of the most likely tokens.")] = 40,
    draw: Annotated[int, Option(min=0, max=2**31 - 1, help="Seed of the draws.")] = 0,
    batch: Annotated[
        int | None, Option(min=1, help="Each line of FILE is a text of its own: go on from so many side by side.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Continue a text with the best checkpoint of a cell, its memory carried from the first token on."""
    if prompt is not None and file is not None:
        raise UsageError("--prompt and --file are two texts to go on from: give one of them")
    if batch and file is None:
        raise UsageError("--batch is for texts in a file, a line each: give --file as well")

    from infty.commands.generate import Sampling, continue_lines, continue_text, open_writer

    machine = machine_options.read_settings()
    cell = cell_options.resolve_cell(machine)
    writer = open_writer(cell, machine, tokens, Sampling(temperature, top_k, draw))
    if batch and file:
        made = list[dict[str, Any]]()
        for number, outcome in enumerate(continue_lines(writer, file, batch), 1):
            made.append(outcome)
            if not as_json:
                _write(f"{number}: {outcome['text']}\n")
        if as_json:
            output.print_json(made)
        return
    outcome = continue_text(writer, (prompt or "") if file is None else file, (lambda _: None) if as_json else _write)
    if as_json:
        output.print_json(outcome)
        return
    _write("\n")
    if (count := outcome["generated_tokens"]) < tokens:
        output.open_console(stderr=True).print(f"the text ended after {count} tokens")


def _write(piece: str) -> None:
    """Write a piece at once; end without an error if the reader has gone away, as `| head` does."""
    try:
        print(piece, end="", flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still to be flushed
        raise typer.Exit from None


app.command(epilog="Example: infty reproduce sort --scale smoke --jobs 2")(reproduce)
app.command(epilog="Example: infty report data/runs --format md,html")(report)
app.command(epilog="Example: infty tune sort --scale laptop")(tune)


@app.command(epilog="Example: infty compare sort/laptop/infty@x8/seed-0 sort/laptop/infty@x8/seed-1")
def compare(
    names: Annotated[
        list[str],
        Argument(metavar="RUN RUN...", help="Run folders, or their place below --runs.", autocompletion=complete_run),
    ],
    as_json: Json = False,
    runs: Runs = None,
) -> None:
    """Show what differs between runs: settings, versions and figures."""
    from infty.commands.compare import compare_runs

    compared = compare_runs(names, output.read_settings(runs=runs).runs)
    output.show_tables(compared.tables, compared.document(), as_json)


@app.command(epilog="Example: infty export sort/laptop/infty@x8/seed-0 --out infty.zip")
def export(
    name: Annotated[
        str, Argument(metavar="RUN", help="Run folder, or its place below --runs.", autocompletion=complete_run)
    ],
    out: Annotated[Path | None, Option(metavar="FILE", help="By default named after the run, here.")] = None,
    as_json: Json = False,
    runs: Runs = None,
) -> None:
    """Write one archive of a finished run: its configuration, results and best checkpoint."""
    from infty.commands.export import export_run
    from infty.runs.folder import find_run

    file = export_run(find_run(name, output.read_settings(runs=runs).runs), out)
    output.show_values({"file": str(file), "megabytes": round(file.stat().st_size / 1e6, 1)}, as_json)


@app.command(epilog="Example: infty clean  ·  infty clean sort/laptop/infty@x8/seed-0 --yes")
def clean(
    names: Annotated[
        list[str] | None,
        Argument(metavar="[RUN]...", help="By default every finished run and trial.", autocompletion=complete_run),
    ] = None,
    yes: Annotated[bool, Option("--yes", help="Remove what is listed.")] = False,
    as_json: Json = False,
    runs: Runs = None,
) -> None:
    """List what finished runs keep that no report needs (checkpoints, W&B's files), and remove it."""
    from infty.commands.clean import find_dispensable, remove

    output.warn_of_no_folder(runs)
    found = find_dispensable(output.read_settings(runs=runs).runs, names or [])
    found, faults = remove(found) if yes else (found, [])
    output.show_tables(lambda: [found.table(removed=yes)], {**found.document(), "removed": yes}, as_json)
    if faults:
        raise InftyError("\n".join([*faults, "what is left is found again by: infty clean"]))


@app.command("list", epilog="Example: infty list --scale laptop")
def list_experiments(scale: Scale = "laptop", as_json: Json = False, runs: Runs = None) -> None:
    """List the experiments, and the state of each of their cells."""
    from infty.commands.listing import list_cells, overview_tables

    output.warn_of_no_folder(runs)
    rows = list_cells(output.read_settings(runs=runs), scale)
    output.show_tables(lambda: overview_tables(rows, scale), rows, as_json)


@app.command(epilog="Example: infty show sort --model compressive --case x16 --scale paper")
@expand
def show(
    cell_options: Annotated[CellOptions, "experiment", "model", "case", "scale", "overrides"], as_json: Json = False
) -> None:
    """Show a cell's resolved configuration: each value, where it comes from, and what it is in the paper."""
    from infty.commands.listing import explain, explanation_table

    cell = cell_options.resolve_cell(output.read_settings())
    values = list(explain(cell.experiment, cell.origins))
    output.show_tables(lambda: [explanation_table(cell.key, values)], values, as_json)


@app.command(epilog="Example: infty bench step read --against literal.py --json")
def bench(
    measures: Annotated[
        list[str] | None,
        Argument(
            metavar="[MEASURE]...", help="step, read, update, stream, data, beside, generate, start; peers, memories."
        ),
    ] = None,
    against: Annotated[
        Path | None, Option(metavar="FILE", help="A plain implementation to hold against; it is run.")
    ] = None,
    length: Annotated[int, Option(min=1, help="Symbols of a sequence in a step.")] = 4000,
    batch: Annotated[int, Option(min=1, help="Sequences in a step.")] = 2,
    rounds: Annotated[int, Option(min=1, help="How often each takes its turn.")] = 5,
    device: Annotated[
        str | None, Option(help="A GPU, as cuda: milliseconds of a step by row and precision, and of attention.")
    ] = None,
    as_json: Json = False,
    threads: Threads = 2,
) -> None:
    """Measure speed and memory on the CPU, as ratios taken in turn in fresh processes. Wants a quiet machine."""
    from infty.commands.bench.measures import Bench, run_measures

    setting = Bench(against, length, batch, rounds, threads or 2, device)
    for measure in run_measures(setting, measures or []):
        document = {**measure.document(), "environment": setting.environment()}
        print(json.dumps(document) if as_json else measure.format_line(), flush=True)


@app.command(epilog="Example: infty env --json")
@expand
def env(machine_options: Annotated[MachineOptions, "runs", "device", "threads"], as_json: Json = False) -> None:
    """Show versions, device, threads and paths, to paste into a bug report."""
    from infty.config.settings import find_toml
    from infty.machine.placement import prepare_machine

    machine = machine_options.read_settings()
    chosen = prepare_machine(machine)
    paths = {"infty.toml": str(find_toml()), **{key: str(value) for key, value in machine.model_dump().items()}}
    output.show_values({**chosen.describe_environment(), "settings": paths}, as_json)
