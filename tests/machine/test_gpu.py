"""What a GPU must do like a CPU. Skipped where there is none; bf16 is tried on a CPU too."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from infty.config.definition import SHIPPED, CellKey, open_experiment
from infty.experiment import build_task, resolve
from infty.machine.launch import Launch
from infty.machine.placement import Machine, choose_device
from infty.memory.precision import HOST
from infty.model.fast import relative_fused
from infty.model.fast.relative_fused import attend_in_kernels
from infty.model.interface import SegmentModel
from infty.model.relative_attention import attend_plainly
from infty.model.short_term import KeyValue
from infty.tasks.corpus import CorpusConfig
from infty.training.config import TrainingConfig
from infty.training.data_parallel import Replica, compute_losses, weigh_losses
from infty.training.step import make_optimizer, optimize
from tests.machine.test_devices import ROWS, model_of, pieces

BEST = choose_device("auto", Launch())
NEEDS_GPU = pytest.mark.skipif(BEST == HOST, reason="torch sees no GPU here")
TEXTS = [(name, case, row) for name, case, row in ROWS if name != "sort"]


def losses_and_gradients(model: SegmentModel, name: str, device: torch.device) -> tuple[dict[str, float], Tensor]:
    Machine(device).place(model.eval())
    losses, _ = compute_losses(model, [pieces(model, name)])
    weigh_losses(losses, model).backward()
    gradients = [p.grad.flatten().double().cpu() for p in model.parameters() if p.grad is not None]
    return {key: loss.item() for key, loss in losses.items()}, torch.cat(gradients)


@NEEDS_GPU
@pytest.mark.parametrize(("name", "case", "row"), ROWS)
def test_losses_and_gradients_are_those_of_a_cpu(name: str, case: str, row: str) -> None:
    here, there = (losses_and_gradients(model_of(name, case, row), name, device) for device in (HOST, BEST))
    assert there[0] == pytest.approx(here[0], rel=1e-4, abs=1e-6)
    assert (there[1] - here[1]).norm() <= 1e-3 * here[1].norm()


@pytest.mark.parametrize(("name", "case", "row"), TEXTS)
@pytest.mark.parametrize("device", sorted({HOST, BEST}, key=str), ids=str)
def test_training_in_bfloat16_stays_finite_and_learns(name: str, case: str, row: str, device: torch.device) -> None:
    """60 steps that carry their memory, on tokens of uneven frequency."""
    experiment = resolve(open_experiment(name, SHIPPED), CellKey(name, "smoke", row, case)).experiment
    assert isinstance(experiment.task, CorpusConfig)
    task = experiment.task.stand_in(experiment.model.segment_length, "")
    model = Machine(device, "bf16").place(experiment.model.build(task.vocab_size, seed=0))
    config = TrainingConfig(steps=60, batch_size=4, learning_rate=1e-2, evaluate_every=60)
    replica, optimizer, memory, losses = Replica(model), make_optimizer(model, 1e-2), None, []
    for step in range(config.total_steps):
        metrics, memory = optimize(replica, optimizer, task, config, step, 0, memory)
        losses.append(metrics["train/loss"])
    assert np.isfinite(losses).all()
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert np.mean(losses[-10:]) < np.mean(losses[:10])


@NEEDS_GPU
@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_attention_in_one_kernel_is_the_plain_equation_and_repeats_to_the_byte(precision: str) -> None:
    """Within what rounding products costs, at the paper's head size; unseen keys too."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    b, heads, t, k, size = 2, 6, 200, 333, 50
    torch.manual_seed(0)
    shapes = (b, heads, t, size), (b, heads, t, size), (b, heads, size, k), (b, heads, k, size), (heads, size, k + 1)
    exact = [torch.randn(shape, dtype=torch.float64) / size**0.25 for shape in shapes]
    unseen, gradient = torch.tensor([0, 41]), torch.randn(b, heads, t, size, dtype=torch.float64)

    def attend(dtype: torch.dtype, device: torch.device) -> list[Tensor]:
        given = [part.to(device, dtype).requires_grad_() for part in exact]
        c, p, key, value, encoding = given
        if device == HOST:
            read = attend_plainly(c, p, KeyValue(key, value), encoding, nn.Identity(), unseen)
        else:
            read = attend_in_kernels(c, p, key, value, encoding, unseen)
        return [read.detach(), *torch.autograd.grad(read, given, gradient.to(device, dtype))]

    wanted, found, again = attend(torch.float64, HOST), attend(dtype, BEST), attend(dtype, BEST)
    assert relative_fused.FAULTS == []
    for plain, near, repeated in zip(wanted, found, again, strict=True):
        assert torch.equal(near, repeated)
        assert (near.double().cpu() - plain).norm() <= 0.02 * plain.norm()


@NEEDS_GPU
def test_a_recorded_step_is_the_same_step() -> None:
    """As CUDA graphs replay it, dropout on: figures and weights of 20 steps."""
    found = []
    for records in (True, False):
        key = CellKey("sort", "smoke", "infty", "x4")
        experiment = resolve(open_experiment("sort", SHIPPED), key, ["training.steps=20"]).experiment
        task, config = build_task(experiment, SHIPPED), experiment.training
        model = Machine(BEST).place(experiment.model.build(task.vocab_size, seed=0))
        replica, optimizer = Replica(model, records=records), make_optimizer(model, 1e-3)
        losses = [optimize(replica, optimizer, task, config, step, 0)[0]["train/loss"] for step in range(20)]
        found.append((losses, {name: part.cpu() for name, part in model.state_dict().items()}))
    assert found[0][0] == found[1][0]
    assert all(torch.equal(part, found[1][1][name]) for name, part in found[0][1].items())
