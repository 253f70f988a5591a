"""The life of a run, from nothing to a table, as a user types it. Copy it to begin a test of your own."""

import json
from pathlib import Path

import pytest
import torch

from infty import load_run
from infty.experiment import build_task
from tests.conftest import Infty

ACCURACY = "test/accuracy"


@pytest.mark.slow
def test_the_life_of_a_run(infty: Infty, tmp_path: Path) -> None:
    # Train one cell: it is tested at once, with its memory and with that memory emptied.
    done = infty("train", "sort", "--model", "infty", "--scale", "smoke")
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "sort" / "smoke" / "infty@x4" / "seed-0"
    result = json.loads((run / "result.json").read_text())
    assert (run / "eval" / "sort-accuracy-v1-test-without-zero.json").is_file()

    # Load it in Python, and count what it answers right: the figure on disk is that.
    trained = load_run(run)
    right = scored = 0
    for batch in build_task(trained.experiment, tmp_path).evaluation_batches("test", 1):
        state = trained.model.initial_state(batch.streams)
        with torch.no_grad():
            for segment in batch.segments(trained.experiment.model.segment_length):
                output = trained.model(segment.tokens, state)
                state = output.state
                asked = segment.targets >= 0
                right += int((output.logits.argmax(-1) == segment.targets)[asked].sum())
                scored += int(asked.sum())
    assert result["metrics"][ACCURACY] == right / scored

    # Evaluate it again, one sequence at a time: how many are read at once changes nothing.
    done = infty("eval", "sort", "--model", "infty", "--scale", "smoke", "--batch", "1", "--json")
    assert json.loads(done.stdout)["metrics"][ACCURACY] == result["metrics"][ACCURACY]

    # Report: the table has the figure, in percent; the command beside it makes the same run again.
    done = infty("report")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "report" / "sort-smoke.md").read_text()
    assert f"| infty | {100 * right / scored:.1f} (n = 1) | – | – |" in page
    assert result["command"].startswith("infty train sort --model infty --case x4 --scale smoke --seed 0")
