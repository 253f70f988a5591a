"""What a run asks of the machine before its first step, on the real machine."""

import re
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch

from infty.base.batch import Batch
from infty.base.errors import InftyError
from infty.machine.placement import Machine
from infty.machine.ram import _find_free_in_groups, count_free_bytes, count_held_bytes, count_peak_bytes, forget_peak
from infty.model.config import DecoderConfig
from infty.model.decoder import Decoder
from infty.tasks.sort import SortConfig, SortTask
from infty.training.checkpoint import Checkpoint, TrainingState
from infty.training.config import TrainingConfig
from infty.training.cost import count_step_flops, measure_run, measure_update
from infty.training.data_parallel import Replica
from infty.training.limits import explain_out_of_memory, refuse_full_disk
from infty.training.loop import train
from infty.training.signals import StopSignals
from infty.training.step import make_optimizer, optimize
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
@pytest.mark.slower
def test_what_is_predicted_is_about_what_is_needed() -> None:
    """From 1 and 4 sequences to 48, within a third of the peak of real steps with all of them.

    In a process of its own, as a run is: steps need less where earlier tests left free room that is not given back.
    """
    with ProcessPoolExecutor(1, get_context("spawn")) as fresh:
        predicted, needed = fresh.submit(predicted_and_needed).result()
    assert predicted == pytest.approx(needed, rel=0.35)


def predicted_and_needed() -> tuple[float, int]:
    """Bytes."""
    model, task = make(width=64)
    config = TrainingConfig(steps=3, batch_size=48, learning_rate=1e-3, evaluate_every=3)
    few = config.model_copy(update={"batch_size": 1})
    optimize(Replica(model), make_optimizer(model, 1e-3), task, few, 0, 0)  # torch loads what its optimisers need
    predicted = measure_run(model, task, config, 0, Machine(CPU)).training.predict(48)
    optimizer = make_optimizer(model, 1e-3)
    forget_peak(CPU)
    held = count_held_bytes(CPU)
    for step in (1, 2):
        optimize(Replica(model), optimizer, task, config, step, 0)
    return predicted, count_peak_bytes(CPU) - held


def test_what_is_measured_is_as_it_was_and_a_run_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    """Weights to the byte, gradients, hooks, mode and random numbers."""

    class Quiet:
        def log(self, step: int, metrics: Mapping[str, float | None]) -> None:
            pass

    weights, config = [], TrainingConfig(steps=3, batch_size=2, learning_rate=1e-2, evaluate_every=2)
    for measured in (False, True):
        torch.manual_seed(3)
        model, task = make()
        model.eval()
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        before = kept_of(model)
        if measured:
            measure_run(model, task, config, 0, Machine(CPU), seconds=0.1)
            measure_update(model, seconds=0.1)
            count_step_flops(model.config, task, config, 0)
        for old, new in zip(before, kept_of(model), strict=True):
            assert torch.equal(old, new) if isinstance(old, torch.Tensor) else old == new
        model.zero_grad()
        folder = tmp_path / f"{measured}"
        folder.mkdir()
        train(Replica(model), task, config, seed=0, folder=folder, begin=Checkpoint(TrainingState(wandb_id="a1"), {}),
              log=Quiet().log, stop=StopSignals())  # fmt: skip
        weights.append((folder / "step-00000003/model.safetensors").read_bytes())
    assert weights[0] == weights[1]


def kept_of(model: Decoder) -> list[Any]:
    """Copies of all that a trial could leave in a model, and where torch's random numbers stand."""
    tensors = [*model.state_dict().values(), *(p.grad for p in model.parameters() if p.grad is not None)]
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    hooks = [len(getattr(module, kind)) for module in model.modules() for kind in kinds]
    hooks += [len(p._backward_hooks or ()) + len(p._post_accumulate_grad_hooks or ()) for p in model.parameters()]
    modes = [module.training for module in model.modules()]
    return [torch.get_rng_state(), *(tensor.clone() for tensor in tensors), hooks, modes]


def test_gradients_that_are_not_finite_are_left_to_training_to_refuse() -> None:
    """Which keeps the batch: a trial has no folder for it, and must not hide it. Weights stay as they are."""
    model, task = make()
    with torch.no_grad():
        next(model.parameters())[0, 0] = torch.inf
    before = kept_of(model)[1:]
    config = TrainingConfig(steps=3, batch_size=2, learning_rate=1e-2, evaluate_every=2)
    assert measure_run(model, task, config, 0, Machine(CPU)).own == 2
    assert all(torch.equal(a, b) for a, b in zip(before, kept_of(model)[1:], strict=True) if torch.is_tensor(a))


def test_limits_of_a_control_group_and_of_those_around_it_count(tmp_path: Path) -> None:
    for folder, limit, current in (("", "max", 9), ("job", "1000", 300), ("job/step", "max", 200)):
        (tmp_path / "cgroup" / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / "cgroup" / folder / "memory.max").write_text(f"{limit}\n")
        (tmp_path / "cgroup" / folder / "memory.current").write_text(f"{current}\n")
        (tmp_path / "cgroup" / folder / "memory.stat").write_text("anon 100\ninactive_file 50\nactive_file 20\n")
    (tmp_path / "own").write_text("1:cpu:/elsewhere\n0::/job/step\n")
    assert _find_free_in_groups(tmp_path / "cgroup", tmp_path / "own") == [750]
    assert count_free_bytes(CPU) > 0


def test_memory_that_runs_out_is_explained_and_other_faults_pass() -> None:
    with (
        pytest.raises(InftyError, match=r"out of memory on cpu .* --micro-batch, --recompute"),
        explain_out_of_memory(CPU),
    ):
        torch.empty(2**60, dtype=torch.uint8)
    with pytest.raises(RuntimeError, match="other"), explain_out_of_memory(CPU):
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


def test_no_more_sequences_are_tried_than_are_wanted_and_more_than_one_however_slow_one_is() -> None:
    """A line through one point would promise that a batch takes no longer than a sequence."""
    asked: list[int] = []

    class Noted(SortTask):
        def training_batch(self, step: int, batch_size: int, seed: int, rows: range | None = None) -> Batch:
            assert rows is not None
            asked.append(len(rows))
            return super().training_batch(step, batch_size, seed, rows)

    model, task = make()
    for batch_size, micro_batch, tried in ((1, None, (1,)), (2, None, (1, 2)), (9, None, (1, 4)), (9, 3, (1, 3))):
        asked.clear()
        config = TrainingConfig(steps=9, batch_size=batch_size, learning_rate=1e-3, evaluate_every=9)
        found = measure_run(model, Noted(task.config), config, 0, Machine(CPU, micro_batch=micro_batch), seconds=1e-9)
        assert found.tried == tuple(sorted(set(asked))) == tried


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
