"""The chosen basis functions make up all others, under any density, and so they read the same signal."""

from dataclasses import replace

import pytest
import torch
from scipy.linalg import qr

from infty.commands.bench.plain import attend as attend_plainly
from infty.memory.basis import GaussianBasis
from infty.memory.equations import expect_basis, normal_density, place_basis
from infty.memory.fast.reduced_basis import ReducedBasis, farthest_columns
from infty.memory.longterm import LongTermMemory, LongTermMemoryConfig


def test_columns_are_those_of_a_pivoted_qr() -> None:
    """Another library's, and a matrix whose columns differ enough in length that both must choose alike."""
    matrix = torch.randn(31, 7, dtype=torch.float64) @ torch.randn(7, 13, dtype=torch.float64) * torch.rand(13).double()
    chosen = farthest_columns(matrix, 1e-10)
    *_, order = qr(matrix.numpy(), mode="r", pivoting=True)
    assert chosen == order[:7].tolist()


def test_columns_that_are_far_apart_are_all_chosen() -> None:
    assert sorted(farthest_columns(torch.eye(5, dtype=torch.float64), 1e-10)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("num_basis", "widths", "most"),
    [(512, (0.01, 0.05), 220), (1024, (0.01, 0.05), 225), (512, (0.005, 0.01), 270), (150, (0.01, 0.05), 115)],
)
def test_every_expectation_is_made_of_the_chosen_ones(
    float64: None, num_basis: int, widths: tuple[float, ...], most: int
) -> None:
    """The published bases, under densities from the narrowest to one wider than the memory, beyond its ends too."""
    full, few = GaussianBasis(num_basis, widths), ReducedBasis(num_basis, widths)
    assert len(few.centers) == sum(few.counts) <= most
    mean, std = torch.rand(997) * 1.4 - 0.2, 10 ** (-3 * torch.rand(997))
    wide = std.square() + few.widths.repeat_interleave(torch.tensor(few.counts)).square()[:, None]  # chosen query
    expected = normal_density(mean, few.centers[:, None], wide)
    plain = expect_basis(mean, std.square(), *(part.to(mean) for part in place_basis(num_basis, widths)))
    difference = few.combine.T @ expected - plain.T
    assert difference.abs().max() <= 1e-8 * full.evaluate(full.centers).max()
    assert few.combine.abs().max() < 2  # so rounding is not amplified


def test_functions_that_lie_apart_are_kept_as_they_are(float64: None) -> None:
    few = ReducedBasis(14, (0.02, 0.03))
    assert few.counts == (7, 7)
    coefficients = torch.randn(3, 14, 5)
    assert torch.equal(few.combine @ coefficients, torch.cat([coefficients[:, 0::2], coefficients[:, 1::2]], 1))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_reading_equals_the_plain_equations_where_few_are_chosen(dtype: torch.dtype) -> None:
    """Context and every gradient, at N = 150 with the paper's widths: 113 are read."""
    config = LongTermMemoryConfig(hidden_size=21, num_heads=3, segment_length=11, num_basis=150, num_samples=19)
    memory = LongTermMemory(config).to(dtype)
    given = {"dtype": dtype, "requires_grad": True}
    state = replace(memory.initial_state(5), coefficients=torch.randn(5, 150, 21, **given))
    queries, weights, results = torch.randn(5, 13, 21, **given), torch.randn(5, 13, 21, dtype=dtype), []
    inputs = [queries, state.coefficients, memory.value.weight, memory.mean.weight, memory.variance.weight]
    with torch.no_grad():
        memory.variance.weight.mul_(9)  # densities of very different widths
    for attend in (memory.attend, lambda q, s: attend_plainly(memory, q, s)):
        context, _ = attend(queries, state)
        results.append([context, *torch.autograd.grad((context * weights).sum(), inputs)])
    tolerance = {torch.float64: 1e-7, torch.float32: 1e-5}[dtype]
    for fast, slow in zip(*results, strict=True):
        assert (fast - slow).abs().max() <= tolerance * slow.abs().max()


def test_the_largest_published_basis_is_read_as_exactly_as_plainly_in_float32() -> None:
    few = ReducedBasis(1024, (0.01, 0.05)).double()
    coefficients, mean = torch.randn(1, 1024, 7), torch.rand(97).double()
    values = expect_basis(mean, torch.full_like(mean, 1e-4), *place_basis(1024, (0.01, 0.05)))
    exact, direct = values @ coefficients[0].double(), values.float() @ coefficients[0]
    wide = 1e-4 + few.widths.repeat_interleave(torch.tensor(few.counts)).square()
    values = normal_density(mean[:, None], few.centers, wide)
    read = values.float() @ (few.float().combine @ coefficients)[0]
    assert (read - exact).abs().max() <= 3 * (direct - exact).abs().max()
