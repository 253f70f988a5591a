"""A cache against attention written out, over the best of what is kept."""

import pytest
import torch

from infty.memory.cache import CacheMemory
from tests.memory.kinds import BATCH, HEAD_SIZE, HEADS, HIDDEN, SEGMENT, build

KEPT = 13


@pytest.mark.parametrize(("name", "best"), [("cache", KEPT), ("cache-top", 3)])
def test_it_reads_the_best_answers_of_the_newest_vectors(float64: None, name: str, best: int) -> None:
    """Three segments of 5, of which 13 vectors are kept; row 1 began anew before the last."""
    memory, parts, queries = build(name), torch.randn(3, BATCH, SEGMENT, HIDDEN), torch.randn(BATCH, 2, HIDDEN)
    assert isinstance(memory, CacheMemory)
    torch.nn.init.normal_(memory.gate)
    state = memory.initial_state(BATCH)
    assert memory.read(queries, parts[0], state)[0] is None
    for number, part in enumerate(parts):
        state = state.reset(torch.tensor([False, number == 2, False])) if number else state
        state, losses = memory.advance(state, part, None, lambda _, vectors: vectors)
        assert losses == {}
    context, _, _ = memory.read(queries, parts[0], state)
    assert context is not None
    for row, own in enumerate((KEPT, SEGMENT, KEPT)):
        x, read = torch.cat(list(parts[:, row]))[-own:], []
        for head in range(HEADS):
            part = slice(head * HEAD_SIZE, (head + 1) * HEAD_SIZE)
            keys, values = (x @ weight[part].T for weight in (memory.key.weight, memory.value.weight))
            heads = []
            for query in queries[row, :, part]:
                scores = keys @ query / HEAD_SIZE**0.5
                chosen = scores.argsort(descending=True)[:best]
                heads.append(scores[chosen].softmax(0) @ values[chosen])
            read.append(torch.stack(heads) * memory.gate[head].sigmoid())
        torch.testing.assert_close(context[row], torch.cat(read, -1) @ memory.output.weight.T)


@pytest.mark.parametrize("name", ["cache", "cache-top"])
def test_a_row_without_a_past_reads_zeros_beside_one_that_has(name: str) -> None:
    memory, x, queries = build(name), torch.randn(BATCH, SEGMENT, HIDDEN), torch.randn(BATCH, 2, HIDDEN)
    state, _ = memory.advance(memory.initial_state(BATCH), x, None, lambda _, vectors: vectors)
    context, _, _ = memory.read(queries, x, state.reset(torch.tensor([False, True, False])))
    assert context is not None
    assert [bool(row.any()) for row in context] == [True, False, True]
    context.sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in memory.parameters())


def test_compressed_slots_are_a_compressive_memory_s_and_are_read_as_a_cache_reads(float64: None) -> None:
    """Each slot by hand from two vectors, the oldest from one; then the plain cache of those slots."""
    memory, plain, slots_of = build("cache-compressed"), build("cache"), build("compressive")
    assert isinstance(memory, CacheMemory)
    assert memory.compress is not None
    assert memory.compress.bias is not None
    names = memory.state_dict()
    plain.load_state_dict({name: value for name, value in names.items() if not name.startswith("compress")})
    slots_of.load_state_dict({name: value for name, value in names.items() if name.startswith("compress")})
    queries = torch.randn(BATCH, 2, HIDDEN)
    state, expected, other = (each.initial_state(BATCH) for each in (memory, plain, slots_of))
    for part in torch.randn(5, BATCH, SEGMENT, HIDDEN):
        padded = torch.cat([torch.zeros(BATCH, 1, HIDDEN), part], 1)
        first, second = memory.compress.weight.unbind(-1)
        made = padded[:, ::2] @ first.T + padded[:, 1::2] @ second.T + memory.compress.bias
        state, losses = memory.advance(state, part, None, lambda _, vectors: vectors.cumsum(1)[:, -1:])
        expected, _ = plain.advance(expected, made, None, lambda _, vectors: vectors)
        other, others = slots_of.advance(other, part, None, lambda _, vectors: vectors.cumsum(1)[:, -1:])
        assert losses.keys() == others.keys() == {"reconstruction"}
        torch.testing.assert_close(losses["reconstruction"], others["reconstruction"])
    assert state.slots.shape[1] == KEPT
    torch.testing.assert_close(state.slots, expected.slots)
    torch.testing.assert_close(state.slots, other.slots)
    torch.testing.assert_close(memory.read(queries, queries, state)[0], plain.read(queries, queries, expected)[0])
    assert memory.config.auxiliary_weights == slots_of.config.auxiliary_weights  # pyright: ignore
    assert build("cache").config.auxiliary_weights == {}  # pyright: ignore


def test_a_compressed_cache_begins_in_a_graft_with_means(float64: None) -> None:
    memory = build("cache-compressed")
    assert isinstance(memory, CacheMemory)
    memory.initialise_graft(0.02, 2)
    x = torch.randn(BATCH, 4, HIDDEN)
    state, _ = memory.advance(memory.initial_state(BATCH), x, None, lambda _, vectors: vectors[:, :1])
    torch.testing.assert_close(state.slots, x.unflatten(1, (2, 2)).mean(2))
