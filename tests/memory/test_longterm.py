"""The long-term memory against the authors' own numbers, against its equations written plainly, and as a state."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from infty.commands.bench import plain
from infty.memory.equations import AttentionDensity, kl_to_prior
from infty.memory.longterm import LongTermMemory, LongTermMemoryConfig, LongTermState

GOLDEN = Path(__file__).parent.parent / "golden" / "long_term_memory.safetensors"
# Distinct primes: batch 5, queries 13, heads 3, head size 7, length 11, centres 17, widths 2, samples 19.
BATCH, QUERIES, HIDDEN, BASIS = 5, 13, 21, 34
SIZES: dict[str, Any] = {
    "hidden_size": HIDDEN,
    "num_heads": 3,
    "segment_length": 11,
    "num_basis": BASIS,
    "num_samples": 19,
    "contraction": 0.6,
    "widths": (0.03, 0.11),
    "ridge_penalty": 0.7,
}


def make(**changes: Any) -> LongTermMemory:
    return LongTermMemory(LongTermMemoryConfig(**{**SIZES, **changes}))


def evicted(memory: LongTermMemory, batch: int = BATCH) -> Tensor:
    return torch.randn(batch, memory.config.segment_length, memory.config.hidden_size)


def filled(memory: LongTermMemory, updates: int = 3) -> LongTermState:
    state = memory.initial_state(BATCH)
    for _ in range(updates):
        state = memory.update(state, evicted(memory)).detach()
    return state


@pytest.mark.parametrize(
    ("dtype", "coefficients_within", "context_within"), [(torch.float32, 1e-5, 2e-5), (torch.float64, 1e-10, 1e-7)]
)
def test_equals_the_authors_module_over_four_updates(
    dtype: torch.dtype, coefficients_within: float, context_within: float
) -> None:
    with safe_open(GOLDEN, "pt") as file:
        sizes, golden = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    config = LongTermMemoryConfig(
        hidden_size=int(sizes["hidden"]),
        num_heads=int(sizes["heads"]),
        segment_length=int(sizes["length"]),
        num_basis=int(sizes["basis"]),
        num_samples=int(sizes["samples"]),
        contraction=float(sizes["contraction"]),
        widths=tuple(map(float, sizes["widths"].split(","))),
        ridge_penalty=float(sizes["ridge"]),
        prior_std=float(sizes["prior_std"]),
    )
    memory = LongTermMemory(config)
    memory.load_state_dict({name: golden[name] for name in memory.state_dict()})
    memory = memory.to(dtype)
    state = memory.initial_state(int(sizes["batch"]))
    for step in range(int(sizes["steps"])):
        state = memory.update(state.detach(), golden[f"step{step}.evicted"].to(dtype))
        context, density = memory.attend(golden[f"step{step}.queries"].to(dtype), state)
        expected = golden[f"step{step}.coefficients"]
        assert (state.coefficients - expected).abs().max() <= coefficients_within * expected.abs().max()
        assert (context - golden[f"step{step}.context"]).abs().max() <= context_within
        torch.testing.assert_close(memory.kl(density, state).double(), golden[f"step{step}.kl"][0], rtol=1e-6, atol=0)


def test_the_linear_update_equals_sampling_and_refitting(float64: None) -> None:
    memory = make()
    state, x = filled(memory), evicted(memory)
    torch.testing.assert_close(
        memory.update(state, x).coefficients, plain.make_update(memory)(state, x), rtol=1e-10, atol=1e-12
    )


def test_reading_equals_the_plain_equations_in_value_and_gradient(float64: None) -> None:
    memory = make()
    state = replace(filled(memory), coefficients=3 * torch.randn(BATCH, BASIS, HIDDEN, requires_grad=True))
    queries = torch.randn(BATCH, QUERIES, HIDDEN, requires_grad=True)
    weights = torch.randn(BATCH, QUERIES, HIDDEN)
    inputs = [queries, state.coefficients, memory.key.weight, memory.value.weight, memory.output.weight]
    inputs += [memory.mean.weight, memory.variance.weight]
    gradients = []
    for attend in (memory.attend, lambda q, s: plain.attend(memory, q, s)):
        context, density = attend(queries, state)
        loss = (context * weights).sum() + kl_to_prior(density, 0.05).mean()
        gradients.append([context, *torch.autograd.grad(loss, inputs)])
    for fast, slow in zip(*gradients, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-9, atol=1e-11)


def test_gradients_equal_finite_differences(float64: None) -> None:
    memory = make()
    state = filled(memory)

    def read(queries: Tensor, x: Tensor, gate: Tensor, key: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        changed = {"gate.weight": gate, "key.weight": key, "mean.weight": mean, "variance.weight": variance}
        return torch.func.functional_call(
            _Step(memory), {f"memory.{n}": v for n, v in changed.items()}, (state, x, queries)
        )

    m = memory
    assert m.gate is not None
    parameters = [p.detach().clone() for p in (m.gate.weight, m.key.weight, m.mean.weight, m.variance.weight)]
    inputs = [torch.randn(BATCH, 2, HIDDEN), evicted(memory), *parameters]
    assert torch.autograd.gradcheck(read, [value.requires_grad_() for value in inputs], fast_mode=True)


class _Step(torch.nn.Module):
    def __init__(self, memory: LongTermMemory) -> None:
        super().__init__()
        self.memory = memory

    def forward(self, state: LongTermState, x: Tensor, queries: Tensor) -> Tensor:
        return self.memory.attend(queries, self.memory.update(state, x))[0]


def test_a_task_loss_reaches_every_parameter_through_the_fit(float64: None) -> None:
    memory = make()
    context, _ = memory.attend(torch.randn(BATCH, QUERIES, HIDDEN), memory.update(filled(memory), evicted(memory)))
    context.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in memory.parameters())


def test_without_a_gate_what_enters_is_fitted_as_it_is(float64: None) -> None:
    """A gate that is 1 for every vector: the same coefficients, with fewer parameters."""
    gated, ungated = make(), make(gate=False)
    assert gated.gate is not None
    torch.nn.init.zeros_(gated.gate.weight)
    gated.gate.bias = torch.nn.Parameter(torch.full((HIDDEN,), 40.0))
    assert set(dict(gated.named_parameters())) - set(dict(ungated.named_parameters())) == {"gate.weight", "gate.bias"}
    states = [memory.initial_state(BATCH) for memory in (gated, ungated)]
    for _ in range(3):
        x = evicted(ungated)
        states = [memory.update(state, x) for memory, state in zip((gated, ungated), states, strict=True)]
    torch.testing.assert_close(states[1].coefficients, states[0].coefficients)


def test_an_empty_memory_gives_an_exact_zero() -> None:
    memory = make()
    context, _ = memory.attend(torch.randn(BATCH, QUERIES, HIDDEN), memory.initial_state(BATCH))
    assert torch.equal(context, torch.zeros_like(context))


def test_an_empty_memory_has_no_kl() -> None:
    memory = make()
    state = memory.initial_state(BATCH)
    assert memory.kl(memory.attend(torch.randn(BATCH, QUERIES, HIDDEN), state)[1], state).item() == 0


def test_rows_at_different_ages_update_as_they_would_alone(float64: None) -> None:
    memory = make()
    first, second = evicted(memory), evicted(memory)
    state = memory.update(memory.initial_state(BATCH), first).reset(torch.arange(BATCH) == 0)
    both = memory.update(state, second).coefficients
    fresh = memory.update(memory.initial_state(BATCH), second).coefficients
    continued = memory.update(memory.update(memory.initial_state(BATCH), first), second).coefficients
    torch.testing.assert_close(both, torch.cat([fresh[:1], continued[1:]]), rtol=1e-10, atol=1e-12)


def test_kl_is_a_mean_over_streams_and_nothing_for_those_without_a_memory(float64: None) -> None:
    memory = make()
    state = filled(memory).reset(torch.arange(BATCH) == 0)
    _, density = memory.attend(torch.randn(BATCH, QUERIES, HIDDEN), state)
    others = kl_to_prior(density, 0.05)[1:].mean()
    torch.testing.assert_close(memory.kl(density, state), others * (BATCH - 1) / BATCH)


@pytest.mark.parametrize("sticky", [None, {"num_bins": 7}])
def test_reset_equals_a_new_stream(sticky: dict[str, int] | None) -> None:
    memory = make(sticky=sticky)
    state = filled(memory)
    _, density = memory.attend(torch.randn(BATCH, QUERIES, HIDDEN), state)
    cleared = memory.observe(state, density).reset(torch.ones(BATCH, dtype=torch.bool))
    for name, value in vars(memory.initial_state(BATCH)).items():
        assert torch.equal(getattr(cleared, name), value)


def test_sticky_sampling_reads_the_old_signal_where_attention_was(float64: None) -> None:
    """Attention on a single point: all samples come from its bin, and the update is the plain one at those points."""
    memory = make(sticky={"num_bins": 29})
    state, x = filled(memory), evicted(memory)
    spot = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9])  # a place for each stream
    density = AttentionDensity(spot[:, None, None].expand(BATCH, 3, QUERIES), torch.full((BATCH, 3, QUERIES), 1e-6))
    looked = memory.observe(state, density)
    positions = memory.sample_positions(looked)
    assert positions is not None
    assert (positions.floor_divide(1 / 29) == spot.floor_divide(1 / 29)[:, None]).all()
    updated = memory.update(looked, x).coefficients
    torch.testing.assert_close(updated, plain.make_update(memory, positions)(state, x), rtol=1e-9, atol=1e-11)
    assert not torch.allclose(updated, plain.make_update(memory)(state, x))


def test_a_sticky_stream_does_not_depend_on_its_batch(float64: None) -> None:
    memory, seeds = make(sticky={"num_bins": 7}), torch.tensor([5, 9])
    x, queries = torch.stack([evicted(memory) for _ in range(3)]), torch.randn(3, BATCH, QUERIES, HIDDEN)

    def run(rows: slice) -> Tensor:
        state = memory.initial_state(len(seeds[rows]), seeds[rows])
        for i in range(3):
            state = memory.update(state, x[i, rows])
            state = memory.observe(state, memory.attend(queries[i, rows], state)[1])
        return state.coefficients

    torch.testing.assert_close(run(slice(0, 2))[1:], run(slice(1, 2)), rtol=1e-10, atol=1e-12)


def test_moves_to_float64_and_to_the_meta_device() -> None:
    memory = make()
    meta = make().to("meta")
    assert {t.device.type for t in [*meta.parameters(), *meta.buffers()]} == {"meta"}
    revived = meta.to_empty(device="cpu")
    for known, other in zip(memory.buffers(), revived.buffers(), strict=True):
        assert torch.equal(known, other)
    assert {t.dtype for t in [*memory.double().parameters(), *memory.buffers()]} == {torch.float64}
    with torch.device("meta"):
        built = make()
    assert {t.device.type for t in [*built.parameters(), *built.buffers()]} == {"meta"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_heads": 4}, "multiple of num_heads"),
        ({"num_basis": 35}, "multiple of the 2 widths"),
        ({"widths": (0.1, -0.1)}, "above 0"),
        ({"contraction": 1.0}, "less than 1"),
        ({"nonsense": 1}, "Extra inputs"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**change)


def test_an_update_of_another_length_is_refused() -> None:
    memory = make()
    with pytest.raises(ValueError, match=r"takes \(5, 11, 21\) values .* not \(5, 12, 21\)"):
        memory.update(memory.initial_state(BATCH), torch.randn(BATCH, 12, HIDDEN))


@pytest.mark.parametrize("shape", [(BATCH + 1, QUERIES, HIDDEN), (1, QUERIES, HIDDEN), (BATCH, QUERIES, HIDDEN + 3)])
def test_queries_of_other_streams_or_of_another_size_are_refused(shape: tuple[int, ...]) -> None:
    memory, queries = make(), torch.zeros(shape)
    for read in (memory.attend, memory.density):
        with pytest.raises(ValueError, match=r"batch and hidden \(5, 21\), not \(" + ", ".join(map(str, shape))):
            read(queries, filled(memory))


@pytest.mark.parametrize("shape", [(BATCH + 1, 3, QUERIES), (1, 3, QUERIES), (BATCH, 7, QUERIES)])
def test_a_density_of_other_streams_or_heads_is_not_read(shape: tuple[int, ...]) -> None:
    memory, density = make(), AttentionDensity(torch.full(shape, 0.5), torch.full(shape, 0.1))
    with pytest.raises(ValueError, match=r"batch and heads \(5, 3\), not \(" + ", ".join(map(str, shape))):
        memory.read_signal(density, filled(memory))


def test_queries_that_are_yet_to_be_projected_look_at_the_same_places(float64: None) -> None:
    memory = make()
    state, x, projection = filled(memory), torch.randn(BATCH, QUERIES, HIDDEN), torch.randn(HIDDEN, HIDDEN)
    short, long = memory.density(x, state, projection), memory.density(x @ projection.T, state)
    torch.testing.assert_close(short.mean, long.mean, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(short.variance, long.variance, rtol=1e-9, atol=1e-12)


def test_a_memory_that_would_grow_without_bound_says_so(float64: None) -> None:
    """16 samples do not hold 0.9 of the interval for 16 functions: a zero input later there is more than there was."""
    sizes: dict[str, Any] = {**SIZES, "num_basis": 16, "num_samples": 16, "segment_length": 16, "widths": (0.01, 0.05)}
    sizes |= {"ridge_penalty": 1.0, "contraction": 0.9}
    with pytest.warns(UserWarning, match="grows without bound, in the long run 5.3-fold"):
        memory = LongTermMemory(LongTermMemoryConfig(**sizes))
    state = memory.update(memory.initial_state(BATCH), evicted(memory))
    before, nothing = state.coefficients.norm(), torch.zeros(BATCH, 16, HIDDEN)
    for _ in range(10):
        state = memory.update(state, nothing)
    assert state.coefficients.norm() > 1e4 * before


def test_a_memory_that_would_grow_slowly_says_so_too() -> None:
    sizes: dict[str, Any] = {**SIZES, "num_basis": 64, "num_samples": 64, "segment_length": 8, "widths": (0.05,)}
    with pytest.warns(UserWarning, match="grows without bound, in the long run 1.2-fold"):
        LongTermMemory(LongTermMemoryConfig(**{**sizes, "ridge_penalty": 1e-3, "contraction": 0.5}))
