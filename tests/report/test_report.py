"""The report from hand-written results, text for text."""

import csv
import shutil
import warnings
from pathlib import Path

import pytest
import yaml

from infty.base.errors import MissingError
from infty.config.definition import SHIPPED
from infty.report import write_report
from tests.report.handmade import evaluate, put, report

pytestmark = pytest.mark.usefixtures("undrawn")


def test_the_accuracy_table_text_for_text(runs: Path, tmp_path: Path) -> None:
    expected = """\
| model | x4 ↑ (no run) | x8 ↑ (492 symbols) | x16 ↑ (1,004 symbols) |
| --- | ---: | ---: | ---: |
| transformer-xl | – | 29.5 (n = 1) | – |
| transformer-xl-wide | – | – | – |
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
    assert "40 of 45 runs are missing. Next: infty train sort --model transformer-xl --case x4" in text
    assert "1 runs with other settings stand in no cell" in text
    missing = text.split("```")[1].strip().splitlines()
    assert len(missing) == 40
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


def test_a_copy_that_was_never_done_is_no_run(runs: Path, tmp_path: Path) -> None:
    """`report --keep` makes one aside; the folder that was named may lie in a hidden one."""
    once, place = report(runs, tmp_path / "out"), runs / "sort/laptop/infty@x16"
    shutil.copytree(place / "seed-0", place / ".seed-0.tmp")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert report(runs, tmp_path / "again") == once
    runs.rename(tmp_path / ".hidden")
    assert report(tmp_path / ".hidden", tmp_path / "hidden") == once


def test_where_no_run_can_be_read_that_is_said(tmp_path: Path) -> None:
    (put(tmp_path / "runs", "infty", "x8", 0.3) / "result.json").write_text("{")
    with (
        pytest.warns(UserWarning, match="seed-0 is left out"),
        pytest.raises(MissingError, match=r"none of the finished runs in .*runs can be read"),
    ):
        report(tmp_path / "runs", tmp_path / "out")


def test_unfinished_runs_are_missing(runs: Path, tmp_path: Path) -> None:
    (put(runs, "compressive", "x8", 0.3) / "result.json").unlink()
    assert "| compressive | – | – | – |" in report(runs, tmp_path / "out")


def test_nothing_finished_is_said(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="make one with: infty train sort"):
        write_report([tmp_path], tmp_path / "out", ["md"], SHIPPED)
    assert not (tmp_path / "out").exists()


def test_the_difference_between_rows_by_sequence(runs: Path, tmp_path: Path) -> None:
    """Of 20 symbols a sequence: 3 and 5 right against 1 and 5 are 10 and 0 points more, 5 ± 5; with 0 and 5, −2.5."""
    for model, case, right in (
        ("infty", "x8", [3, 5]), ("transformer-xl", "x8", [1, 5]), ("compressive", "x8", [0, 5]),
        ("infty", "x16", [1, 2]),
    ):  # fmt: skip
        folder = runs / f"sort/laptop/{model}@{case}/seed-0"
        folder = folder if folder.exists() else put(runs, model, case, 0.3)
        evaluate(folder, {"answers": {"symbols": 20, "right": right}})
    assert """\
## sort, laptop scale: difference to transformer-xl

| model | x4 ↑ | x8 ↑ | x16 ↑ |
| --- | ---: | ---: | ---: |
| transformer-xl-wide | – | – | – |
| compressive | – | −2.5 [−5.0, +0.0] | – |
| infty | – | +5.0 [+0.0, +10.0] | – |
| infty-sticky | – | – | – |
""" in report(runs, tmp_path / "out")


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


def test_a_graft_that_begins_as_its_base_has_a_table_of_its_own(tmp_path: Path) -> None:
    root, out = tmp_path / "runs", tmp_path / "out"
    for model, start in (("infty", ""), ("compressive", "base")):
        folder = put(root, model, "x8", 0.3)
        config = yaml.safe_load((folder / "config.yaml").read_text())
        (folder / "config.yaml").write_text(yaml.safe_dump({**config, "model": {"start": start} if start else {}}))
    write_report([root], out, ["md"], SHIPPED)
    tables = {path.stem: path.read_text() for path in out.glob("*.md")}
    assert list(map(len, tables.values()))
    assert tables.keys() == {"sort-laptop-sort-accuracy-v1", "sort-laptop-sort-accuracy-v1-start-base"}
    for stem, text in tables.items():
        for model in ("infty", "compressive"):
            (row,) = [line for line in text.split("## ")[1].splitlines() if line.startswith(f"| {model} |")]
            assert ("30.0" in row) == ((model == "compressive") == stem.endswith("base")), f"{stem}: {row}"


def test_rows_trained_on_other_numbers_of_tokens_are_told(runs: Path, tmp_path: Path) -> None:
    put(runs, "compressive", "x8", 0.3, tokens_seen=999)
    assert "Column x8: rows were trained on different numbers of tokens." in report(runs, tmp_path / "out")
