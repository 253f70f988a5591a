"""Knock-outs of memories: what a shuffle keeps and what it destroys, and that what is kept of a stream stays true."""

from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from infty.memory import signal
from infty.memory.basis import GaussianBasis
from infty.memory.compressive import CompressiveMemory, CompressiveMemoryConfig
from infty.memory.contract import KNOCK_OUTS, KnockOut
from infty.memory.equations import evaluate_signal
from infty.memory.fast.low_rank import LinearMap
from infty.memory.longterm import LongTermMemory, LongTermMemoryConfig, LongTermState
from infty.memory.queue import QueueState
from infty.memory.rows import draw_fixed_numbers, visible
from infty.memory.signal import make_operators, shuffle_pieces
from infty.model.memory_layer import LayerState
from tests.model.test_decoder import BATCH, SEGMENT, make

WIDTHS = (0.01, 0.05)
HIDDEN, SLOTS = 6, 7


def noise_signal(num_basis: int) -> Tensor:
    """Fit white noise, as many vectors as there are basis functions: the roughest signal that a memory may hold."""
    operators = make_operators(num_basis, WIDTHS, num_basis, num_basis, 0.75, 1.0)
    return LinearMap(operators.first).double() @ torch.randn(num_basis, 5, dtype=torch.float64)


def long_term(batch: int) -> tuple[LongTermMemory, LongTermState]:
    config = LongTermMemoryConfig(hidden_size=HIDDEN, num_heads=2, num_basis=64, segment_length=64, num_samples=64)
    memory = LongTermMemory(config)
    state = memory.update(memory.initial_state(batch), torch.randn(batch, 64, HIDDEN)).detach()
    return memory, state


def compressive(batch: int, count: int) -> tuple[CompressiveMemory, QueueState]:
    memory = CompressiveMemory(CompressiveMemoryConfig(hidden_size=HIDDEN, num_slots=SLOTS, compression_rate=2))
    return memory, memory.append(memory.initial_state(batch), torch.randn(batch, count, HIDDEN))


@pytest.mark.parametrize(("num_basis", "most"), [(64, 0.08), (128, 0.06), (256, 0.045), (512, 0.03)])
def test_reading_and_fitting_alone_changes_a_signal_by_a_few_percent(
    monkeypatch: pytest.MonkeyPatch, num_basis: int, most: float
) -> None:
    """A shuffle whose order is the true one: its error in norm falls with N. More than that is the order's doing."""
    monkeypatch.setattr(signal, "draw_fixed_numbers", lambda count: torch.arange(count) / count)
    in_order = shuffle_pieces.__wrapped__(num_basis, WIDTHS)
    values = GaussianBasis(num_basis, WIDTHS).double().evaluate(torch.linspace(0, 1, 2001, dtype=torch.float64))
    coefficients = noise_signal(num_basis)
    before, after = (evaluate_signal(c, values) for c in (coefficients, in_order @ coefficients))
    assert 0.005 < (after - before).norm() / before.norm() < most


@pytest.mark.parametrize("num_basis", [64, 256])
def test_a_shuffled_signal_has_the_same_pieces_in_another_order(num_basis: int) -> None:
    """Piece k is like what piece order[k] was, but for jumps, which blur; it is unlike what was in its own place."""
    pieces, inside = num_basis // len(WIDTHS), 32
    places = (torch.arange(pieces * inside, dtype=torch.float64) + 0.5) / (pieces * inside)
    values = GaussianBasis(num_basis, WIDTHS).double().evaluate(places)
    coefficients = noise_signal(num_basis)
    shuffled = shuffle_pieces(num_basis, WIDTHS) @ coefficients
    before, after = (evaluate_signal(c, values).unflatten(0, (pieces, -1)).mean(1) for c in (coefficients, shuffled))
    order = draw_fixed_numbers(pieces).argsort()
    assert sorted(order.tolist()) == list(range(pieces))
    alike, place = (torch.stack([after.flatten(), x.flatten()]).corrcoef()[0, 1] for x in (before[order], before))
    assert alike > 0.85
    assert place.abs() < 0.3
    assert 0.6 < after.norm() / before.norm() < 1.05


