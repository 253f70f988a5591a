"""What continues a text in the bench does so: with sizes of its own made small. No timing is judged here."""

from collections.abc import Callable

import pytest

from infty.commands.bench import generation

TINY = {"dropout": 0.0, "hidden_size": 12, "num_layers": 2, "num_heads": 2, "num_positions": 64, "segment_length": 32}


@pytest.mark.parametrize("make", [generation.make_gpt2, generation.make_hugging_face])
def test_a_token_takes_time(monkeypatch: pytest.MonkeyPatch, make: Callable[[int], generation.Seconds]) -> None:
    monkeypatch.setattr(generation, "SMALL", TINY)
    monkeypatch.setattr(generation, "MEMORY", {"kind": "long_term", "num_basis": 8, "num_samples": 8})
    run = make(5)
    assert [[*run()], [*run()]] == [["seconds"], ["seconds"]]


@pytest.mark.parametrize("begun", [0, 3, 31])
def test_what_was_read_ends_within_a_segment_after_the_memory_took_something_in(
    monkeypatch: pytest.MonkeyPatch, begun: int
) -> None:
    monkeypatch.setattr(generation, "SMALL", TINY)
    monkeypatch.setattr(generation, "MEMORY", {"kind": "long_term", "num_basis": 8, "num_samples": 8})
    read = []
    monkeypatch.setattr(generation, "_make_ours", lambda model, count: read.append(generation._read(model, count)))
    generation.make_gpt2(begun)
    (reading,) = read
    assert (reading.begun, reading.tokens) == (begun, 32 + begun)
    assert reading.state[0].long_range.updates.tolist() == [1 if begun else 0]  # it takes in when a segment begins
