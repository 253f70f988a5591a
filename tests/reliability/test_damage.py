"""Checkpoints that were cut, altered or replaced by something else: seen, told, and done again from an earlier one."""

import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.reliability.runs import EXAMPLES, SORT, STEPS, Example, dies, finish, outcome

pytestmark = pytest.mark.slow
QUIET = {"WANDB_MODE": "disabled"}  # nothing here is about W&B


class Malicious:
    """Whoever loads its pickle makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.experiment)
def test_a_damaged_checkpoint_is_told_and_the_run_ends_as_it_would_have(tmp_path: Path, example: Example) -> None:
    """The last of a run that still has to be tested is a pickle now, and it was the best one too."""
    assert finish(tmp_path, *example.words, "--set", "training.evaluate_every=10", **QUIET).returncode == 0
    run = example.run(tmp_path / "runs")
    before, best = outcome(run), (run.checkpoints / "best.json").read_text()
    assert f"{STEPS:08d}" in best, "these examples are at their best in the end"
    (run.path / "result.json").unlink()
    weights = run.checkpoints / f"step-{STEPS:08d}/model.safetensors"
    weights.write_bytes(pickle.dumps(Malicious(tmp_path / "executed")))

    evaluated = finish(tmp_path, "eval", *example.words[1:], "--set", "training.evaluate_every=10", **QUIET)
    assert evaluated.returncode == 3
    assert evaluated.stderr.splitlines()[-1].endswith(
        "model.safetensors is not what was saved; train again with --fresh"
    )
    again = finish(tmp_path, *example.words, "--set", "training.evaluate_every=10", **QUIET)
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("model.safetensors is not what was saved; it is skipped") == 1
    assert "continuing at step 20 of 30 steps" in again.stderr
    assert outcome(run) == before
    assert not (tmp_path / "executed").exists()


def test_fresh_that_is_killed_leaves_a_run_that_the_same_command_finishes(tmp_path: Path) -> None:
    """At the second and later of what it removes: the result goes first."""
    assert finish(tmp_path, *SORT.words, "--runs", "whole", **QUIET).returncode == 0
    whole = SORT.run(tmp_path / "whole")
    for number in (2, 4, 9):
        runs = tmp_path / f"killed-{number}"
        shutil.copytree(tmp_path / "whole", runs)
        killed = dies(tmp_path, f"removals:{number}:SIGKILL", *SORT.words, "--fresh", "--runs", str(runs), **QUIET)
        assert killed.returncode == -9
        run = SORT.run(runs)
        assert not run.finished
        assert run.state() == "interrupted"
        assert finish(tmp_path, *SORT.words, "--runs", str(runs), **QUIET).returncode == 0
        assert outcome(run) == outcome(whole)


def test_checkpoints_without_a_configuration_are_refused(tmp_path: Path) -> None:
    assert finish(tmp_path, *SORT.words, **QUIET).returncode == 0
    run = SORT.run(tmp_path / "runs")
    (run.path / "config.yaml").unlink()
    (run.path / "result.json").unlink()
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    done = finish(tmp_path, *SORT.words, **QUIET)
    assert done.returncode == 3
    assert "has checkpoints but no config.yaml that says of what; start over with --fresh" in done.stderr
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before
