"""Tables of language modelling from finished runs."""

from infty.base.table import Entry, Table
from infty.report.load.results import ResultSet, format_average
from infty.report.paired_bootstrap import Difference, compare_rows, find_best_row
from infty.report.tables.notes import note_mixtures, note_runs, note_scale
from infty.runs.folder import Run
from infty.runs.parts import TextData

FIGURES = {  # metric: heading, digits
    "test/word_perplexity": ("word perplexity", 1),
    "test/token_perplexity": ("token perplexity", 2),
    "test/bits_per_byte": ("bits a byte", 4),
    "test/loss": ("nats a token", 4),
    "test/far_loss": ("nats a far-seen token", 4),
}
SCORED, ALL = ("test/token_perplexity", "test/loss"), ("test/word_perplexity", "test/bits_per_byte")


def list_text_figures(results: ResultSet) -> list[Table]:
    """List per column each row's figures on the test text, and its difference to the first row."""
    return [_list_column(results, case) for case in results.cases] if results.is_text else []


def _list_column(results: ResultSet, case: str) -> Table:
    best, baselines, rows = find_best_row(results, case), results.of(results.baseline, case), []
    found = {model: compare_rows(results.of(model, case), baselines) for model in results.models[1:]}
    pairs = {model: pair for model, pair in found.items() if pair}
    # Intervals are over every token: not those of figures that leave some unscored.
    compared = ALL if any(run.result.totals.aside for run in results.of(None, case)) else (*SCORED, *ALL)
    for model in results.models:
        runs, anchor = results.of(model, case), results.anchor(model, case)
        if not runs and model not in results.rows:  # run on request, in another column
            continue
        figures: list[str] = []
        for metric, (_, digits) in FIGURES.items():
            values = [value for run in runs if (value := run.result.find_metric(metric)) is not None]
            figures.append(
                Entry(format_average(values, digits), best=model == best and metric in compared, runs=anchor)
            )
        difference = pairs[model].format(results.measure.digits) if model in pairs else "–"
        rows.append([model, *figures, difference, str(len(runs))])
    difference = f"difference to {results.baseline}, nats a token ↓"
    headings = ["model", *(f"{heading} ↓" for heading, _ in FIGURES.values()), difference, "n"]
    name = "test figures" + ("" if case == "main" else f", {case}")
    return results.table(name, headings, rows, _list_notes(results, case, pairs))


def _list_notes(results: ResultSet, case: str, pairs: dict[str, Difference]) -> list[str]:
    return [
        "Lower is better everywhere. Mean ± standard deviation over n seeds where there are two and more. In bold: "
        "better than every other row with each of two or more seeds, and by the 95 % interval.",
        *_describe_text(results, results.of(None, case)),
        *_describe_interval(results.baseline, pairs),
        *note_scale(results),
        *note_mixtures(results, [case]),
        *note_runs(results),
    ]


def _describe_text(results: ResultSet, runs: list[Run]) -> list[str]:
    """Describe what a column's runs were tested on, and how; nothing without runs."""
    if not runs or not isinstance(data := runs[0].result.data, TextData):
        return []
    r, parts = runs[0].result, runs[0].parts
    token = f"{data.tokenizer.kind}, {data.tokenizer.vocab_size:,} types"
    notes = [
        f"{results.protocol}: {r.protocol.scored}; memory reset: {_describe_resets(runs)}; words {r.protocol.words}.",
        f"Text: {data.title}, {data.split} split, {data.documents} documents; tokens: {token}; "
        f"{r.totals.scored:,} tokens, {r.totals.words:,} words, {r.totals.bytes:,} bytes.",
    ]
    if parts:
        notes.append(
            f"Far-seen: the {parts.far.tokens:,} tokens of words that came before in their document, "
            f"but last more than {parts.far.more_than:,} tokens ago."
        )
    return notes


def _describe_interval(baseline: str, pairs: dict[str, Difference]) -> list[str]:
    """Describe the intervals, which are all over the baseline's chunks."""
    if not pairs:
        return []
    chunks = next(iter(pairs.values())).samples
    return [
        f"Difference to {baseline} over every token of the same test text, and over the seeds that both rows have; "
        f"below 0 is better. In brackets the 95 % interval: bootstrap (percentiles) over {chunks} chunks of about "
        "5,000 tokens of the text. One that holds 0 means no difference seen; it says nothing of what another seed "
        "would give. Chunks are drawn as if independent, but those of a document are alike: it is too narrow, the more "
        "so the fewer documents there are, and with a few documents no interval can be given."
    ]


def _describe_resets(runs: list[Run]) -> str:
    """Describe the places at which the memory was emptied in testing; if these differ, with the rows of each."""
    found: dict[str, dict[str, None]] = {}
    for run in runs:
        found.setdefault(str(run.result.protocol.memory_reset), {})[run.key.model] = None
    if len(found) == 1:
        return next(iter(found))
    return "; ".join(f"{reset} ({', '.join(rows)})" for reset, rows in found.items())
