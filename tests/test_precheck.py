"""What a run asks of the machine before its first step, on the real machine."""

import re
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch

from infty.base.batch import Batch
from infty.base.errors import InftyError
from infty.machine.ram import _free_in_groups, forget_peak, free_memory_bytes, held_memory_bytes, peak_memory_bytes
from infty.model.config import DecoderConfig
from infty.model.decoder import Decoder
from infty.tasks.sort import SortConfig, SortTask
from infty.training.checkpoint import Checkpoint, TrainingState
from infty.training.config import TrainingConfig
from infty.training.cost.precheck import Need, evaluation_need, explained, refuse_full_disk, training_need
from infty.training.data_parallel import Replica
from infty.training.loop import train
from infty.training.optimizer import make_optimizer
from infty.training.signals import StopSignals
from infty.training.step import optimize
from tests.conftest import Infty

CPU = torch.device("cpu")
MEASURED = pytest.mark.skipif(not forget_peak(CPU), reason="this system tells no peak that can be measured anew")


def make(width: int = 8, dropout: float = 0.1) -> tuple[Decoder, SortTask]:
    config = DecoderConfig(
        num_layers=2, num_heads=2, hidden_size=width, feed_forward_size=4 * width, dropout=dropout,
        segment_length=64, short_term_length=64,
    )  # fmt: skip
    task = SortTask(SortConfig(vocabulary=5, length=251, train_sequences=64, validation_sequences=40, test_sequences=4))
    return Decoder(config, task.vocab_size), task


@MEASURED
def test_more_memory_than_there_is_is_told_before_the_first_step_with_what_would_fit(
    infty: Infty, tmp_path: Path
) -> None:
    words = ("train", "sort", "--scale", "smoke", "--set", "training.steps=1000")
    for setting, where, change in (
        ("batch_size", "", "--micro-batch"),
        ("evaluation_batch_size", " in evaluation", "--set training.evaluation_batch_size"),
    ):
        more = ("--set", f"training.{setting}=20000000", "--set", "task.validation_sequences=64")
        done = infty(*words, *more, "--name", setting.replace("_", "-"))
        assert done.returncode == 1, done.stderr
        assert f"infty: 20,000,000 sequences at once{where}: about " in done.stderr
        fits = re.search(rf"GB are free: {change}=(\d+) fits", done.stderr)
        assert fits
        assert 1 < int(fits[1]) < 20_000_000
        assert not list(tmp_path.rglob("metrics.jsonl"))


@MEASURED
def test_what_is_predicted_is_about_what_is_needed() -> None:
    """From 1 and 4 sequences to 48, within a third of the peak of real steps with all of them.

    In a process of its own, as a run is: steps need less where earlier tests left free room that is not given back.
    """
    with ProcessPoolExecutor(1, get_context("spawn")) as fresh:
        predicted, needed = fresh.submit(predicted_and_needed).result()
    assert predicted == pytest.approx(needed, rel=0.35)


def predicted_and_needed() -> tuple[int, int]:
    """Bytes."""
    model, task = make(width=64)
    config = TrainingConfig(steps=3, batch_size=1, learning_rate=1e-3, evaluate_every=3)
    optimize(Replica(model), make_optimizer(model, 1e-3), task, config, 0, 0)  # torch loads what its optimisers need
    predicted, optimizer = training_need(model, task, 0, 48, 48), make_optimizer(model, 1e-3)
    forget_peak(CPU)
    held = held_memory_bytes(CPU)
    for step in (1, 2):
        optimize(Replica(model), optimizer, task, config.model_copy(update={"batch_size": 48}), step, 0)
    return predicted.of(48), peak_memory_bytes(CPU) - held


