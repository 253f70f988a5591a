"""1, 2 and 3 processes are one training: the same losses, totals and checkpoints, whichever of them ends how."""

import hashlib
import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from infty.runs.folder import RunFolder
from tests import forks
from tests.conftest import clean_environment
from tests.reliability.runs import ROOT, metrics
from tests.training.together import as_srun, as_torchrun, free_port, processes, succeed, together

pytestmark = pytest.mark.slow
EVEN = ("--set", "training.batch_size=6", "--set", "model.dropout=0.0", "--name", "even")
STEPS = ("--set", "training.steps=20", "--set", "training.log_every=1", "--set", "training.evaluate_every=10")
CELLS = {
    "sort": ("sort", "--case", "x4"),
    "wikitext": ("wikitext", "--case", "main"),
    "gpt2": ("gpt2", "--case", "wikitext", "--set", "pretraining.batch_size=6"),
}


def run_of(folder: Path, experiment: str, model: str = "infty", name: str = "even") -> RunFolder:
    return RunFolder(next(folder.glob(f"{experiment}/smoke/{model}@*+{name}/seed-0")))


def words(experiment: str, model: str = "infty") -> tuple[str, ...]:
    return ("train", *CELLS[experiment], "--scale", "smoke", "--model", model, *EVEN, *STEPS)


@pytest.mark.parametrize(
    ("experiment", "model"),
    [
        ("sort", "infty"),
        pytest.param("gpt2", "infty", marks=pytest.mark.slower),
        pytest.param("wikitext", "infty", marks=pytest.mark.slower),
        pytest.param("wikitext", "compressive", marks=pytest.mark.slower),
    ],
)
def test_losses_are_the_same_with_1_2_and_3_processes(tmp_path: Path, experiment: str, model: str) -> None:
    """20 steps at a batch of 6, without dropout, with fixed samples: within 1e-5."""
    curves = {}
    for size in (1, 2, 3):
        succeed(tmp_path, size, *words(experiment, model), "--runs", f"{size}")
        curves[size] = metrics(run_of(tmp_path / f"{size}", experiment, model))
    assert [line["step"] for line in curves[1] if "train/loss" in line] == list(range(1, 21))
    for size in (2, 3):
        assert [line.keys() for line in curves[size]] == [line.keys() for line in curves[1]]
        for one, other in zip(curves[1], curves[size], strict=True):
            assert {k: v for k, v in other.items() if "loss" in k} == pytest.approx(
                {k: v for k, v in one.items() if "loss" in k}, abs=1e-5
            )
            assert other == pytest.approx(one, rel=1e-5, abs=1e-5)


def test_what_is_tried_before_a_long_run_leaves_nothing_in_what_processes_share(tmp_path: Path) -> None:
    """A memory that is not read yet has no gradient in the first steps, however many there are to come."""
    hundred = ("--set", "training.steps=100", "--set", "training.evaluate_every=100", "--set", "training.log_every=1")
    curves = []
    for size in (1, 2):
        succeed(tmp_path, size, *words("wikitext"), *hundred, "--runs", f"{size}")
        curves.append([line["train/loss"] for line in metrics(run_of(tmp_path / f"{size}", "wikitext"))[:12]])
    assert curves[1] == pytest.approx(curves[0], abs=1e-5)


LONG = ("--set", "training.steps=40", "--set", "training.evaluate_every=10", "--set", "training.log_every=1")


def long(*more: str) -> tuple[str, ...]:
    """With dropout and sticky samples: what is drawn must go on too."""
    cell = ("train", "wikitext", "--scale", "smoke", "--model", "infty-sticky", "--set", "training.batch_size=6")
    return (*cell, *LONG, "--name", "even", *more)


def sums(run: RunFolder, step: int = 40) -> dict[str, str]:
    folder = run.checkpoints / f"step-{step:08d}"
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.safetensors")}


