"""What figures show: points reached another way from hand-written results, and lines only where there is something."""

import json
from pathlib import Path
from typing import Any

import pytest
from matplotlib import image

from infty.report.figures.data import Chart, make_charts
from infty.report.figures.drawing import draw_chart
from infty.report.load.results import ResultSet
from infty.runs.folder import Run
from infty.runs.schemas import Validation
from tests.report.handmade import NOTHING, make_run, sort_result, text_result

CELL = {"experiment": "sort", "scale": "smoke"}
LENGTH = {"a": 59, "b": 123}


def run(
    model: str, case: str, seed: int = 0, *, accuracy: float = 0.5, num_basis: int | None = None, **more: Any
) -> Run:
    error = more.pop("error", None)
    recalled = {f"test/accuracy_{at}": share for at, share in more.pop("recall", {}).items()}
    metrics = {"test/accuracy": accuracy, **({} if error is None else {"test/regression_error": error}), **recalled}
    costs = {
        "wall_seconds": 10.0,
        "tokens_seen": 2_000_000,
        "training_flops": more.pop("flops", None),
        "flops_counted_by": "products-v1",
        "state_bytes": more.pop("state", None),
    }
    result = sort_result({**CELL, "model": model, "case": case, "seed": seed}, metrics=metrics, **costs)
    config = {"model": {"long_range": {"num_basis": num_basis}}}
    return make_run(result, length=LENGTH.get(case, 59), config=config, **more)


def text(model: str, **details: Any) -> Run:
    return make_run(text_result({**CELL, "model": model, "case": "main", "seed": 0}), details)


def curve(*validations: tuple[int, float, float | None]) -> list[Validation]:
    return [Validation(step=step, loss=loss, accuracy=accuracy) for step, loss, accuracy in validations]


def charts(*runs: Run) -> dict[str, Chart]:
    return {chart.name: chart for chart in make_charts(ResultSet("sort", "smoke", "p", list(runs), [], "sort-smoke"))}


def test_accuracy_and_pace_by_length_with_the_deviation_over_seeds() -> None:
    found = charts(
        run("x", "a", accuracy=0.2), run("x", "a", 1, accuracy=0.4), run("x", "b", accuracy=0.6), run("y", "b")
    )
    assert found["accuracy"].lines == {
        "x": [(59, pytest.approx(30), pytest.approx(200**0.5)), (123, pytest.approx(60), None)],
        "y": [(123, 50, None)],
    }
    assert found["accuracy"].references["chance"] == [(59, 18, None), (123, 18, None)]
    assert found["pace"].lines["x"] == [(59, 5, 0), (123, 5, None)]  # seconds a million tokens


def test_by_the_number_of_basis_functions_where_columns_differ_by_it() -> None:
    found = charts(
        run("x", "a", num_basis=8, error=0.3), run("x", "b", num_basis=16, error=0.1), run("y", "b", num_basis=16)
    )
    assert found["basis"].lines == {"x": [(8, 50, None), (16, 50, None)], "y": [(16, 50, None)]}
    assert found["error"].lines == {"x": [(8, 0.3, None), (16, 0.1, None)]}
    assert {"basis", "error"}.isdisjoint(charts(run("x", "a", num_basis=8), run("x", "b", num_basis=8)))


def test_learning_at_the_steps_that_all_seeds_have() -> None:
    one = curve((10, 3.0, 0.1), (20, 2.0, 0.2), (30, 1.0, None))
    two = curve((20, 2.0, 0.4), (30, 1.0, 0.9))
    found = charts(run("x", "a", curve=one), run("x", "a", 1, curve=two), run("y", "a", curve=one))
    assert found["a-learning"].lines == {
        "x": [(20, pytest.approx(30), pytest.approx(200**0.5))],
        "y": [(10, 10, None), (20, 20, None)],
    }


