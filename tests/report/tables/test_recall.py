"""The table of recall by distance: means over seeds, and which distances need no memory."""

from typing import Any

import pytest

from infty.report.load.results import ResultSet
from infty.report.tables.recall import list_by_distance
from infty.report.tables.scores import list_accuracies
from infty.runs.folder import Run
from tests.report.handmade import make_run, sort_result
from tests.report.tables.test_pairs import collect

PROTOCOL = {"protocol": {"name": "recall-accuracy-v1"}}


def recalled(model: str, right: dict[str, list[int]], near: int, seed: int = 0, case: str = "main") -> Run:
    """A run of two sequences with 4 pairs at each distance, whose layers reach `near` segments of 8 back."""
    cell = {"experiment": "recall", "scale": "laptop", "model": model, "case": case, "seed": seed}
    answers = {"right": [sum(some) for some in zip(*right.values(), strict=True)], "symbols": 4 * len(right)}
    sizes: dict[str, Any] = {"model": {"short_term_length": 8 * near + 3, "segment_length": 8, "num_layers": 2}}
    details = {"answers": answers, "recall": {"pairs": 4, "right": right}}
    return make_run(sort_result(cell, **PROTOCOL), details, config=sizes, length=None)


def results(*runs: Run) -> ResultSet:
    return collect(list(runs), "recall")


def test_means_over_seeds_at_each_distance_and_what_attention_reaches_is_marked() -> None:
    (table,) = list_by_distance(
        results(
            recalled("delta", {"1": [4, 4], "2": [3, 4], "4": [1, 1]}, near=1),
            recalled("delta", {"1": [4, 2], "2": [4, 4], "4": [2, 2]}, near=1, seed=1),
            recalled("transformer-xl", {"1": [4, 4], "2": [4, 4], "4": [2, 0]}, near=2),
        )
    )
    assert table.headings == ["model", "1 segment ↑", "2 segments ↑", "4 segments ↑"]
    assert table.rows == [  # in two layers attention reaches two and four segments back
        ["delta", "87.5 ± 17.7*", "93.8 ± 8.8°", "37.5 ± 17.7"],
        ["transformer-xl", "100.0*", "100.0*", "25.0°"],
    ]


def test_a_column_is_a_table_and_a_row_without_a_run_a_dash() -> None:
    found = list_by_distance(
        results(
            recalled("delta", {"1": [4, 4]}, near=1, case="graph1"), recalled("mean", {"1": [0, 4]}, 1, case="graph4")
        )
    )
    assert [table.title.rpartition(": ")[2] for table in found] == ["by distance, graph1", "by distance, graph4"]
    assert found[0].rows == [["delta", "100.0*"], ["mean", "–"]]
    assert found[1].rows == [["delta", "–"], ["mean", "50.0*"]]


@pytest.mark.parametrize("protocol", ["sort-accuracy-v1", "recall-accuracy-v1", "first-seen-accuracy-v1"])
def test_notes_are_those_of_the_task(protocol: str) -> None:
    cell = {"experiment": "recall", "scale": "laptop", "model": "delta", "case": "main", "seed": 0}
    found = results(make_run(sort_result(cell, protocol={"name": protocol}), {"answers": {"right": [1], "symbols": 2}}))
    assert list_by_distance(found) == []
    notes = "\n".join(list_accuracies(found)[0].notes)
    assert ("The paper shows this figure" in notes) == (protocol == "sort-accuracy-v1")
    assert ("guessing among all values" in notes) == (protocol == "recall-accuracy-v1")
    assert ("has not named yet" in notes) == (protocol != "recall-accuracy-v1")
