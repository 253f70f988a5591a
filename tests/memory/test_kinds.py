"""What is asked of every memory, whatever it is: rows alone, rows side by side, nothing before the past began."""

from typing import Any

import pytest
import torch
from torch import Tensor

from infty.memory.contract import KNOCK_OUTS, Memory
from tests.memory.kinds import BATCH, EVERY, HIDDEN, SEGMENT, build, configure

BY_WINDOW = ("compressive", "cache-compressed", "infini-attention")
BY_SEGMENT = [name for name in EVERY if name.startswith("infty") or name in BY_WINDOW]
UNALIKE = torch.tensor([False, True, False])


def take_in(memory: Memory[Any], state: Any, x: Tensor, rows: Tensor | None = None) -> Any:
    with torch.no_grad():
        return memory.advance(state, x, rows, lambda _, vectors: vectors.mean(1, keepdim=True))[0]


def read(memory: Memory[Any], state: Any, queries: Tensor) -> Tensor:
    """What the memory adds: by reading, or by its keys' values under a plain attention."""
    x = torch.cat([queries, queries], 1)
    with torch.no_grad():
        context = memory.read(queries, x, state, None)[0]
        extra = memory.extra_keys(state)
    if extra is not None:
        own = torch.full((len(queries),), extra.vectors.shape[1]) if extra.filled is None else extra.filled
        return torch.stack([v[len(v) - n :].sum(0) for v, n in zip(extra.vectors, own.tolist(), strict=True)])[:, None]
    return torch.zeros_like(queries) if context is None else context


@pytest.mark.parametrize("name", EVERY)
def test_rows_of_different_age_read_as_each_alone(float64: None, name: str) -> None:
    """Row 1 begins anew before the third segment; then the second row takes nothing in."""
    memory, parts, queries = build(name), torch.randn(4, BATCH, SEGMENT, HIDDEN), torch.randn(BATCH, 2, HIDDEN)
    together = memory.initial_state(BATCH)
    alone = [memory.initial_state(1, torch.tensor([row])) for row in range(BATCH)]
    for number, part in enumerate(parts):
        if number == 2:
            together = together.reset(UNALIKE, torch.tensor([0, 9, 2]))
            alone[1] = memory.initial_state(1, torch.tensor([9]))
        own = ~UNALIKE if number == 3 else None
        together = take_in(memory, together, part, own)
        for row in range(BATCH):
            if own is None or own[row]:
                alone[row] = take_in(memory, alone[row], part[row : row + 1])
    expected = torch.cat([read(memory, state, queries[row : row + 1]) for row, state in enumerate(alone)])
    torch.testing.assert_close(read(memory, together, queries), expected)
    joined = type(together).concatenate(alone)
    torch.testing.assert_close(read(memory, joined, queries), expected)


@pytest.mark.parametrize("name", EVERY)
def test_an_empty_memory_and_one_that_is_emptied_read_nothing(name: str) -> None:
    memory, queries = build(name), torch.randn(BATCH, 2, HIDDEN)
    state = memory.initial_state(BATCH)
    assert read(memory, state, queries).count_nonzero() == 0
    full = take_in(memory, state, torch.randn(BATCH, SEGMENT, HIDDEN))
    assert read(memory, full, queries).count_nonzero() > 0
    assert read(memory, memory.knock_out(full, "zero"), queries).count_nonzero() == 0
    assert read(memory, full.reset(UNALIKE | True), queries).count_nonzero() == 0


@pytest.mark.parametrize("name", EVERY)
def test_exchanged_memories_read_as_if_the_past_had_been_anothers(float64: None, name: str) -> None:
    memory, x, queries = build(name), torch.randn(4, SEGMENT, HIDDEN), torch.randn(4, 2, HIDDEN)
    state = take_in(memory, memory.initial_state(4), x)
    other = take_in(memory, memory.initial_state(4), x[[2, 3, 0, 1]])
    torch.testing.assert_close(read(memory, memory.knock_out(state, "other"), queries), read(memory, other, queries))


@pytest.mark.parametrize("name", [name for name in EVERY if len(build(name).knock_outs) < len(KNOCK_OUTS)])
def test_what_can_not_be_knocked_out_is_said(name: str) -> None:
    memory = build(name)
    (unknown,) = set(KNOCK_OUTS) - set(memory.knock_outs)
    with pytest.raises(ValueError, match=f"'{unknown}'; available: "):
        memory.knock_out(memory.initial_state(2), unknown)


@pytest.mark.parametrize("name", EVERY)
def test_the_bytes_of_a_full_state_are_those_of_its_tensors(name: str) -> None:
    """All of them: numbers and names of streams, which the host keeps, as well."""
    memory = build(name)
    state = memory.initial_state(1)
    for _ in range(5):
        state = take_in(memory, state, torch.randn(1, SEGMENT, HIDDEN))
    kept = [value for value in vars(state).values() if isinstance(value, Tensor)]
    assert sum(value.nbytes for value in kept) == configure(name).state_bytes


@pytest.mark.parametrize("name", [name for name in EVERY if name not in BY_SEGMENT])
def test_two_segments_are_taken_in_as_one_that_is_twice_as_long(float64: None, name: str) -> None:
    memory, x, queries = build(name), torch.randn(BATCH, 2 * SEGMENT, HIDDEN), torch.randn(BATCH, 2, HIDDEN)
    state = memory.initial_state(BATCH)
    twice = take_in(memory, take_in(memory, state, x[:, :SEGMENT]), x[:, SEGMENT:])
    torch.testing.assert_close(read(memory, twice, queries), read(memory, take_in(memory, state, x), queries))


@pytest.mark.parametrize("name", EVERY)
def test_segments_at_once_are_taken_in_as_in_turn(float64: None, name: str) -> None:
    memory, x, queries = build(name), torch.randn(BATCH, 3 * SEGMENT, HIDDEN), torch.randn(BATCH, 2, HIDDEN)
    before = take_in(memory, memory.initial_state(BATCH), torch.randn(BATCH, SEGMENT, HIDDEN))
    state = before
    with torch.no_grad():
        for part, found in zip(x.split(SEGMENT, 1), memory.advance_in_turn(before, x, 3), strict=True):
            state = take_in(memory, state, part)
            torch.testing.assert_close(read(memory, found, queries), read(memory, state, queries))
