"""Tables of language modelling from finished runs."""

from infty.base.table import Entry, Table
from infty.report.load.results import ResultSet, Run, mean_and_deviation
from infty.report.paired_bootstrap import Paired, best_row, interval, paired_difference, paired_over_seeds

# Metric, heading, digits.
FIGURES = [
    ("test/word_perplexity", "word perplexity", 1),
    ("test/token_perplexity", "token perplexity", 2),
    ("test/bits_per_byte", "bits a byte", 4),
    ("test/loss", "nats a token", 4),
    ("test/far_loss", "nats a far-seen token", 4),
]
SCORED, ALL = ("test/token_perplexity", "test/loss"), ("test/word_perplexity", "test/bits_per_byte")
TEXT_COLUMNS = [
    "experiment", "scale", "model", "case", "variant", "seed", *(metric for metric, _, _ in FIGURES),
    "difference", "difference_low", "difference_high", "difference_to", "nats", "scored", "words", "bytes",
    "parameters", "memory_slots", "tokens_seen", "wall_seconds", "training_flops", "best_step", "protocol",
    "data_name", "data_sha256", "tokens_sha256", "commit", "dirty", "command",
]  # fmt: skip


def perplexity_table(results: ResultSet, case: str) -> Table:
    """One column of the experiment: a row a model, its figures on the test text and its difference to the first row."""
    pairs, best, rows = _pairs(results, case), best_row(results, case), []
    # Intervals are over every token: not those of figures that leave some unscored.
    compared = ALL if any(run.result["totals"]["aside"] for run in results.of(None, case)) else (*SCORED, *ALL)
    for model in results.models:
        runs, anchor = results.of(model, case), results.anchor(model, case)
        if not runs and model not in results.rows:  # run on request, in another column
            continue
        figures = [
            Entry(_figure(runs, metric, digits), best=model == best and metric in compared, runs=anchor)
            for metric, _, digits in FIGURES
        ]
        pair = pairs.get(model)
        rows.append([model, *figures, interval(pair, results.digits) if pair else "–", str(len(runs))])
    difference = f"difference to {results.baseline}, nats a token ↓"
    headings = ["model", *(f"{heading} ↓" for _, heading, _ in FIGURES), difference, "n"]
    title = f"{results.title}: test figures" + ("" if case == "main" else f", {case}")
    return Table(title, headings, rows, _notes(results, case, pairs))


def text_csv_row(results: ResultSet, run: Run) -> dict[str, object]:
    """All figures of a run, unrounded; the difference is to the baseline's run of the same column and seed."""
    r = run.result
    data = {f"data_{key}": r["data"][key] for key in ("name", "sha256")}
    named = {"protocol": r["protocol"]["name"], "tokens_sha256": r["data"]["tokens_sha256"]}
    return {**r["metrics"], **r["totals"], **r, **vars(run.cell), **data, **named, **_csv_difference(results, run)}


def _csv_difference(results: ResultSet, run: Run) -> dict[str, object]:
    """Empty for the baseline itself and where nothing can be paired."""
    others = [other for other in results.of(results.baseline, run.cell.case) if other.cell.seed == run.cell.seed]
    pair = paired_difference(run, others[0]) if others and others[0] is not run else None
    if pair is None:
        return {}
    interval = {"difference_low": pair.low, "difference_high": pair.high}
    return {"difference": pair.difference, **interval, "difference_to": results.baseline}


def _pairs(results: ResultSet, case: str) -> dict[str, Paired]:
    """Differences to the baseline by model, without itself and without what can't be paired."""
    baselines = results.of(results.baseline, case)
    found = {m: paired_over_seeds(results.of(m, case), baselines) for m in results.models if m != results.baseline}
    return {model: pair for model, pair in found.items() if pair}


def _how_paired(baseline: str, pairs: dict[str, Paired]) -> list[str]:
    """What the intervals are; all are over the baseline's chunks."""
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


def _notes(results: ResultSet, case: str, pairs: dict[str, Paired]) -> list[str]:
    notes = [
        "Lower is better everywhere. Mean ± standard deviation over n seeds where there are two and more. In bold: "
        "better than every other row with each of two or more seeds, and by the 95 % interval."
    ]
    if found := results.of(None, case):
        r = found[0].result
        protocol, data, far = r["protocol"], r["data"], (found[0].details or {}).get("far", {})
        token = f"{data['tokenizer']['kind']}, {data['tokenizer']['vocab_size']:,} types"
        notes += [
            f"{results.protocol}: {protocol['scored']}; memory reset: {_resets(results, case)}; "
            f"words {protocol['words']}.",
            f"Text: {data['title']}, {data['split']} split, {data['documents']} documents; tokens: {token}; "
            f"{r['totals']['scored']:,} tokens, {r['totals']['words']:,} words, {r['totals']['bytes']:,} bytes.",
        ]
        if far:
            notes.append(
                f"Far-seen: the {far['tokens']:,} tokens of words that came before in their document, "
                f"but last more than {far['more_than']:,} tokens ago."
            )
    notes += _how_paired(results.baseline, pairs)
    if results.scale != "paper":
        notes.append(f"Scale: {results.scale}, smaller than the paper's; its figures are not the paper's.")
    if case in results.mixed_data():
        notes.append("Rows were tested on different data: not comparable.")
    if case in results.mixed_starts():
        notes.append("Rows were fine-tuned from different weights: not comparable.")
    if case in results.mixed_training():
        notes.append("Rows were trained on different numbers of tokens.")
    if case in results.mixed_slots():
        notes.append("Rows keep different numbers of memory slots.")
    if missing := results.missing():
        notes.append(f"{len(missing)} of {len(results.wanted)} runs are missing. Next: {missing[0].command()}")
    if others := [run for run in results.runs if run.cell.variant]:
        notes.append(f"{len(others)} runs with other settings stand in no cell; the list of runs has them.")
    return notes


def _resets(results: ResultSet, case: str) -> str:
    """Where the memory was emptied in testing; where that differs, with which rows."""
    found = results.resets(case)
    if len(found) == 1:
        return next(iter(found))
    return "; ".join(f"{reset} ({', '.join(rows)})" for reset, rows in found.items())


def _figure(runs: list[Run], metric: str, digits: int) -> str:
    values = [run.result["metrics"][metric] for run in runs if metric in run.result["metrics"]]
    if not values:
        return "–"
    mean, deviation = mean_and_deviation(values)
    return f"{mean:,.{digits}f}" + ("" if deviation is None else f" ± {deviation:,.{digits}f}")
