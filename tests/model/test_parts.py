"""A segment read in parts is the segment: its outputs, the state after it, and what a memory's knock-out reads."""

from typing import Any

import pytest
import torch

from infty.memory.contract import KNOCK_OUTS, KnockOut
from infty.model.interface import SegmentModel
from infty.model.memory_layer import Part
from infty.model.tensors import state_tensors
from tests.model import test_decoder, test_graft

BATCH, SEGMENTS = 2, 4
MODELS: dict[str, Any] = {
    **{name: lambda name=name: test_decoder.make(name) for name in test_decoder.MEMORIES},
    **{f"graft {name}": lambda name=name: test_graft.make(name) for name in test_graft.MEMORIES},
}


def known_knock_outs(model: SegmentModel) -> list[KnockOut | None]:
    memories = [layer.long_range for layer in model.memory_layers if layer.long_range]
    return [None, *(memories[0].knock_outs if memories else KNOCK_OUTS)]


KNOCKED_OUT = [(name, kind) for name, make in MODELS.items() for kind in known_knock_outs(make())]


def knock_out(model: SegmentModel, kind: KnockOut | None) -> None:
    for layer in model.memory_layers:
        layer.knocked_out = kind if layer.long_range else None


@pytest.mark.parametrize(("name", "kind"), KNOCKED_OUT)
def test_parts_of_a_segment_are_the_segment(float64: None, name: str, kind: KnockOut | None) -> None:
    model: SegmentModel = MODELS[name]().eval()
    knock_out(model, kind)
    length, positions = model.config.segment_length, model.positions()
    whole = apart = model.initial_state(torch.arange(BATCH))
    with torch.no_grad():
        for number in range(SEGMENTS):
            tokens = torch.randint(10, (BATCH, length))
            wanted = model(tokens, whole, positions)
            whole, found = wanted.state, []
            for first, last in ((0, 1), (1, 2), (2, length)) if number % 2 else ((0, length - 1), (length - 1, length)):
                part = Part(begins=first == 0, ends=last == length)
                output = model(tokens[:, first:last], apart, positions, None, part)
                apart = output.state
                found.append(output.logits)
            torch.testing.assert_close(torch.cat(found, 1), wanted.logits, rtol=1e-10, atol=1e-10)
    left, right = state_tensors(whole), state_tensors(apart)
    assert left.keys() == right.keys()
    for field, tensor in left.items():
        if name != "graft gpt2":  # nothing takes in what it has read
            torch.testing.assert_close(right[field], tensor, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["infty", "infty-sticky", "graft infty"])
def test_a_memory_is_projected_once_a_segment(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What reading makes of it is kept: one token costs one token, however large the memory is."""
    model: SegmentModel = MODELS[name]().eval()
    memory: Any = model.memory_layers[0].long_range
    calls: list[int] = []
    real = memory.project
    monkeypatch.setattr(memory, "project", lambda state: (calls.append(1), real(state))[1])
    state, length = model.initial_state(torch.arange(BATCH)), model.config.segment_length
    with torch.no_grad():
        for _ in range(3):
            for place in range(length):
                part = Part(begins=place == 0, ends=place + 1 == length)
                state = model(torch.randint(10, (BATCH, 1)), state, None, 1, part).state
    assert len(calls) == 3
