"""`infty reproduce`: trains what tables lack and no more, whatever befalls a cell, and goes on where it stopped."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from infty.commands.reproduce.missing import Job, Tables
from infty.commands.reproduce.workers import _Work, train_missing
from infty.config.definition import CellKey
from infty.training.checkpoint import load_last
from infty.training.signals import StopSignals
from tests.commands.reproduce.own import SMOKE, run_of, write_experiment
from tests.conftest import Infty, clean_environment
from tests.reliability.runs import ROOT, finish, start

pytestmark = pytest.mark.slow

SEEDS = (1, 0)  # of the table that is reproduced
LONG = {"training": {"steps": 3000, "evaluate_every": 3}}  # not done while another cell is trained from its start
# Takes the terminal it is started in as its own, so that Ctrl-C reaches it, and becomes another program.
IN_TERMINAL = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY); os.execv(sys.argv[1], sys.argv[1:])"


def written(folder: Path) -> dict[str, int]:
    """Every file in it and when it was last written to."""
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def figures(folder: Path) -> dict[tuple[str, int], Any]:
    """Of the table that is reproduced: what is no matter of time."""
    results = {(row, seed): run_of(folder, row, seed=seed).result() for row in ("a", "b") for seed in SEEDS}
    return {place: r.model_dump(include={"metrics", "totals", "best_step"}) for place, r in results.items()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A table of which one cell was there and three were trained one by one; and what was told."""
    folder = tmp_path_factory.mktemp("whole")
    write_experiment(folder, "mine", {"a": {}, "b": {"training": {"learning_rate": 0.01}}}, seeds=SEEDS)
    assert finish(folder, "train", "mine", *SMOKE, "--model", "b", "--seed", "0").returncode == 0
    before = run_of(folder, "b").result()
    done = finish(folder, "reproduce", "mine", *SMOKE, "--json", WANDB_MODE="disabled")
    assert done.returncode == 0, done.stderr
    assert run_of(folder, "b").result() == before
    document = json.loads(done.stdout)
    assert [(job["model"], job["seed"]) for job in document["trained"]] == [("a", 0), ("a", 1), ("b", 1)]
    assert [(job["model"], job["seed"]) for job in document["done"]] == [("b", 0)]
    assert (document["failed"], document["left_out"]) == ([], [])
    assert str(folder / "report/mine-smoke.md") in document["files"]
    return folder, done.stderr


@pytest.mark.slow
def test_what_is_missing_is_trained_in_order_with_a_line_at_both_ends(whole: tuple[Path, str]) -> None:
    lines = whole[1].splitlines()
    assert re.fullmatch(r"1 cell finished before; 3 to train, about \d:\d\d", lines[0])
    for i, job in enumerate(("a@x4 seed 0", "a@x4 seed 1", "b@x4 seed 1")):
        assert lines[1 + 2 * i] == f"mine {job}: training"
        ended = rf"\[{i + 1} of 3\] mine {job}: done in \d:\d\d, test/accuracy 0\.\d{{4}}; about \d:\d\d left"
        assert re.fullmatch(ended, lines[2 + 2 * i])
    assert len(lines) == 7


@pytest.mark.slow
def test_again_nothing_is_missing_and_the_report_is_written(whole: tuple[Path, str]) -> None:
    folder, before = whole[0], written(whole[0] / "runs")
    done = finish(folder, "reproduce", "mine", *SMOKE, "--out", "elsewhere")
    assert (done.returncode, done.stderr) == (0, "4 cells finished before; nothing is missing\n")
    assert str(Path("elsewhere/mine-smoke.md")) in done.stdout.splitlines()
    assert written(folder / "runs") == before


