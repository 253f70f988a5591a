"""Texts that are continued side by side, each as it is alone: of any length, ending at any time."""

from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch

from infty.evaluation.continuation import Continuation, Reading, Sampling, generate_tokens, read_text
from infty.model.interface import SegmentModel
from tests.model.test_parts import MODELS

SAMPLING = Sampling(temperature=1.0, top_k=8, draw=3)


def read(model: SegmentModel, tokens: list[int]) -> Reading:
    """As tasks cut texts: full segments with the token that follows, then what is left."""
    length = model.config.segment_length
    last = (len(tokens) - 1) // length * length
    cuts = [tokens[place : place + length + 1] for place in range(0, last, length)]
    return read_text(model, [np.array(cut) for cut in [*cuts, tokens[last:]]])


def from_scratch(model: SegmentModel, tokens: list[int], count: int) -> list[int]:
    """The whole text again for every token, its segments at once."""
    made, length = list[int](), model.config.segment_length
    with torch.no_grad():
        for _ in range(count):
            whole, output = tokens + made, None
            state: Any = model.initial_state(torch.zeros(1, dtype=torch.int64))
            for place in range(0, len(whole), length):
                output = model(torch.tensor([whole[place : place + length]]), state)
                state = output.state
            assert output is not None
            made.append(int(output.logits[0, -1].argmax()))
    return made


@pytest.mark.parametrize("name", [name for name in MODELS if name.startswith("graft")])
def test_a_graft_goes_on_as_if_it_read_all_of_it_again(float64: None, name: str) -> None:
    model: SegmentModel = MODELS[name]().eval()
    length = model.config.segment_length
    tokens = torch.randint(10, (2 * length + 3,)).tolist()
    made = list(islice(generate_tokens(model, read(model, tokens), Sampling(temperature=0)), 2 * length + 1))
    assert made == from_scratch(model, tokens, 2 * length + 1)


@pytest.mark.parametrize("name", MODELS)
def test_each_text_goes_on_as_it_does_alone(float64: None, name: str) -> None:
    model: SegmentModel = MODELS[name]().eval()
    length = model.config.segment_length
    sizes = (1, 2, length - 1, length, length + 1, 3 * length + 2, 2 * length, 5 * length + 1, 3 * length + 2)
    readings = [read(model, torch.randint(10, (size,)).tolist()) for size in sizes]
    counts = [7 if number == 2 else 4 * length + number for number in range(len(sizes))]
    texts, made = Continuation(model, readings, SAMPLING), [list[int]() for _ in sizes]
    while texts.texts:
        for text, token in texts.draw().items():
            made[text].append(token)
            if len(made[text]) == counts[text]:
                texts.end(text)
    for reading, count, tokens in zip(readings, counts, made, strict=True):
        assert tokens == list(islice(generate_tokens(model, reading, SAMPLING), count))
