"""`infty export` and `infty clean`: what of a run is carried away, and what may go."""

import hashlib
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from infty import load_run
from tests.conftest import Infty
from tests.reliability.runs import finish

CELL = ("sort", "--scale", "smoke")
RUN = "sort/smoke/infty@x4/seed-0"
UNFINISHED = "sort/smoke/infty@x8/seed-0"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs, of which the second has to go on."""
    place = tmp_path_factory.mktemp("trained")
    assert finish(place, "train", *CELL).returncode == 0
    folder = place / "runs" / UNFINISHED
    shutil.copytree(place / "runs" / RUN, folder)
    (folder / "result.json").unlink()
    (folder / "config.yaml").write_text((folder / "config.yaml").read_text().replace("case: x4", "case: x8"))
    return place


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """The first, in a copy of both."""
    shutil.copytree(trained / "runs", tmp_path / "runs", symlinks=True)
    return tmp_path / "runs" / RUN


def files(folder: Path) -> dict[str, str]:
    """Names and sums of what is below."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def test_an_exported_run_is_evaluated_elsewhere_with_the_same_figures(infty: Infty, tmp_path: Path, run: Path) -> None:
    done = infty("export", RUN, "--json")
    assert done.returncode == 0, done.stderr
    file = tmp_path / json.loads(done.stdout)["file"]
    assert file.name == "sort-smoke-infty@x4-seed-0.zip"
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "elsewhere")
    best = json.loads((run / "checkpoints/best.json").read_text())["checkpoint"]
    assert {Path(name).parts[-2] for name in names if "step-" in name} == {best}
    assert not any("wandb" in name or "last.json" in name for name in names)
    moved, own = load_run(tmp_path / "elsewhere" / RUN), load_run(run)
    pairs = zip(moved.model.parameters(), own.model.parameters(), strict=True)
    assert all(torch.equal(one, two) for one, two in pairs)
    again = infty("eval", *CELL, "--runs", "elsewhere", "--json")
    assert json.loads(again.stdout)["metrics"] == json.loads((run / "result.json").read_text())["metrics"]
    reports = [infty("report", folder, "--out", f"out-{folder}") for folder in (f"runs/{RUN}", "elsewhere")]
    assert [report.returncode for report in reports] == [0, 0]
    assert files(tmp_path / f"out-runs/{RUN}") == files(tmp_path / "out-elsewhere")


@pytest.mark.parametrize("cell", [("wikitext", "infty@main"), ("gpt2", "infty@wikitext")], ids=lambda cell: cell[0])
def test_an_exported_run_on_a_text_needs_no_text_to_be_loaded(
    infty: Infty, tmp_path: Path, cell: tuple[str, str]
) -> None:
    """Model, tokeniser and configuration, on a machine that has nothing else; and it writes as the first one does."""
    experiment, name = cell
    assert infty("train", experiment, "--scale", "smoke").returncode == 0
    assert infty("export", f"{experiment}/smoke/{name}/seed-0", "--out", "run.zip").returncode == 0
    with zipfile.ZipFile(tmp_path / "run.zip") as archive:
        archive.extractall(tmp_path / "elsewhere/runs")
    trained = load_run(tmp_path / f"elsewhere/runs/{experiment}/smoke/{name}/seed-0")
    assert trained.tokenizer is not None
    tokens = np.concatenate([*trained.tokenizer.encode(["the city of the river "])])
    assert trained.tokenizer.decode(tokens.tolist()).split() == ["the", "city", "of", "the", "river"]
    assert trained.experiment.task.kind == "corpus"
    state = trained.model.initial_state(torch.zeros(1, dtype=torch.int64))
    output = trained.model(torch.from_numpy(tokens)[None, :5], state)
    assert output.logits.shape == (1, 5, trained.tokenizer.vocab_size)
    words = ("generate", experiment, "--scale", "smoke", "--prompt", "the city", "--tokens", "9", "--json")
    here, there = infty(*words), infty(*words, "--runs", "elsewhere/runs", INFTY_DATA="nowhere")
    assert (here.returncode, there.returncode) == (0, 0), there.stderr
    assert here.stdout == there.stdout


def test_the_same_run_gives_the_same_archive_and_none_is_overwritten(infty: Infty, tmp_path: Path, run: Path) -> None:
    assert infty("export", RUN, "--out", "a.zip").returncode == 0
    assert infty("export", str(run), "--out", "b.zip").returncode == 0
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    (tmp_path / "a.zip").write_text("mine")
    done = infty("export", RUN, "--out", "a.zip")
    assert (done.returncode, done.stderr.strip()) == (2, "infty: a.zip is there already; --out names another file")
    assert (tmp_path / "a.zip").read_text() == "mine"


