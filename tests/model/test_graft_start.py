"""A graft that begins as its base, learns from there, and may take places out of what enters its memory."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from infty.base.batch import Batch
from infty.model.config import Gpt2ModelConfig
from infty.model.gpt2 import build_gpt2
from infty.model.graft import Graft
from infty.model.interface import unroll
from tests.memory.kinds import EVERY, HEADS, HIDDEN, SEGMENT

BATCH, VOCAB, LAYERS, SEGMENTS = 3, 53, 2, 4
MEMORIES = [name for name in EVERY if name != "compressive"]


def build(memory: str | None, **changes: Any) -> Graft:
    """A graft whose base is the same, whatever its memory."""
    sizes = {"num_layers": LAYERS, "num_heads": HEADS, "hidden_size": HIDDEN, "num_positions": 11, "dropout": 0.0}
    values = {"kind": "gpt2", **sizes, "segment_length": SEGMENT, "long_range": memory and EVERY[memory], **changes}
    torch.manual_seed(0)
    model = build_gpt2(Gpt2ModelConfig.model_validate(values), VOCAB)
    if memory is not None:
        model.load_decoder(build(None))
    torch.manual_seed(1)
    for block in model.memory_layers:
        if block.long_range is not None:
            for name, parameter in block.long_range.named_parameters():
                if parameter.dim() > 1 and name != "output.weight":
                    torch.nn.init.normal_(parameter, std=0.3)
    return model


def sequences() -> Batch:
    tokens = torch.randint(VOCAB, (BATCH, SEGMENTS * SEGMENT + 1), generator=torch.Generator().manual_seed(3))
    return Batch(tokens[:, :-1], tokens[:, 1:], torch.arange(BATCH))


def losses(model: Graft) -> tuple[Tensor, dict[str, Tensor]]:
    """The nats of every token, with filled memories from the second segment on; and the last other losses."""
    parts = list(unroll(model, sequences().segments(SEGMENT), one_graph_from=0))
    return torch.cat([output.nats(batch.targets) for output, batch in parts]), parts[-1][0].auxiliary


@pytest.mark.parametrize("memory", MEMORIES)
def test_at_first_a_graft_s_losses_are_its_base_s(memory: str) -> None:
    base = losses(build(None))[0]
    torch.testing.assert_close(losses(build(memory, start="base"))[0], base, rtol=0, atol=1e-6)
    drawn = losses(build(memory))[0]
    assert (drawn - base)[:BATCH].abs().max() < 1e-6, "nothing is known in the first segment"
    assert (drawn - base).abs().max() > 1e-5, "so that it is the start which makes them equal"


@pytest.mark.parametrize("memory", MEMORIES)
def test_its_output_learns_from_the_first_step_and_all_else_from_the_second(memory: str) -> None:
    """By the task's loss alone; one factor on the path is 0, so that none but its own gradient is there at first."""
    model = build(memory, start="base")
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for step in range(2):
        optimizer.zero_grad()
        losses(model)[0].sum().backward()
        for block in model.memory_layers:
            assert block.long_range is not None
            for name, parameter in block.long_range.named_parameters():
                assert parameter.grad is not None, name
                assert bool(parameter.grad.any()) == (step > 0 or name == "output.weight"), f"{name}, step {step}"
        optimizer.step()


def test_slots_that_join_attention_s_softmax_can_t_begin_as_the_base() -> None:
    with pytest.raises(ValueError, match="start: base wants a memory with an output of its own, which compressive has"):
        build("compressive", start="base")


def test_settings_from_before_there_was_a_choice_are_written_as_they_were() -> None:
    assert not {"start", "places"} & build("cache").config.model_dump(mode="json").keys()
    written = build("cache", start="base", places="removed").config.model_dump(mode="json")
    assert (written["start"], written["places"]) == ("base", "removed")


@pytest.mark.parametrize("count", [1, SEGMENTS])
def test_places_are_taken_out_of_what_enters_a_memory(count: int) -> None:
    """What is left of a vector is the residual of a regression on its place's embedding, seen through the norm.

    count: segments that are read at once.
    """
    model = build("cache", places="removed").eval()
    base: Any = model.base.transformer
    with torch.no_grad():
        torch.nn.init.normal_(base.wpe.weight, std=0.5)
        torch.nn.init.normal_(base.h[0].ln_1.weight)
    state = model.initial_state(torch.arange(BATCH))
    with torch.no_grad():
        *_, (output, _) = unroll(model, sequences().segments(SEGMENT), state, at_once=count)
        known: Any = output.state[0].long_range
        found = known.slots[:, -SEGMENT:]  # of the last segment but one
        tokens = sequences().tokens[:, (SEGMENTS - 2) * SEGMENT : (SEGMENTS - 1) * SEGMENT]
        normed = base.h[0].ln_1(base.wte(tokens) + base.wpe.weight[:SEGMENT])
        huge = base.h[0].ln_1(1e6 * base.wpe.weight) - base.h[0].ln_1.bias  # all but nothing beside the place
    for row in range(BATCH):
        for place in range(SEGMENT):
            column, vector = huge[place].double().numpy()[:, None], normed[row, place].double().numpy()
            residual = vector - column @ np.linalg.lstsq(column, vector)[0]
            np.testing.assert_allclose(found[row, place].numpy(), residual, atol=1e-5)
