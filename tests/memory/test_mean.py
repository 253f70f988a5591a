"""An average against a sum over all that was taken in."""

import torch

from infty.memory.mean import MeanMemory, MeanState, average
from tests.memory.kinds import BATCH, HEADS, HIDDEN, SEGMENT, build


def take_in(memory: MeanMemory, parts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    state = memory.initial_state(BATCH)
    for part in parts:
        state, _ = memory.advance(state, part, None, lambda _, vectors: vectors)
    return state.mean, state.count


def test_it_is_the_mean_of_all_and_the_same_for_every_query(float64: None) -> None:
    memory, parts = build("mean"), torch.randn(4, BATCH, SEGMENT, HIDDEN)
    assert isinstance(memory, MeanMemory)
    mean, count = take_in(memory, parts)
    torch.testing.assert_close(mean.flatten(1), parts.mean((0, 2)))
    assert (count == 4 * SEGMENT).all()
    state = MeanState(mean, count)
    context, _, losses = memory.read(torch.randn(BATCH, 2, HIDDEN), parts[0], state)
    for read in context.unbind(1):
        torch.testing.assert_close(read, parts.mean((0, 2)) @ memory.output.weight.T)
    assert losses == {}


def test_vectors_at_once_are_averaged_as_one_by_one(float64: None) -> None:
    """A forgetting one: values, and the gradient of the rates and of what entered."""
    memory, parts = build("mean-forgetting"), torch.randn(3, BATCH, SEGMENT, HIDDEN, requires_grad=True)
    assert isinstance(memory, MeanMemory)
    assert memory.decay is not None
    x = torch.cat(parts.unbind(), 1).unflatten(2, (HEADS, -1))
    zeros = x.new_zeros(x[:, 0].shape)
    plain = average(zeros, zeros[..., 0], x, memory.decay.sigmoid())
    torch.manual_seed(1)
    weight, gradients = torch.randn_like(zeros), []
    for mean, count in (take_in(memory, parts), plain):
        torch.testing.assert_close((mean, count), plain)
        gradients.append(torch.autograd.grad((mean * weight).sum(), [memory.decay, parts]))
    torch.testing.assert_close(*gradients)


def test_a_forgotten_vector_counts_a_share_that_falls_with_its_age(float64: None) -> None:
    memory, parts = build("mean-forgetting"), torch.randn(1, BATCH, SEGMENT, HIDDEN)
    assert isinstance(memory, MeanMemory)
    assert memory.decay is not None
    mean, _ = take_in(memory, parts)
    shares = memory.decay.sigmoid() ** torch.arange(SEGMENT - 1, -1, -1)[:, None]
    shares = (shares / shares.sum(0)).repeat_interleave(HIDDEN // HEADS, 1)
    torch.testing.assert_close(mean.flatten(1), (parts[0] * shares).sum(1))
