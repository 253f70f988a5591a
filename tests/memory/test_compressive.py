"""Compression against a double loop, first in first out, and what the reconstruction loss may train."""

import torch

from infty.memory import equations
from infty.memory.compressive import CompressiveMemory, CompressiveMemoryConfig
from infty.memory.equations import reconstruction_loss

BATCH, HIDDEN, SLOTS = 2, 6, 7


def make(rate: int) -> CompressiveMemory:
    return CompressiveMemory(CompressiveMemoryConfig(hidden_size=HIDDEN, num_slots=SLOTS, compression_rate=rate))


def test_a_slot_is_a_weighted_sum_of_its_window() -> None:
    memory, evicted = make(rate=3), torch.randn(BATCH, 11, HIDDEN)
    slots = memory.compress.make_slots(evicted)
    assert slots.shape == (BATCH, 4, HIDDEN)
    weight, bias = memory.compress.weight, memory.compress.bias
    assert bias is not None
    torch.testing.assert_close(slots, equations.compress(evicted, weight, bias))
    for i in range(4):
        expected = bias.expand(BATCH, HIDDEN)
        for j in range(3):
            place = 3 * i + j - 1  # 11 = 4·3 − 1: one zero before the oldest
            if place >= 0:
                expected = expected + evicted[:, place] @ weight[:, :, j].T
        torch.testing.assert_close(slots[:, i], expected)


def test_the_oldest_slots_are_dropped_first() -> None:
    memory = make(rate=3)
    state = memory.initial_state(BATCH)
    parts = [torch.full((BATCH, 3, HIDDEN), float(i)) for i in range(4)]
    for part in parts:
        state = memory.append(state, part)
    assert torch.equal(state.slots, torch.cat(parts, 1)[:, -SLOTS:])


def test_reconstruction_is_the_mean_squared_difference_of_what_is_read() -> None:
    evicted, slots = torch.randn(BATCH, 6, HIDDEN), torch.randn(BATCH, 2, HIDDEN, requires_grad=True)
    loss = reconstruction_loss(lambda hidden: hidden.mean(1, keepdim=True), evicted, slots)
    expected = sum(((slots[b].mean(0) - evicted[b].mean(0)) ** 2).sum() for b in range(BATCH)) / (BATCH * HIDDEN)
    torch.testing.assert_close(loss, torch.as_tensor(expected))
