"""Tables of what each row scored: accuracy of sorting, and the losses of a text."""

from infty.base.table import Entry, Table
from infty.report.load.results import ResultSet, format_average, list_metric
from infty.report.paired_bootstrap import Difference, compare_rows, find_best_row
from infty.runs.folder import Run
from infty.runs.parts import TextData
from infty.tasks.protocols import NO_FIGURE

FIGURES = {  # metric: heading, digits
    "test/word_perplexity": ("word perplexity", 1),
    "test/token_perplexity": ("token perplexity", 2),
    "test/bits_per_byte": ("bits a byte", 4),
    "test/loss": ("nats a token", 4),
    "test/far_loss": ("nats a far-seen token", 4),
}
OF_SORTING = (
    "Chance: guessing among the symbols that the answer has not named yet.",
    "Oracle: exact counts of as many last symbols as one layer's attention sees with the same number of slots.",
)
REFERENCES = {  # by protocol, whatever its version: what figures are compared with
    "sort-accuracy": (
        "The paper shows this figure without numbers: compare the ordering of the models, not values.",
        *OF_SORTING,
    ),
    "recall-accuracy": (
        "Chance: guessing among all values.",
        "Oracle: knows the pairs among as many last symbols as a layer keeps vectors, and guesses the others.",
    ),
}
SCORED, ALL = ("test/token_perplexity", "test/loss"), ("test/word_perplexity", "test/bits_per_byte")


def list_accuracies(results: ResultSet) -> list[Table]:
    """List test accuracy by case, a row per model, with chance and the last-window oracle below, and differences."""
    if results.is_text:
        return []
    best = {case: find_best_row(results, case) for case in results.cases}
    columns = {case: results.of(None, case) for case in results.cases}
    rows: list[list[str]] = [
        [model, *(_format_accuracy(results, model, case, best=best[case] == model) for case in results.cases)]
        for model in results.models
    ]
    for name, key in (("chance", "chance"), ("last-window oracle", "oracle")):
        values = [getattr(runs[0].result.calibration, key) if runs else None for runs in columns.values()]
        rows.append([name, *("–" if value is None else f"{100 * value:.1f}" for value in values)])
    notes = [
        f"Test accuracy in %, mean ± standard deviation over n seeds; {results.protocol}. In bold: ahead of every "
        "other row with each of two or more seeds, and by the 95 % interval.",
        *_note_scale(results),
        *REFERENCES.get(results.runs[0].result.protocol.name.rpartition("-")[0], OF_SORTING),
        *_note_faults(results, results.cases),
    ]
    headings = [f"{name_column(results, case)} ↑{_describe_length(runs)}" for case, runs in columns.items()]
    return [results.table("accuracy", ["model", *headings], rows, notes), *_compare_with_first(results)]


def _describe_length(runs: list[Run]) -> str:
    """Describe how long a column's sequences are, if that is a setting."""
    if not runs:
        return " (no run)"
    return f" ({runs[0].length:,} symbols)" if runs[0].length else ""


def list_text_figures(results: ResultSet) -> list[Table]:
    """List per column each row's figures on the test text, and its difference to the first row."""
    return [_list_column(results, case) for case in results.cases] if results.is_text else []


def name_column(results: ResultSet, case: str) -> str:
    """Name a column, with its number of basis functions if columns differ by it."""
    sizes = {run.num_basis for run in results.of(None, case) if run.num_basis}
    several = {run.num_basis for run in results.plain() if run.num_basis}
    return f"{case}, N = {sizes.pop()}" if len(several) > 1 and len(sizes) == 1 else case


def _compare_with_first(results: ResultSet) -> list[Table]:
    """Tell how many points of accuracy each row is ahead of the first, by case; nothing if no two can be paired."""
    found = {
        model: [compare_rows(results.of(model, c), results.of(results.baseline, c)) for c in results.cases]
        for model in results.models[1:]
    }
    paired = [pair for pairs in found.values() for pair in pairs if pair]
    if not paired:
        return []
    rows = [[model, *(pair.format(1) if pair else "–" for pair in pairs)] for model, pairs in found.items()]
    notes = [
        f"Points of accuracy ahead of {results.baseline} on the same test sequences, over the seeds that both rows "
        f"have. In brackets the 95 % interval: bootstrap (percentiles) over {paired[0].samples} sequences. One that "
        "holds 0 means no difference seen; it says nothing of what another seed would give."
    ]
    headings = ["model", *(f"{case} ↑" for case in results.cases)]
    return [results.table(f"difference to {results.baseline}", headings, rows, notes)]


def _format_accuracy(results: ResultSet, model: str, case: str, *, best: bool) -> str:
    values = [results.measure.of(run) for run in results.of(model, case)]
    text = f"{format_average(values, 1)} (n = {len(values)})" if values else "–"
    return Entry(text, best=best, runs=results.anchor(model, case))


