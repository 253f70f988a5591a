"""Adam against torch's own optimiser, to the byte, and what it spares a run."""

import subprocess
import sys
from pathlib import Path

import torch
from torch import nn

from infty.training.adam import Adam
from tests.conftest import clean_environment

STEPS = 7


def make() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3), nn.Linear(11, 13))


def test_is_torchs_own_to_the_byte() -> None:
    """Two groups whose rates change, and parameters that never have a gradient, or have one only later."""
    models, states = [make(), make()], []
    for model, build in zip(models, (Adam, lambda groups: torch.optim.Adam(groups, fused=True)), strict=True):
        parameters = list(model.parameters())
        optimizer = build([{"params": parameters[:3], "lr": 0.1}, {"params": parameters[3:], "lr": 0.03}])
        for step in range(STEPS):
            torch.manual_seed(step)
            for group in optimizer.param_groups:
                group["lr"] *= 0.9
            hidden = model[0](torch.randn(2, 5)).tanh()  # pyright: ignore
            loss = hidden.square().sum() + (model[2](hidden).square().sum() if step > 2 else 0.0)  # pyright: ignore
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            assert all(parameter.grad is None for parameter in parameters)
        states.append([optimizer.state.get(parameter, {}) for parameter in parameters])
    for mine, theirs in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(mine, theirs)
    for mine, theirs in zip(*states, strict=True):
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert states[0][-1] == {}


def test_a_step_loads_no_compiler(tmp_path: Path) -> None:
    """torch 2.13.0 imports torch._dynamo, a second and a half, when any `torch.optim.Optimizer` is made."""
    code = """
import sys, torch
from infty.training.step import make_optimizer
from tests.model.test_decoder import BATCH, make, segments
model = make("infty")
optimizer = make_optimizer(model, 1e-3)
model(segments(1)[0], model.initial_state(torch.arange(BATCH))).hidden.sum().backward()
optimizer.step()
optimizer.zero_grad()
print("torch._dynamo" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=clean_environment(tmp_path), check=True
    )
    assert done.stdout == "False\n"
