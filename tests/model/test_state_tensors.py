"""Rows of a batch that begin anew at different times compute what each would alone; and their state as tensors."""

import itertools
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from infty.base.batch import UNSCORED, Batch
from infty.memory.queue import QueueState
from infty.model.decoder import Decoder
from infty.model.interface import State, unroll
from infty.model.memory_layer import LayerState
from infty.model.tensors import load_state, state_tensors
from tests.model.test_decoder import BATCH, MEMORIES, SEGMENT, VOCAB, make

SEGMENTS = 13
# When each row begins anew: at once after a beginning, after the memory filled, never.
BEGINS = {0: [0, 4, 5, 11], 1: [0, 1, 8], 2: [0]}


def batches() -> list[Batch]:
    made = []
    for i in range(SEGMENTS):
        tokens = torch.randint(VOCAB, (BATCH, SEGMENT))
        fresh = torch.tensor([i in BEGINS[row] for row in range(BATCH)])
        names = torch.tensor([100 * row + i for row in range(BATCH)])
        made.append(Batch(tokens, tokens.roll(1, 1), names, fresh))
    return made


def alone(parts: list[Batch], row: int) -> list[Batch]:
    return [
        Batch(p.tokens[[row]], p.targets[[row]], p.streams[[row]], None if p.fresh is None else p.fresh[[row]])
        for p in parts
    ]


def losses(model: Decoder, parts: list[Batch]) -> list[Tensor]:
    return [output.nats(segment.targets) for output, segment in unroll(model, parts, at_once=1)]


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("gradient", [False, True])
def test_a_row_that_begins_anew_beside_others_is_as_if_alone(float64: None, memory: str, gradient: bool) -> None:
    model, parts = make(memory), batches()
    with torch.set_grad_enabled(gradient):
        together = losses(model, parts)
        for row in range(BATCH):
            for found, wanted in zip(together, losses(model, alone(parts, row)), strict=True):
                torch.testing.assert_close(found[[row]], wanted, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("memory", MEMORIES)
def test_gradients_of_rows_add_up(float64: None, memory: str) -> None:
    model, parts = make(memory), batches()
    names, parameters = zip(*model.named_parameters(), strict=True)

    def gradients(given: list[Batch]) -> list[Tensor]:
        found = torch.autograd.grad(torch.stack([x.sum() for x in losses(model, given)]).sum(), parameters)
        return list(found)

    together = gradients(parts)
    single = [gradients(alone(parts, row)) for row in range(BATCH)]
    for name, whole, *each in zip(names, together, *single, strict=True):
        torch.testing.assert_close(whole, torch.stack(each).sum(0), rtol=1e-8, atol=1e-9, msg=name)


def test_a_reset_forgets_every_kind_of_memory() -> None:
    """What a stream said before its reset changes nothing after it."""
    for memory in MEMORIES:
        model = make(memory)
        seeds = torch.arange(BATCH)
        first = [
            state_after(model, seeds, [torch.randint(VOCAB, (BATCH, SEGMENT)) for _ in range(6)]) for _ in range(2)
        ]
        after = [model.reset(state, torch.ones(BATCH, dtype=torch.bool), seeds) for state in first]
        tokens = torch.randint(VOCAB, (BATCH, SEGMENT))
        one, other = (model(tokens, state).logits for state in after)
        torch.testing.assert_close(one, other)
        torch.testing.assert_close(one, model(tokens, model.initial_state(seeds)).logits)


def state_after(model: Decoder, seeds: Tensor, parts: list[Tensor]) -> State:
    state = model.initial_state(seeds)
    for tokens in parts:
        state = model(tokens, state).state
    return state


def test_auxiliary_losses_are_means_over_rows_and_nothing_for_those_without_a_memory(float64: None) -> None:
    for memory, name in (("infty", "kl"), ("compressive", "reconstruction")):
        model = make(memory)
        long, parts = torch.tensor([0]), [torch.randint(VOCAB, (1, SEGMENT)) for _ in range(4)]
        state = state_after(model, long, parts)
        tokens = torch.randint(VOCAB, (1, SEGMENT))
        wanted = model(tokens, state).auxiliary[name]
        double = model.reset(twice(state), torch.tensor([False, True]), torch.tensor([0, 9]))
        found = model(tokens.expand(2, -1), double).auxiliary[name]
        torch.testing.assert_close(found, wanted / 2)


def twice(state: State) -> State:
    """The same stream in two rows."""

    def both(part: object) -> object:
        changes = {}
        for name, value in vars(part).items():
            if isinstance(value, Tensor):
                changes[name] = torch.cat([value, value])
            elif hasattr(value, "__dataclass_fields__"):
                changes[name] = both(value) if name != "key_value" else None
        return replace(part, **changes)  # pyright: ignore[reportArgumentType]

    layers = [both(layer) for layer in state]
    assert all(isinstance(layer, LayerState) for layer in layers)
    return tuple(layer for layer in layers if isinstance(layer, LayerState))


@pytest.mark.parametrize("memory", MEMORIES)
def test_a_state_comes_back_from_its_tensors_and_goes_on_alike(memory: str) -> None:
    model, parts = make(memory), batches()
    half, state = parts[:6], None
    for output, _ in unroll(model, half):
        state = output.state
    assert state is not None
    again = load_state(model, {name: tensor.clone() for name, tensor in state_tensors(state).items()})
    for before, after in ((state, again),):
        one, other = (
            [output.nats(segment.targets) for output, segment in unroll(model, parts[6:], begin)]
            for begin in (before, after)
        )
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_state_of_another_depth_is_refused() -> None:
    tensors = state_tensors(make("infty", num_layers=3).initial_state(torch.arange(BATCH)))
    with pytest.raises(KeyError, match=r"2\.long_range.* are not of a state of this model"):
        load_state(make("infty"), tensors)


def test_unseen_slots_stay_unseen_however_long_others_read(float64: None) -> None:
    """A row's own slots grow only with what it evicts itself."""
    model = make("compressive")
    parts = batches()
    seen = []
    for output, _ in unroll(model, parts):
        long_range = output.state[0].long_range
        assert isinstance(long_range, QueueState)
        filled = long_range.filled
        seen.append([long_range.slots.shape[1]] * BATCH if filled is None else filled.tolist())
    for row, begins in BEGINS.items():
        for i, counts in enumerate(seen):
            age = i - max(begin for begin in begins if begin <= i)  # whole segments before this one
            evictions = max(0, age - 1)  # the short-term memory holds one segment
            assert counts[row] == min(13, 3 * evictions), (row, i)


def test_padding_and_unscored_rows_change_nothing_for_the_others(float64: None) -> None:
    model, parts = make("infty-sticky"), batches()
    idle = [replace(p, targets=p.targets.clone()) for p in parts]
    for p in idle:
        p.targets[1] = UNSCORED
    for full, part in itertools.islice(zip(losses(model, parts), losses(model, idle), strict=True), SEGMENTS):
        torch.testing.assert_close(part[[0, 2]], full[[0, 2]])
        assert part[1].eq(0).all()