@pytest.mark.slower
def test_two_at_once_give_the_same_figures(whole: tuple[Path, str], tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text((whole[0] / "experiments/mine.yaml").read_text())
    words = ("mine.yaml", *SMOKE, "--jobs", "2", "--runs", "runs")
    done = finish(tmp_path, "reproduce", *words, WANDB_MODE="disabled")
    assert done.returncode == 0, done.stderr
    assert figures(tmp_path) == figures(whole[0])


@pytest.mark.slower
@pytest.mark.slow
def test_a_cell_that_fails_leaves_the_others_trained(infty: Infty, tmp_path: Path) -> None:
    write_experiment(tmp_path, "mine", {"bad": {"training": {"learning_rate": 1e30, "clip_norm": 1e30}}, "good": {}})
    done = infty("reproduce", "mine", *SMOKE, "--json", WANDB_MODE="disabled")
    assert done.returncode == 1
    document = json.loads(done.stdout)
    (failed,) = document["failed"]
    command = "infty train mine --model bad --case x4 --scale smoke --seed 0"
    assert (failed["model"], failed["exit_code"], failed["command"]) == ("bad", 1, command)
    assert "try a lower training.learning_rate" in failed["why"]
    assert [job["model"] for job in document["trained"]] == ["good"]
    assert run_of(tmp_path, "good").state() == "done"
    assert (tmp_path / "report/mine-smoke.md").is_file()
    lines = done.stderr.splitlines()
    assert lines[2].startswith("[1 of 2] mine bad@x4 seed 0: failed: ")
    assert lines[-3] == "infty: 1 cell could not be trained"
    assert lines[-2] == f"mine bad@x4 seed 0: {failed['why']}"
    assert lines[-1] == f"  again with: {command}"


@pytest.mark.slow
def test_a_run_with_other_settings_ends_with_2_in_its_own_words(infty: Infty, tmp_path: Path) -> None:
    write_experiment(tmp_path, "mine", {"a": {}})
    run = run_of(tmp_path, "a")
    run.path.mkdir(parents=True)
    place = {"experiment": "mine", "scale": "smoke", "model": "a", "case": "x4", "seed": 0}
    run.write_config({"cell": place, "task": {"kind": "sort", "length": 3}})
    done = infty("reproduce", "mine", *SMOKE)
    assert (done.returncode, done.stdout) == (2, "")
    assert "holds a run with other settings:\n  model: None -> " in done.stderr.split("infty: 1 cell could not be")[1]
    assert "start over with --fresh (removes it), or keep both with --name\n" in done.stderr
    assert not (tmp_path / "report").exists()


@pytest.mark.slow
@pytest.mark.parametrize("switch", ["INFTY_AUTO_FETCH", "HF_HUB_OFFLINE"])
def test_cells_that_lack_the_same_data_are_left_out(infty: Infty, switch: str) -> None:
    done = infty("reproduce", "wikitext", "--json", **{switch: "false" if switch == "INFTY_AUTO_FETCH" else "1"})
    assert done.returncode == 3
    document = json.loads(done.stdout)
    assert len(document["failed"]) == 1
    assert len(document["left_out"]) == 14
    assert {other["why"] for other in document["left_out"]} == {"would fail like wikitext transformer-xl@main seed 0"}
    lines = done.stderr.splitlines()
    assert lines[2].endswith("; 14 cells left out that would fail alike; about 0:00 left")
    assert "get it with: infty data fetch wikitext" in lines[-2]


def wait_for(process: "subprocess.Popen[str]", beginning: str) -> str:
    """The line that begins so, when it is told."""
    assert process.stderr is not None
    told = []
    for line in process.stderr:
        told.append(line)
        if line.startswith(beginning):
            return line
    raise AssertionError("".join(told))


@pytest.mark.slow
def test_sigterm_stops_what_runs_with_a_checkpoint_and_begins_no_more(tmp_path: Path) -> None:
    write_experiment(tmp_path, "mine", {"short": {}, "long": LONG, "later": {}})
    with start(tmp_path, ["-m", "infty", "reproduce", "mine", *SMOKE, "--jobs", "2"], WANDB_MODE="disabled") as process:
        wait_for(process, "mine later@x4")  # so the short one is done, and the long one began with it
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        told = process.stderr.read()
    assert process.returncode == 143
    assert "[1 of 3] mine long@x4 seed 0: stopped; about " in told
    assert told.splitlines()[-1] == "infty: stopped by SIGTERM: 1 cell trained, 2 not; the same command continues"
    assert (run_of(tmp_path, "short").state(), run_of(tmp_path, "long").state()) == ("done", "stopped")
    assert load_last(run_of(tmp_path, "long").checkpoints) is not None


@pytest.mark.slower
@pytest.mark.skipif(not Path(f"/proc/self/task/{os.getpid()}/children").exists(), reason="Linux tells who runs")
def test_a_process_that_the_system_kills_stops_no_other(tmp_path: Path) -> None:
    write_experiment(tmp_path, "mine", {"short": {}, "long": LONG, "later": {}})
    with start(tmp_path, ["-m", "infty", "reproduce", "mine", *SMOKE, "--jobs", "2"], WANDB_MODE="disabled") as process:
        wait_for(process, "[1 of 3] mine short@x4")
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGKILL)
        assert process.stderr is not None
        told = process.stderr.read()
    assert process.returncode == 1
    why = "stopped by a signal (Killed, as the system does where memory runs out)"
    assert f"] mine long@x4 seed 0: failed: {why}; about " in told
    assert run_of(tmp_path, "later").state() == "done"
    assert run_of(tmp_path, "long").state() == "interrupted"


