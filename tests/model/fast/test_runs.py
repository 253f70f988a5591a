"""Segments read at once are the same segments read one after the other: their outputs, and the state after them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from infty.base.batch import UNSCORED, Batch
from infty.memory.contract import KnockOut
from infty.model.fast.runs import CPU_NUMBERS, Queue, count_at_once
from infty.model.interface import SegmentModel, unroll
from infty.model.tensors import state_tensors
from tests.model import test_decoder, test_parts

ROWS, VOCAB = 2, 11
MODELS: dict[str, Callable[[], SegmentModel]] = {
    **{name: make for name, make in test_parts.MODELS.items() if name != "rmt"},  # whose segments are never together
    "short-term memory of two segments": lambda: test_decoder.make("infty", short_term_length=10),
}
# What begins before a segment: in the first row, the second, or both. A compression rate of 2 does not divide 5 tokens.
RESETS = {5: (True, False), 8: (False, True), 9: (True, True), 10: (True, False)}


def make_segments(length: int, count: int, resets: dict[int, tuple[bool, ...]], last: int) -> list[Batch]:
    """Segments that score all but, in the second, fourth … of them, the first two tokens; the last one is short."""
    made = []
    for number in range(count):
        tokens = torch.randint(VOCAB, (ROWS, last if number == count - 1 else length))
        fresh = torch.tensor(resets.get(number, (number == 0,) * ROWS))
        made.append(Batch(tokens, tokens, torch.arange(ROWS) + ROWS * number, fresh))
    return made


def read(model: SegmentModel, segments: list[Batch], at_once: int) -> tuple[Tensor, dict[str, Tensor], int]:
    """Read all. Returns logits of every text, the state after the last segment, and the number of outputs."""
    logits, state = list[Tensor](), model.initial_state(segments[0].streams)
    with torch.no_grad():
        for output, batch in unroll(model, segments, at_once=at_once):
            assert len(output.hidden) == len(batch.targets)
            logits.append(output.logits.unflatten(0, (ROWS, -1)).flatten(1, 2))
            state = output.state
    return torch.cat(logits, 1), state_tensors(state), len(logits)


@pytest.mark.parametrize(
    ("name", "kind"), [(name, kind) for name, make in MODELS.items() for kind in test_parts.known_knock_outs(make())]
)
def test_equals_one_after_the_other(float64: None, name: str, kind: KnockOut | None) -> None:
    model = MODELS[name]().eval()
    test_parts.knock_out(model, kind)
    segments = make_segments(model.config.segment_length, 17, RESETS, last=3)
    wanted, state, count = read(model, segments, at_once=1)
    assert count == len(segments)
    for at_once in (2, 20):
        found, after, fewer = read(model, segments, at_once)
        assert fewer < count
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)
        assert after.keys() == state.keys()
        for field, tensor in state.items():
            torch.testing.assert_close(after[field], tensor, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", MODELS)
def test_what_only_fills_the_memory_is_read_at_once_in_training(float64: None, name: str) -> None:
    """The loss of the last of nine segments and its gradient are the same, as is the state after it."""
    model = MODELS[name]().train()
    length = model.config.segment_length
    tokens = torch.randint(VOCAB, (ROWS, 9 * length))
    targets = tokens.clone()
    targets[:, : 8 * length + 1] = UNSCORED
    batch, results = Batch(tokens, targets, torch.arange(ROWS)), []
    for at_once in (1, 3):
        model.zero_grad()
        ((output, segment),) = unroll(model, batch.segments(length), at_once=at_once)
        output.nats(segment.targets).sum().backward()
        gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        results.append({**gradients, **state_tensors(output.state), "nats": output.nats(segment.targets)})
    assert results[0].keys() == results[1].keys()
    for field, tensor in results[0].items():
        torch.testing.assert_close(results[1][field], tensor, rtol=1e-10, atol=1e-10)


def test_a_state_of_another_memory_is_refused() -> None:
    """Also by a run of segments, and by a model without a memory, which would not miss it."""
    tokens = torch.randint(VOCAB, (ROWS, test_decoder.SEGMENT))
    state = test_decoder.make("infty").initial_state(torch.arange(ROWS))
    for rows in (tokens, tokens.repeat_interleave(3, 0)):
        with torch.no_grad(), pytest.raises(TypeError, match="a state of LongTermState for a memory of NoneType"):
            test_decoder.make("transformer-xl")(rows, state)


def test_a_run_ends_where_its_segments_differ() -> None:
    """One that begins anew in a row, scores less, is shorter or comes before a batch's end is none of the run."""
    segments = make_segments(4, 8, {3: (False, True)}, last=3)
    segments[5].targets[:, 0] = UNSCORED
    queue, sizes = Queue(segments, 4), []
    while queue.peek():
        sizes.append(len(queue.take(9)))
    assert sizes == [3, 2, 1, 1, 1]


def test_dropout_draws_for_each_segment_alone() -> None:
    model: Any = test_decoder.make("infty", dropout=0.1)
    device = torch.device("cpu")
    assert count_at_once(model.train(), 1, device) == 1
    assert count_at_once(model.eval(), 1, device) == CPU_NUMBERS
    assert count_at_once(nn.Dropout(0.0).train(), CPU_NUMBERS // 3, device) == 3
    assert count_at_once(model.eval(), CPU_NUMBERS + 1, device) == 1
