"""Disks that are full or can't be written to: real small ones, in a mount namespace of their own."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import clean_environment
from tests.reliability.runs import EXAMPLES, ROOT, SORT, Example, finish, logged, outcome

pytestmark = pytest.mark.slow

MOUNTED = ["unshare", "--map-root-user", "--mount", "sh", "-c"]


def on_a_small_disk(folder: Path, megabytes: int, *program: str) -> "subprocess.CompletedProcess[str]":
    """A Python program in `folder`, where `disk` is a file system of that size; what is on it is gone afterwards."""
    (folder / "disk").mkdir(exist_ok=True)
    mount = f"mount -t tmpfs -o size={megabytes}m none disk"
    if shutil.which("unshare") is None or subprocess.run([*MOUNTED, mount], cwd=folder, check=False).returncode:
        pytest.skip("no mount namespaces here")
    return subprocess.run(
        [*MOUNTED, f'{mount} && exec "$0" "$@"', sys.executable, *program],
        cwd=folder,
        env=clean_environment(folder, PYTHONPATH=str(ROOT), **logged([*program])),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.experiment)
def test_a_disk_that_fills_leaves_the_last_checkpoint_and_one_clear_line(tmp_path: Path, example: Example) -> None:
    words = [*example.words, "--runs", str(tmp_path / "disk/runs")]
    run = example.run(tmp_path / "disk/runs")
    done = on_a_small_disk(tmp_path, 32, "-m", "tests.reliability.full_disk", str(run.path), *words)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["code"] == 1
    ours = [line for line in told["told"] if line.startswith("infty:")]
    assert len(ours) == 1, told["told"]
    assert "No space left on device" in ours[0]
    assert "Traceback" not in "".join(told["told"])
    tokenizer = set() if example is SORT else {"tokenizer"}
    steps = [int(name.removeprefix("step-")) for name in told["kept"] if name.startswith("step-")]
    assert set(told["kept"]) == {"best.json", "last.json", *(f"step-{step:08d}" for step in steps), *tokenizer}
    assert steps == [steps[-1] - 3, steps[-1]]
    assert 6 <= steps[-1] < 30
    assert not told["finished"]
    assert told["state"] in ("failed", "interrupted")  # a full disk may not even take a status
    assert told["again"] == 0, told["again_told"]
    assert f"continuing at step {steps[-1]} of 30" in told["again_told"]
    if example is SORT:
        assert finish(tmp_path, *example.words, "--runs", "whole").returncode == 0
        assert told["outcome"] == json.loads(json.dumps(outcome(example.run(tmp_path / "whole"))))


def test_a_disk_too_small_for_the_checkpoints_is_refused_before_the_first_step(tmp_path: Path) -> None:
    words = [*SORT.words, "--runs", str(tmp_path / "disk/runs")]
    done = on_a_small_disk(tmp_path, 6, "-m", "infty", *words)
    assert done.returncode == 1
    assert "MB are needed for checkpoints and" in done.stderr
    assert "choose another folder with --runs; nothing was changed" in done.stderr
    assert "step 3/30" not in done.stderr
