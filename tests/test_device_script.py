"""experiments/device: its script, at smoke scale without a GPU, and what its README says to type."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import pytest

from infty.config.definition import SHIPPED, CellKey, open_experiment
from infty.machine.placement import Precision
from infty.runs.folder import RunFolder
from tests.forks import ROOT, clean_environment
from tests.reliability.runs import interrupted, metrics

README = (ROOT / "experiments/device/README.md").read_text(encoding="utf-8")
COMMANDS = "\n".join(re.findall(r"```sh\n(.*?)```", README, re.DOTALL)).replace("\\\n", " ")
CALLS = re.findall(r"bash (\S+) (\d+) (\S+) (\S+@[^\n]+)\n", COMMANDS)
RUN = "sort/smoke/infty@x4/seed-0"
STEPS = 15


@dataclass(frozen=True)
class Call:
    """A call of the script: what it said, and what it left in its folder."""

    done: "subprocess.CompletedProcess[str]"
    folder: Path

    @property
    def report(self) -> Path:
        """Where report.tar is unpacked, as README says."""
        place = self.folder.parent / f"{self.folder.name} unpacked"
        if not place.exists():
            type_in(place, "tar xf FOLDER/report.tar", self.folder)
        return place


def type_in(place: Path, part: str, folder: Path) -> None:
    """Type in `place` the one command of README that has `part` in it, with a folder for FOLDER."""
    (command,) = [line for line in COMMANDS.splitlines() if part in line]
    results = "experiments/results/gpu/DATE"
    command = command.replace("FOLDER", shlex.quote(str(folder))).replace(results, shlex.quote(str(place)))
    place.mkdir(exist_ok=True)
    subprocess.run(["bash", "-euo", "pipefail", "-c", command], cwd=place, check=True)


def call(place: Path, name: str, seconds: int, **variables: str) -> Call:
    """Call the script as README does, but for scale, precision and runs, which lie in `place` as its folder does."""
    (script, *_), folder = CALLS[0], place / name
    (place / "bin").mkdir(exist_ok=True)
    (place / "bin/python3").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n', encoding="utf-8")
    (place / "bin/python3").chmod(0o755)
    environment = clean_environment(
        place,
        PATH=f"{place / 'bin'}:{os.environ['PATH']}",
        SCALE="smoke",
        PRECISION="float32",
        RUNS=str(place / "data/runs"),
        INFTY_EXPERIMENTS=str(place / "experiments"),
        CUDA_VISIBLE_DEVICES="",
        PYTEST_ADDOPTS="-k test_losses",  # the others run without a GPU too, elsewhere in this suite
        **variables,
    )
    words = ["bash", str(ROOT / script), str(seconds), str(folder), "infty@x4", "transformer-xl@x8/3"]
    done = subprocess.run(words, cwd=place, env=environment, capture_output=True, text=True, timeout=200, check=False)
    return Call(done, folder)


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> tuple[Call, Call, RunFolder]:
    """Call it for a run that was stopped: with time to pack it only, then to go on from what was packed."""
    first, then = tmp_path_factory.mktemp("first"), tmp_path_factory.mktemp("then")
    longer = (SHIPPED / "sort.yaml").read_text(encoding="utf-8").replace("{steps: 6,", f"{{steps: {STEPS},")
    for place in (first, then):
        (place / "experiments").mkdir()
        (place / "experiments/sort.yaml").write_text(longer, encoding="utf-8")
    words = ("train", "sort", "--scale", "smoke", "--runs", "data/runs")
    code, told = interrupted(first, words, signal.SIGTERM, f"step 3/{STEPS}", WANDB_MODE="disabled")
    assert code == 143, told
    packed = call(first, "packed", seconds=0)
    type_in(then, "last.tar.", packed.folder)
    return packed, call(then, "trained", seconds=900, CHECKS="parity bench"), RunFolder(then / "data/runs" / RUN)


@pytest.mark.slower
def test_a_call_without_time_packs_what_is_there(calls: tuple[Call, Call, RunFolder]) -> None:
    packed, _, _ = calls
    assert packed.done.returncode == 0, packed.done.stderr
    assert "no time left for python3 -m infty train sort" in packed.done.stdout
    assert sorted(path.name for path in packed.folder.iterdir()) == ["last.tar.aa", "report.tar"]
    assert json.loads((packed.report / RUN / "status.json").read_text())["status"] == "stopped"


@pytest.mark.slower
def test_a_run_goes_on_elsewhere_from_what_was_packed(calls: tuple[Call, Call, RunFolder]) -> None:
    """Of its checkpoints the last one travels, and no lock."""
    packed, trained, run = calls
    assert trained.done.returncode == 0, trained.done.stdout
    told = (trained.report / "train.txt").read_text()
    (step,) = map(int, re.findall(rf"continuing at step (\d+) of {STEPS}", told))
    assert 3 <= step < STEPS
    listed = subprocess.run(["tar", "tf", packed.folder / "last.tar.aa"], capture_output=True, text=True, check=True)
    assert {path.name for path in trained.folder.iterdir()} == {"report.tar"}  # nothing is left to go on with
    assert set(re.findall(r"step-\d+", listed.stdout)) == {f"step-{step:08d}"}
    assert ".lock" not in listed.stdout
    assert [line["step"] for line in metrics(run) if "train/loss" in line] == [*range(1, STEPS + 1)]
    assert run.finished


@pytest.mark.slower
def test_the_report_holds_all_that_was_found(calls: tuple[Call, Call, RunFolder]) -> None:
    _, trained, run = calls
    report = trained.report
    assert "device: cpu" in (report / "machine.txt").read_text()
    assert "torch" in (report / "machine.txt").read_text()
    assert re.search(r"\d+ skipped", (report / "parity.txt").read_text())
    told = r"^parity: \d+ skipped.*\nbench: infty: device cuda: torch sees 0 GPUs here; use cpu or auto\n"
    assert re.search(told, trained.done.stdout, re.MULTILINE)
    assert RunFolder(report / "sort/smoke/transformer-xl@x8/seed-3").finished  # the second cell, whole
    kept = RunFolder(report / RUN)
    assert kept.result() == run.result()
    assert metrics(kept) == metrics(run)
    assert not kept.checkpoints.exists()
    assert all(path.stat().st_size < 16 << 20 for path in trained.folder.iterdir())


def test_a_call_that_trained_nothing_packs_its_notes_and_fails(tmp_path: Path) -> None:
    """A check that fails holds up no other. Parts of an earlier call go: they would be taken for its checkpoint."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python3").write_text("#!/bin/sh\necho no torch here\nexit 1\n")
    (tmp_path / "bin/python3").chmod(0o755)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/last.tar.ac").write_text("old")
    environment = clean_environment(
        tmp_path, PATH=f"{tmp_path / 'bin'}:{os.environ['PATH']}", RUNS=str(tmp_path / "runs"), TMPDIR=str(tmp_path)
    )
    words = ["bash", str(ROOT / CALLS[0][0]), "900", "out", "infty@x4"]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    assert {path.name for path in tmp_path.iterdir()} == {"bin", "out"}
    type_in(tmp_path / "report", "tar xf FOLDER/report.tar", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["report.tar"]
    notes = {path.name: path.read_text() for path in (tmp_path / "report").iterdir()}
    names = {"machine", "parity", "smoke", "sort", "wikitext", "gpt2", "resume", "bench", "train"}
    assert notes.keys() == {f"{name}.txt" for name in names}
    assert notes["train.txt"] == "no torch here\n"


def test_readme_calls_the_script_for_cells_and_a_precision_that_there_are() -> None:
    experiment = open_experiment("sort", SHIPPED)
    assert len(CALLS) == COMMANDS.count("on-a-gpu.sh") == 3
    for script, seconds, _, cells in CALLS:
        assert os.access(ROOT / script, os.X_OK)
        assert 0 < int(seconds) <= 570
        for cell in cells.split():
            row, case = cell.split("@")
            assert row in experiment.names("models")
            assert case in experiment.names("cases")
    named = re.findall(r"PRECISION[=:-]+(\w+)", README + (ROOT / CALLS[0][0]).read_text(encoding="utf-8"))
    assert set(named) == {"float32", "tf32"} <= set(get_args(Precision))
    calls = re.findall(r"call[^\n]*: (\d+) seconds\n.*?on-a-gpu.sh (\d+)", README, re.DOTALL)
    assert [(int(whole), int(whole) - int(script)) for whole, script in calls] == [(600, 30), (150, 10)]
    assert str(CellKey("sort", "paper", "infty", "x4", 0).folder.parent) in README


def test_readme_takes_the_versions_that_infty_was_tested_with() -> None:
    wheels = re.findall(r"\S+==\S+", COMMANDS)
    assert len(wheels) == 9  # as it says
    assert set(wheels) <= set((ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines())


def test_git_ignores_what_readme_makes_in_the_checkout() -> None:
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    made = re.findall(r"(?:-d|--target) (\S+)", COMMANDS)
    assert made == [".whl", ".site"]
    assert {*(f"/{folder}/" for folder in made), "data/*"} <= set(ignored)
