"""What a GPU must do like a CPU. Skipped where there is none; bf16 is tried on a CPU too."""

import numpy as np
import pytest
import torch
from torch import Tensor

from infty.config.definition import SHIPPED, CellKey, open_experiment
from infty.experiment import resolve
from infty.machine.launch import Launch
from infty.machine.placement import Machine, choose_device
from infty.memory.precision import HOST
from infty.model.interface import SegmentModel
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
