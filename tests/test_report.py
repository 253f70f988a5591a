"""The report from hand-written results, text for text; figures parsed, not only made."""

import csv
import io
import json
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
import yaml
from matplotlib import image
from rich.console import Console

from infty.catalog import SHIPPED
from infty.errors import MissingError
from infty.report import write_report
from infty.report.results import ResultSet
from infty.table import Table
from tests.conftest import Infty

LENGTHS = {"x4": 236, "x8": 492, "x16": 1004}


def put(
    root: Path, model: str, case: str, accuracy: float, *, seed: int = 0, variant: str = "", **changes: Any
) -> Path:
    """A finished run, written by hand."""
    folder = root / f"sort/laptop/{model}@{case}{variant}/seed-{seed}"
    folder.mkdir(parents=True)
    cell = {"experiment": "sort", "scale": "laptop", "model": model, "case": case, "seed": seed}
    (folder / "config.yaml").write_text(yaml.safe_dump({"cell": cell, "task": {"length": LENGTHS[case]}}))
    result = {
        **cell,
        "metrics": {"test/accuracy": accuracy, "test/loss": 1.5},
        "calibration": {"chance": 0.18, "oracle": 0.36, "oracle_window": 172},
        "protocol": {"name": "sort-accuracy-v1"},
        "data": {"name": "sort", "sha256": f"{case:f<64}"},
        "best_step": 600,
        "parameters": 164288,
        "memory_slots": 128,
        "tokens_seen": 1000,
        "wall_seconds": 61.4,
        "commit": "0123456789abcdef",
        "dirty": False,
        "command": f"infty train sort --model {model} --case {case}",
        **changes,
    }
    (folder / "result.json").write_text(json.dumps(result))
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    root = tmp_path / "runs"
    put(root, "infty", "x8", 0.5012)
    put(root, "infty", "x8", 0.5212, seed=1)
    put(root, "infty", "x8", 0.4812, seed=2)
    put(root, "transformer-xl", "x8", 0.2954, commit=None, dirty=None)
    put(root, "infty", "x8", 0.99, variant="+other")
    put(root, "infty", "x16", 0.4)
    return root


def report(runs: Path, out: Path) -> str:
    write_report([runs], out, ["md", "csv"], SHIPPED)
    return (out / "sort-laptop.md").read_text()


def test_the_accuracy_table_text_for_text(runs: Path, tmp_path: Path) -> None:
    expected = """\
| model | x4 ↑ (no run) | x8 ↑ (492 symbols) | x16 ↑ (1,004 symbols) |
| --- | ---: | ---: | ---: |
| transformer-xl | – | 29.5 (n = 1) | – |
| compressive | – | – | – |
| infty | – | 50.1 ± 2.0 (n = 3) | 40.0 (n = 1) |
| infty-sticky | – | – | – |
| chance | – | 18.0 | 18.0 |
| last-window oracle | – | 36.0 | 36.0 |
"""
    assert expected in report(runs, tmp_path / "out")


def test_notes_say_how_to_read_it_and_what_is_missing(runs: Path, tmp_path: Path) -> None:
    text = report(runs, tmp_path / "out")
    assert "The paper shows this figure without numbers" in text
    assert "Scale: laptop, smaller than the paper's" in text
    assert "31 of 36 runs are missing. Next: infty train sort --model transformer-xl --case x4" in text
    assert "1 runs with other settings stand in no cell" in text
    missing = text.split("```")[1].strip().splitlines()
    assert len(missing) == 31
    assert "infty train sort --model transformer-xl --case x8 --scale laptop --seed 1" in missing
    assert "infty train sort --model infty --case x8 --scale laptop --seed 1" not in missing


def test_every_run_leads_to_its_commit_data_and_command(runs: Path, tmp_path: Path) -> None:
    lines = [line for line in report(runs, tmp_path / "out").splitlines() if "seed" in line and line.startswith("| ")]
    assert (
        "| infty@x16 seed 0 | 40.00 | 600 | 0123456789ab | x16fffffffff | `infty train sort --model infty --case x16` |"
        in lines
    )
    assert any("transformer-xl@x8 seed 0 | 29.54 | 600 | unknown |" in line for line in lines)
    assert any("infty@x8+other seed 0" in line for line in lines)


