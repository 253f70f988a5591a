"""Reports as Markdown, as LaTeX, as CSV with a line per run and figures unrounded, and as one page with everything."""

import base64
import csv
import io
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from infty.base.table import Table, is_best
from infty.config.definition import CellKey
from infty.report.figures import Picture
from infty.report.load.results import ResultSet
from infty.report.paired_bootstrap import compare_rows
from infty.report.tables.scores import FIGURES
from infty.runs.folder import Run

PLACE = ["experiment", "scale", "model", "case", "variant", "seed"]
COST = [
    "parameters",
    "memory_slots",
    "state_bytes",
    "tokens_seen",
    "wall_seconds",
    "training_flops",
    "best_step",
    "protocol",
]
DIFFERENCE = ["difference", "difference_low", "difference_high", "difference_to"]
ORIGIN = ["commit", "dirty", "command"]
SORTED = ["length", "accuracy", "loss", "chance", "oracle", "oracle_window"]
SORT_COLUMNS = [*PLACE, *SORTED, *COST, "data_sha256", *ORIGIN]
READ = [*FIGURES, *DIFFERENCE, "nats", "scored", "words", "bytes"]
TEXT_COLUMNS = [*PLACE, *READ, *COST, "data_name", "data_sha256", "tokens_sha256", *ORIGIN]
MINUS = {ord("−"): r"\ensuremath{-}", ord("–"): "--"}  # whatever the library has for them, in a column of figures


@dataclass(frozen=True)
class Part:
    """A set of runs with what was made of it."""

    results: ResultSet
    tables: list[Table]
    pictures: list[Picture]


def to_markdown(part: Part) -> str:
    """Write the whole report of one table: tables, pictures, missing cells, and where figures come from."""
    results = part.results
    lines = [f"# {_escape_markdown(results.title)}\n"]
    for table in part.tables:
        notes = [f"- {note}" for note in table.notes]
        lines += [f"## {_escape_markdown(table.title)}\n", table.to_markdown(), *notes, ""]
    lines += [f"![{_escape_markdown(picture.title)}]({quote(picture.stem)}.svg)\n" for picture in part.pictures]
    if missing := results.missing():
        commands = [cell.command() for cell in missing]
        lines += ["## Missing runs\n\nEach is made by its command:\n", "```", *commands, "```\n"]
    figure = "word perplexity" if results.is_text else "accuracy %"
    headings = ["run", figure, "best step", "commit", "data sha256", "command"]
    runs = results.table("runs", headings, [_describe_origin(run) for run in results.runs], figures=False)
    return "\n".join([*lines, "## Runs\n", runs.to_markdown()])


def _escape_markdown(text: str) -> str:
    """Escape characters in a user's names that Markdown would take for markup."""
    return re.sub(r"([\\`*<>\[\]])", r"\\\1", text)


def _describe_origin(run: Run) -> list[str]:
    r = run.result
    figure = r.find_metric("test/word_perplexity") if r.is_text else 100 * r.metric("test/accuracy")
    shown = "–" if figure is None else f"{figure:.2f}"
    return [name_run(run), shown, str(r.best_step), name_commit(run), r.data.sha256[:12], f"`{r.command}`"]


def name_run(run: Run) -> str:
    """Name a run as lists do."""
    return f"{run.key.model}@{run.key.case}{run.key.variant} seed {run.key.seed}"


def name_commit(run: Run) -> str:
    """Name a run's commit by its first 12 digits, and say if there were uncommitted changes."""
    return (run.result.commit or "unknown")[:12] + (" + changes" if run.result.dirty else "")


def to_latex(part: Part) -> str:
    r"""Set each table as a float with its notes. Needs \usepackage{booktabs} and \usepackage{graphicx}."""
    head = f"% {part.results.name}: infty report\n% \\usepackage{{booktabs,graphicx}}\n"
    return head + "\n".join(map(_set_float, part.tables))


def _set_float(table: Table) -> str:
    columns = "l" + ("r" if table.figures else "l") * (len(table.headings) - 1)
    cells = [[rf"\textbf{{{escape(c)}}}" if is_best(c) else escape(c) for c in line] for line in table.rows]
    lines = [" & ".join(line) + r" \\" for line in (map(escape, table.headings), *cells)]
    notes = r"\par ".join(map(escape, table.notes))
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escape(table.title)}}}",
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            lines[0],
            r"\midrule",
            *lines[1:],
            r"\bottomrule",
            r"\end{tabular}}",
            *([rf"\par\smallskip\parbox{{\linewidth}}{{\footnotesize {notes}}}"] if notes else []),
            r"\end{table}",
            "",
        ]
    )


