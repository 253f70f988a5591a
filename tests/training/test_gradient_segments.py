"""The gradient through the last k segments: that of one graph over them, and of the loss as a function of weights."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from infty.base.batch import UNSCORED, Batch
from infty.machine.placement import Machine
from infty.model.interface import SegmentModel, State
from infty.model.tensors import state_tensors
from infty.training.data_parallel import compute_losses, weigh_losses
from tests.model.test_parts import MODELS

ROWS, VOCAB, SEGMENTS, DEPTH = 2, 11, 7, 3
CPU = torch.device("cpu")


def make_batch(length: int) -> Batch:
    """Sequences of which the last two thirds of a segment are scored, as answers are."""
    tokens = torch.randint(VOCAB, (ROWS, SEGMENTS * length))
    targets = tokens.clone()
    targets[:, : -2 * length // 3] = UNSCORED
    return Batch(tokens, targets, torch.arange(ROWS))


def collect(model: SegmentModel) -> dict[str, Tensor]:
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


def read_in_one_graph(model: SegmentModel, batch: Batch, depth: int) -> tuple[Tensor, State]:
    """The objective, from calls of the model alone: states are carried on as they are, from the last `depth` on."""
    state, positions = model.initial_state(batch.streams), model.positions()
    segments, total = list(batch.segments(model.config.segment_length)), torch.zeros(())
    for number, segment in enumerate(segments):
        with torch.set_grad_enabled(number >= SEGMENTS - depth):
            output = model(segment.tokens, state, positions)
        state = output.state
        for name, loss in output.auxiliary.items():
            total = total + model.config.auxiliary_weights[name] * loss
        scored = segment.targets != UNSCORED
        if scored.any():
            nats = -output.logits.log_softmax(-1).gather(-1, segment.targets.clamp(min=0)[..., None])[..., 0]
            total = total + (nats * scored).sum() / scored.sum()
    return total, state


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_equals_one_graph_over_the_segments(float64: None, name: str, recompute: bool) -> None:
    model = Machine(CPU, recompute=recompute).place(MODELS[name]().double().train())
    batch = make_batch(model.config.segment_length)
    wanted, state = read_in_one_graph(model, batch, DEPTH)
    wanted.backward()
    expected = collect(model)
    losses, after = compute_losses(model, [batch], gradient_segments=DEPTH)
    total = weigh_losses(losses, model)
    total.backward()
    torch.testing.assert_close(total, wanted, rtol=1e-10, atol=1e-10)
    found = collect(model)
    assert found.keys() == expected.keys()
    for field, gradient in expected.items():
        torch.testing.assert_close(found[field], gradient, rtol=1e-8, atol=1e-10, msg=field)
    for field, tensor in state_tensors(after).items():
        assert not tensor.requires_grad
        torch.testing.assert_close(tensor, state_tensors(state)[field].detach(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["transformer-xl", "infty", "graft infty", "compressive"])
def test_is_the_slope_of_the_loss(float64: None, name: str) -> None:
    """By finite differences of the weights in the last segments; what came before was read with those from before.

    A compressor's loss does not reach the layers below it, and sticky draws are none of the graph: both are left out.
    """
    model, depth = MODELS[name]().double().train(), 3
    segments = list(make_batch(model.config.segment_length).segments(model.config.segment_length))
    with torch.no_grad():
        state: State = model.initial_state(segments[0].streams)
        for segment in segments[:-depth]:
            state = model(segment.tokens, state).state

    def objective() -> Tensor:
        losses, _ = compute_losses(model, segments[-depth:], state, gradient_segments=depth)
        return weigh_losses({**losses, "reconstruction": torch.zeros(())} if name == "compressive" else losses, model)

    objective().backward()
    gradients = collect(model)
    direction = {field: torch.randn_like(gradient) for field, gradient in gradients.items()}
    slope = sum((gradients[field] * direction[field]).sum() for field in gradients)
    ends = []
    for sign in (1, -1):
        with torch.no_grad():
            for field, parameter in model.named_parameters():
                if field in direction:
                    parameter += sign * 1e-6 * direction[field]
        ends.append(objective().detach())
        with torch.no_grad():
            for field, parameter in model.named_parameters():
                if field in direction:
                    parameter -= sign * 1e-6 * direction[field]
    torch.testing.assert_close(slope, (ends[0] - ends[1]) / 2e-6, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("name", MODELS)
def test_deeper_gradients_are_others_and_one_segment_is_what_it_was(name: str) -> None:
    """What enters a memory earlier learns only through it; with one segment nothing does but the last."""

    def gradients(depths: Sequence[int]) -> list[dict[str, Tensor]]:
        found = []
        for depth in depths:
            losses, _ = compute_losses(model, [batch], gradient_segments=depth)
            weigh_losses(losses, model).backward()
            found.append(collect(model))
        return found

    model = MODELS[name]().train()
    batch = make_batch(model.config.segment_length)
    one, two = gradients((1, 2))
    losses, _ = compute_losses(model, [batch])
    weigh_losses(losses, model).backward()
    assert all(torch.equal(one[field], gradient) for field, gradient in collect(model).items())
    if name != "graft gpt2":  # without a memory a segment is all that it sees
        assert any(not torch.allclose(one[field], two[field], rtol=1e-6, atol=0) for field in one)
