"""Gated slots against a loop over vectors, slots and heads, and how they are read."""

import torch
from torch.nn import functional as F

from infty.memory.equations import split_heads
from infty.memory.slots import SlotMemory, fill_slots
from tests.memory.kinds import BATCH, HEAD_SIZE, HEADS, HIDDEN, SEGMENT, build


def test_vectors_at_once_fill_slots_as_one_by_one(float64: None) -> None:
    """Values and every gradient, over three segments."""
    memory, x = build("slots"), torch.randn(BATCH, 3 * SEGMENT, HIDDEN, requires_grad=True)
    assert isinstance(memory, SlotMemory)
    state = memory.initial_state(BATCH)
    decay = F.logsigmoid(split_heads(memory.decay(x), HEADS))
    plain = [fill_slots(state.keys, split_heads(part(x), HEADS), decay) for part in (memory.key, memory.value)]
    for part in x.chunk(3, 1):
        state, _ = memory.advance(state, part, None, lambda _, vectors: vectors)
    found = [state.keys, state.values]
    torch.testing.assert_close(found, plain)
    torch.manual_seed(1)
    weight = torch.randn_like(state.keys)
    wanted = [x, *memory.key.parameters(), *memory.value.parameters(), *memory.decay.parameters()]
    gradients = [torch.autograd.grad((some[0] * some[1] * weight).sum(), wanted) for some in (found, plain)]
    torch.testing.assert_close(*gradients)


def test_a_slot_is_a_mean_that_forgets_at_its_own_rate(float64: None) -> None:
    """Number by number: K_i ← a_i K_i + (1 − a_i) k for one row, head and slot."""
    memory, x = build("slots"), torch.randn(BATCH, SEGMENT, HIDDEN)
    assert isinstance(memory, SlotMemory)
    state, _ = memory.advance(memory.initial_state(BATCH), x, None, lambda _, vectors: vectors)
    for row, head, slot in ((0, 0, 0), (2, 1, 10), (1, 1, 4)):
        own, expected = slice(head * HEAD_SIZE, (head + 1) * HEAD_SIZE), torch.zeros(HEAD_SIZE)
        for vector in x[row]:
            a = memory.decay(vector).unflatten(0, (HEADS, -1))[head, slot].sigmoid()
            expected = a * expected + (1 - a) * memory.key(vector)[own]
        torch.testing.assert_close(state.keys[row, head, slot], expected)


def test_slots_are_read_by_a_softmax_over_their_keys(float64: None) -> None:
    memory, x, queries = build("slots"), torch.randn(BATCH, SEGMENT, HIDDEN), torch.randn(BATCH, 2, HIDDEN)
    assert isinstance(memory, SlotMemory)
    state, _ = memory.advance(memory.initial_state(BATCH), x, None, lambda _, vectors: vectors)
    asked = queries.unflatten(2, (HEADS, -1))
    weights = (torch.einsum("bqhd,bhnd->bhqn", asked, state.keys) / HEAD_SIZE**0.5).softmax(-1)
    read = torch.einsum("bhqn,bhnd->bqhd", weights, state.values).flatten(2)
    torch.testing.assert_close(memory.read(queries, x, state)[0], read @ memory.output.weight.T)


def test_slots_begin_with_half_lives_of_one_segment_to_sixteen() -> None:
    memory = build("slots")
    assert isinstance(memory, SlotMemory)
    left = memory.decay.bias.sigmoid().unflatten(0, (HEADS, -1))
    assert (left.diff() > 0).all()
    ends = torch.stack([left[:, 0] ** SEGMENT, left[:, -1] ** (16 * SEGMENT)])
    torch.testing.assert_close(ends, torch.full_like(ends, 0.5), rtol=1e-4, atol=0)