def escape(text: str) -> str:
    """Escape text for LaTeX, in ASCII."""
    return _make_encoder()(str(text))


@cache
def _make_encoder() -> Callable[[str], str]:
    from pylatexenc import latexencode as lib  # which takes long to import

    logging.getLogger("pylatexenc").setLevel(logging.ERROR)  # it warns of each character that it has no name for
    ligatures = [(re.compile(r"([-'`,?!])(?=[-'`,])"), r"\1{}")]
    rules = [
        lib.UnicodeToLatexConversionRule(lib.RULE_DICT, MINUS),
        lib.UnicodeToLatexConversionRule(lib.RULE_REGEX, ligatures),
        *lib.get_builtin_conversion_rules("defaults"),
    ]
    return lib.UnicodeToLatexEncoder(conversion_rules=rules, unknown_char_policy="unihex").unicode_to_latex


def to_csv(part: Part) -> str:
    """Write the runs as CSV."""
    text, results = io.StringIO(), part.results
    columns = TEXT_COLUMNS if results.is_text else SORT_COLUMNS
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(_describe_run(results, run) for run in results.runs)
    return text.getvalue()


def _describe_run(results: ResultSet, run: Run) -> dict[str, object]:
    r = run.result
    return {
        **r.metrics,
        **{key.removeprefix("test/"): value for key, value in r.metrics.items()},
        **r.totals.model_dump(),
        **(r.calibration.model_dump() if r.calibration else {}),
        **r.model_dump(),
        "training_flops": r.comparable_flops and float(r.comparable_flops),  # a measured figure, as seconds are
        **vars(run.key),
        **{f"data_{key}": value for key, value in r.data.model_dump().items()},
        "tokens_sha256": r.data.digests[-1],
        "length": run.length,
        "protocol": r.protocol.name,
        **(_compare_with_first(results, run) if results.is_text else {}),
    }


def _compare_with_first(results: ResultSet, run: Run) -> dict[str, object]:
    """Subtract the first row's run of the same column and seed from a run; nothing if there is none that pairs."""
    baselines = [other for other in results.of(results.baseline, run.key.case) if other is not run]
    pair = compare_rows([run], baselines)
    return dict(zip(DIFFERENCE, (pair.difference, pair.low, pair.high, results.baseline), strict=True)) if pair else {}


def to_page(parts: list[Part], folder: Path) -> str:
    """Write HTML that opens from disk and loads nothing else. folder: of the pictures, which it embeds."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.globals.clear()
    environment.filters |= {
        "facts": _list_facts,
        "group": _group_runs,
        "name": name_run,
        "read": lambda picture: base64.b64encode((folder / f"{picture.stem}.svg").read_bytes()).decode(),
    }
    count = sum(len(part.results.runs) for part in parts)
    return environment.get_template("page.html.j2").render(parts=parts, count=count)


def _group_runs(results: ResultSet) -> list[tuple[str, str, list[Run], list[CellKey]]]:
    """Group runs by cell, and last those with other settings: anchor, title, runs, and what is missing."""
    groups = [(results.anchor(m, c), results.place(m, c), own, results.missing(m, c)) for m, c, own in results.cells()]
    others = [run for run in results.runs if run.key.variant]
    return [*groups, *([(f"{results.id}~others", "other settings", others, [])] if others else [])]


def _list_facts(run: Run) -> list[tuple[str, object]]:
    """List where a run's figures come from."""
    r, at = run.result, run.environment
    machine = ", ".join(filter(None, [at.system, at.device, f"{at.threads} threads" if at.threads else ""]))
    facts = {
        **{
            name.removeprefix("test/").replace("_", " "): "–" if value is None else f"{value:.6g}"
            for name, value in r.metrics.items()
        },
        "command": r.command or "unknown",
        "seed": run.key.seed,
        "commit": name_commit(run),
        "versions": ", ".join(f"{name} {version}" for name, version in at.versions.items()) or "unknown",
        "machine": machine or "unknown",
        "data": f"{r.data.name}, sha256 {r.data.sha256}",
        "protocol": r.protocol.name,
        "best step": r.best_step,
        "parameters": f"{r.parameters:,}",
        "memory slots": f"{r.memory_slots:,}",
        "state bytes": "" if r.state_bytes is None else f"{r.state_bytes:,}",
        "training seconds": f"{r.wall_seconds:,.1f}",
        "starting weights": run.start or "",
    }
    return [(key, value) for key, value in facts.items() if value != ""]