def stopped_midway(folder: Path, number: int, *words: str) -> "list[int]":
    """Two processes, of which the second gets a signal once there is a checkpoint: their exit codes."""
    with forks.heard(processes(folder, 2, *words), folder) as (running, stderr):
        told = list(itertools.takewhile(lambda line: "step 10/40" not in line, stderr))
        assert Path(f"/proc/{running.pids[1]}").exists(), told
        os.kill(running.pids[1], number)
        done = running.wait(150)
    return [one.returncode for one in done]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The run that nothing befell, on two processes."""
    folder = tmp_path_factory.mktemp("whole")
    succeed(folder, 2, *long())
    return run_of(folder / "runs", "wikitext", "infty-sticky")


@pytest.mark.parametrize(
    ("number", "codes", "state", "why"),
    [
        (signal.SIGTERM, [143, 143], "stopped", "by a signal"),
        pytest.param(
            signal.SIGKILL,
            [1, -signal.SIGKILL],
            "failed",
            "process 0 of 2 lost the others: one of them has ended",
            marks=pytest.mark.slower,
        ),
    ],
)
def test_the_end_of_one_is_the_end_of_all_and_the_run_continues_the_same_to_the_byte(
    tmp_path: Path, whole: RunFolder, number: int, codes: list[int], state: str, why: str
) -> None:
    """One of two gets the signal; metrics have no gap and no double afterwards."""
    assert stopped_midway(tmp_path, number, *long()) == codes
    run = run_of(tmp_path / "runs", "wikitext", "infty-sticky")
    found, said = run.condition()
    assert found == state
    assert why in said
    succeed(tmp_path, 2, *long())
    assert sums(run) == sums(whole)
    assert metrics(run) == metrics(whole)


@pytest.mark.slower
def test_a_checkpoint_of_two_continues_on_three_and_on_one_in_pieces(tmp_path: Path) -> None:
    """Without dropout, which each piece draws for itself. Of six rows each has its own memory, wherever it goes."""
    still = ("--set", "model.dropout=0.0")
    succeed(tmp_path, 1, *long(*still, "--runs", "1"))
    whole = metrics(run_of(tmp_path / "1", "wikitext", "infty-sticky"))
    for size, more in ((3, ()), (1, ("--micro-batch", "4"))):
        name = f"{size}-{len(more)}"
        assert stopped_midway(tmp_path, signal.SIGTERM, *long(*still, "--runs", name)) == [143, 143]
        done = together(tmp_path, size, *long(*still, "--runs", name, *more))
        assert [one.returncode for one in done] == [0] * size
        assert "processes: 2 ->" in done[0].stderr
        found = metrics(run_of(tmp_path / name, "wikitext", "infty-sticky"))
        assert len(found) == len(whole)
        for one, other in zip(whole, found, strict=True):
            assert other == pytest.approx(one, rel=1e-4, abs=1e-4)


def test_torchrun_starts_and_stops_a_run(tmp_path: Path) -> None:
    """The launcher itself, with the signal that a terminal would send it: it hands that on, and all stop in order."""
    program = [str(Path(sys.executable).with_name("torchrun")), "--standalone", "--nproc-per-node", "2", "-m", "infty"]
    more = ("--set", "training.steps=100000", "--set", "training.evaluate_every=10", "--name", "even")
    command = [*program, "train", "sort", "--scale", "smoke", "--set", "training.batch_size=6", *more]
    environment = clean_environment(tmp_path, PYTHONPATH=str(ROOT), WANDB_MODE="disabled")
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if line.startswith("step 20/"):
                process.send_signal(signal.SIGINT)
                break
        said += process.stderr.readlines()
    run = run_of(tmp_path / "runs", "sort")
    assert run.state() == "stopped", "".join(said)
    told = [line for line in said if line.startswith("infty:")]
    assert len(told) == 1, "".join(said)
    assert told[0].endswith("; the same command continues from there\n")
    step = json.loads((run.checkpoints / "last.json").read_text())["checkpoint"]
    assert int(step.removeprefix("step-")) >= 20


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("train", "sort", "--scale", "smoke", "--set", "training.batch_size=7"), 2,
         "infty: training.batch_size 7 does not divide among 3 processes: start 1 of them, or another number that "
         "divides it\n"),
        (("train", "sort", "--scale", "smoke", "--set", "training.stps=7"), 2, "did you mean steps?"),
        (("report",), 2, "infty: report is one process's work; train and eval are for several\n"),
        (("eval", "sort", "--scale", "smoke"), 3, "infty: nothing trained yet in"),
        (("eval", "sort", "--scale", "smoke", "--check-batch"), 2, "--check-batch and --stream are one process's work"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_once(tmp_path: Path, words: tuple[str, ...], code: int, message: str) -> None:
    done = together(tmp_path, 3, *words)
    assert [one.returncode for one in done] == [code] * 3, done
    assert message in done[0].stderr
    for rank, one in enumerate(done[1:], 1):
        assert one.stderr in ("", done[0].stderr.replace("infty:", f"infty, process {rank} of 3:"))
        assert one.stderr == "" or code == 3


def test_a_busy_run_folder_is_left_alone_by_all(tmp_path: Path) -> None:
    cell = ("train", *CELLS["sort"], "--scale", "smoke", *EVEN)
    run = RunFolder(tmp_path / "runs/sort/smoke/infty@x4+even/seed-0")
    run.path.mkdir(parents=True)
    with run.lock():
        done = together(tmp_path, 2, *cell)
    assert [one.returncode for one in done] == [2, 2]
    assert "another process is training in" in done[0].stderr


def test_machines_that_share_no_disk_are_refused_at_once(tmp_path: Path) -> None:
    """Each process has a folder of runs of its own, as on two machines."""
    port, cell = free_port(), ("train", *CELLS["sort"], "--scale", "smoke", *EVEN)
    commands = [
        ((*cell, "--runs", f"{rank}"), clean_environment(tmp_path, **as_torchrun(rank, 2, port))) for rank in (0, 1)
    ]
    done = forks.start(commands, tmp_path, "tests.training.hasty").wait(100)
    assert [one.returncode for one in done] == [3, 3]
    assert "--runs must be on a disk that they all share" in done[0].stderr
    assert done[1].stderr.startswith("infty, process 1 of 2: not all processes see the same 1/sort")
    assert not list(tmp_path.rglob("metrics.jsonl"))


def test_srun_starts_what_torchrun_starts(tmp_path: Path) -> None:
    cell = ("train", *CELLS["sort"], "--scale", "smoke", *EVEN)
    for name, options in (("torchrun", {}), ("srun", {"launcher": as_srun})):
        succeed(tmp_path, 2, *cell, "--runs", name, **options)
    ours, theirs = (run_of(tmp_path / name, "sort") for name in ("srun", "torchrun"))
    assert metrics(ours) == metrics(theirs)
    assert json.loads((ours.path / "environment.json").read_text())["processes"] == 2


@pytest.mark.parametrize(("documents", "size"), [pytest.param(7, 2, marks=pytest.mark.slower), (3, 4)])
def test_uneven_shares_of_documents_have_the_totals_of_all(tmp_path: Path, documents: int, size: int) -> None:
    """Seven documents for two processes; three for four, of which one has nothing to read."""
    part = ("--set", "task.test.split=train", "--set", f"task.test.last={documents}")
    cell = ("wikitext", "--scale", "smoke", *part, "--name", "even")
    succeed(tmp_path, 1, "train", *cell)
    run = run_of(tmp_path / "runs", "wikitext")
    one = json.loads((run.path / "eval/text-documents-v1-test.json").read_text())
    assert one["data"]["documents"] == documents
    more = json.loads(succeed(tmp_path, size, "eval", *cell, "--json", "--batch", "1"))
    exact = ("scored", "correct", "aside", "words", "bytes")
    assert {k: more["totals"][k] for k in exact} == {k: one["totals"][k] for k in exact}
    assert more["totals"]["nats"] == pytest.approx(one["totals"]["nats"], rel=1e-6)
    assert more["details"]["chunks"]["nats"] == pytest.approx(one["details"]["chunks"]["nats"], rel=1e-5)
    assert more["metrics"] == pytest.approx(one["metrics"], rel=1e-6)


def test_uneven_shares_of_sequences_have_the_answers_of_all(tmp_path: Path) -> None:
    cell = ("sort", "--scale", "smoke", "--set", "task.test_sequences=7", "--name", "even")
    succeed(tmp_path, 1, "train", *cell)
    one = json.loads((run_of(tmp_path / "runs", "sort").path / "eval/sort-accuracy-v1-test.json").read_text())
    more = json.loads(succeed(tmp_path, 3, "eval", *cell, "--json", "--batch", "1"))
    assert more["details"] == one["details"]
    assert more["totals"]["correct"] == one["totals"]["correct"]
    assert more["totals"]["nats"] == pytest.approx(one["totals"]["nats"], rel=1e-6)
