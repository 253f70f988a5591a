"""Damaged runs, or damaged parts of them, are left out with a warning, and the others stand."""

import json
from pathlib import Path
from typing import Any

import pytest

from infty.report import write_report
from tests.report.handmade import evaluate, put, report

pytestmark = pytest.mark.usefixtures("undrawn")


def without(*path: str) -> Any:
    def change(text: str) -> str:
        values = json.loads(text)
        inner = values
        for key in path[:-1]:
            inner = inner[key]
        del inner[path[-1]]
        return json.dumps(values)

    return change


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: "",
        lambda text: text[:-9],
        lambda _: "[]",
        lambda text: text.replace("0.3", "NaN"),
        lambda text: text.replace("0.3", '"high"'),
        *(
            without(key)
            for key in ("metrics", "calibration", "protocol", "data", "commit", "parameters", "memory_slots")
        ),
        *(without("calibration", key) for key in ("chance", "oracle", "oracle_window")),
        without("metrics", "test/loss"),
        without("data", "sha256"),
        *(
            lambda text, old=old, new=new: text.replace(old, new)
            for old, new in (
                ("61.4", "1e999"),
                ("0.3", "1.3"),
                ("0.3", "true"),
                ("172", "[172]"),
                ("164288", "-1"),
                ("164288", "1.5"),
                ('"sort-accuracy-v1"', '"../x"'),
                ('"sort-accuracy-v1"', "[]"),
                ("false", '"no"'),
                ('"infty train', '"\\ud800'),
                ('"infty train', '"\\u001b'),
                ('"dirty"', '"starting_weights": 3, "dirty"'),
                ("1000", "9" * 5000),
                ("1000", "9" * 4000),
            )
        ),
    ],
)
def test_a_damaged_result_is_left_out_with_a_warning(runs: Path, tmp_path: Path, damage: Any) -> None:
    file = put(runs, "compressive", "x8", 0.3) / "result.json"
    file.write_text(damage(file.read_text()))
    with pytest.warns(UserWarning, match="is left out"):
        text = report(runs, tmp_path / "out")
    assert "| compressive | – | – | – |" in text


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("experiment: sort", "experiment: ../../sort"),  # would be written outside of the report's folder
        ("experiment: sort", "experiment: [sort]"),
        ("seed: 0", "seed: 1"),  # would stand for another run
        ("model: compressive", "model: infty"),
        ("scale: laptop", "scale: 3"),
        ("length: 492", "length: many"),
        ("length: 492", "length: -1"),
        ("length: 492", "length: 492, when: 2001-99-99"),
        ("length: 492", "kind: corpus"),
        ("length: 492", "length: !!int ''"),
        ("cell:", "cell: {variant: +x}\nroom:"),
        ("task:", "tusk:"),
    ],
)
def test_a_damaged_configuration_is_left_out_with_a_warning(runs: Path, tmp_path: Path, old: str, new: str) -> None:
    file = put(runs, "compressive", "x8", 0.3) / "config.yaml"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    with pytest.warns(UserWarning, match="is left out") as caught:
        text = report(runs, tmp_path / "out")
    assert len(caught) == 1
    assert "| compressive | – | – | – |" in text
    assert "| infty | – | 50.1 ± 2.0 (n = 3) |" in text
    assert {path.parent for path in tmp_path.rglob("*.md")} == {tmp_path / "out"}


def test_a_broken_experiment_file_does_not_hide_its_runs(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "sort.yaml").write_text("scales: {laptop: {}}\nseeds: 5\n")
    with pytest.warns(UserWarning, match="sort: what is missing is not told: sort.yaml: seeds: wanted a list"):
        write_report([runs], tmp_path / "out", ["md"], tmp_path)
    assert "| infty | 40.0 (n = 1) | 50.1 ± 2.0 (n = 3) |" in (tmp_path / "out/sort-laptop.md").read_text()


def test_an_evaluation_of_another_checkpoint_is_not_read(runs: Path, tmp_path: Path) -> None:
    for model in ("infty", "transformer-xl"):
        folder = runs / f"sort/laptop/{model}@x8/seed-0"
        evaluate(folder, {"answers": {"symbols": 20, "right": [3, 5]}})
    assert "difference to transformer-xl" in report(runs, tmp_path / "one")
    evaluate(folder, {"answers": {"symbols": 20, "right": [3, 5]}}, step=599)
    with pytest.warns(UserWarning, match="is of another checkpoint or other data"):
        assert "difference to transformer-xl" not in report(runs, tmp_path / "two")
