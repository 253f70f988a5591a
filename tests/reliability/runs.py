"""Runs at smoke scale that faults are done to, and what of them must be the same afterwards."""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from infty.runs.folder import RunFolder
from tests import forks
from tests.forks import ROOT, clean_environment

STEPS = 30


@dataclass(frozen=True)
class Example:
    """A cell at smoke scale, with more steps: ten validations and checkpoints."""

    experiment: str
    model: str
    case: str

    @property
    def words(self) -> tuple[str, ...]:
        """What trains it."""
        place = ("train", self.experiment, "--scale", "smoke", "--model", self.model, "--case", self.case)
        return (*place, "--set", f"training.steps={STEPS}", "--name", "long")

    def run(self, runs: Path) -> RunFolder:
        """Its folder."""
        return RunFolder(runs / f"{self.experiment}/smoke/{self.model}@{self.case}+long/seed-0")


# One a task; each with the memory that has the most state.
SORT = Example("sort", "infty-sticky", "x4")
TEXT = Example("wikitext", "infty-sticky", "main")
GPT2 = Example("gpt2", "infty-sticky", "wikitext")
EXAMPLES = [SORT, *(pytest.param(example, marks=pytest.mark.slower) for example in (TEXT, GPT2))]


def start(folder: Path, program: list[str], **environment: str) -> "subprocess.Popen[str]":
    """A command in `folder`, as a user who set nothing would start it, with this checkout's code."""
    return subprocess.Popen(
        [sys.executable, *program],
        cwd=folder,
        env=clean_environment(folder, **{"PYTHONPATH": str(ROOT), **logged(program), **environment}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def logged(program: list[str]) -> dict[str, str]:
    """W&B is there while the sorting task suffers: what else is done to it is no other thing for other tasks."""
    return {"WANDB_MODE": "" if SORT.experiment in program else "disabled"}


def interrupted(folder: Path, words: tuple[str, ...], number: int, at: str, **environment: str) -> tuple[int, str]:
    """`infty …` in `folder`, sent a signal when it says what begins with `at`: its exit code, and all that it said."""
    given = clean_environment(folder, **{**logged([*words]), **environment})
    with forks.heard([(words, given)], folder) as (running, stderr):
        told = []
        for line in stderr:
            told.append(line)
            if line.startswith(at):
                os.kill(running.pids[0], number)
                break
        told += stderr.readlines()
    return running.wait(200)[0].returncode, "".join(told)


def finish(folder: Path, *words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """`infty …` in `folder`, to its end."""
    return forks.run(words, folder, clean_environment(folder, **{**logged([*words]), **environment}), 200)


def dies(folder: Path, when: str, *words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """The same, sent a signal on the way: EVENT:NUMBERS:SIGNAL."""
    given = clean_environment(folder, **{**logged([*words]), **environment})
    return forks.run((when, *words), folder, given, 200, "tests.reliability.dying")


def metrics(run: RunFolder) -> list[dict[str, Any]]:
    """Lines of metrics, without the one figure that is not a function of the configuration."""
    lines = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "train/tokens_per_second"} for line in lines]


def outcome(run: RunFolder) -> dict[str, Any]:
    """All that must be the same, however often a run was interrupted."""
    last = run.checkpoints / f"step-{STEPS:08d}"
    state, result = json.loads((last / "state.json").read_text()), run.result()
    sums = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in last.glob("*.safetensors")}
    return {
        "tensors": sums,
        "state": {key: value for key, value in state.items() if key not in ("seconds", "wandb_id")},
        "pointers": [(run.checkpoints / f"{name}.json").read_text() for name in ("last", "best")],
        "metrics": metrics(run),
        "result": result.model_dump(include={"metrics", "totals", "best_step", "best_validation_loss", "data"}),
        "status": json.loads((run.path / "status.json").read_text())["status"],
    }


def wandb_ids(run: RunFolder) -> set[str]:
    """Of the W&B runs in a folder; a run that was continued is one."""
    return {path.name.split("-")[-1] for path in (run.path / "wandb").glob("offline-run-*")}