def test_csv_has_a_line_a_run_with_unrounded_figures(runs: Path, tmp_path: Path) -> None:
    report(runs, tmp_path / "out")
    with (tmp_path / "out/sort-laptop.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    row = next(row for row in rows if row["model"] == "infty" and row["seed"] == "1")
    assert (row["accuracy"], row["length"], row["chance"], row["data_sha256"]) == (
        "0.5212",
        "492",
        "0.18",
        f"{'x8':f<64}",
    )


def test_runs_on_different_data_are_said_to_be_not_comparable(runs: Path, tmp_path: Path) -> None:
    put(runs, "compressive", "x8", 0.3, data={"name": "sort", "sha256": "0" * 64})
    assert "Column x8: tested on different data, not comparable." in report(runs, tmp_path / "out")


def test_protocols_never_share_a_table(runs: Path, tmp_path: Path) -> None:
    put(runs, "compressive", "x8", 0.3, protocol={"name": "sort-accuracy-v2"})
    write_report([runs], tmp_path / "out", ["md"], SHIPPED)
    texts = {path.name: path.read_text() for path in (tmp_path / "out").glob("*.md")}
    assert set(texts) == {"sort-laptop-sort-accuracy-v1.md", "sort-laptop-sort-accuracy-v2.md"}
    assert "| compressive | – | 30.0 (n = 1) | – |" in texts["sort-laptop-sort-accuracy-v2.md"]
    assert "| compressive | – | – | – |" in texts["sort-laptop-sort-accuracy-v1.md"]


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
                ('"dirty"', '"more": NaN, "dirty"'),
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
        ("length: 492", "kind: corpus\n  length: 492"),
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


def test_names_and_commands_with_signs_of_other_languages_are_told_as_they_are(tmp_path: Path) -> None:
    folder = put(tmp_path / "runs", "infty", "x8", 0.5, command="infty train sort --set 'model.weights=a|b'")
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("experiment: sort", "experiment: $x^$ mine"))
    write_report([tmp_path / "runs"], tmp_path / "out", ["md"], SHIPPED)
    assert "`infty train sort --set 'model.weights=a\\|b'` |" in (tmp_path / "out/$x^$ mine-laptop.md").read_text()
    assert "$x^$ mine, laptop scale" in (tmp_path / "out/$x^$ mine-laptop-accuracy.svg").read_text()


def test_a_run_counts_once_however_often_it_is_found(runs: Path, tmp_path: Path) -> None:
    write_report([runs, runs / "sort"], tmp_path / "out", ["md"], SHIPPED)
    once = (tmp_path / "out/sort-laptop.md").read_text()
    assert once == report(runs, tmp_path / "again")
    put(tmp_path / "copy", "infty", "x8", 0.7)
    with pytest.warns(UserWarning, match="another run of the same cell"):
        write_report([runs, tmp_path / "copy"], tmp_path / "out", ["md"], SHIPPED)
    assert (tmp_path / "out/sort-laptop.md").read_text() == once


def test_seeds_with_other_settings_are_not_averaged(runs: Path, tmp_path: Path) -> None:
    config = runs / "sort/laptop/infty@x8/seed-2/config.yaml"
    config.write_text(config.read_text() + "training: {steps: 4}\n")
    with pytest.warns(UserWarning, match=r"seed-2 is left out.*training: None -> \{'steps': 4\}"):
        assert "| infty | – | 51.1 ± 1.4 (n = 2) |" in report(runs, tmp_path / "out")


def test_rows_with_other_numbers_of_slots_are_told(runs: Path, tmp_path: Path) -> None:
    put(runs, "compressive", "x8", 0.3, memory_slots=1040)
    assert "Column x8: rows keep different numbers of memory slots." in report(runs, tmp_path / "out")


def test_unfinished_runs_are_missing(runs: Path, tmp_path: Path) -> None:
    (put(runs, "compressive", "x8", 0.3) / "result.json").unlink()
    assert "| compressive | – | – | – |" in report(runs, tmp_path / "out")


def test_nothing_finished_is_said(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="make one with: infty train sort"):
        write_report([tmp_path], tmp_path / "out", ["md"], SHIPPED)
    assert not (tmp_path / "out").exists()


