"""Keep an unbounded past in N coefficients: the ∞-former's long-term memory (M5 to M11)."""

import warnings
from dataclasses import replace
from typing import assert_never

import torch
from jaxtyping import Float
from torch import Tensor, nn

from infty.memory import equations
from infty.memory.basis import GaussianBasis
from infty.memory.contract import Attend, KnockOut, Losses, Memory, PerRow, Rows
from infty.memory.equations import AttentionDensity, Coefficients, Hidden, Weight
from infty.memory.fast import reading
from infty.memory.fast.convolution import convolve3
from infty.memory.fast.low_rank import LinearMap
from infty.memory.fast.reduced_basis import ReducedBasis
from infty.memory.longterm_config import LongTermMemoryConfig
from infty.memory.longterm_state import LongTermState
from infty.memory.precision import HOST, full_precision
from infty.memory.rows import exchange_halves, replace_rows, send, zero_rows
from infty.memory.signal import make_operators, shuffle_pieces
from infty.memory.sticky import attention_histogram, uniform_draws
from infty.memory.transforms import holds

Queries = Float[Tensor, "batch query hidden"]
Kept = reading.Projections | None


class LongTermMemory(Memory[LongTermState]):
    """Memory of everything that has left a layer's short-term memory, in O(N) space (M5 to M11).

    A layer asks for `advance`, which calls `update`, and for `read`, which calls `density`, `read_signal`, `kl` and
    `observe`. The module holds parameters and constants.
    """

    state_type = LongTermState
    to_compile = ("smooth",)

    def __init__(self, config: LongTermMemoryConfig) -> None:
        super().__init__()
        c = self.config = config
        self.basis, self.reduced = GaussianBasis(c.num_basis, c.widths), ReducedBasis(c.num_basis, c.widths)
        sizes = c.num_basis, c.widths, c.segment_length, c.num_samples
        operators = make_operators(*sizes, c.contraction, c.ridge_penalty)
        if operators.growth >= 1 and not c.sticky:
            warnings.warn(
                f"this memory grows without bound, in the long run {operators.growth:.2g}-fold an update; more samples "
                "(num_samples), fewer basis functions or a smaller contraction help",
                stacklevel=2,
            )
        self.first, self.contract = LinearMap(operators.first), LinearMap(operators.contract)
        self.append, self.carry = LinearMap(operators.append), LinearMap(operators.carry)
        self.gate = nn.Conv1d(c.hidden_size, c.hidden_size, kernel_size=3, padding=1) if c.gate else None
        self.key = nn.Linear(c.hidden_size, c.hidden_size, bias=False)
        self.value = nn.Linear(c.hidden_size, c.hidden_size, bias=False)
        self.output = nn.Linear(c.hidden_size, c.hidden_size, bias=False)
        self.mean = nn.Linear(c.num_basis, 1, bias=False)
        self.variance = nn.Linear(c.num_basis, 1, bias=False)

    @property
    def notes_reading(self) -> bool:
        """True if it keeps where attention looked, for sticky sampling (M11)."""
        return self.config.sticky is not None

    def initial_state(self, batch: int, seeds: PerRow | None = None) -> LongTermState:
        """Make an empty memory for `batch` streams: zeros. seeds: int64, for (M11); by default 0 to batch − 1."""
        like, bins = self.key.weight, self.config.num_bins
        return LongTermState(
            coefficients=like.new_zeros(batch, self.config.num_basis, self.config.hidden_size),
            updates=torch.zeros(batch, dtype=torch.int64, device=HOST),
            histogram=like.new_full((batch, bins), 1 / max(bins, 1)),
            seeds=torch.arange(batch, device=HOST) if seeds is None else seeds.to(HOST),
        )

    def advance(
        self, state: LongTermState, evicted: Hidden, rows: Rows | None, attend: Attend
    ) -> tuple[LongTermState, Losses]:
        """Update with what left the short-term memory (M6). `attend` is unused, and there is no loss."""
        return self.update(state, evicted, rows), {}

    def advance_in_turn(self, state: LongTermState, evicted: Hidden, count: int) -> list[LongTermState]:
        """Update with what left before each of several segments (M6): only the sum A B + C x̃ needs their order."""
        # Equal to `update` for one after the other: tests/model/fast/test_runs.py.
        states = [state]
        with full_precision(self.key.weight.device):
            smoothed = self.smooth(evicted.to(self.key.weight.dtype).unflatten(1, (count, -1)).flatten(0, 1))
            for one in smoothed.unflatten(0, (-1, count)).unbind(1):
                states.append(self._refit(states[-1], one))
        return states[1:]

    def read(
        self, queries: Queries, x: Hidden, state: LongTermState, projection: Weight | None = None, prepared: Kept = None
    ) -> tuple[Queries | None, LongTermState, Losses]:
        """Read the signal with the layer's queries (M9), and keep where all of x looked for sticky sampling (M11).

        The loss is the KL regulariser. Nothing is read as long as no stream has had an update.
        """
        if not holds(state.updates.any(), unknown=True):
            return None, state, {}
        wanted = queries.shape[1]
        if not (wanted or torch.is_grad_enabled() or self.config.sticky):
            return None, state, {}
        # The KL and the histogram are of all positions; without them the last ones, that are wanted, are enough.
        if projection is not None and wanted < x.shape[1] and (torch.is_grad_enabled() or self.config.sticky):
            density = self.density(x, state, projection, prepared)
        else:
            density = self.density(queries, state, None, prepared)
        context = self.read_signal(density.last(wanted), state, prepared) if wanted else None
        losses = {"kl": self.kl(density, state)} if torch.is_grad_enabled() else {}
        return context, self.observe(state, density), losses

    def knock_out(self, state: LongTermState, kind: KnockOut) -> LongTermState:
        """Make the state that is read in the place of the true one: zero, in another order, or another row's signal.

        Only coefficients change. `shuffle_pieces` puts pieces of the signal in another order; see there for its cost.
        """
        match kind:
            case "zero":
                coefficients = torch.zeros_like(state.coefficients)
            case "shuffle":
                order = shuffle_pieces(self.config.num_basis, self.config.widths).to(state.coefficients)
                coefficients = order @ state.coefficients
            case "other":
                coefficients = exchange_halves(state.coefficients)
            case _:
                assert_never(kind)
        return replace(state, coefficients=coefficients)

    def parameter_groups(self) -> dict[str, list[Float[Tensor, "..."]]]:
        """Name the parameters of the gate, of the density's scores (W_K, w_μ, w_σ), and of what is read (W_V, W_O)."""
        return {
            "gate": list(self.gate.parameters()) if self.gate else [],
            "where": [self.key.weight, self.mean.weight, self.variance.weight],
            "what": [self.value.weight, self.output.weight],
        }

    def smooth(self, x: Hidden) -> Hidden:
        """Smooth what enters: x̃ = sigmoid(Conv1d(x)) ⊙ x (M7). Without a gate: x."""
        if self.gate is None:
            return x
        return torch.sigmoid(convolve3(x, self.gate.weight, self.gate.bias)) * x

    def update(self, state: LongTermState, evicted: Hidden, rows: Rows | None = None) -> LongTermState:
        """Contract the past, append what left the short-term memory, and refit (M6).

        B ← A B + C x̃ with fixed sample points; a stream's first update is the plain fit of x̃. `evicted` holds
        `segment_length` vectors for each stream of the state, in any precision, on the device of the weights. The new
        state has the weights' precision. Gradient flows into the gate, and into the old state unless that is detached.
        rows: the others stay as they are; None: all are updated.

        Raises:
            ValueError: `evicted` has another shape.
        """
        wanted = state.updates.shape[0], self.config.segment_length, self.config.hidden_size
        if evicted.shape != wanted:
            raise ValueError(f"an update takes {wanted} values (batch, length, hidden), not {tuple(evicted.shape)}")
        # In full precision, since the fit amplifies rounding.
        with full_precision(self.key.weight.device):
            return self._refit(state, self.smooth(evicted.to(self.key.weight.dtype)), rows)

    def _refit(self, state: LongTermState, smoothed: Hidden, rows: Rows | None = None) -> LongTermState:
        # Streams that begin here have no past to contract.
        fresh = state.updates == 0
        if holds(fresh.all(), unknown=False):
            coefficients = self.first(smoothed)
        else:
            coefficients = self.contract_past(state) + self.append(smoothed)
            if holds(fresh.any(), unknown=True):
                coefficients = replace_rows(coefficients, fresh, self.first(smoothed))

        # Rows that are not marked keep what they had.
        if rows is not None:
            coefficients = replace_rows(state.coefficients, rows, coefficients)
        return replace(state, coefficients=coefficients, updates=state.updates + (1 if rows is None else rows))

    def prepare(self, state: LongTermState) -> reading.Projections:
        """Compute what reading makes of a state alone, once for a segment that is read in parts."""
        with full_precision(self.key.weight.device):
            return reading.Projections(self.summarise(state), self.project(state))

    def summarise(self, state: LongTermState) -> reading.Summaries:
        """Compute what the scores of any query are made of (M8)."""
        both = torch.cat([self.mean.weight, self.variance.weight])
        return reading.summarise(state.coefficients, self.key.weight, both, self.config.num_heads)

    def project(self, state: LongTermState) -> Float[Tensor, "batch heads chosen d"]:
        """Compute the values V = B W_V that are read, by head (M9)."""
        values = self.value(self.reduced.round_exact("combine", state.coefficients) @ state.coefficients)
        return equations.split_heads(values, self.config.num_heads)

    def contract_past(self, state: LongTermState) -> Coefficients:
        """Compute the past's part of the new coefficients (M6): A B, or with sticky sampling G₁ X̄(s)."""
        if (positions := self.sample_positions(state)) is None:
            return self.carry(state.coefficients)
        return self.contract(equations.evaluate_signal(state.coefficients, self.basis.evaluate(positions)))

    def sample_positions(self, state: LongTermState) -> Float[Tensor, "batch samples"] | None:
        """Draw the M points that an update reads the old signal at, by where attention was (M11); None: i/M, fixed."""
        c = self.config
        if c.sticky is None:
            return None
        draws = uniform_draws(state.seeds, state.updates, c.num_samples)
        return equations.sample_histogram(state.histogram, send(draws, state.histogram.device), c.sticky.within_bin)

    def attend(self, queries: Queries, state: LongTermState) -> tuple[Queries, AttentionDensity]:
        """Read the signal with the layer's queries, before any position bias (M8, M9): context and density.

        `queries` and context are vectors of the hidden size, heads joined, the latter in the precision of the weights;
        the density's positions are shares of [0, 1]. A stream that was never updated reads a zero signal and context.

        Raises:
            ValueError: `queries` are not of the state's streams, or of another hidden size.
        """
        density = self.density(queries, state)
        return self.read_signal(density, state), density

    def density(
        self, queries: Queries, state: LongTermState, projection: Weight | None = None, prepared: Kept = None
    ) -> AttentionDensity:
        """Compute the density of each head and query (M8): μ, σ² from w_μ·(K q)/√d, w_σ·(K q)/√d, with K = B W_K.

        μ is a share of [0, 1], 0 the oldest end, σ² a square of such shares, at least `variance_floor`, in the weights'
        precision. projection: W_Q, if `queries` are x, not projected yet. prepared: of this state.

        Raises:
            ValueError: `queries` are not of the state's streams, or of another hidden size.
        """
        wanted = state.updates.shape[0], self.config.hidden_size
        if queries.ndim != 3 or (queries.shape[0], queries.shape[2]) != wanted:
            found = tuple(queries.shape)
            raise ValueError(f"reading takes queries (batch, query, hidden) of batch and hidden {wanted}, not {found}")
        with full_precision(self.key.weight.device):  # b h q 2
            summaries = prepared.summaries if prepared else self.summarise(state)
            scores = reading.score_queries(queries, summaries, projection)
        mean_score, variance_score = scores.movedim(-1, 0).contiguous()  # so that what follows is quicker
        return equations.shape_density(mean_score, variance_score, self.config.variance_floor)

    def read_signal(self, density: AttentionDensity, state: LongTermState, prepared: Kept = None) -> Queries:
        """Read the signal under a density (M9): z_h = V_hᵀ E_p[ψ] with V = B W_V, heads joined and projected by W_O.

        In the weights' precision, on their device. prepared: of this state.

        Raises:
            ValueError: The density is not of the state's streams and heads.
        """
        wanted = state.updates.shape[0], self.config.num_heads
        if density.mean.shape[:2] != wanted or density.mean.shape != density.variance.shape:
            raise ValueError(
                f"reading this state takes a density (batch, heads, query) of batch and heads {wanted}, not "
                f"{tuple(density.mean.shape)} and {tuple(density.variance.shape)}"
            )
        with full_precision(self.key.weight.device):
            values = prepared.values if prepared else self.project(state)
            return self.output(
                equations.join_heads(reading.read_signal(values, density, self.reduced, plainly=prepared is not None))
            )

    def observe(self, state: LongTermState, density: AttentionDensity) -> LongTermState:
        """Keep the places that this segment looked at, for the next sticky update (M11). Without sticky: no change.

        The shares of attention in each bin sum to 1 over [0, 1]; no gradient comes back through them. Without queries
        nobody looked anywhere, and nothing changes.
        """
        if self.config.sticky is None or not density.mean.numel():
            return state
        with torch.no_grad():
            return replace(state, histogram=attention_histogram(density, self.config.num_bins))

    def kl(self, density: AttentionDensity, state: LongTermState) -> Float[Tensor, ""]:
        """Compute this layer's KL regulariser (M10), in nats: mean over heads, queries and streams, a scalar.

        A stream without a memory counts as 0, so that the mean over a batch is that over its parts; without streams or
        queries it is 0.
        """
        if not density.mean.numel():
            return density.mean.sum()
        divergence = equations.kl_to_prior(density, self.config.prior_std, self.config.prior_mean)  # b h q
        return zero_rows(divergence.mean((1, 2)), state.updates == 0).mean()
