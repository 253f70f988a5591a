"""kill -9 at any moment: the same command continues, to the same bytes. `make torture` does it at more moments."""

import random
import shlex
from pathlib import Path

import pytest

from infty.runs import RunFolder
from tests.reliability.runs import GPT2, SORT, TEXT, Example, finish
from tests.reliability.torture import DYING, Torture, start

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("example", [SORT, TEXT, GPT2], ids=lambda example: example.experiment)
def test_a_run_killed_three_times_ends_with_the_same_bytes(tmp_path: Path, example: Example) -> None:
    """At operations on files: among them are those that write a checkpoint and its pointers."""
    torture = Torture(example, tmp_path)
    rng, part = random.Random(6), torture.operations // 3  # so that each moment comes before the run's end
    assert torture.kill(rng.randint(part // 4, part) for _ in range(3)) == 3


def test_what_a_crash_leaves_is_told_truthfully_and_one_command_continues(tmp_path: Path) -> None:
    cell = ("sort", "--scale", "smoke")
    process = start(tmp_path, [*DYING, "files:150:SIGKILL", "train", *cell])
    process.communicate()
    run = RunFolder(tmp_path / "runs/sort/smoke/infty@x4/seed-0")
    assert not run.finished
    listed = finish(tmp_path, "list", "--scale", "smoke").stdout
    assert "infty | 0 of 1 done, interrupted (seed 0)" in listed
    command = next(line for line in listed.splitlines() if line.startswith("next: infty train sort"))
    continued = finish(tmp_path, *shlex.split(command.removeprefix("next: infty")))
    assert continued.returncode == 0, continued.stderr
    assert "continuing at step 3 of 6 steps" in continued.stderr
    assert "infty | 1 of 1 done" in finish(tmp_path, "list", "--scale", "smoke").stdout
