"""kill -9 at any moment: the same command continues, to the same bytes. `make torture` does it at more moments."""

import json
import random
import shlex
from pathlib import Path

import pytest

from infty.runs.folder import RunFolder
from tests.reliability.runs import EXAMPLES, Example, dies, finish, start
from tests.reliability.torture import Torture

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.experiment)
def test_a_run_killed_three_times_ends_with_the_same_bytes(tmp_path: Path, example: Example) -> None:
    """At operations on files: among them are those that write a checkpoint and its pointers."""
    torture = Torture(example, tmp_path)
    rng, part = random.Random(6), torture.operations // 5  # so that each moment comes before the run's end
    assert torture.kill(rng.randint(part // 4, part) for _ in range(3)) == 3


def test_a_run_killed_when_it_has_just_got_its_result_says_that_it_is_done(tmp_path: Path) -> None:
    """The same command finds it finished and leaves it as it is, so nothing would mend what it says."""
    cell = ("train", "sort", "--scale", "smoke")
    counted = dies(tmp_path, "removals:0:SIGKILL", *cell, "--runs", f"{tmp_path}/whole").stderr.splitlines()[-1]
    moment = int(counted.removeprefix("events: ")) - 2  # after it: the temporary names of status.json, and the lock
    assert dies(tmp_path, f"removals:{moment}:SIGKILL", *cell).returncode == -9
    run = RunFolder(tmp_path / "runs/sort/smoke/infty@x4/seed-0")
    assert run.finished
    assert json.loads((run.path / "status.json").read_text())["status"] == "done"


def test_death_at_any_moment_of_saving_leaves_a_whole_checkpoint_and_nothing_half_done(tmp_path: Path) -> None:
    """All moments, one after the other: what is found is the checkpoint before, until it is the new one."""
    with start(tmp_path, ["-m", "tests.reliability.saving", str(tmp_path)]) as process:
        told, err = process.communicate()
    assert process.returncode == 0, err
    found = [json.loads(line) for line in told.splitlines()]
    assert len(found) > 15
    lasts, bests = [last for _, last, _, _ in found], [best for _, _, best, _ in found]
    assert lasts == sorted(lasts)
    assert {*lasts} == {*bests} == {3, 6}
    assert all(best <= last for last, best in zip(lasts, bests, strict=True))
    assert all(heard == [] for *_, heard in found)


def test_what_a_crash_leaves_is_told_truthfully_and_one_command_continues(tmp_path: Path) -> None:
    cell = ("sort", "--scale", "smoke")
    assert dies(tmp_path, "files:90:SIGKILL", "train", *cell).returncode == -9
    run = RunFolder(tmp_path / "runs/sort/smoke/infty@x4/seed-0")
    assert not run.finished
    listed = finish(tmp_path, "list", "--scale", "smoke").stdout
    assert "infty | 0 of 1 done, interrupted (seed 0)" in listed
    command = next(line for line in listed.splitlines() if line.startswith("next: infty train sort"))
    continued = finish(tmp_path, *shlex.split(command.removeprefix("next: infty")))
    assert continued.returncode == 0, continued.stderr
    assert "continuing at step 3 of 6 steps" in continued.stderr
    assert "infty | 1 of 1 done" in finish(tmp_path, "list", "--scale", "smoke").stdout
