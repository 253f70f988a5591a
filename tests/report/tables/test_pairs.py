"""The table of pairs says of each two rows what their runs say, and no more; that of reading, what was measured."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infty.config.definition import SHIPPED, CellKey
from infty.report import write_report
from infty.report.load.results import ResultSet
from infty.report.tables.differences import compare_by_distance, compare_neighbours
from infty.report.tables.memory_influence import describe_memories
from infty.runs.folder import Run
from infty.runs.schemas import MemoryTrace
from tests.report.handmade import NOTHING, evaluation, make_run, memory, sort_result, text_result
from tests.report.test_paired_bootstrap import put

pytestmark = pytest.mark.usefixtures("undrawn")

ROWS = ("transformer-xl", "compressive", "infty")


def cell(model: str, case: str = "main", seed: int = 0, scale: str = "laptop") -> dict[str, Any]:
    return {"experiment": "wikitext", "scale": scale, "model": model, "case": case, "seed": seed}


def collect(runs: list[Run], name: str = "wikitext", scale: str = "laptop", rows: tuple[str, ...] = ()) -> ResultSet:
    wanted = [CellKey(name, scale, model, "main") for model in rows]
    return ResultSet(name, scale, "p", runs, wanted, f"{name}-{scale}")


def results(nats: dict[str, list[list[float]]], scale: str = "laptop") -> ResultSet:
    """By row, each seed's losses in two chunks of 10 tokens."""
    runs = [
        make_run(text_result(cell(model, "main", seed, scale)), {"chunks": {"nats": own, "tokens": [10, 10]}})
        for model, seeds in nats.items()
        for seed, own in enumerate(seeds)
    ]
    return collect(runs, "wikitext", scale, ROWS)


def trace(found: ResultSet, *changes: dict[str, Any]) -> ResultSet:
    """Results whose last runs have traces of two layers, or as many as there are gazes."""
    traces = [MemoryTrace.check({**memory(len(one["reach"]["share"])), **one}, "x") for one in changes]
    first = len(found.runs) - len(traces)
    runs = [replace(run, trace=one) for run, one in zip(found.runs[first:], traces, strict=True)]
    return replace(found, runs=[*found.runs[:first], *runs])


def said(nats: dict[str, list[list[float]]], scale: str = "laptop") -> dict[tuple[str, str], tuple[str, str, str]]:
    table, _ = compare_neighbours(results(nats, scale))
    assert {line[0] for line in table.rows} == {"main"}
    return {(line[1], line[2]): (line[3], line[4], line[5]) for line in table.rows}


def test_every_two_rows_with_each_seed_s_own_difference() -> None:
    found = said(
        {"transformer-xl": [[50, 50], [50, 50]], "compressive": [[52, 44], [49, 51]], "infty": [[41, 43], [48, 44]]}
    )
    assert found == {
        ("compressive", "transformer-xl"): ("−0.1000 [−0.2500, +0.0500]", "−0.2000, +0.0000", "no difference seen"),
        ("infty", "transformer-xl"): ("−0.6000 [−0.6500, −0.5500]", "−0.8000, −0.4000", "ahead with 2 of 2 seeds"),
        ("infty", "compressive"): ("−0.5000 [−0.6000, −0.4000]", "−0.6000, −0.4000", "ahead with 2 of 2 seeds"),
    }  # fmt: skip


def test_a_difference_that_is_seen_never_reads_as_if_its_interval_ended_at_0() -> None:
    found = said({"transformer-xl": [[50, 50]], "infty": [[50.0002, 50.00002]], "compressive": [[50.0, 50.0]]})
    assert found["infty", "transformer-xl"][0] == "+0.000011 [+0.000002, +0.000020]"
    assert found["compressive", "transformer-xl"][0] == "+0.0000 [+0.0000, +0.0000]"


def test_seeds_that_disagree_are_told() -> None:
    found = said({"transformer-xl": [[50, 50]] * 3, "infty": [[60, 60], [70, 70], [49, 49]]})
    assert found["infty", "transformer-xl"][1:] == (
        "+1.0000, +2.0000, −0.1000",
        "behind with 2 of 3 seeds",
    )


def test_one_seed_is_told_and_a_smoke_run_says_nothing() -> None:
    nats = {"transformer-xl": [[50.0, 50.0]], "infty": [[60.0, 60.0], [1.0, 1.0]]}
    assert said(nats)["infty", "transformer-xl"][1:] == ("+1.0000", "behind, with one seed")
    assert said(nats, "smoke")["infty", "transformer-xl"] == ("+1.0000 [+1.0000, +1.0000]", "+1.0000", "–")


def test_of_sorting_more_is_better() -> None:
    answers = {"transformer-xl": [3, 1, 0], "infty": [4, 3, 3]}
    runs = [
        make_run(sort_result(cell(model, "x8")), {"answers": {"symbols": 5, "right": right}})
        for model, right in answers.items()
    ]
    table, _ = compare_neighbours(collect(runs))
    ((_, row, less, difference, _, so),) = table.rows
    assert (row, less, so) == ("infty", "transformer-xl", "ahead, with one seed")
    assert difference.startswith("+40.0 [")