def test_where_no_archive_can_be_made_that_is_told_with_a_way_out(infty: Infty, tmp_path: Path, run: Path) -> None:
    (tmp_path / "mine").mkdir()
    for out, message in (
        ("mine", "mine is a folder; --out names a file, as mine/run.zip"),
        ("none/a.zip", "--out none/a.zip: there is no folder none"),
    ):
        done = infty("export", RUN, "--out", out)
        assert (done.returncode, done.stdout, done.stderr) == (2, "", f"infty: {message}\n")
    assert list((tmp_path / "mine").iterdir()) == []


def test_what_is_not_whole_is_not_exported(infty: Infty, tmp_path: Path, run: Path) -> None:
    unfinished, absent = infty("export", UNFINISHED), infty("export", "sort/smoke/infty@x16/seed-0")
    assert (unfinished.returncode, absent.returncode) == (3, 3)
    assert "is not finished; continue it with: infty train sort --model infty" in unfinished.stderr
    assert "is no run" in absent.stderr
    best = json.loads((run / "checkpoints/best.json").read_text())["checkpoint"]
    weights = run / "checkpoints" / best / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    damaged = infty("export", RUN)
    assert damaged.returncode == 3
    assert "model.safetensors is not what was saved" in damaged.stderr
    assert not list(tmp_path.glob("*.zip"))


def test_clean_lists_first_then_removes_what_a_report_does_not_need(infty: Infty, tmp_path: Path, run: Path) -> None:
    other, before = files(tmp_path / "runs" / UNFINISHED), files(tmp_path / "runs")
    assert infty("report", "--out", "before").returncode == 0
    listed = json.loads(infty("clean", "--json").stdout)
    assert [Path(one["run"]) for one in listed["runs"]] == [run]
    assert listed["removed"] is False
    assert files(tmp_path / "runs") == before
    on_disk = sum(path.stat().st_size for path in (run / "checkpoints").rglob("*") if path.is_file())
    assert listed["runs"][0]["bytes"]["checkpoints"] == on_disk
    assert infty("clean", "--yes").returncode == 0
    left = files(tmp_path / "runs")
    assert left == {name: digest for name, digest in before.items() if not _may_go(name)}
    assert {name: left[f"{UNFINISHED}/{name}"] for name in other} == other
    assert infty("report", "--out", "after").returncode == 0
    assert files(tmp_path / "before") == files(tmp_path / "after")
    assert "Nothing here that a report does not need." in infty("clean").stdout
    evaluated = infty("eval", *CELL)
    assert evaluated.returncode == 3
    assert "the checkpoints of" in evaluated.stderr


def _may_go(name: str) -> bool:
    return name.startswith(f"{RUN}/") and name.removeprefix(f"{RUN}/").split("/")[0] in ("checkpoints", "wandb")


def test_clean_leaves_a_run_alone_that_has_to_go_on(infty: Infty, tmp_path: Path, run: Path) -> None:
    before = files(tmp_path / "runs")
    done = infty("clean", RUN, UNFINISHED, "--yes")
    assert done.returncode == 2
    assert "is not finished: its checkpoints are needed to go on" in done.stderr
    assert files(tmp_path / "runs") == before


def test_clean_takes_trials_whose_outcome_is_recorded_and_no_weights_that_others_start_from(
    infty: Infty, tmp_path: Path, run: Path
) -> None:
    recorded, open_one, unread = (
        tmp_path / f"tuning/sort/smoke/infty@{case}+1a2b/seed-0" for case in ("x4", "x8", "x16")
    )
    base = tmp_path / "runs/sort/smoke/base@x4+1a2b/seed-0"
    for folder in (recorded, open_one, unread, base):
        shutil.copytree(run, folder)
    (base / "config.yaml").write_text((base / "config.yaml").read_text().replace("model: infty", "model: base"))
    record = {"experiment": "sort", "scale": "smoke", "case": "x4", "steps": 3, "seed": 0, "trials": [], "grid": {}}
    record |= {"chosen": {}, "commit": None, "dirty": None, "command": "infty tune sort --case x4 --scale smoke"}
    (run.parents[1] / "tuning-x4.json").write_text(json.dumps(record))
    (run.parents[1] / "tuning-x16.json").write_text("{}")
    before = files(base)
    listed = infty("clean", "--yes")
    assert listed.returncode == 0
    assert "removed." in listed.stdout
    assert [trial.exists() for trial in (recorded, open_one, unread)] == [False, True, True]
    assert "tuning-x16.json is left out" in listed.stderr
    assert files(base) == before
