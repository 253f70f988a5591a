"""What a layer, a graft and a report ask of any memory, held to what each memory says of itself."""

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from infty.memory.compressive import CompressiveMemory, CompressiveMemoryConfig
from infty.memory.contract import Memory, MemoryConfig
from infty.memory.equations import kl_to_prior
from infty.memory.longterm import LongTermMemory, LongTermMemoryConfig
from infty.memory.rows import visible
from infty.memory.sticky import StickyConfig, uniform_draws

HIDDEN, HEADS, LENGTH, BATCH = 6, 2, 4, 3
SIZES: dict[str, Any] = {"hidden_size": HIDDEN, "num_heads": HEADS, "segment_length": LENGTH, "num_samples": 16}
LONG_TERM = LongTermMemoryConfig(**SIZES, num_basis=8, kl_weight=0.25, prior_mean=0.3)
STICKY = LongTermMemoryConfig(**SIZES, num_basis=8, kl_weight=0.25, sticky=StickyConfig(num_bins=5))
COMPRESSIVE = CompressiveMemoryConfig(hidden_size=HIDDEN, num_slots=5, compression_rate=2, reconstruction_weight=0.5)
CONFIGS = [LONG_TERM, STICKY, COMPRESSIVE]


def advance_and_read(memory: Memory[Any], rows: Tensor | None = None) -> tuple[Any, dict[str, Tensor]]:
    """A memory's state after two segments, the second one for some rows, and all losses of the second."""
    state, losses = memory.initial_state(BATCH), {}
    for number, own in enumerate((None, rows)):
        torch.manual_seed(number)
        x, weight = torch.randn(BATCH, LENGTH, HIDDEN), torch.randn(HIDDEN, HIDDEN)
        state, taken = memory.advance(state, x, own, lambda _, vectors: vectors.mean(1, keepdim=True))
        _, state, read = memory.read(x[:, -1:] @ weight.T, x, state, weight)
        losses = taken | read
    return state, losses


@pytest.mark.parametrize("config", CONFIGS, ids=["long-term", "sticky", "compressive"])
def test_losses_have_the_names_that_have_weights(config: MemoryConfig) -> None:
    _, losses = advance_and_read(config.build())
    assert list(losses) == list(config.auxiliary_weights)
    assert set(config.auxiliary_weights.values()) <= {0.25, 0.5}


@pytest.mark.parametrize("config", CONFIGS, ids=["long-term", "sticky", "compressive"])
def test_without_a_gradient_there_are_no_losses_and_the_same_state(config: MemoryConfig) -> None:
    memory = config.build()
    with_gradient, _ = advance_and_read(memory)
    with torch.no_grad():
        without, losses = advance_and_read(memory)
    assert losses == {}
    for name, value in vars(with_gradient).items():
        if isinstance(value, Tensor):
            torch.testing.assert_close(getattr(without, name), value)


@pytest.mark.parametrize("config", CONFIGS[:2], ids=["long-term", "sticky"])
def test_a_signal_that_nothing_was_taken_into_stays(config: MemoryConfig) -> None:
    memory, x = config.build(), torch.randn(BATCH, LENGTH, HIDDEN)
    state, _ = memory.advance(memory.initial_state(BATCH), x, None, lambda _, vectors: vectors)
    after, _ = memory.advance(state, 2 * x, torch.tensor([True, False, True]), lambda _, vectors: vectors)
    assert torch.equal(after.coefficients[1], state.coefficients[1])
    assert not torch.equal(after.coefficients[0], state.coefficients[0])
    assert after.updates.tolist() == [2, 1, 2]


def test_a_row_that_began_anew_sees_no_slot_of_what_is_not_its_own() -> None:
    memory, x = COMPRESSIVE.build(), torch.randn(BATCH, LENGTH, HIDDEN)
    rows = torch.tensor([True, False, True])
    with torch.no_grad():
        state, _ = memory.advance(memory.initial_state(BATCH), x, None, lambda _, vectors: vectors)
        after, _ = memory.advance(state.reset(~rows), x, rows, lambda _, vectors: vectors)
        reset = after.reset(torch.tensor([True, False, False]))
    assert after.filled is not None
    assert reset.filled is not None
    assert (after.filled.tolist(), reset.filled.tolist()) == ([4, 0, 4], [0, 0, 4])