def test_columns_are_told_apart_where_they_were_tested_on_the_same_sequences() -> None:
    columns = [("n1", [3, 1, 0]), ("n2", [4, 3, 3]), ("n4", [4, 3, 2]), ("other", [5, 5, 5])]
    runs = [
        make_run(
            sort_result(cell("infty", case), data={"sha256": "b" if case == "other" else "a"}),
            {"answers": {"symbols": 5, "right": right}},
        )
        for case, right in columns
    ]
    _, table = compare_neighbours(collect(runs))
    assert [(case, before, difference[:6]) for _, case, before, difference, _, _ in table.rows] == [
        ("n2", "n1", "+40.0 "),
        ("n4", "n2", "−6.7 ["),
    ]
    assert [line[-1] for line in table.rows] == ["ahead, with one seed", "no difference seen"]
    assert compare_neighbours(results({"infty": [[1, 1]]}))[1].rows == []


def test_rows_without_a_partner_have_no_line(tmp_path: Path) -> None:
    assert compare_neighbours(results({"infty": [[1, 2]]}))[0].rows == []
    put(tmp_path / "runs", "transformer-xl", [50, 160])
    put(tmp_path / "runs", "infty", [40, 190])
    write_report([tmp_path / "runs"], tmp_path / "out", ["md"], SHIPPED)
    text = (tmp_path / "out/wikitext-laptop.md").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("| main | infty | transformer-xl |")]
    assert line.endswith("| +0.5000 [−1.0000, +1.0000] | +0.5000 | no difference seen |")


def test_reading_is_told_by_layer_as_a_mean_over_seeds() -> None:
    found = results({"transformer-xl": [[1, 1]], "infty": [[1, 1], [1, 1]]})
    reaches = [
        {"share": [0.5, 0.1], "gate": [0.0, 0.0], "where": [1e-5, 0.2], "what": [0.1, 0.4], "rest": 0.1},
        {"share": [0.7, 0.3], "gate": [0.0, 0.0], "where": [1e-5, 0.0], "what": [0.0, 0.0], "rest": 0.2},
    ]
    table, _, _ = describe_memories(trace(found, *({"reach": reach} for reach in reaches)))
    assert table.rows == [["infty", "0.6 · 0.2", "0 · 0", "7.5e-05 · 1", "0.5 · 2"]]
    assert [table.rows for table in describe_memories(found)] == [[], [], []]


def test_where_memories_look_is_told_by_layer_as_a_mean_over_seeds() -> None:
    found = results({"transformer-xl": [[1, 1]], "infty": [[1, 1], [1, 1], [1, 1]]})
    layers = [
        {"center": 0.5, "apart": 0.0, "width": 0.8, "there": 1.0},
        {"center": 0.25, "apart": 0.1, "width": 0.1, "there": 0.0},
    ]
    other = [{**layers[0], "width": 0.4}, {**layers[1], "there": 0.5}]
    reach = memory()["reach"]
    _, table, _ = describe_memories(trace(found, {"reach": reach, "gaze": layers}, {"reach": reach, "gaze": other}))
    assert table.rows == [["infty", "0.5 · 0.25", "0 · 0.1", "0.6 · 0.1", "1 · 0.25"]]


def test_no_gradient_anywhere_is_no_fault() -> None:
    nothing = {"share": [0.0], "gate": [None], "where": [0.0], "what": [0.0], "rest": 0.0}
    table, _, _ = describe_memories(trace(results({"infty": [[1, 1]]}), {"reach": nothing}))
    assert table.rows == [["infty", "0", "–", "0", "0"]]


def test_differences_by_distance_are_of_all_tokens_of_a_range_and_of_seeds_that_both_have() -> None:
    def read(*nats: float, new: float | None = None) -> dict[str, Any]:
        by = {"from": [1, 2, 4, 8, 16], "nats": list(nats), "tokens": [100, 300, 50, 150, 99], "no_word": NOTHING}
        words = NOTHING if new is None else {"nats": new, "tokens": 1000}
        return {"chunks": {"nats": [1.0, 1.0], "tokens": [10, 10]}, "by_distance": {**by, "new_word": words}}

    told = {
        ("transformer-xl", 0): read(400, 400, 100, 500, 9, new=5000),
        ("transformer-xl", 1): read(100, 100, 100, 100, 9),
        ("infty", 0): read(420, 540, 100, 480, 1, new=4000),  # of 400: +160; of 200: −20; 99 are too few
        ("infty", 1): read(100, 100, 100, 140, 1),  # 0; +40
        ("infty", 2): read(9, 9, 9, 9, 9, new=1),  # without a partner
    }
    runs = {place: make_run(text_result(cell(place[0], "main", place[1])), found) for place, found in told.items()}
    run = runs["infty", 0]
    emptied = evaluation(run.result, read(400, 440, 100, 500, 9, new=5500), knock_out="zero")
    runs["infty", 0] = replace(run, knock_outs={"zero": emptied})
    (table,) = compare_by_distance(collect(list(runs.values())))
    assert table.headings == ["row", "1 to 3", "4 to 15", "new words"]
    assert table.rows == [["infty", "+0.200", "+0.050", "−1.000"], ["infty, emptied", "+0.100", "+0.000", "+0.500"]]
    (table,) = compare_by_distance(results({"transformer-xl": [[1, 1]], "infty": [[1, 1]]}))
    assert table.rows == []
