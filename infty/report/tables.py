"""The tables of an experiment from its finished runs."""

import csv
import io
import statistics

from infty.report.results import ResultSet, Run, mean_and_deviation
from infty.report.texts import TEXT_COLUMNS, text_csv_row
from infty.table import Table

# fmt: off
RUN_COLUMNS = [
    "experiment", "scale", "model", "case", "variant", "seed", "length", "accuracy", "loss", "chance", "oracle",
    "oracle_window", "parameters", "memory_slots", "tokens_seen", "wall_seconds", "best_step", "protocol",
    "data_sha256", "commit", "dirty", "command",
]
# fmt: on


def accuracy_table(results: ResultSet) -> Table:
    """Test accuracy by case, a row a model; chance and the last-window oracle stand below."""
    rows = [[model, *(_percent(results.of(model, case)) for case in results.cases)] for model in results.models]
    rows.append(["chance", *(_calibration(results, case, "chance") for case in results.cases)])
    rows.append(["last-window oracle", *(_calibration(results, case, "oracle") for case in results.cases)])
    notes = [
        f"Test accuracy in % (higher is better), mean ± standard deviation over n seeds; {results.protocol}.",
        "The paper shows this figure without numbers: compare the ordering of the models, not values.",
        "Chance: guessing among the symbols that the answer has not named yet.",
        "Oracle: exact counts of as many last symbols as one layer's attention sees with the same number of slots.",
    ]
    if results.scale != "paper":
        notes.insert(1, f"Scale: {results.scale}, smaller than the paper's; its figures are not the paper's.")
    notes += [f"Column {case}: tested on different data, not comparable." for case in results.mixed_data()]
    notes += [f"Column {case}: rows keep different numbers of memory slots." for case in results.mixed_slots()]
    if missing := results.missing():
        notes.append(f"{len(missing)} of {len(results.wanted)} runs are missing. Next: {missing[0].command()}")
    if others := [run for run in results.runs if run.cell.variant]:
        notes.append(f"{len(others)} runs with other settings stand in no cell; the list of runs has them.")
    headings = ["model", *(f"{case} ({_length(results, case)})" for case in results.cases)]
    return Table(f"{results.experiment}, {results.scale} scale: accuracy", headings, rows, notes)


def cost_table(results: ResultSet) -> Table:
    """What each row costs: parameters, slots, and seconds of training by case."""
    rows = []
    for model in results.models:
        runs = [run for run in results.plain() if run.cell.model == model]
        seconds = [_mean(results.of(model, case), "wall_seconds") for case in results.cases]
        rows.append([model, _same(runs, "parameters"), _same(runs, "memory_slots"), *seconds])
    headings = ["model", "parameters", "memory slots", *(f"{case} seconds" for case in results.cases)]
    notes = ["Memory slots a layer. Seconds of optimiser steps, mean over seeds, on the machine of each run."]
    return Table(f"{results.experiment}, {results.scale} scale: cost", headings, rows, notes)


def to_markdown(results: ResultSet, tables: list[Table]) -> str:
    """The whole report of one table: tables, figure, missing cells, and where every figure comes from."""
    parts = [f"# {results.experiment}, {results.scale} scale\n"]
    for table in tables:
        parts.append(f"## {table.title}\n")
        parts.append(table.markdown())
        parts.append("\n".join(f"- {note}" for note in table.notes) + "\n")
    title, cases = ("Loss by distance", results.cases) if results.is_text else ("Accuracy by length", ["main"])
    parts += [f"![{title}]({results.picture(case)}.svg)\n" for case in cases]
    if results.missing():
        parts.append("## Missing runs\n\nEach is made by its command:\n")
        parts.append("```\n" + "\n".join(cell.command() for cell in results.missing()) + "\n```\n")
    parts.append("## Runs\n")
    figure = "word perplexity" if results.is_text else "accuracy %"
    headings = ["run", figure, "best step", "commit", "data sha256", "command"]
    parts.append(Table("", headings, [_provenance(run) for run in results.runs], []).markdown())
    return "\n".join(parts)


def runs_csv(results: ResultSet) -> str:
    """One line a run, all figures unrounded."""
    text = io.StringIO()
    columns = TEXT_COLUMNS if results.is_text else RUN_COLUMNS
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for run in results.runs:
        if results.is_text:
            writer.writerow(text_csv_row(results, run))
            continue
        r = run.result
        named = {"accuracy": run.accuracy, "loss": r["metrics"]["test/loss"], "length": run.length}
        nested = {"protocol": r["protocol"]["name"], "data_sha256": r["data"]["sha256"]}
        writer.writerow({**r, **r["calibration"], **vars(run.cell), **named, **nested})
    return text.getvalue()


def _percent(runs: list[Run]) -> str:
    if not runs:
        return "–"
    mean, deviation = mean_and_deviation([100 * run.accuracy for run in runs])
    return f"{mean:.1f} (n = 1)" if deviation is None else f"{mean:.1f} ± {deviation:.1f} (n = {len(runs)})"


def _calibration(results: ResultSet, case: str, key: str) -> str:
    found = results.of(None, case)
    return f"{100 * found[0].result['calibration'][key]:.1f}" if found else "–"


def _length(results: ResultSet, case: str) -> str:
    found = results.of(None, case)
    return f"{found[0].length:,} symbols" if found and found[0].length else "no run"


def _mean(runs: list[Run], key: str) -> str:
    return f"{statistics.fmean(run.result[key] for run in runs):,.0f}" if runs else "–"


def _same(runs: list[Run], key: str) -> str:
    """A figure that all runs share, or its range."""
    values = sorted({run.result[key] for run in runs})
    return " to ".join(f"{value:,}" for value in dict.fromkeys((values[0], values[-1]))) if values else "–"


def _provenance(run: Run) -> list[str]:
    commit = (run.result["commit"] or "unknown")[:12] + (" + changes" if run.result["dirty"] else "")
    name = f"{run.cell.model}@{run.cell.case}{run.cell.variant} seed {run.cell.seed}"
    best, data = str(run.result["best_step"]), run.result["data"]["sha256"][:12]
    figure = 100 * run.accuracy if run.length else run.result["metrics"]["test/word_perplexity"]
    return [name, f"{figure:.2f}", best, commit, data, f"`{run.result['command']}`"]