def test_slots_of_a_row_that_nothing_was_taken_into_stay_as_they_were() -> None:
    memory, rows = COMPRESSIVE.build(), torch.tensor([True, False, True])
    state, own = memory.initial_state(BATCH), [list[Tensor]() for _ in range(BATCH)]
    for taken in (None, rows, rows, None, ~rows):
        slots = torch.randn(BATCH, 2, HIDDEN)
        state = memory.append(state, slots, taken)
        for row in range(BATCH):
            if taken is None or taken[row]:
                own[row] = [*own[row], *slots[row]][-5:]
        for row, count in enumerate(visible(state.slots, state.filled).tolist()):
            assert torch.equal(state.slots[row, state.slots.shape[1] - count :], torch.stack(own[row]))


def test_a_reconstruction_loss_counts_streams_outside_of_the_rows_as_0() -> None:
    memory, rows, x = COMPRESSIVE.build(), torch.tensor([False, True, False]), torch.randn(BATCH, LENGTH, HIDDEN)
    for own, counted in ((rows, 1), (None, 3)):
        _, taken = memory.advance(memory.initial_state(BATCH), x, own, lambda _, vectors: vectors.mean(1, keepdim=True))
        part = x if own is None else x[own]
        expected = (memory.compress.make_slots(part).mean(1) - part.mean(1)).square().mean()
        torch.testing.assert_close(taken["reconstruction"], expected * counted / 3)
    _, none = memory.advance(memory.initial_state(BATCH), x, rows & False, lambda _, vectors: vectors)
    assert none == {}


def test_the_kl_is_of_the_looks_of_all_positions_though_one_is_wanted(float64: None) -> None:
    memory = LONG_TERM.build()
    x, weight = torch.randn(BATCH, LENGTH, HIDDEN), torch.randn(HIDDEN, HIDDEN)
    state = memory.update(memory.initial_state(BATCH), x)
    context, _, losses = memory.read(x[:, -1:] @ weight.T, x, state, weight)
    whole, density = memory.attend(x @ weight.T, state)
    divergence = kl_to_prior(density, LONG_TERM.prior_std, 0.3)
    torch.testing.assert_close(losses["kl"], divergence.mean())
    torch.testing.assert_close(context, whole[:, -1:])
    none, _, same = memory.read(x[:, :0] @ weight.T, x, state, weight)
    assert none is None
    torch.testing.assert_close(same["kl"], losses["kl"])


def test_what_was_read_is_added_to_what_attention_read() -> None:
    near, far = torch.randn(2, BATCH, LENGTH, HIDDEN)
    assert torch.equal(LONG_TERM.build().mix(near, far), near + far)


def test_parts_of_a_memory_are_named_and_are_all_there_is() -> None:
    for gate in (True, False):
        memory = LongTermMemoryConfig(**SIZES, num_basis=8, gate=gate).build()
        groups = memory.parameter_groups()
        assert list(groups) == ["gate", "where", "what"]
        assert bool(groups["gate"]) == gate
        named = {id(parameter) for group in groups.values() for parameter in group}
        assert named == {id(parameter) for parameter in memory.parameters()}
    assert COMPRESSIVE.build().parameter_groups() == {}


def test_a_grafted_signal_begins_with_small_matrices_and_a_smaller_output() -> None:
    memory = LongTermMemory(LongTermMemoryConfig(**{**SIZES, "hidden_size": 60, "num_samples": 64}, num_basis=16))
    assert memory.gate is not None
    assert memory.gate.bias is not None
    bias = memory.gate.bias.clone()
    torch.manual_seed(0)
    memory.initialise_graft(0.02, 8)
    spread = {
        name: float(parameter.detach().std()) for name, parameter in memory.named_parameters() if parameter.dim() > 1
    }
    output = spread.pop("output.weight")
    assert output == pytest.approx(0.02 / 4, rel=0.1)  # √(2 · 8) = 4
    assert all(0.015 < value < 0.025 for value in spread.values()), spread
    assert torch.equal(memory.gate.bias, bias)


