"""A table set as a file: Markdown with all that belongs to it, and one line a run as CSV."""

import csv
import io
import re
from urllib.parse import quote

from infty.base.table import Table
from infty.report.figures import Picture
from infty.report.load.results import ResultSet, Run
from infty.report.tables.language_modelling import TEXT_COLUMNS, text_csv_row

# fmt: off
RUN_COLUMNS = [
    "experiment", "scale", "model", "case", "variant", "seed", "length", "accuracy", "loss", "chance", "oracle",
    "oracle_window", "parameters", "memory_slots", "tokens_seen", "wall_seconds", "training_flops", "best_step",
    "protocol", "data_sha256", "commit", "dirty", "command",
]
# fmt: on


def to_markdown(results: ResultSet, tables: list[Table], pictures: list[Picture]) -> str:
    """The whole report of one table: tables, pictures, missing cells, and where figures come from."""
    parts = [f"# {_escaped(results.title)}\n"]
    for table in tables:
        parts.append(f"## {_escaped(table.title)}\n")
        parts.append(table.to_markdown())
        parts.append("\n".join(f"- {note}" for note in table.notes) + "\n")
    parts += [f"![{_escaped(picture.title)}]({quote(picture.stem)}.svg)\n" for picture in pictures]
    if results.missing():
        parts.append("## Missing runs\n\nEach is made by its command:\n")
        parts.append("```\n" + "\n".join(cell.command() for cell in results.missing()) + "\n```\n")
    parts.append("## Runs\n")
    parts.append(runs_table(results).to_markdown())
    return "\n".join(parts)


def runs_table(results: ResultSet) -> Table:
    """A line a run: its figure, and what it was made of and by."""
    figure = "word perplexity" if results.is_text else "accuracy %"
    headings = ["run", figure, "best step", "commit", "data sha256", "command"]
    return Table(f"{results.title}: runs", headings, [_provenance(run) for run in results.runs], figures=False)


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


def _escaped(text: str) -> str:
    """Signs that Markdown would take for marks, in what a user named."""
    return re.sub(r"([\\`*<>\[\]])", r"\\\1", text)


def run_name(run: Run) -> str:
    """A run's name as lists call it."""
    return f"{run.cell.model}@{run.cell.case}{run.cell.variant} seed {run.cell.seed}"


def commit_of(run: Run) -> str:
    """The first signs of it, and whether anything had been changed."""
    return (run.result["commit"] or "unknown")[:12] + (" + changes" if run.result["dirty"] else "")


def _provenance(run: Run) -> list[str]:
    best, data = str(run.result["best_step"]), run.result["data"]["sha256"][:12]
    figure = 100 * run.accuracy if run.length else run.result["metrics"]["test/word_perplexity"]
    return [run_name(run), f"{figure:.2f}", best, commit_of(run), data, f"`{run.result['command']}`"]
