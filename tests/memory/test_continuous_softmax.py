"""A continuous softmax against sums written out, and against what its integral tends to."""

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from infty.memory.continuous_softmax import ContinuousSoftmaxMemory
from infty.memory.equations import evaluate_basis
from infty.memory.longterm import LongTermMemory
from infty.memory.longterm_config import LongTermMemoryConfig
from tests.memory.kinds import BATCH, HEAD_SIZE, HEADS, HIDDEN, SEGMENT, SHARED, SIGNAL, build

QUERIES = 3


def make(points: int, **changes: Any) -> ContinuousSoftmaxMemory:
    torch.manual_seed(2)
    values = {**SIGNAL, **SHARED, "density": "softmax", "num_points": points, **changes}
    memory = LongTermMemoryConfig.model_validate(values).build()
    assert isinstance(memory, ContinuousSoftmaxMemory)
    return memory


def integrate(memory: ContinuousSoftmaxMemory, coefficients: Tensor, queries: Tensor, points: int) -> Tensor:
    """What is read before W_O, row by row and head by head: ∫ exp(s) V dt / ∫ exp(s) dt by the trapezoidal rule."""
    t = torch.linspace(0, 1, points)
    psi = evaluate_basis(t, memory.basis.centers.repeat_interleave(2), memory.basis.widths.repeat(7))
    heads = []
    for head in range(HEADS):
        own = slice(head * HEAD_SIZE, (head + 1) * HEAD_SIZE)
        keys, values = (psi @ coefficients @ part.weight[own].T for part in (memory.key, memory.value))
        density = torch.exp(queries[:, own] @ keys.T / HEAD_SIZE**0.5)
        density = density / torch.trapezoid(density, t)[:, None]
        heads.append(torch.trapezoid(density[..., None] * values, t, dim=1))
    return torch.cat(heads, -1)


def test_it_is_an_integral_of_the_signal_under_the_exponential_of_its_score(float64: None) -> None:
    memory, queries = make(31), 3 * torch.randn(BATCH, QUERIES, HIDDEN)
    state = memory.update(memory.initial_state(BATCH), 5 * torch.randn(BATCH, SEGMENT, HIDDEN))
    context, after, losses = memory.read(queries, queries, state)
    assert context is not None
    assert (after is state, losses) == (True, {})
    for row in range(BATCH):
        read = integrate(memory, state.coefficients[row], queries[row], 31)
        torch.testing.assert_close(context[row], read @ memory.output.weight.T)


def test_more_points_come_nearer_to_the_integral(float64: None) -> None:
    queries, errors = 3 * torch.randn(BATCH, QUERIES, HIDDEN), []
    for points in (16, 64, 256):
        memory = make(points)
        torch.manual_seed(3)
        state = memory.update(memory.initial_state(BATCH), 5 * torch.randn(BATCH, SEGMENT, HIDDEN))
        context = memory.read(queries, queries, state)[0]
        exact = integrate(memory, state.coefficients[0], queries[0], 20_001) @ memory.output.weight.T
        assert context is not None
        errors.append((context[0] - exact).abs().max().item() / exact.abs().max().item())
    assert errors[2] < errors[1] / 8 < errors[0] / 64
    assert errors[2] < 1e-3


def test_a_sticky_one_notes_the_share_of_all_positions_in_each_bin(float64: None) -> None:
    memory, bins = make(31, sticky={"num_bins": 5}), 5
    x, projection = 3 * torch.randn(BATCH, SEGMENT, HIDDEN), torch.randn(HIDDEN, HIDDEN)
    state = memory.update(memory.initial_state(BATCH), 5 * torch.randn(BATCH, SEGMENT, HIDDEN))
    context, after, _ = memory.read(x[:, -1:] @ projection.T, x, state, projection)
    whole, same, _ = memory.read(x @ projection.T, x, state, projection)
    torch.testing.assert_close(context, whole[:, -1:] if whole is not None else None)
    torch.testing.assert_close(after.histogram, same.histogram)
    plain, _, _ = make(31).read(x[:, -1:] @ projection.T, x, state, projection)
    torch.testing.assert_close(context, plain)
    ends = torch.ones(31)
    ends[0] = ends[-1] = 0.5
    asked = (x @ projection.T).unflatten(2, (HEADS, -1)).transpose(1, 2)
    scores = torch.exp(asked @ memory.prepare(state).keys.mT / HEAD_SIZE**0.5) * ends
    shares = (scores / scores.sum(-1, keepdim=True)).mean((1, 2))
    for number in range(bins):
        inside = [i for i in range(31) if min(bins * i // 30, bins - 1) == number]
        torch.testing.assert_close(after.histogram[:, number], shares[:, inside].sum(1))
    torch.testing.assert_close(after.histogram.sum(1), torch.ones(BATCH))


def test_it_has_no_density_to_regularise_and_the_paper_has_no_points() -> None:
    memory = build("infty-softmax")
    assert isinstance(memory, LongTermMemory)
    assert memory.config.auxiliary_weights == {}
    named = {id(parameter) for group in memory.parameter_groups().values() for parameter in group}
    assert named == {id(parameter) for parameter in memory.parameters()}
    with pytest.raises(ValidationError, match="num_points are those of density: softmax"):
        LongTermMemoryConfig.model_validate({**SIGNAL, **SHARED, "num_points": 9})
    assert "density" not in LongTermMemoryConfig.model_validate({**SIGNAL, **SHARED}).model_dump()