@pytest.mark.parametrize("count", [5, SLOTS])
def test_shuffled_slots_are_the_same_slots(count: int) -> None:
    memory, state = compressive(3, count)
    after = memory.knock_out(state, "shuffle")
    for row in range(3):
        assert sorted(after.slots[row].tolist()) == sorted(state.slots[row].tolist())
    assert not torch.equal(after.slots, state.slots)


def test_slots_that_are_not_a_rows_own_stay_out_of_a_shuffle() -> None:
    memory, state = compressive(2, 3)
    state = memory.append(state.reset(torch.tensor([True, False])), torch.randn(2, 4, HIDDEN))
    after = memory.knock_out(state, "shuffle")
    assert visible(after.slots, after.filled).tolist() == [4, 7]
    assert torch.equal(after.slots[0, :3], state.slots[0, :3])
    assert sorted(after.slots[0, 3:].tolist()) == sorted(state.slots[0, 3:].tolist())


def test_zero_reads_zeros() -> None:
    memory, state = long_term(3)
    context, _ = memory.attend(torch.randn(3, 5, HIDDEN), memory.knock_out(state, "zero"))
    assert context.count_nonzero() == 0
    compressor, slots = compressive(3, 4)
    keys = compressor.extra_keys(compressor.knock_out(slots, "zero"))
    assert keys is not None
    assert visible(keys.vectors, keys.filled).tolist() == [0, 0, 0]


def test_other_reads_what_the_other_half_of_the_batch_would() -> None:
    memory, state = long_term(4)
    swapped = [2, 3, 0, 1]
    queries = torch.randn(4, 5, HIDDEN)
    context, _ = memory.attend(queries, memory.knock_out(state, "other"))
    theirs, _ = memory.attend(queries, replace(state, coefficients=state.coefficients[swapped]))
    assert torch.equal(context, theirs)
    compressor, slots = compressive(4, 4)
    assert torch.equal(compressor.knock_out(slots, "other").slots, slots.slots[swapped])


def flatten(part: Any) -> dict[str, Tensor]:
    """Name every tensor of a state."""
    found = {}
    for field in fields(part):
        value = getattr(part, field.name)
        if isinstance(value, Tensor):
            found[field.name] = value
        elif value is not None:
            found |= {f"{field.name}.{name}": tensor for name, tensor in flatten(value).items()}
    return found


@pytest.mark.parametrize("kind", KNOCK_OUTS)
@pytest.mark.parametrize("row", ["compressive", "infty", "infty-sticky"])
def test_what_a_layer_keeps_is_true_bit_for_bit_whatever_is_read_in_its_place(row: str, kind: KnockOut) -> None:
    """One layer, the same input: outputs differ once there is something to read, states never do."""
    torch.manual_seed(5)
    model = make(row).eval()
    layer, positions = model.blocks[0], model.positions()[0]

    def walk(knocked_out: KnockOut | None) -> tuple[list[Tensor], list[LayerState]]:
        state, outputs, states = model.initial_state(torch.arange(BATCH))[0], [], []
        for number in range(6):
            x = torch.randn(BATCH, SEGMENT, 22, generator=torch.Generator().manual_seed(number))
            layer.knocked_out = knocked_out
            output, state, _ = layer(x, state, positions, SEGMENT)
            outputs.append(output)
            states.append(state)
        return outputs, states

    with torch.no_grad():
        (outputs, kept), (others, true) = walk(kind), walk(None)
    assert not torch.equal(outputs[-1], others[-1])
    for one, other in zip(kept, true, strict=True):
        mine, theirs = flatten(one), flatten(other)
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)
