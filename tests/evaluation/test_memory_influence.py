"""What memories contribute and what reaches them: against hooks, central differences, and rows that have no part."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from infty.evaluation.evaluate import use_evaluation_mode
from infty.evaluation.memory_trace import measure_reach
from infty.memory.longterm import LongTermMemory
from infty.model.interface import SegmentModel
from tests.evaluation.test_memory_trace import LONG_TERM, STICKY, read, sorting
from tests.model import test_graft
from tests.model.test_decoder import SEGMENT, make

STEP = 1e-6


def memory_of(model: SegmentModel, layer: int) -> LongTermMemory:
    memory = model.memory_layers[layer].long_range
    assert isinstance(memory, LongTermMemory)
    return memory


@pytest.mark.slower
def test_gradients_are_those_of_central_differences(float64: None) -> None:
    """Of the last segment's loss with the memory as the earlier ones left it, one parameter after another."""
    model, task = make("infty", long_range=LONG_TERM, initial_std=0.7, hidden_size=4, feed_forward_size=2), sorting(4)
    batch = task.make_batch("test", np.array([0]))
    *_, last = batch.segments(SEGMENT)
    before = read(model, task)[1][-2]

    def loss() -> float:
        with use_evaluation_mode(model), torch.enable_grad():  # where keys of the short-term memory are projected anew
            output = model(last.tokens, before)
        scored = last.targets != -100
        return nn.functional.cross_entropy(output.logits[scored], last.targets[scored]).item()

    def numeric(parameters: list[Tensor]) -> float:
        squares = []
        for parameter in parameters:
            values = parameter.detach().view(-1)
            for i in range(len(values)):
                kept = values[i].item()
                found = []
                for shift in (STEP, -STEP):
                    values[i] = kept + shift
                    found.append(loss())
                values[i] = kept
                squares.append(((found[0] - found[1]) / (2 * STEP)) ** 2)
        return float(np.mean(squares) ** 0.5)

    found = measure_reach(model, batch)
    for layer in range(len(model.memory_layers)):
        memory = memory_of(model, layer)
        assert memory.gate is not None
        groups = {
            "gate": list(memory.gate.parameters()),
            "where": [memory.key.weight, memory.mean.weight, memory.variance.weight],
            "what": [memory.value.weight, memory.output.weight],
        }
        for name, parameters in groups.items():
            assert found[name][layer] > 0
            assert found[name][layer] == pytest.approx(numeric(parameters), rel=1e-4, abs=1e-9)
    memories = set(model.memory_parameters())
    assert found["rest"] == pytest.approx(numeric([p for p in model.parameters() if p not in memories]), rel=1e-4)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("long_range", [LONG_TERM, STICKY])
def test_the_share_is_of_what_hooks_see(long_range: dict[str, Any]) -> None:
    model, task, near, far = make("infty", long_range=long_range, initial_std=0.7), sorting(5), [], []
    block = model.blocks[0]
    hooks = [
        block.attention.register_forward_hook(lambda _m, _i, out: near.append(out.detach())),
        memory_of(model, 0).output.register_forward_hook(lambda _m, _i, out: far.append(out.detach())),
    ]
    found = measure_reach(model, task.make_batch("test", np.array([0])))
    for hook in hooks:
        hook.remove()
    assert found["share"][0] == pytest.approx((far[-1].norm() / near[-1].norm()).item(), rel=1e-6)


def test_a_memory_without_an_output_gets_no_gradient_but_there(float64: None) -> None:
    """Nothing is read through a zero projection, and the loss reaches nothing behind it; no gate is no gradient."""
    model, task = make("infty", long_range={**LONG_TERM, "gate": False}), sorting(5)
    for layer in model.memory_layers:
        assert isinstance(layer.long_range, LongTermMemory)
        nn.init.zeros_(layer.long_range.output.weight)
        nn.init.zeros_(layer.long_range.value.weight)
    found = measure_reach(model, task.make_batch("test", np.array([0])))
    zeros = [0.0] * len(model.memory_layers)
    assert found["share"] == found["where"] == found["what"] == zeros
    assert found["gate"] == [None] * len(model.memory_layers)
    assert found["rest"] > 0


@pytest.mark.parametrize("row", ["infty", "infty-sticky"])
def test_measuring_leaves_nothing_behind(row: str) -> None:
    model, task = test_graft.make(row), sorting(6, test_graft.LENGTH)
    batch, inside = task.make_batch("test", np.array([0])), [set(vars(module)) for module in model.modules()]
    first = measure_reach(model, batch)
    assert first == measure_reach(model, batch)
    assert min(first["share"]) > 0
    assert min(first["where"]) > 0
    assert [set(vars(module)) for module in model.modules()] == inside
    assert torch.is_grad_enabled()
