"""`infty tune`: every row, every point, the same budget; validation alone, recorded, and cited by the report."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from infty.config.definition import SHIPPED
from infty.report import write_report
from infty.report.keep import keep_runs
from tests.conftest import Infty

GRID = {"x4": {"steps": 3, "grid": {"training.learning_rate": [1.0e-3, 3.0e-3, 1.0e30]}}}
WIDTHS = [[0.01, 0.05], [0.02, 0.1]]


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """The sorting experiment with two rows, and a grid whose last point can't train."""
    values: dict[str, Any] = yaml.safe_load((SHIPPED / "sort.yaml").read_text())
    values["scales"]["smoke"]["tune"] = GRID
    values["rows"] = ["transformer-xl", "infty"]
    (tmp_path / "experiments").mkdir()
    file = tmp_path / "experiments/sort.yaml"
    file.write_text(yaml.safe_dump(values))
    return file


@pytest.mark.slow
def test_a_stated_grid_for_every_row_on_validation_only(infty: Infty, own: Path, tmp_path: Path) -> None:
    done = infty("tune", "sort", "--scale", "smoke", "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)["x4"]
    assert record == json.loads((tmp_path / "runs/sort/smoke/tuning-x4.json").read_text())
    tried = [(trial["model"], trial["settings"]["training.learning_rate"]) for trial in record["trials"]]
    assert tried == [(row, rate) for row in ("transformer-xl", "infty") for rate in (1.0e-3, 3.0e-3, 1.0e30)]
    assert [path.name for path in (tmp_path / "runs").rglob("*") if path.is_file()] == ["tuning-x4.json"]

    folders = sorted((tmp_path / "tuning/sort/smoke").glob("*/seed-0"))
    assert len(folders) == 6
    for folder in folders:
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert not any(key.startswith("test/") for line in lines for key in line)
        assert not (folder / "eval").exists()
        config = yaml.safe_load((folder / "config.yaml").read_text())
        (trial,) = (
            t
            for t in record["trials"]
            if (t["model"], t["settings"]["training.learning_rate"])
            == (config["cell"]["model"], config["training"]["learning_rate"])
        )
        losses = [line["validation/loss"] for line in lines if "validation/loss" in line]
        assert trial["validation_loss"] == (min(losses) if losses else None)
        assert config["training"]["steps"] == 3

    for row in ("transformer-xl", "infty"):
        losses = [t["validation_loss"] for t in record["trials"] if t["model"] == row]
        assert losses[2] is None
        assert record["chosen"][row] == {"training.learning_rate": (1.0e-3, 3.0e-3)[losses.index(min(losses[:2]))]}
    assert "not finite" in record["trials"][2]["why"]


@pytest.mark.slow
def test_again_it_goes_on_where_it_was_and_the_report_cites_it(infty: Infty, own: Path, tmp_path: Path) -> None:
    own.write_text(own.read_text().replace("- 1.0e+30", ""))
    first = json.loads(infty("tune", "sort", "--scale", "smoke", "--json").stdout)
    saved = {path: path.stat().st_mtime_ns for path in (tmp_path / "tuning").rglob("step-*/model.safetensors")}
    assert len(saved) == 4
    assert json.loads(infty("tune", "sort", "--scale", "smoke", "--json").stdout) == first
    assert {path: path.stat().st_mtime_ns for path in saved} == saved

    infty("train", "sort", "--scale", "smoke")
    written = write_report([tmp_path / "runs"], tmp_path / "report", ["md"], own.parent)
    (table,) = (table for table in written.tables if table.title == "sort, smoke scale: tuning")
    assert [row[0] for row in table.rows] == ["transformer-xl", "infty"]
    assert table.rows[1][1] == f"{first['x4']['trials'][2]['validation_loss']:.4f}"
    assert "column x4, seed 0" in table.notes[0]
    assert "infty tune sort --case x4 --scale smoke" in table.notes[0]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("steps: 3\n", "steps: many\n", "infty: sort.yaml: scales.smoke.tune.x4.steps: Input should be"),
        ("x4:\n        grid", "x3:\n        grid", "infty: sort.yaml: scales.smoke.tune.x3: no such column; there is"),
        ("training.learning_rate", "training.learning_rat", "infty: --set: training.learning_rat: unknown key"),
        ("grid:", "gird:", "infty: sort.yaml: scales.smoke.tune.x4.grid: Field required"),
    ],
)
def test_a_faulty_grid_is_told_before_anything_is_trained(
    infty: Infty, own: Path, tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in own.read_text()
    own.write_text(own.read_text().replace(old, new))
    done = infty("tune", "sort", "--scale", "smoke")
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "tuning").exists()


