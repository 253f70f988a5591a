"""Notes that tables of both tasks have: what is not comparable, and what is missing."""

from infty.report.load.results import ResultSet


def note_scale(results: ResultSet) -> list[str]:
    """Note that figures are not the paper's, if the scale is not."""
    if results.scale == "paper":
        return []
    return [f"Scale: {results.scale}, smaller than the paper's; its figures are not the paper's."]


def note_mixtures(results: ResultSet, cases: list[str]) -> list[str]:
    """Note of which columns the runs differ in what figures depend on."""
    tested = "rows were tested on different data: not" if results.is_text else "tested on different data, not"
    faults = {
        f"{tested} comparable.": lambda run: run.result.data.sha256,
        "rows were fine-tuned from different weights: not comparable.": lambda run: run.start,
        "rows were trained on different numbers of tokens.": lambda run: run.result.tokens_seen,
        "rows keep different numbers of memory slots.": lambda run: run.result.memory_slots,
    }
    found = [
        (c, fault) for fault, figure in faults.items() for c in cases if len(set(map(figure, results.of(None, c)))) > 1
    ]
    return [fault[0].upper() + fault[1:] if results.is_text else f"Column {case}: {fault}" for case, fault in found]


def note_runs(results: ResultSet) -> list[str]:
    """Note what is missing, with the next command, and what belongs to no cell."""
    notes, missing = [], results.missing()
    if missing:
        notes.append(f"{len(missing)} of {len(results.wanted)} runs are missing. Next: {missing[0].command()}")
    if others := [run for run in results.runs if run.key.variant]:
        notes.append(f"{len(others)} runs with other settings stand in no cell; the list of runs has them.")
    return notes
