"""Tables of what each row recalls, by how long ago it came."""

import statistics

from infty.base.table import Table
from infty.report.load.results import ResultSet, format_average
from infty.runs.folder import Run


def list_by_distance(results: ResultSet) -> list[Table]:
    """List per column the accuracy of each row by distance; none unless the task is recall."""
    return [table for case in results.cases for table in _list_column(results, case)]


def _list_column(results: ResultSet, case: str) -> list[Table]:
    distances = list(dict.fromkeys(at for run in results.of(None, case) if run.recall for at in run.recall.right))
    rows = [
        [model, *(_format(results.of(model, case), distance) for distance in distances)] for model in results.models
    ]
    notes = [
        "Accuracy in % of the values whose keys came so many segments before the one that asks, mean ± standard "
        "deviation over seeds. *: within reach of one layer's attention, so that it needs no memory; °: of attention "
        "from layer to layer, so that it may do without."
    ]
    headings = ["model", *(f"{distance} {'segment' if distance == '1' else 'segments'} ↑" for distance in distances)]
    title = "by distance" + ("" if case == "main" else f", {case}")
    return [results.table(title, headings, rows, notes)] if distances else []


def _format(runs: list[Run], distance: str) -> str:
    """Format the mean over seeds, marked if attention reaches so far, in one layer or through all."""
    known = [(run, run.recall) for run in runs if run.recall and distance in run.recall.right]
    if not known:
        return "–"
    values = [100 * statistics.fmean(recall.right[distance]) / recall.pairs for _, recall in known]
    near = all(run.near_segments >= int(distance) for run, _ in known)
    reached = all(run.reached_segments >= int(distance) for run, _ in known)
    return format_average(values, 1) + ("*" if near else "°" if reached else "")