def test_a_scale_that_is_not_there_is_told(infty: Infty) -> None:
    done = infty("tune", "sort", "--scale", "huge")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "infty: sort.yaml: scales: no 'huge' here; there is paper, laptop, smoke\n"


def test_no_grid_is_told_with_an_example(infty: Infty) -> None:
    done = infty("tune", "text", "--scale", "smoke")
    assert (done.returncode, done.stdout) == (2, "")
    assert "states nothing to tune; for example scales.smoke.tune: {main: {steps: " in done.stderr


@pytest.mark.parametrize("record", ['{"experiment": "sort", "scale": "laptop", "trials": [1]}', "{", "[]"])
def test_a_damaged_record_is_left_out_of_the_report(tmp_path: Path, record: str) -> None:
    runs = tmp_path / "runs"
    (runs / "sort").mkdir(parents=True)
    (runs / "sort/tuning-x8.json").write_text(record)
    shutil.copytree(SHIPPED / "results/laptop/sort/infty@x8/seed-0", runs / "sort/infty@x8/seed-0")
    with pytest.warns(UserWarning, match=r"tuning-x8.json is left out: .*; tune again with infty tune$"):
        written = write_report([runs], tmp_path / "out", ["md"], SHIPPED)
    assert not any("tuning" in table.title for table in written.tables)


@pytest.mark.slow
def test_a_grid_may_be_of_lists(infty: Infty, own: Path, tmp_path: Path) -> None:
    values = yaml.safe_load(own.read_text())
    grid = {"model.long_range.widths": WIDTHS}
    values["scales"]["smoke"]["tune"] = {"x4": {"steps": 2, "grid": grid}}
    values["rows"] = ["infty"]
    own.write_text(yaml.safe_dump(values))
    record = json.loads(infty("tune", "sort", "--scale", "smoke", "--json").stdout)["x4"]
    assert [trial["settings"] for trial in record["trials"]] == [{"model.long_range.widths": w} for w in WIDTHS]
    infty("train", "sort", "--scale", "smoke")
    written = write_report([tmp_path / "runs"], tmp_path / "report", ["md"], own.parent)
    (table,) = (table for table in written.tables if table.title == "sort, smoke scale: tuning")
    assert table.headings[1:] == ["widths [0.01, 0.05] ↓", "widths [0.02, 0.1] ↓"]


@pytest.mark.slow
def test_each_column_has_its_own_grid_and_table(infty: Infty, own: Path, tmp_path: Path) -> None:
    values = yaml.safe_load(own.read_text())
    rates = {"x8": [2.0e-3], "x4": [1.0e-3]}
    values["scales"]["smoke"]["tune"] = {
        case: {"steps": 2, "grid": {"training.learning_rate": rate}} for case, rate in rates.items()
    }
    own.write_text(yaml.safe_dump(values))
    one = json.loads(infty("tune", "sort", "--scale", "smoke", "--case", "x8", "--json").stdout)
    assert list(one) == ["x8"]
    assert not (tmp_path / "runs/sort/smoke/tuning-x4.json").exists()
    both = json.loads(infty("tune", "sort", "--scale", "smoke", "--json").stdout)
    assert {case: record["chosen"]["infty"] for case, record in both.items()} == {
        case: {"training.learning_rate": rate} for case, (rate,) in rates.items()
    }
    assert both["x8"] == one["x8"]

    infty("train", "sort", "--scale", "smoke")
    written = write_report([tmp_path / "runs"], tmp_path / "report", ["md"], own.parent)
    tuned = {table.title: table.headings[1:] for table in written.tables if "tuning" in table.title}
    assert tuned == {
        "sort, smoke scale: tuning, x4": ["learning_rate 0.001 ↓"],
        "sort, smoke scale: tuning, x8": ["learning_rate 0.002 ↓"],
    }
    keep_runs([tmp_path / "runs"], tmp_path / "kept")
    assert len(list((tmp_path / "kept/smoke/sort").glob("tuning-x?.json"))) == 2


def test_a_column_without_a_grid_is_refused(infty: Infty) -> None:
    done = infty("tune", "sort", "--case", "x16")
    assert (done.returncode, done.stdout) == (2, "")
    assert "scales.laptop.tune has no grid for 'x16'; there is x8" in done.stderr