def test_the_figure_has_a_line_a_model_and_is_the_same_bytes_twice(runs: Path, tmp_path: Path) -> None:
    report(runs, tmp_path / "one")
    report(runs, tmp_path / "two")
    name = "sort-laptop-accuracy.svg"
    assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    root = ElementTree.parse(tmp_path / "one" / name).getroot()
    texts = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"infty", "transformer-xl", "chance", "last-window oracle", "492", "1,004", "test accuracy (%)"} <= texts
    assert "compressive" not in texts
    pixels = image.imread(tmp_path / "one/sort-laptop-accuracy.png")
    assert pixels.shape[0] > 400
    assert pixels.std() > 0.05


def test_reports_need_no_torch(runs: Path, tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from pathlib import Path; from infty.report import write_report; from infty.catalog import SHIPPED\n"
        f"write_report([Path({str(runs)!r})], Path({str(tmp_path / 'out')!r}), ['md'], SHIPPED)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert (tmp_path / "out/sort-laptop.md").exists()


def test_the_command_reports_what_the_commands_before_it_made(infty: Infty, tmp_path: Path) -> None:
    infty("train", "sort", "--scale", "smoke", "--model", "compressive")
    done = infty("report", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    result = json.loads((tmp_path / "runs/sort/smoke/compressive@x4/seed-0/result.json").read_text())
    row = next(row for row in document["tables"][0]["rows"] if row[0] == "compressive")
    assert row[1] == f"{100 * result['metrics']['test/accuracy']:.1f} (n = 1)"
    charts = [f"sort-smoke-{name}.{kind}" for name in ("x4-learning",) for kind in ("svg", "png")]
    assert {Path(file).name for file in document["files"]} == {
        "sort-smoke.md", "sort-smoke.csv", "sort-smoke.tex", "index.html", *charts
    }  # fmt: skip
    assert all(Path(file).is_file() for file in document["files"])
    shutil.rmtree(tmp_path / "runs/sort/smoke/compressive@x4/seed-0/checkpoints")
    assert infty("report").returncode == 0


def test_the_difference_between_rows_by_sequence(runs: Path, tmp_path: Path) -> None:
    """Of 20 symbols a sequence: 3 and 5 right against 1 and 5 are 10 and 0 points more, 5 ± 5; with 0 and 5, −2.5."""
    for model, case, right in (
        ("infty", "x8", [3, 5]), ("transformer-xl", "x8", [1, 5]), ("compressive", "x8", [0, 5]),
        ("infty", "x16", [1, 2]),
    ):  # fmt: skip
        folder = runs / f"sort/laptop/{model}@{case}/seed-0"
        folder = folder if folder.exists() else put(runs, model, case, 0.3)
        (folder / "eval").mkdir()
        details = {"details": {"answers": {"symbols": 20, "right": right}}}
        (folder / "eval/sort-accuracy-v1-test.json").write_text(json.dumps(details))
    assert """\
## sort, laptop scale: difference to transformer-xl

| model | x4 ↑ | x8 ↑ | x16 ↑ |
| --- | ---: | ---: | ---: |
| compressive | – | −2.5 [−5.0, +0.0] | – |
| infty | – | +5.0 [+0.0, +10.0] | – |
| infty-sticky | – | – | – |
""" in report(runs, tmp_path / "out")


def test_pictures_are_drawn_again_only_where_their_data_changed(runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    report(runs, out)
    first = {path: path.stat().st_mtime_ns for path in out.glob("*.svg")}
    assert len(first) == 2  # accuracy and pace by length
    report(runs, out)
    assert {path: path.stat().st_mtime_ns for path in out.glob("*.svg")} == first
    file = runs / "sort/laptop/infty@x16/seed-0/result.json"
    file.write_text(file.read_text().replace('"test/accuracy": 0.4', '"test/accuracy": 0.5'))
    report(runs, out)
    again = {path: path.stat().st_mtime_ns for path in out.glob("*.svg")}
    assert {path.stem for path in first if again[path] != first[path]} == {"sort-laptop-accuracy"}
    (out / "sort-laptop-pace.png").unlink()
    (out / ".pictures.json").write_text("{")
    report(runs, out)
    assert (out / "sort-laptop-pace.png").is_file()


def test_the_whole_document_sign_for_sign(tmp_path: Path) -> None:
    """Two seeds, one seed, a run without its commit, one that failed, one that is no number, another protocol."""
    root, own = tmp_path / "runs", tmp_path / "experiments"
    put(root, "transformer-xl", "x8", 0.2954, commit=None, dirty=None)
    put(root, "infty", "x8", 0.5012)
    put(root, "infty", "x8", 0.5212, seed=1)
    damaged = put(root, "infty", "x8", 0.3, seed=2) / "result.json"
    damaged.write_text(damaged.read_text().replace("0.3", "NaN"))
    failed = put(root, "compressive", "x8", 0.3)
    (failed / "result.json").unlink()
    (failed / "status.json").write_text('{"status": "failed", "why": "loss nan"}')
    put(root, "infty-sticky", "x8", 0.4, protocol={"name": "sort-accuracy-v2"})
    own.mkdir()
    (own / "sort.yaml").write_text(
        "models: {transformer-xl: {}, compressive: {}, infty: {}, infty-sticky: {}}\n"
        "cases: {x8: {}}\nscales: {laptop: {seeds: [0, 1, 2]}}\n"
    )
    with pytest.warns(UserWarning, match="seed-2 is left out"):
        write_report([root], tmp_path / "out", ["md"], own)
    names = [f"sort-laptop-sort-accuracy-v{version}.md" for version in (1, 2)]
    assert [path.name for path in sorted((tmp_path / "out").glob("*.md"))] == names
    for name in names:
        expected = (Path(__file__).parent / "expected" / name).read_text(encoding="utf-8")
        assert (tmp_path / "out" / name).read_text(encoding="utf-8") == expected


def test_figures_that_a_table_has_no_more_are_removed_and_all_is_as_if_made_anew(runs: Path, tmp_path: Path) -> None:
    report(runs, tmp_path / "out")
    (tmp_path / "out/my-own.svg").touch()
    assert (tmp_path / "out/sort-laptop-pace.svg").is_file()
    shutil.rmtree(runs / "sort/laptop/infty@x16")
    report(runs, tmp_path / "out")
    report(runs, tmp_path / "anew")
    names = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert names.pop("my-own.svg") == b""
    assert names == {path.name: path.read_bytes() for path in (tmp_path / "anew").iterdir()}
    assert "sort-laptop-pace.svg" not in names


def test_rows_trained_on_other_numbers_of_tokens_are_told(runs: Path, tmp_path: Path) -> None:
    put(runs, "compressive", "x8", 0.3, tokens_seen=999)
    assert "Column x8: rows were trained on different numbers of tokens." in report(runs, tmp_path / "out")


def test_an_evaluation_of_another_checkpoint_is_not_read(runs: Path, tmp_path: Path) -> None:
    for model in ("infty", "transformer-xl"):
        folder = runs / f"sort/laptop/{model}@x8/seed-0/eval"
        folder.mkdir()
        details = {"step": 600, "details": {"answers": {"symbols": 20, "right": [3, 5]}}}
        (folder / "sort-accuracy-v1-test.json").write_text(json.dumps(details))
    assert "difference to transformer-xl" in report(runs, tmp_path / "one")
    (folder / "sort-accuracy-v1-test.json").write_text(json.dumps({**details, "step": 599}))
    with pytest.warns(UserWarning, match="is of another checkpoint or other data"):
        assert "difference to transformer-xl" not in report(runs, tmp_path / "two")


def test_brackets_are_no_marks_on_a_terminal() -> None:
    table = Table("[/x] title", ["[bold]a[/bold]", "[/b]"], [["[i]c", "d"]], ["a note [/x]"])
    screen = Console(force_terminal=True, width=100, file=io.StringIO())
    screen.print(table.rich())
    assert isinstance(screen.file, io.StringIO)
    for words in ("[/x] title", "[bold]a[/bold]", "[/b]", "[i]c", "a note [/x]"):
        assert words in screen.file.getvalue()


def test_every_cell_has_an_anchor_of_its_own_whatever_the_names() -> None:
    def anchor(experiment: str, model: str, case: str) -> str:
        return ResultSet(experiment, "smoke", "p", [], [], f"{experiment}-smoke").anchor(model, case)

    cells = [("a b", "x", "y"), ("a_b", "x", "y"), ("a", "x.y", "z"), ("a", "x", "y.z"), ("a'\"<", "x", "y")]
    found = [anchor(*cell) for cell in cells]
    assert len(set(found)) == len(found)
    assert all(re.fullmatch(r"[\w.~-]+", one) for one in found)