def test_one_row_alone_has_a_line_a_column_and_no_cost_to_set_it_beside() -> None:
    one = curve((10, 3.0, 0.1))
    found = charts(run("x", "a", curve=one, flops=10**12), run("x", "b", curve=one, flops=2 * 10**12))
    assert set(found["learning"].lines) == {"a", "b"}
    assert not any("flops" in name for name in found)
    found = charts(run("x", "a", flops=10**12), run("y", "a", flops=3 * 10**12))
    assert found["a-flops"].lines == {"x": [(1, 50, None)], "y": [(3, 50, None)]}


def test_quality_by_bytes_of_state_with_a_line_for_a_row_that_keeps_nothing() -> None:
    found = charts(
        run("x", "a", accuracy=0.2, state=1024),
        run("x", "a", 1, accuracy=0.4, state=1024),
        run("y", "a", state=64),
        run("bare", "a", accuracy=0.1, state=0),
        run("older", "a"),
    )["a-state"]
    assert found.lines == {"x": [(1024, pytest.approx(30), pytest.approx(200**0.5))], "y": [(64, 50, None)]}
    assert found.references == {"bare": [(64, 10, None), (1024, 10, None)]}
    assert (found.base, found.joined) == (2, False)
    assert found.ticks == [64, 128, 256, 512, 1024]
    assert not any("state" in name for name in charts(run("x", "a", state=8), run("bare", "a", state=0)))


def test_recall_by_distance_from_one_segment_on() -> None:
    found = charts(
        run("x", "a", recall={0: 1.0, 1: 0.5, 16: 0.25}),
        run("x", "a", 1, recall={0: 1.0, 1: 0.7, 16: 0.25}),
        run("y", "a", recall={0: 1.0, 1: 0.0, 16: 1.0}),
    )["a-recall"]
    assert found.lines == {
        "x": [(1, pytest.approx(60), pytest.approx(200**0.5)), (16, 25, 0)],
        "y": [(1, 0, None), (16, 100, None)],
    }
    assert found.ticks == [1, 16]
    other = charts(run("x", "a", recall={0: 1.0, 1: 0.5}), run("x", "b", recall={1: 0.25, 4: 0.75}))
    assert other["a-recall"].lines == {"x": [(1, 50, None)]}, "columns may ask for other distances"
    assert other["b-recall"].lines == {"x": [(1, 25, None), (4, 75, None)]}
    assert "a-recall" not in charts(run("x", "a"))


def test_loss_by_distance_less_the_mean_of_rows_at_distances_that_all_have() -> None:
    def bins(*nats: float) -> dict[str, Any]:
        return {
            "from": [1, 2, 4],
            "nats": list(nats),
            "tokens": [100, 200, 99],
            "new_word": NOTHING,
            "no_word": NOTHING,
        }

    found = charts(text("x", by_distance=bins(100, 400, 9)), text("y", by_distance=bins(300, 800, 9)))
    assert found["distance"].lines == {"x": [(1, -1, None), (2, -1, None)], "y": [(1, 1, None), (2, 1, None)]}


def test_loss_by_position_is_of_positions() -> None:
    bins = {"from": [1, 2], "nats": [300, 600], "tokens": [100, 100]}
    found = charts(text("x", by_position=bins), text("y", by_position={**bins, "nats": [500, 400]}))
    assert found["position"].lines == {"x": [(1, -1, None), (2, 1, None)], "y": [(1, 1, None), (2, -1, None)]}
    assert "distance" not in found


@pytest.mark.parametrize("joined", [True, False])
def test_a_chart_is_drawn_with_all_its_words_and_the_same_twice(tmp_path: Path, joined: bool) -> None:
    lines: dict[str, Any] = {f"row {i}": [(1, i, None), (2, i + 1, 0.5)] for i in range(9)}
    chart = Chart(
        "c", "title $x^$", "across", "up", lines, {"line": [(1, 3, None), (2, 3, None)]}, 2, [1, 2], None, joined, True
    )
    files = [draw_chart(chart, tmp_path / name) for name in ("one", "two")]
    assert files[0][0].read_bytes() == files[1][0].read_bytes()
    text = files[0][0].read_text()
    for word in ("title $x^$", "across", "up", "line", *lines):
        assert f">{word}<" in text
    pixels = image.imread(files[0][1])
    assert pixels.std() > 0.05
    assert json.dumps(vars(chart))
