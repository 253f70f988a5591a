"""Tables of language modelling from finished runs."""

from infty.report.results import ResultSet, Run, mean_and_deviation
from infty.table import Table

# Metric, heading, digits.
FIGURES = [
    ("test/word_perplexity", "word perplexity", 1),
    ("test/token_perplexity", "token perplexity", 2),
    ("test/bits_per_byte", "bits a byte", 4),
    ("test/loss", "nats a token", 4),
    ("test/far_loss", "nats a far-seen token", 4),
]
TEXT_COLUMNS = [
    "experiment", "scale", "model", "case", "variant", "seed", *(metric for metric, _, _ in FIGURES), "nats", "scored",
    "words", "bytes", "parameters", "memory_slots", "tokens_seen", "wall_seconds", "best_step", "protocol",
    "data_name", "data_sha256", "tokens_sha256", "commit", "dirty", "command",
]  # fmt: skip


def perplexity_table(results: ResultSet, case: str) -> Table:
    """One column of the experiment: a row a model, its figures on the test text beside each other."""
    rows = []
    for model in results.models:
        runs = results.of(model, case)
        rows.append([model, *(_figure(runs, metric, digits) for metric, _, digits in FIGURES), str(len(runs))])
    headings = ["model", *(heading for _, heading, _ in FIGURES), "n"]
    title = f"{results.experiment}, {results.scale} scale: test figures" + ("" if case == "main" else f", {case}")
    return Table(title, headings, rows, _notes(results, case))


def text_csv_row(run: Run) -> dict[str, object]:
    """All figures of a run, unrounded."""
    r = run.result
    data = {f"data_{key}": r["data"][key] for key in ("name", "sha256")}
    named = {"variant": run.cell.variant, "protocol": r["protocol"]["name"]}
    return {**r, **r["metrics"], **r["totals"], **data, **named, "tokens_sha256": r["data"]["tokens_sha256"]}


def _notes(results: ResultSet, case: str) -> list[str]:
    notes = ["Lower is better everywhere. Mean ± standard deviation over n seeds where there are two and more."]
    if found := results.of(None, case):
        r = found[0].result
        protocol, data, far = r["protocol"], r["data"], (found[0].details or {}).get("far", {})
        token = f"{data['tokenizer']['kind']}, {data['tokenizer']['vocab_size']:,} types"
        notes += [
            f"{results.protocol}: {protocol['scored']}; memory reset: {protocol['memory_reset']}; "
            f"words {protocol['words']}.",
            f"Text: {data['title']}, {data['split']} split, {data['documents']} documents; tokens: {token}; "
            f"{r['totals']['scored']:,} tokens, {r['totals']['words']:,} words, {r['totals']['bytes']:,} bytes.",
        ]
        if far:
            notes.append(
                f"Far-seen: the {far['tokens']:,} tokens of words that came before in their document, "
                f"but last more than {far['more_than']:,} tokens ago."
            )
    if results.scale != "paper":
        notes.append(f"Scale: {results.scale}, smaller than the paper's; its figures are not the paper's.")
    if case in results.mixed_data():
        notes.append("Rows were tested on different data: not comparable.")
    if case in results.mixed_slots():
        notes.append("Rows keep different numbers of memory slots.")
    if missing := results.missing():
        notes.append(f"{len(missing)} of {len(results.wanted)} runs are missing. Next: {missing[0].command()}")
    if others := [run for run in results.runs if run.cell.variant]:
        notes.append(f"{len(others)} runs with other settings stand in no cell; the list of runs has them.")
    return notes


def _figure(runs: list[Run], metric: str, digits: int) -> str:
    values = [run.result["metrics"][metric] for run in runs if metric in run.result["metrics"]]
    if not values:
        return "–"
    mean, deviation = mean_and_deviation(values)
    return f"{mean:,.{digits}f}" + ("" if deviation is None else f" ± {deviation:,.{digits}f}")
