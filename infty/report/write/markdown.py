"""A set of tables as Markdown, with all that belongs to it."""

import re
from urllib.parse import quote

from infty.report.write import Part
from infty.runs.folder import Run


def to_markdown(part: Part) -> str:
    """Write the whole report of one table: tables, pictures, missing cells, and where figures come from."""
    results = part.results
    lines = [f"# {_escape(results.title)}\n"]
    for table in part.tables:
        lines += [f"## {_escape(table.title)}\n", table.to_markdown(), *(f"- {note}" for note in table.notes), ""]
    lines += [f"![{_escape(picture.title)}]({quote(picture.stem)}.svg)\n" for picture in part.pictures]
    if missing := results.missing():
        commands = [cell.command() for cell in missing]
        lines += ["## Missing runs\n\nEach is made by its command:\n", "```", *commands, "```\n"]
    figure = "word perplexity" if results.is_text else "accuracy %"
    headings = ["run", figure, "best step", "commit", "data sha256", "command"]
    runs = results.table("runs", headings, [_describe_origin(run) for run in results.runs], figures=False)
    return "\n".join([*lines, "## Runs\n", runs.to_markdown()])


def _escape(text: str) -> str:
    """Escape signs that Markdown would take for marks, in what a user named."""
    return re.sub(r"([\\`*<>\[\]])", r"\\\1", text)


def name_run(run: Run) -> str:
    """Name a run as lists do."""
    return f"{run.key.model}@{run.key.case}{run.key.variant} seed {run.key.seed}"


def name_commit(run: Run) -> str:
    """Name a run's commit by its first signs, and say if anything had been changed."""
    return (run.result.commit or "unknown")[:12] + (" + changes" if run.result.dirty else "")


def _describe_origin(run: Run) -> list[str]:
    r = run.result
    figure = r.metric("test/word_perplexity") if r.is_text else 100 * r.metric("test/accuracy")
    return [name_run(run), f"{figure:.2f}", str(r.best_step), name_commit(run), r.data.sha256[:12], f"`{r.command}`"]