def _list_column(results: ResultSet, case: str) -> Table:
    best, baselines, rows = find_best_row(results, case), results.of(results.baseline, case), []
    found = {model: compare_rows(results.of(model, case), baselines) for model in results.models[1:]}
    # Intervals are over every token, so they are not those of figures that leave some unscored.
    compared = ALL if any(run.result.totals.aside for run in results.of(None, case)) else (*SCORED, *ALL)
    for model in results.models:
        runs, anchor, pair = results.of(model, case), results.anchor(model, case), found.get(model)
        if runs or model in results.rows:  # not one that was run on request, in another column
            figures = [
                Entry(format_average(list_metric(runs, metric), digits), best=model == best and metric in compared,
                      runs=anchor)
                for metric, (_, digits) in FIGURES.items()
            ]  # fmt: skip
            rows.append([model, *figures, pair.format(results.measure.digits) if pair else "–", str(len(runs))])
    difference = f"difference to {results.baseline}, nats a token ↓"
    headings = ["model", *(f"{heading} ↓" for heading, _ in FIGURES.values()), difference, "n"]
    notes = [
        "Lower is better everywhere. Mean ± standard deviation over n seeds where there are two and more. In bold: "
        "better than every other row with each of two or more seeds, and by the 95 % interval.",
        *_describe_text(results, results.of(None, case)),
        *_describe_interval(results.baseline, [pair for pair in found.values() if pair]),
        *([NO_FIGURE] if any(None in run.result.metrics.values() for run in results.of(None, case)) else []),
        *_note_scale(results),
        *_note_faults(results, [case]),
    ]
    return results.table("test figures" + ("" if case == "main" else f", {case}"), headings, rows, notes)


def _describe_text(results: ResultSet, runs: list[Run]) -> list[str]:
    """Describe what a column's runs were tested on, and how; nothing without runs."""
    if not runs or not isinstance(data := runs[0].result.data, TextData):
        return []
    r, parts = runs[0].result, runs[0].parts
    resets: dict[str, dict[str, None]] = {}  # by where the memory was emptied, the rows of each
    for run in runs:
        resets.setdefault(str(run.result.protocol.memory_reset), {})[run.key.model] = None
    several = [f"{reset} ({', '.join(rows)})" for reset, rows in resets.items()]
    reset = "; ".join(several if len(resets) > 1 else resets)
    token = f"{data.tokenizer.kind}, {data.tokenizer.vocab_size:,} types"
    far = parts and (
        f"Far-seen: the {parts.far.tokens:,} tokens of words that came before in their document, "
        f"but last more than {parts.far.more_than:,} tokens ago."
    )
    return [
        f"{results.protocol}: {r.protocol.scored}; memory reset: {reset}; words {r.protocol.words}.",
        f"Text: {data.title}, {data.split} split, {data.documents} documents; tokens: {token}; "
        f"{r.totals.scored:,} tokens, {r.totals.words:,} words, {r.totals.bytes:,} bytes.",
        *([far] if far else []),
    ]


def _describe_interval(baseline: str, pairs: list[Difference]) -> list[str]:
    """Describe the intervals, which are all over the baseline's chunks."""
    return [
        f"Difference to {baseline} over every token of the same test text, and over the seeds that both rows have; "
        f"below 0 is better. In brackets the 95 % interval: bootstrap (percentiles) over {pair.samples} chunks of "
        "about 5,000 tokens of the text. One that holds 0 means no difference seen; it says nothing of what another "
        "seed would give. Chunks are drawn as if independent, but those of a document are alike: it is too narrow, the "
        "more so the fewer documents there are, and with a few documents no interval can be given."
        for pair in pairs[:1]
    ]


def _note_scale(results: ResultSet) -> list[str]:
    """Note that figures are not the paper's, if the scale is not."""
    note = f"Scale: {results.scale}, smaller than the paper's; its figures are not the paper's."
    return [note] if results.scale != "paper" else []


def _note_faults(results: ResultSet, cases: list[str]) -> list[str]:
    """Note what columns mix that figures depend on, what is missing, with the next command, and what has no cell."""
    tested = "rows were tested on different data: not" if results.is_text else "tested on different data, not"
    faults = {
        f"{tested} comparable.": lambda run: run.result.data.sha256,
        "rows were fine-tuned from different weights: not comparable.": lambda run: run.start,
        "rows were trained on different numbers of tokens.": lambda run: run.result.tokens_seen,
        "rows keep different numbers of memory slots.": lambda run: run.result.memory_slots,
    }
    notes = [
        fault[0].upper() + fault[1:] if results.is_text else f"Column {case}: {fault}"
        for fault, figure in faults.items()
        for case in cases
        if len(set(map(figure, results.of(None, case)))) > 1
    ]
    if missing := results.missing():
        notes.append(f"{len(missing)} of {len(results.wanted)} runs are missing. Next: {missing[0].command()}")
    if others := [run for run in results.runs if run.key.variant]:
        notes.append(f"{len(others)} runs with other settings stand in no cell; the list of runs has them.")
    return notes
