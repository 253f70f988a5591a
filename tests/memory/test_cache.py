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
