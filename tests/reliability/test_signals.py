"""SIGTERM and SIGINT, as a scheduler and a key send them: what was done is saved, and the same command continues."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
import torch

from infty.base.batch import ALL, Batch, Share
from infty.base.errors import Stopped
from infty.model.config import DecoderConfig
from infty.model.decoder import Decoder
from infty.runs.metrics import MetricsFile, Sinks
from infty.tasks.sort import SortConfig, SortTask
from infty.training.checkpoint import Checkpoint, TrainingState, load_last
from infty.training.config import TrainingConfig
from infty.training.data_parallel import Replica
from infty.training.loop import train
from infty.training.signals import StopSignals
from tests.reliability.runs import GPT2, SORT, TEXT, Example, dies, finish, interrupted, outcome, start, wandb_ids
from tests.reliability.torture import DYING

pytestmark = pytest.mark.slow


Whole = Callable[[Example], dict[str, object]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """Outcomes of runs that nothing stopped."""
    folder = tmp_path_factory.mktemp("whole")

    @cache
    def train(example: Example) -> dict[str, object]:
        assert finish(folder, *example.words).returncode == 0
        return outcome(example.run(folder / "runs"))

    return train


@pytest.mark.slow
@pytest.mark.parametrize(
    ("example", "number", "at"),
    [
        (SORT, signal.SIGTERM, "step 6/30"),
        pytest.param(SORT, signal.SIGINT, "sort infty-sticky@x4", marks=pytest.mark.slower),  # before a validation
        (SORT, signal.SIGINT, "step 30/30"),  # at the end, or in the test
        pytest.param(TEXT, signal.SIGINT, "step 9/30", marks=pytest.mark.slower),
        pytest.param(TEXT, signal.SIGTERM, "wikitext infty-sticky@main", marks=pytest.mark.slower),
        pytest.param(GPT2, signal.SIGTERM, "step 6/30", marks=pytest.mark.slower),
        # while the GPT-2 that rows start from is trained
        pytest.param(GPT2, signal.SIGINT, "gpt2 base@generated", marks=pytest.mark.slower),
    ],
    ids=lambda value: getattr(value, "experiment", None) or str(getattr(value, "name", value)),
)
def test_a_stopped_run_continues_to_the_same_bytes(
    tmp_path: Path, whole: Whole, example: Example, number: signal.Signals, at: str
) -> None:
    """Weights, optimiser, memory, metrics and W&B's run as if it had never stopped."""
    code, told = interrupted(tmp_path, example.words, number, at)
    run = example.run(tmp_path / "runs")
    assert code == 128 + number, told
    assert "Traceback" not in told
    assert not run.finished
    if "base@" not in at:
        assert run.state() == "stopped"
        assert load_last(run.checkpoints) is not None

    continued = finish(tmp_path, *example.words)
    assert continued.returncode == 0, continued.stderr
    assert "continuing at step" in continued.stderr
    assert outcome(run) == whole(example)
    assert len(wandb_ids(run)) == (example is SORT)


@pytest.mark.slow
def test_a_second_signal_stops_at_once(tmp_path: Path, whole: Whole) -> None:
    """In the middle of writing a checkpoint: that one is not there, and nothing else is lost."""
    done = dies(tmp_path, "files:130,131:SIGTERM", *SORT.words)
    run = SORT.run(tmp_path / "runs")
    assert done.returncode == 143, done.stderr
    assert "infty: stopped by SIGTERM, a second signal: nothing more is saved\n" in done.stderr
    assert "Traceback" not in done.stderr
    assert run.state() == "stopped"
    assert finish(tmp_path, *SORT.words).returncode == 0
    assert outcome(run) == whole(SORT)


@pytest.mark.parametrize("moment", [20, 400, 900])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_libraries_load_ends_in_one_line(tmp_path: Path, moment: int, number: signal.Signals) -> None:
    process = start(tmp_path, [*DYING, f"import:{moment}:{number.name}", "train", "sort", "--scale", "smoke"])
    told = process.communicate()[1]
    assert (process.returncode, told) == (128 + number, f"infty: stopped by {number.name}\n")
    assert not list(tmp_path.iterdir())


class Interrupted(SortTask):
    """Sends SIGTERM to this process as a validation asks for its first batch; `read` counts them all."""

    read = 0

    def evaluation_batches(self, split: str, batch_size: int, share: Share = ALL) -> Iterator[Batch]:
        for i, batch in enumerate(super().evaluation_batches(split, batch_size, share)):
            self.read += 1
            if i == 0:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch


class Ends(MetricsFile):
    """Ends the process, as far as a test can, when a validation's line is on disk and its checkpoint is not."""

    def log(self, step: int, metrics: dict[str, float]) -> None:
        super().log(step, metrics)
        if "validation/loss" in metrics:
            raise KeyboardInterrupt


def trained(folder: Path, task: SortTask, file: type[MetricsFile] = MetricsFile) -> None:
    """Train or continue, as far as it comes."""
    config = DecoderConfig(
        num_layers=1, num_heads=2, hidden_size=8, feed_forward_size=8, dropout=0.1, segment_length=8,
        short_term_length=8,
    )  # fmt: skip
    training = TrainingConfig(
        steps=6, batch_size=2, learning_rate=1e-2, evaluate_every=3, evaluation_batch_size=1, log_every=1
    )
    torch.manual_seed(0)
    model, begin = Decoder(config, task.vocab_size), load_last(folder / "checkpoints")
    begin = begin or Checkpoint(TrainingState(wandb_id="a1"), {})
    state = begin.state
    lines = file(folder / "metrics.jsonl", state.step, validated=state.validated_step == state.step)
    with Sinks([lines]) as sinks, StopSignals() as stop:
        train(Replica(model), task, training, seed=0, folder=folder / "checkpoints", begin=begin, log=sinks.log,
              stop=stop)  # fmt: skip


def test_a_signal_in_a_validation_ends_it_there_and_the_run_continues_with_it(tmp_path: Path) -> None:
    config = SortConfig(vocabulary=3, length=13, train_sequences=9, validation_sequences=4, test_sequences=4)
    (tmp_path / "whole/checkpoints").mkdir(parents=True)
    (tmp_path / "stopped/checkpoints").mkdir(parents=True)
    trained(tmp_path / "whole", SortTask(config))
    task = Interrupted(config)
    for times in (1, 2):
        with pytest.raises(Stopped, match="stopped at step 3; the same command continues") as stopped:
            trained(tmp_path / "stopped", task)
        assert (stopped.value.exit_code, task.read) == (143, times)  # one batch of four, each time
        found = load_last(tmp_path / "stopped/checkpoints")
        assert found is not None
        assert (found.state.step, found.state.validated_step, found.state.best_step) == (3, 0, None)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "stopped", SortTask(config), Ends)
    trained(tmp_path / "stopped", SortTask(config))

    def lines(name: str) -> list[dict[str, float]]:
        rows = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        return [{k: v for k, v in row.items() if k != "train/tokens_per_second"} for row in rows]

    assert lines("stopped") == lines("whole")
    last = "checkpoints/step-00000006/model.safetensors"
    assert (tmp_path / "stopped" / last).read_bytes() == (tmp_path / "whole" / last).read_bytes()