def test_a_grafted_slot_begins_as_the_mean_of_its_vectors() -> None:
    memory = CompressiveMemory(COMPRESSIVE)
    memory.initialise_graft(0.02, 8)
    x = torch.randn(BATCH, LENGTH, HIDDEN)
    torch.testing.assert_close(memory.compress.make_slots(x), x.unflatten(1, (-1, 2)).mean(2))


def test_a_memory_without_extra_keys_says_so_before_and_after() -> None:
    assert (LONG_TERM.most_extra_keys, COMPRESSIVE.most_extra_keys) == (0, 5)
    assert LONG_TERM.build().extra_keys(LONG_TERM.build().initial_state(1)) is None
    memory = COMPRESSIVE.build()
    assert memory.extra_keys(memory.initial_state(1)) is None, "there is no slot yet"
    extra = memory.extra_keys(memory.append(memory.initial_state(1), torch.ones(1, 2, HIDDEN)))
    assert extra is not None
    assert extra.vectors.shape == (1, 2, HIDDEN)


@pytest.mark.parametrize("config", CONFIGS, ids=["long-term", "sticky", "compressive"])
def test_one_batch_is_the_state_of_its_rows(config: MemoryConfig) -> None:
    state, _ = advance_and_read(config.build())
    for name, value in vars(type(state).concatenate([state])).items():
        assert value is getattr(state, name) is None or torch.equal(value, getattr(state, name)), name


def test_a_histogram_of_one_bin_has_all_of_the_attention() -> None:
    memory = LongTermMemory(LongTermMemoryConfig(**SIZES, num_basis=8, sticky=StickyConfig(num_bins=1)))
    state = memory.initial_state(BATCH)
    assert torch.equal(state.histogram, torch.ones(BATCH, 1))
    assert torch.equal(state.reset(torch.ones(BATCH, dtype=torch.bool)).histogram, torch.ones(BATCH, 1))


def test_samples_lie_in_their_bins_as_the_memory_is_told() -> None:
    for within_bin, at_edges in (("left", True), ("uniform", False)):
        sticky = StickyConfig.model_validate({"num_bins": 5, "within_bin": within_bin})
        memory = LongTermMemory(LongTermMemoryConfig(**SIZES, num_basis=8, sticky=sticky))
        places = memory.sample_positions(memory.initial_state(BATCH))
        assert places is not None
        assert torch.allclose(5 * places, (5 * places).round(), atol=1e-5) == at_edges


def test_widths_are_above_zero() -> None:
    with pytest.raises(ValidationError, match="widths must be above 0"):
        LongTermMemoryConfig(**SIZES, num_basis=8, widths=(0.1, 0.0))


def test_constants_take_the_bytes_of_their_numbers() -> None:
    basis = LONG_TERM.build().basis
    assert basis.constant_bytes == 4 * (basis.centers.numel() + basis.widths.numel())
    assert basis.double().constant_bytes == 8 * (basis.centers.numel() + basis.widths.numel())


def test_seeds_are_mixed_as_splitmix64_does() -> None:
    """With integers of 64 bits that wrap, and torch's own generator of the mixed seed."""
    seeds, updates = torch.tensor([0, 1, 7, 2**40 + 3]), torch.tensor([0, 5, 1, 2])
    with np.errstate(over="ignore"):
        x = seeds.numpy().astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        x += updates.numpy().astype(np.uint64) * np.uint64(0xD1B54A32D192ED03)
        x += np.uint64(0x632BE59BD9B4E019)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
        x ^= x >> np.uint64(31)
    drawn = uniform_draws(seeds, updates, 3)
    for row, seed in zip(drawn, x.tolist(), strict=True):
        assert torch.equal(row, torch.rand(3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))
