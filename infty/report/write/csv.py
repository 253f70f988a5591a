"""One line per run as CSV, all figures unrounded."""

import csv
import io

from infty.report.load.results import ResultSet
from infty.report.paired_bootstrap import compare_pair, match_seeds
from infty.report.tables.language_modelling import FIGURES
from infty.report.write import Part
from infty.runs.folder import Run

# fmt: off
SORT_COLUMNS = [
    "experiment", "scale", "model", "case", "variant", "seed", "length", "accuracy", "loss", "chance", "oracle",
    "oracle_window", "parameters", "memory_slots", "tokens_seen", "wall_seconds", "training_flops", "best_step",
    "protocol", "data_sha256", "commit", "dirty", "command",
]
TEXT_COLUMNS = [
    "experiment", "scale", "model", "case", "variant", "seed", *FIGURES, "difference", "difference_low",
    "difference_high", "difference_to", "nats", "scored", "words", "bytes", "parameters", "memory_slots", "tokens_seen",
    "wall_seconds", "training_flops", "best_step", "protocol", "data_name", "data_sha256", "tokens_sha256", "commit",
    "dirty", "command",
]
# fmt: on


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
        **r.totals.dump(),
        **(r.calibration.dump() if r.calibration else {}),
        **r.dump(),
        "training_flops": r.training_flops and float(r.training_flops),  # a measured figure, as seconds are
        **vars(run.key),
        **{f"data_{key}": value for key, value in r.data.dump().items()},
        "tokens_sha256": r.data.digests[-1],
        "length": run.length,
        "protocol": r.protocol.name,
        **(_compare_with_first(results, run) if results.is_text else {}),
    }


def _compare_with_first(results: ResultSet, run: Run) -> dict[str, object]:
    """Take the first row's run of the same column and seed from a run; nothing if there is none that pairs."""
    baselines = [other for other in results.of(results.baseline, run.key.case) if other is not run]
    for _, baseline in match_seeds([run], baselines):
        if pair := compare_pair(run, baseline):
            low, high = {"difference_low": pair.low}, {"difference_high": pair.high}
            return {"difference": pair.difference, **low, **high, "difference_to": results.baseline}
    return {}
