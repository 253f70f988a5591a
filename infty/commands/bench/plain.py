"""Run a memory's own weights through the plain equations, to time them and to check the memory against them."""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from infty.memory import equations
from infty.memory.equations import AttentionDensity, Coefficients
from infty.memory.longterm import Hidden, LongTermMemory, LongTermState, Queries

Points = Float[Tensor, " samples"] | Float[Tensor, "batch samples"]


def make_update(
    memory: LongTermMemory, points: Points | None = None
) -> Callable[[LongTermState, Hidden], Coefficients]:
    """Make the update of streams that were updated before, with G computed once. points: s, by default i/M."""
    # G on the grid of M + L points, and the basis at the points where the past is read.
    c, gate = memory.config, memory.gate
    centers, widths = equations.place_basis(c.num_basis, c.widths)
    grid = equations.refit_grid(c.num_samples, c.segment_length, c.contraction)
    design, margin = (equations.evaluate_basis(points, centers, widths).T for points in (grid.inside, grid.margin))
    operator = equations.ridge_operator(design, margin, c.ridge_penalty).to(memory.key.weight)
    points = equations.sample_grid(c.num_samples) if points is None else points.double()
    values = equations.evaluate_basis(points, centers, widths).to(operator)

    def update(state: LongTermState, evicted: Hidden) -> Coefficients:
        entering = equations.smooth(evicted, gate.weight, gate.bias) if gate else evicted
        return equations.update(state.coefficients, values, entering, operator)

    return update


def attend(memory: LongTermMemory, queries: Queries, state: LongTermState) -> tuple[Queries, AttentionDensity]:
    """Read context and density from all N scores of every query."""
    c = memory.config
    centers, widths = (part.to(state.coefficients) for part in equations.place_basis(c.num_basis, c.widths))
    scores = equations.score_queries(queries, state.coefficients, memory.key.weight, c.num_heads)  # b h q n
    mean_score, variance_score = (part(scores)[..., 0] for part in (memory.mean, memory.variance))
    density = equations.shape_density(mean_score, variance_score, c.variance_floor)
    expected = equations.expect_basis(density.mean, density.variance, centers, widths)
    return equations.read_context(expected, state.coefficients, memory.value.weight, memory.output.weight), density