@pytest.mark.slower
@pytest.mark.slow
def test_control_c_in_a_terminal_reaches_each_process_once_and_the_same_command_ends_it(tmp_path: Path) -> None:
    """There the line that a process said last is shown; Ctrl-C goes to the whole group, of which they are no part."""
    write_experiment(tmp_path, "mine", {"long": {"training": {"steps": 200, "evaluate_every": 3}}})
    ours, theirs = pty.openpty()
    command = ("reproduce", "mine", *SMOKE)
    process = subprocess.Popen(
        [sys.executable, "-c", IN_TERMINAL, sys.executable, "-m", "infty", *command],
        cwd=tmp_path,
        env=clean_environment(tmp_path, PYTHONPATH=str(ROOT), WANDB_MODE="disabled", TERM="xterm"),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    told = b""
    while not re.search(rb"  mine long@x4 seed 0: step \d+/200", told):
        told += os.read(ours, 1000)
    os.write(ours, b"\x03")
    try:
        while piece := os.read(ours, 1000):
            told += piece
    except OSError:  # its end has gone
        os.close(ours)
    assert process.wait() == 130, told
    assert b"0/1 cells" in told
    assert b"infty: stopped by SIGINT: 0 cells trained, 1 not; the same command continues" in told
    run = run_of(tmp_path, "long")
    last = load_last(run.checkpoints)
    assert run.state() == "stopped"
    assert last is not None
    assert 3 <= last.state.step < 200
    done = finish(tmp_path, *command, WANDB_MODE="disabled")
    assert done.returncode == 0, done.stderr
    assert run.state() == "done"


def test_a_dry_run_writes_nothing(infty: Infty, tmp_path: Path) -> None:
    write_experiment(tmp_path, "mine", {"a": {}, "b": {}}, seeds=SEEDS)
    before = written(tmp_path)
    done = infty("reproduce", "mine", *SMOKE, "--dry-run", "--device", "cpu", "--runs", "my runs")
    words = "--case x4 --scale smoke --seed"
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        *(
            f"infty train mine --model {row} {words} {seed} --runs 'my runs' --device cpu  # about ?"
            for seed in (0, 1)
            for row in ("a", "b")
        ),
        "# 4 to train, about ?",
    ]
    document = json.loads(infty("reproduce", "mine", *SMOKE, "--dry-run", "--json").stdout)
    assert (document["seconds"], document["missing"][0]["expected_seconds"]) == (None, None)
    assert written(tmp_path) == before


@pytest.mark.parametrize(
    ("code", "exit_code", "why"),
    [
        ("import sys; sys.exit('\\n \\n')", 1, "ended with 1 and said nothing"),
        ("import sys; sys.exit('no room\\n \\n')", 1, "no room"),
        ("", 3, "/infty@x4/seed-0/result.json is missing; train again with --fresh"),  # it claims to be done
    ],
)
def test_a_process_that_leaves_no_last_word_or_no_result_fails_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, exit_code: int, why: str
) -> None:
    class Other(subprocess.Popen):
        def __init__(self, command: list[str], **options: Any) -> None:
            super().__init__([sys.executable, "-c", code], **options)

    monkeypatch.setattr("infty.commands.reproduce.workers.subprocess.Popen", Other)
    jobs = [Job(CellKey("sort", "smoke", row, "x4"), ()) for row in ("infty", "compressive")]
    tables = Tables(tmp_path, missing=jobs)
    train_missing(tables, jobs=2)
    assert {failed.cell.model for failed in tables.failed} == {"infty", "compressive"}
    assert [failed.exit_code for failed in tables.failed] == [exit_code] * 2
    assert any(failed.why.endswith(why) for failed in tables.failed)


def test_cells_side_by_side_have_places_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """By which each takes a GPU; one that is free again is taken again."""
    given: list[str] = []

    class Noted(subprocess.Popen):
        def __init__(self, command: list[str], **options: Any) -> None:
            given.append(options["env"]["INFTY_SLOT"])
            super().__init__([sys.executable, "-c", ""], **options)

    monkeypatch.setattr("infty.commands.reproduce.workers.subprocess.Popen", Noted)
    jobs = [SimpleNamespace(words=()) for _ in range(4)]
    tables: Any = SimpleNamespace(missing=jobs, is_open=lambda _: True)
    work = _Work(tables, jobs=3)
    work._begin(StopSignals())
    first = list(work.children)
    work.children.remove(first[1])
    work._begin(StopSignals())
    assert given == ["0", "1", "2", "1"]
    for child in {*first, *work.children}:
        child.process.wait()
        child.reader.join()
