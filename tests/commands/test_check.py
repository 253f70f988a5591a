"""`infty report --check`: a changed digit and a swapped checkpoint are found; what can't be checked is said."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from infty.commands.check import check_runs
from infty.config.definition import SHIPPED
from infty.config.settings import load_settings
from tests.conftest import Infty
from tests.report.handmade import evaluate, put

RESULTS = SHIPPED / "results" / "laptop"
FAULT = "details.chunks.nats.0: must be a finite number; evaluate it again with infty eval"


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """Committed runs, of sorting and of GPT-2, without their checkpoints."""
    for name in ("sort/infty@x8/seed-0", "gpt2/infty@wikitext/seed-0"):
        shutil.copytree(RESULTS / name, tmp_path / "kept" / name)
    return tmp_path / "kept"


def change(file: Path, *path: Any, to: Any) -> None:
    values = json.loads(file.read_text())
    inner = values
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = to(inner[path[-1]])
    file.write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("key", "changed", "told"),
    [
        (None, None, []),
        ("accuracy", 0.76, ["test/accuracy is 0.76, and by its totals 0.75"]),
        ("loss", 1.50001, ["test/loss is 1.50001, and by its totals 1.5"]),
    ],
)
def test_without_a_command_line_a_figure_is_held_against_its_totals(
    tmp_path: Path, key: str | None, changed: float, told: list[str]
) -> None:
    metrics = {"test/accuracy": 0.75, "test/loss": 1.5}
    folder = put(tmp_path, "infty", "x4", 0.75, totals={"nats": 6.0, "scored": 4, "correct": 3}, metrics=metrics)
    evaluate(folder, {"answers": {"right": [1, 2], "symbols": 2}})
    if key:
        change(folder / "result.json", "metrics", f"test/{key}", to=lambda _: changed)
    (one,) = check_runs([tmp_path], load_settings())
    assert one.how == "stored totals only: it has no checkpoint"
    assert [fault for fault in one.faults if "by its totals" in fault] == told
    assert len(one.faults) == 2 * len(told), "the evaluation beside it has the figure too"


def test_committed_runs_are_as_stored(infty: Infty) -> None:
    done = infty("report", str(RESULTS), "--check", "--json")
    assert done.returncode == 0, done.stderr
    checked = json.loads(done.stdout)
    assert len(checked) == len(list(RESULTS.rglob("result.json")))
    assert {one["how"] for one in checked} == {"stored totals only: it has no checkpoint"}


@pytest.mark.parametrize(
    ("name", "file", "path", "word"),
    [
        ("sort", "result.json", ("metrics", "test/accuracy"), "by its totals"),
        ("sort", "result.json", ("metrics", "test/loss"), "by its totals"),
        ("sort", "result.json", ("totals", "nats"), "by its totals"),
        ("gpt2", "result.json", ("metrics", "test/word_perplexity"), "by its totals"),
        ("gpt2", "result.json", ("metrics", "test/far_loss"), "test/far_loss"),
        ("gpt2", "result.json", ("totals", "aside_nats"), "by its totals"),
        ("gpt2", "eval/gpt2-blocks-v1-test.json", ("metrics", "test/bits_per_byte"), "test/bits_per_byte"),
        ("gpt2", "eval/gpt2-blocks-v1-test.json", ("details", "chunks", "nats", 7), "chunks sum up to"),
    ],
)
def test_a_changed_digit_is_found(
    infty: Infty, kept: Path, name: str, file: str, path: tuple[Any, ...], word: str
) -> None:
    """The seventh digit of any figure, and nothing else is."""
    (run,) = (kept / name).rglob("seed-0")
    change(run / file, *path, to=lambda value: value * (1 + 1e-6))
    done = infty("report", str(kept), "--check")
    assert done.returncode == 4
    told = [line for line in done.stderr.splitlines() if "seed-0: " in line]
    assert told
    assert all(name in line for line in told)
    assert any(word in line for line in told)


def test_totals_that_are_no_totals_are_a_fault_of_their_run_alone(infty: Infty, kept: Path) -> None:
    change(kept / "sort/infty@x8/seed-0/result.json", "totals", to=lambda totals: {**totals, "scored": 0})
    done = infty("report", str(kept), "--check", "--json")
    assert done.returncode == 4
    assert "seed-0: totals: ZeroDivisionError" in done.stderr
    assert {one["how"] for one in json.loads(done.stdout)} == {
        "nothing: its totals are damaged",
        "stored totals only: it has no checkpoint",
    }


def test_an_evaluation_that_adds_up_to_nothing_is_a_fault_of_its_run_alone(infty: Infty, kept: Path) -> None:
    file = kept / "gpt2/infty@wikitext/seed-0/eval/gpt2-blocks-v1-test.json"
    change(file, "details", "chunks", "nats", to=lambda nats: [math.inf, -math.inf, *nats])
    done = infty("report", str(kept), "--check", "--json")
    assert done.returncode == 4, done.stderr
    gpt2, sort = json.loads(done.stdout)
    assert sort["faults"] == []
    assert gpt2["faults"] == [f"{Path(gpt2['run']) / file.relative_to(file.parents[1])}: {FAULT}"]


def test_of_a_damaged_evaluation_the_way_out_is_to_evaluate_again(infty: Infty, kept: Path) -> None:
    (kept / "sort/infty@x8/seed-0/eval/sort-accuracy-v1-test.json").write_text("{")
    done = infty("report", str(kept), "--check")
    assert done.returncode == 4
    assert done.stderr.endswith("; evaluate it again with infty eval\n")


def test_damage_beside_a_result_is_found_and_told_by_the_report(infty: Infty, kept: Path) -> None:
    """The half line that a killed process may leave at the end is none."""
    run = kept / "sort/infty@x8/seed-0"
    (run / "environment.json").write_text('{"threads": "two"}')
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    place = next(number for number, line in enumerate(lines) if "validation/loss" in line)
    lines[place] = lines[place].replace('"validation/loss": ', '"validation/loss": -')
    (run / "metrics.jsonl").write_text("".join([*lines, lines[0][:9] + "\n", "[7]\n", '{"step"']))
    numbers = f"{len(lines) + 1}, {len(lines) + 2}"
    done = infty("report", str(kept), "--check", "--json")
    assert done.returncode == 4, done.stderr
    faults = [one["faults"] for one in json.loads(done.stdout)]
    assert faults[0] == []
    assert [fault.rpartition("/")[2] for fault in faults[1]] == [
        "environment.json: threads: must be a valid integer; the result stands without it",
        f"metrics.jsonl has 2 damaged lines ({numbers})",
    ]
    done = infty("report", str(kept), "--out", "out")
    assert done.returncode == 0, done.stderr
    assert f"/metrics.jsonl: 2 damaged lines ({numbers}) left out" in done.stderr
    assert f"/metrics.jsonl: the validation of step {json.loads(lines[place])['step']} is damaged" in done.stderr


def test_a_result_on_other_data_than_its_evaluation_is_found(infty: Infty, kept: Path) -> None:
    change(kept / "sort/infty@x8/seed-0/result.json", "data", "sha256", to=lambda _: "0" * 64)
    done = infty("report", str(kept), "--check")
    assert (done.returncode, "data is not what is stored" in done.stderr) == (4, True)


@pytest.mark.slow
def test_a_swapped_checkpoint_and_a_damaged_one_are_found(infty: Infty, tmp_path: Path) -> None:
    cell = ("train", "sort", "--scale", "smoke", "--seed")
    for seed in ("0", "1"):
        assert infty(*cell, seed).returncode == 0
    before = {path: path.read_bytes() for path in (tmp_path / "runs").rglob("*") if path.is_file()}
    done = infty("report", "--check", "--json")
    assert done.returncode == 0, done.stderr
    assert {one["how"] for one in json.loads(done.stdout)} == {"an evaluation of its checkpoint"}
    assert {path: path.read_bytes() for path in before} == before  # nothing is written

    first, second = (tmp_path / f"runs/sort/smoke/infty@x4/seed-{seed}/checkpoints" for seed in (0, 1))
    shutil.rmtree(first)
    shutil.copytree(second, first)  # whole, sums and all
    done = infty("report", "--check")
    assert done.returncode == 4
    assert "seed-0: evaluated again, test/loss is " in done.stderr
    assert "seed-1: " not in done.stderr.split("infty: ", 1)[1]

    for weights in first.glob("step-*/model.safetensors"):
        weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    done = infty("report", "--check")
    assert done.returncode == 4
    assert "model.safetensors is not what was saved" in done.stderr

    shutil.rmtree(first)
    assert infty("report", "--check").returncode == 0


def test_a_run_that_cannot_be_evaluated_is_a_fault_of_its_own_alone(infty: Infty, tmp_path: Path) -> None:
    """One whose settings were changed by hand, so that they ask for what its text is not."""
    for name in ("wikitext", "sort"):
        assert infty("train", name, "--scale", "smoke").returncode == 0
    config = tmp_path / "runs/wikitext/smoke/infty@main/seed-0/config.yaml"
    assert "protocol: text-documents-v1" in config.read_text()
    config.write_text(config.read_text().replace("protocol: text-documents-v1", "protocol: wikitext103-word-v1"))
    done = infty("report", "--check", "--json")
    assert done.returncode == 4
    assert "is for the whole test split of WikiText-103" in done.stderr
    sort, text = json.loads(done.stdout)
    assert (sort["how"], sort["faults"]) == ("an evaluation of its checkpoint", [])
    assert (text["how"], len(text["faults"])) == ("stored totals only: it can't be evaluated", 1)


def test_where_its_text_is_gone_a_run_is_held_against_its_totals_and_that_is_said(infty: Infty, tmp_path: Path) -> None:
    assert infty("train", "wikitext", "--scale", "smoke").returncode == 0
    shutil.rmtree(tmp_path / "corpora/generated")
    done = infty("report", "--check", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)[0]["how"].startswith("stored totals only: no corpus 'generated' in ")


def test_what_is_not_there_is_said(infty: Infty, tmp_path: Path) -> None:
    done = infty("report", "none", "--check")
    assert (done.returncode, done.stderr[:21]) == (3, "infty: no folder none")
    (tmp_path / "runs").mkdir()
    done = infty("report", "--check")
    assert (done.returncode, "no finished runs" in done.stderr) == (3, True)


@pytest.mark.slower
@pytest.mark.slow
def test_runs_are_kept_small_and_report_the_same(infty: Infty, tmp_path: Path) -> None:
    """Without weights; fewer lines of training, and all of validation."""
    cell = ("train", "sort", "--scale", "smoke", "--set", "training.steps=300", "--name", "long")
    assert infty(*cell).returncode == 0
    one = json.loads(infty("report", "--json").stdout)
    done = infty("report", "--keep", "kept")
    assert done.returncode == 0, done.stderr
    assert "kept in kept: 1 run\n" in done.stderr
    run, small = tmp_path / "runs/sort/smoke/infty@x4+long/seed-0", tmp_path / "kept/smoke/sort/infty@x4+long/seed-0"
    assert not (small / "checkpoints").exists()
    lines, fewer = ((folder / "metrics.jsonl").read_text().splitlines() for folder in (run, small))
    training = [line for line in fewer if "train/loss" in line]
    assert [line for line in fewer if line not in training] == [line for line in lines if "train/loss" not in line]
    assert len(training) == 100
    assert {json.loads(training[0])["step"], json.loads(training[-1])["step"]} == {1, 300}
    other = json.loads(infty("report", "kept", "--json").stdout)
    assert other["tables"] == one["tables"]
    assert infty("report", "kept", "--check").returncode == 0
    assert infty("report", "--keep", "kept").returncode == 0  # again: replaced
    (run / "metrics.jsonl").write_text("\n".join([*lines, "7", '{"step": 301, "train/lo']))
    assert infty("report", "--keep", "kept").returncode == 0  # without what can't be read
    assert (small / "metrics.jsonl").read_text().splitlines() == fewer
    done = infty("report", "--keep", "runs/kept")
    assert (done.returncode, "choose a folder outside of it" in done.stderr) == (2, True)