@MEASURED
def test_a_probe_changes_nothing_that_follows(tmp_path: Path) -> None:
    class Quiet:
        def log(self, step: int, metrics: dict[str, float]) -> None:
            pass

    weights = []
    for probed in (False, True):
        torch.manual_seed(3)
        model, task = make()
        folder = tmp_path / f"{probed}"
        folder.mkdir()
        if probed:
            training_need(model, task, 0, 8, 8)
            evaluation_need(model, task, 8)
        config = TrainingConfig(steps=3, batch_size=2, learning_rate=1e-2, evaluate_every=2)
        train(Replica(model), task, config, seed=0, folder=folder, begin=Checkpoint(TrainingState(wandb_id="a1"), {}),
              log=Quiet(), stop=StopSignals())  # fmt: skip
        weights.append((folder / "step-00000003/model.safetensors").read_bytes())
    assert weights[0] == weights[1]


def test_how_many_sequences_fit() -> None:
    need = Need("training.batch_size", fixed=100, each=7)
    assert need.of(10) == 170
    assert [need.largest(free) for free in (170, 176, 177, 107, 106, 5)] == [10, 10, 11, 1, 0, 0]


def test_limits_of_a_control_group_and_of_those_around_it_count(tmp_path: Path) -> None:
    for folder, limit, current in (("", "max", 9), ("job", "1000", 300), ("job/step", "max", 200)):
        (tmp_path / "cgroup" / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / "cgroup" / folder / "memory.max").write_text(f"{limit}\n")
        (tmp_path / "cgroup" / folder / "memory.current").write_text(f"{current}\n")
        (tmp_path / "cgroup" / folder / "memory.stat").write_text("anon 100\ninactive_file 50\nactive_file 20\n")
    (tmp_path / "own").write_text("1:cpu:/elsewhere\n0::/job/step\n")
    assert _free_in_groups(tmp_path / "cgroup", tmp_path / "own") == [750]
    assert free_memory_bytes(CPU) > 0


def test_memory_that_runs_out_is_explained_and_other_faults_pass() -> None:
    with pytest.raises(InftyError, match=r"out of memory on cpu .* --micro-batch, --recompute"), explained(CPU):
        torch.empty(2**60, dtype=torch.uint8)
    with pytest.raises(RuntimeError, match="other"), explained(CPU):
        raise RuntimeError("other")


def test_room_for_checkpoints_is_asked_for_beyond_what_they_take_already(tmp_path: Path) -> None:
    model, task = make()
    (tmp_path / "checkpoints").mkdir()
    config = TrainingConfig(steps=2, batch_size=2, learning_rate=1e-3, evaluate_every=2)
    refuse_full_disk(model, task, config, tmp_path / "checkpoints")
    large = make(width=2)[0]
    large.register_parameter("large", torch.nn.Parameter(torch.empty(2**46, device="meta")))
    with pytest.raises(InftyError, match=r"MB are needed for checkpoints and .* MB are free: make room, or choose"):
        refuse_full_disk(large, task, config, tmp_path / "checkpoints")


@MEASURED
def test_no_more_sequences_are_tried_than_are_wanted() -> None:
    asked: list[int] = []

    class Noted(SortTask):
        def training_batch(self, step: int, batch_size: int, seed: int, rows: range | None = None) -> Batch:
            asked.append(batch_size)
            return super().training_batch(step, batch_size, seed, rows)

    model, task = make()
    for wanted, most in ((1, 1), (2, 2), (9, 4)):
        asked.clear()
        training_need(model, Noted(task.config), 0, 9, wanted)
        assert max(asked) == most


@MEASURED
def test_fresh_removes_nothing_where_the_new_run_is_refused(infty: Infty, tmp_path: Path) -> None:
    words = ("train", "sort", "--scale", "smoke", "--name", "mine")
    assert infty(*words).returncode == 0
    run = tmp_path / "runs/sort/smoke/infty@x4+mine/seed-0"
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    more = ("--set", "training.steps=1000", "--set", "training.batch_size=20000000")
    done = infty(*words, *more, "--fresh")
    assert done.returncode == 1
    assert "Nothing was changed" in done.stderr
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
