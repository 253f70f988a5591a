"""`infty compare`: what differs between runs, and nothing else."""

import json
import re
import shutil
from pathlib import Path

import pytest

from infty.commands.compare import compare_runs
from infty.config.definition import SHIPPED
from infty.report import write_report
from tests.conftest import Infty
from tests.report.handmade import put

RESULTS = SHIPPED / "results" / "laptop"


def test_without_a_command_line_what_differs_is_what_was_made_to_differ(tmp_path: Path) -> None:
    for seed, accuracy in ((0, 0.5), (1, 0.25)):
        folder = put(tmp_path, "infty", "x4", accuracy, seed=seed, parameters=7 + seed)
        (folder / "environment.json").write_text(
            json.dumps({"cpu": {"model": "a", "cores": 2 + seed}, "command": seed})
        )
    found = compare_runs(["sort/laptop/infty@x4/seed-0", "sort/laptop/infty@x4/seed-1"], tmp_path)
    assert found.differing["settings"] == {}
    assert found.differing["environment"] == {"cpu.cores": [2, 3]}
    assert found.differing["metrics"] == {"test/accuracy": [0.5, 0.25], "parameters": [7, 8]}
    assert found.intervals == [], "without an evaluation beside it there is nothing to pair"
    assert [table.title for table in found.tables()] == [
        f"what differs: {part}" for part in ("settings", "environment", "metrics")
    ]


def compare(infty: Infty, *names: str) -> dict[str, dict[str, list[object]]]:
    done = infty("compare", *names, "--runs", str(RESULTS), "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_two_seeds_differ_in_their_figures_alone(infty: Infty) -> None:
    found = compare(infty, "sort/infty@x8/seed-0", "sort/infty@x8/seed-1")
    assert found["runs"] == ["infty@x8/seed-0", "infty@x8/seed-1"]
    assert found["settings"] == {}
    results = [json.loads((RESULTS / f"sort/infty@x8/seed-{seed}/result.json").read_text()) for seed in (0, 1)]
    assert found["metrics"]["test/accuracy"] == [result["metrics"]["test/accuracy"] for result in results]
    assert "parameters" not in found["metrics"]


def test_rows_differ_in_the_settings_of_their_memories(infty: Infty) -> None:
    found = compare(infty, "sort/infty@x8/seed-0", "sort/infty-sticky@x8/seed-0", "sort/transformer-xl@x8/seed-0")
    settings = found["settings"]
    assert settings["model.long_range.num_basis"] == [64, 64, None]
    assert settings["model.long_range.sticky.num_bins"] == [None, 128, None]
    assert settings["model.short_term_length"] == [64, 64, 128]
    assert not any(key.startswith(("task", "training")) for key in settings)


def test_the_table_has_the_paired_difference_on_the_same_text(infty: Infty, tmp_path: Path) -> None:
    names = [f"wikitext/{row}@main/seed-0" for row in ("transformer-xl", "infty")]
    done = infty("compare", *names, "--runs", str(RESULTS))
    assert done.returncode == 0
    (told,) = (line for line in done.stdout.splitlines() if line.startswith("Run 2 less run 1"))
    number = r"([−+]\d\.\d{4})"
    found = re.search(rf"{number} nats a token, 95 % interval \[{number}, {number}\] over 74 samples", told)
    assert found
    difference, low, high = (float(value.replace("−", "-")) for value in found.groups())
    one, two = (json.loads((RESULTS / name / "result.json").read_text())["totals"] for name in names)
    assert difference == pytest.approx(two["nats"] / two["scored"] - one["nats"] / one["scored"], abs=5e-5)
    assert low < difference < high
    for name in names:
        shutil.copytree(RESULTS / name, tmp_path / "runs" / name)
    write_report([tmp_path / "runs"], tmp_path / "report", ["md"], SHIPPED)
    interval = "{} [{}, {}]".format(*found.groups())
    assert f"| main | infty | transformer-xl | {interval} |" in (tmp_path / "report/wikitext-laptop.md").read_text()


def test_a_run_that_is_not_finished_has_settings(infty: Infty, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        shutil.copytree(RESULTS / "sort/infty@x8/seed-0", folder)
    (two / "result.json").unlink()
    config = two / "config.yaml"
    config.write_text(config.read_text().replace("steps: 1500", "steps: 1300"))
    found = compare(infty, str(one), str(two))
    assert found["settings"] == {"training.steps": [1500, 1300]}
    accuracy = json.loads((one / "result.json").read_text())["metrics"]["test/accuracy"]
    assert found["metrics"]["test/accuracy"] == [accuracy, None]


def test_what_can_not_be_compared_is_told_in_one_line(infty: Infty) -> None:
    for names, code, message in (
        (("sort/infty@x8/seed-0",), 2, "infty: compare wants two runs or more"),
        (("sort/infty@x8/seed-0", "none"), 3, "infty: none is no run: wanted a folder with config.yaml"),
        (("sort/infty@x8", "none"), 2, "infty: sort/infty@x8 holds runs: name one of seed-0, seed-1, seed-2"),
    ):
        done = infty("compare", *names, "--runs", str(RESULTS))
        assert (done.returncode, done.stdout, done.stderr[: len(message)]) == (code, "", message)
