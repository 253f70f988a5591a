"""What layers, checkpoints and knock-outs do with states, held against what is done to each stream alone."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from infty.memory.compressive import CompressiveMemory, CompressiveMemoryConfig
from infty.memory.equations import AttentionDensity
from infty.memory.fast.tiling import CPU_BLOCK, GPU_BLOCK, items_at_once, pieces
from infty.memory.longterm import LongTermMemory, LongTermMemoryConfig, LongTermState
from infty.memory.queue import QueueState
from infty.memory.rows import concatenate_rows, visible
from infty.memory.sticky import StickyConfig

HIDDEN, SEGMENT, BINS = 6, 5, 4
LAST = torch.tensor([False, False, True])


def signals(batch: int) -> tuple[LongTermMemory, LongTermState]:
    """A sticky memory that has taken in two segments and looked at them."""
    config = LongTermMemoryConfig(
        hidden_size=HIDDEN, num_heads=2, num_basis=8, segment_length=SEGMENT, num_samples=7,
        sticky=StickyConfig(num_bins=BINS),
    )  # fmt: skip
    memory = LongTermMemory(config)
    state = memory.initial_state(batch, torch.arange(batch) + 40)
    for _ in range(2):
        state = memory.update(state, torch.randn(batch, SEGMENT, HIDDEN))
        state = memory.observe(state, memory.density(torch.randn(batch, 3, HIDDEN), state))
    return memory, state


def slots(batch: int, count: int) -> tuple[CompressiveMemory, QueueState]:
    """A compressive memory that has taken in so many slots, of its seven."""
    memory = CompressiveMemory(CompressiveMemoryConfig(hidden_size=HIDDEN, num_slots=7, compression_rate=2))
    return memory, memory.append(memory.initial_state(batch), torch.randn(batch, count, HIDDEN))


def parts(state: LongTermState, row: int) -> list[torch.Tensor]:
    return [state.coefficients[row], state.updates[row], state.histogram[row], state.seeds[row]]


def test_an_empty_signal_is_zero_even_and_named_and_follows_the_weights() -> None:
    memory = signals(2)[0].double()
    state = memory.initial_state(3)
    assert state.coefficients.shape == (3, 8, HIDDEN)
    assert (state.coefficients.dtype, state.updates.dtype) == (torch.float64, torch.int64)
    assert state.coefficients.count_nonzero() == state.updates.count_nonzero() == 0
    assert torch.equal(state.histogram, torch.full((3, BINS), 1 / BINS, dtype=torch.float64))
    assert state.seeds.tolist() == [0, 1, 2]
    assert memory.initial_state(2, torch.tensor([9, 4])).seeds.tolist() == [9, 4]
    assert not state.updates.any()
    plain = LongTermMemory(memory.config.model_copy(update={"sticky": None}))
    assert plain.initial_state(2).histogram.shape == (2, 0)


def test_marked_rows_of_a_signal_forget_and_others_stay() -> None:
    memory, state = signals(3)
    fresh, seeds = memory.initial_state(3), torch.tensor([70, 71, 72])
    after = state.reset(LAST, seeds)
    for row in (0, 1):
        assert all(map(torch.equal, parts(after, row), parts(state, row)))
    assert all(map(torch.equal, parts(after, 2)[:3], parts(fresh, 2)[:3]))
    assert after.seeds.tolist() == [40, 41, 72]
    assert state.reset(LAST).seeds.tolist() == [40, 41, 42]
    assert after.updates.any()


def test_only_marked_rows_are_updated() -> None:
    memory, state = signals(3)
    evicted = torch.randn(3, SEGMENT, HIDDEN)
    some, every = memory.update(state, evicted, LAST), memory.update(state, evicted)
    for row in (0, 1):
        assert all(map(torch.equal, parts(some, row), parts(state, row)))
    assert all(map(torch.equal, parts(some, 2), parts(every, 2)))
    assert (some.updates.tolist(), every.updates.tolist()) == ([2, 2, 3], [3, 3, 3])


def test_a_row_that_begins_is_fitted_as_the_first_of_a_stream_alone() -> None:
    memory, state = signals(3)
    evicted = torch.randn(3, SEGMENT, HIDDEN)
    mixed = memory.update(state.reset(LAST), evicted)
    alone = memory.update(memory.initial_state(1), evicted[2:])
    torch.testing.assert_close(mixed.coefficients[2], alone.coefficients[0])
    torch.testing.assert_close(mixed.coefficients[:2], memory.update(state, evicted).coefficients[:2])


def test_a_detached_signal_is_the_same_without_its_gradient() -> None:
    memory, state = signals(2)
    state = memory.update(state, torch.randn(2, SEGMENT, HIDDEN))
    kept = state.detach()
    assert state.coefficients.requires_grad
    assert not kept.coefficients.requires_grad
    assert not kept.histogram.requires_grad
    assert all(map(torch.equal, parts(kept, 1), parts(state, 1)))


@pytest.mark.parametrize("make", [lambda n: signals(n)[1], lambda n: slots(n, 3)[1]], ids=["signals", "slots"])
def test_batches_are_joined_row_by_row(make: Any) -> None:
    one, other = make(2), make(1)
    both = type(one).concatenate([one, other])
    for name in vars(one):
        if (value := getattr(one, name)) is not None:
            assert torch.equal(getattr(both, name), torch.cat([value, getattr(other, name)]))


def test_an_emptied_signal_is_zero_for_streams_that_go_on() -> None:
    memory, state = signals(3)
    after = memory.knock_out(state, "zero")
    assert after.coefficients.count_nonzero() == 0
    assert all(map(torch.equal, parts(after, 1)[1:], parts(state, 1)[1:]))


def test_rows_exchange_what_they_remember_and_nothing_else() -> None:
    (memory, state), (compressor, whole) = signals(4), slots(4, 3)
    slotted = whole.reset(torch.tensor([True, False, False, False]))
    after, swapped = memory.knock_out(state, "other"), compressor.knock_out(slotted, "other")
    assert torch.equal(after.coefficients, state.coefficients[[2, 3, 0, 1]])
    assert after.seeds.tolist() == state.seeds.tolist()
    assert torch.equal(swapped.slots, slotted.slots[[2, 3, 0, 1]])
    assert swapped.filled is not None
    assert swapped.filled.tolist() == [3, 3, 0, 3]
    assert compressor.knock_out(whole, "other").filled is None


def test_slots_that_a_row_forgot_or_did_not_take_in_are_not_its_own() -> None:
    memory, state = slots(3, 3)
    assert state.filled is None
    after = state.reset(LAST)
    assert visible(after.slots, after.filled).tolist() == [3, 3, 0]
    assert torch.equal(after.slots, state.slots)
    more = memory.append(after, torch.randn(3, 2, HIDDEN), torch.tensor([True, False, True]))
    assert visible(more.slots, more.filled).tolist() == [5, 3, 2]
    full = memory.append(more, torch.randn(3, 4, HIDDEN))
    assert full.slots.shape[1] == 7
    assert visible(full.slots, full.filled).tolist() == [7, 7, 6]
    assert visible(after.slots, memory.knock_out(after, "zero").filled).tolist() == [0, 0, 0]
    assert not full.detach().slots.requires_grad
    assert torch.equal(visible(full.slots, full.detach().filled), visible(full.slots, full.filled))
    assert memory.double().initial_state(2).slots.dtype == torch.float64


def test_states_of_unlike_length_are_joined_with_zeros_that_are_nobodys() -> None:
    one, two = torch.randn(2, 3, HIDDEN), torch.randn(1, 5, HIDDEN)
    rows, own = concatenate_rows([one, two], [None, None])
    assert own is not None
    assert own.tolist() == [3, 3, 5]
    assert torch.equal(rows[:2, 2:], one)
    assert rows[:2, :2].count_nonzero() == 0
    assert torch.equal(rows[2:], two)
    alike, everybody = concatenate_rows([one, one], [None, torch.tensor([3, 3])])
    assert torch.equal(alike, torch.cat([one, one]))
    assert everybody is None
    assert concatenate_rows([one, one], [None, torch.tensor([3, 1])])[1].tolist() == [3, 3, 3, 1]  # pyright: ignore[reportOptionalMemberAccess]


def test_the_last_queries_of_a_density_are_its_last() -> None:
    density = AttentionDensity(torch.rand(2, 3, 7), torch.rand(2, 3, 7))
    last = density.last(2)
    assert torch.equal(last.mean, density.mean[:, :, 5:])
    assert torch.equal(last.variance, density.variance[:, :, 5:])
    assert density.last(7).mean.shape == (2, 3, 7)
    assert density.last(0).mean.shape == (2, 3, 0)


def test_pieces_are_the_whole_and_blocks_fit_what_holds_them() -> None:
    assert [(p.start, p.stop) for p in pieces(7, 3)] == [(0, 3), (3, 6), (6, 7)]
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert items_at_once(CPU_BLOCK // 8, cpu) == 8 * torch.get_num_threads()
    assert items_at_once(10 * CPU_BLOCK, cpu) == torch.get_num_threads()
    assert items_at_once(GPU_BLOCK // 3, gpu) == 3
    assert items_at_once(10 * GPU_BLOCK, gpu) == 1


def test_a_state_on_disk_goes_on_as_if_it_had_never_left(tmp_path: Path) -> None:
    """Without pickle, sticky or not: docs/memory.md has the two lines."""
    memory, state = signals(3)
    plain = LongTermMemory(memory.config.model_copy(update={"sticky": None}))
    for each, kept in ((memory, state), (plain, plain.update(plain.initial_state(3), torch.randn(3, SEGMENT, HIDDEN)))):
        save_file(vars(kept.detach()), tmp_path / "state.safetensors")
        again = each.state_type(**load_file(tmp_path / "state.safetensors"))
        assert isinstance(again, LongTermState)
        x = torch.randn(3, SEGMENT, HIDDEN)
        assert torch.equal(each.update(again, x).coefficients, each.update(kept, x).coefficients)


@pytest.mark.parametrize("filled", [4, 7])
def test_segments_in_turn_are_taken_in_as_one_after_the_other(filled: int) -> None:
    torch.manual_seed(3)
    for memory, state in (signals(2), slots(2, filled)):
        evicted, one = torch.randn(2, 3 * SEGMENT, HIDDEN), state
        with torch.no_grad():
            found = memory.advance_in_turn(state, evicted, 3)  # pyright: ignore[reportArgumentType]
            assert len(found) == 3
            for number, several in enumerate(found):
                left = evicted[:, number * SEGMENT : (number + 1) * SEGMENT]
                one, _ = memory.advance(one, left, None, pytest.fail)  # pyright: ignore[reportArgumentType]
                torch.testing.assert_close(vars(several), vars(one))


@pytest.mark.parametrize("counts", [(2, 4, 6), (7, 7, 7)])
def test_a_row_s_states_at_several_times_stand_together(counts: tuple[int, ...]) -> None:
    torch.manual_seed(4)
    alone = [slots(2, count)[1] for count in counts]
    together = QueueState.interleave(alone)
    assert (together.filled is None) == (counts[0] == 7)
    for row in range(2):
        for time, state in enumerate(alone):
            place = 3 * row + time
            own = int(visible(together.slots, together.filled)[place])
            assert own == counts[time]
            assert torch.equal(together.slots[place][-own:], state.slots[row, -own:])
    times = [signals(2)[1] for _ in counts]
    mixed = LongTermState.interleave(times)
    for row in range(2):
        for time, state in enumerate(times):
            assert all(map(torch.equal, parts(mixed, 3 * row + time), parts(state, row)))


def test_only_a_sticky_memory_notes_where_it_was_read() -> None:
    sticky = signals(1)[0]
    plain = LongTermMemory(sticky.config.model_copy(update={"sticky": None}))
    assert [memory.notes_reading for memory in (sticky, plain, slots(1, 1)[0])] == [True, False, False]


@pytest.mark.parametrize("wanted", [1, 9])
@pytest.mark.parametrize("projected", [True, False])
def test_what_was_prepared_is_read_and_not_made_again(wanted: int, projected: bool) -> None:
    torch.manual_seed(5)
    memory, state = signals(2)
    other = memory.update(state, torch.randn(2, SEGMENT, HIDDEN))
    x, projection = torch.randn(2, 12, HIDDEN), None if projected else torch.randn(HIDDEN, HIDDEN)
    queries = (x if projection is None else x @ projection.T)[:, -wanted:]
    with torch.no_grad():
        found, after, _ = memory.read(queries, x, state, projection, memory.prepare(other))
        expected, looked, _ = memory.read(queries, x, other, projection)
        without, _, _ = memory.read(queries, x, state, projection)
    assert without is not None
    assert expected is not None
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(after.histogram, looked.histogram)
    assert not torch.allclose(without, expected)
