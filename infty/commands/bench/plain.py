"""Run a memory's own weights through the plain equations, to time them and to hold the memory to them."""

from jaxtyping import Float
from torch import Tensor

from infty.memory import equations
from infty.memory.equations import AttentionDensity, Coefficients
from infty.memory.longterm import Hidden, LongTermMemory, LongTermState, Queries

Points = Float[Tensor, " samples"] | Float[Tensor, "batch samples"]


def solve_refit(memory: LongTermMemory) -> Float[Tensor, "basis all_points"]:
    """Solve G of a memory's refit, in float64, on its grid of M + L points."""
    c = memory.config
    centers, widths = equations.place_basis(c.num_basis, c.widths)
    grid = equations.refit_grid(c.num_samples, c.segment_length, c.contraction)
    design, margin = (equations.evaluate_basis(points, centers, widths).T for points in (grid.inside, grid.margin))
    return equations.ridge_operator(design, margin, c.ridge_penalty)


def smooth(memory: LongTermMemory, x: Hidden) -> Hidden:
    """Smooth what enters by the memory's gate, if it has one."""
    return equations.smooth(x, memory.gate.weight, memory.gate.bias) if memory.gate else x


def update(memory: LongTermMemory, state: LongTermState, evicted: Hidden, points: Points | None = None) -> Coefficients:
    """Compute the new coefficients of streams that were all updated before, with a G that is solved here and now.

    points: s, by default the fixed ones, i/M.
    """
    centers, widths = equations.place_basis(memory.config.num_basis, memory.config.widths)
    points = equations.sample_grid(memory.config.num_samples) if points is None else points
    values = equations.evaluate_basis(points.double(), centers, widths).to(evicted)
    return equations.update(state.coefficients, values, smooth(memory, evicted), solve_refit(memory).to(evicted))


def attend(memory: LongTermMemory, queries: Queries, state: LongTermState) -> tuple[Queries, AttentionDensity]:
    """Read context and density by way of all N scores of every query."""
    c = memory.config
    centers, widths = (part.to(state.coefficients) for part in equations.place_basis(c.num_basis, c.widths))
    scores = equations.score_queries(queries, state.coefficients, memory.key.weight, c.num_heads)  # b h q n
    mean_score, variance_score = (part(scores)[..., 0] for part in (memory.mean, memory.variance))
    density = equations.shape_density(mean_score, variance_score, c.variance_floor)
    expected = equations.expect_basis(density.mean, density.variance, centers, widths)
    return equations.read_context(expected, state.coefficients, memory.value.weight, memory.output.weight), density
