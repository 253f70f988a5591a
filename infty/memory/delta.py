"""Keep keys and values in a matrix per head, by the gated delta rule (M14): fast weights.

S ← a S (I − b k kᵀ) + b v kᵀ = a S + b (v − a S k) kᵀ for each vector x that leaves, with k = W_K x, v = W_V x and
gates a = sigmoid(w_a·x + c_a), b = sigmoid(w_b·x + c_b), all per head: what S answers to k is replaced by v. A query
reads z = W_O (g ⊙ S q), with g = sigmoid(w_g·x + c_g) per head. Source: Gated DeltaNet (Yang et al. 2024, arXiv
2412.06464), and AHN (Fang et al. 2025, arXiv 2510.07318), where as here it takes in what leaves the window. Settings
give

- linear attention (Katharopoulos et al. 2020): `rule: add, keys: elu, forgets: false, write_rate: false`. Keys are
  φ(k) = elu(k) + 1, s ← s + φ(k), and what is read is divided by s·φ(q);
- Infini-attention's memory (Munkhdalai et al. 2024, arXiv 2404.07143): the same, or with `rule: delta`, where what is
  taken from v is what the memory answered before the segment, S φ(k)/(s·φ(k));
- DeltaNet (Schlag et al. 2021): `forgets: false`;
- momentum: P ← h P + b (v − a S k) kᵀ, S ← a S + P, with h = sigmoid(w_h·x + c_h): Titans (Behrouz et al. 2024, arXiv
  2501.00663) with a linear memory.

Departure: keys, values and gates are projections of the layer's input alone, without convolution or SiLU; queries are
the layer's own, as all memories here have them. Departure: a is one sigmoid, in the place of exp(−A softplus(…)), and
begins with half-lives from one segment to sixteen. Departure: Titans measures its surprise before it forgets, here S
forgets first; with a = 1 both are the same. Departure: Infini-attention scales what attention reads by 1 − g.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from infty.memory.contract import HeadedConfig, Losses, PerRow, Wanted
from infty.memory.equations import Heads, Hidden, Weight, join_heads, split_heads
from infty.memory.fast.tiling import pieces
from infty.memory.gates import spread_half_lives
from infty.memory.summary import SummaryMemory, SummaryState

Matrix = Float[Tensor, "batch heads key value"]  # S transposed, so that q S is what a query reads
Keys = Float[Tensor, "batch heads n key"]
Gates = Float[Tensor, "batch heads n"]
CHUNK = 64  # vectors that are written at once
SMALLEST = 1e-6  # that what is read is divided by


@dataclass(frozen=True)
class Writing:
    """What vectors write into a matrix (M14), oldest first: keys, values and gates of each head."""

    keys: Keys
    values: Heads
    rate: Gates  # b
    log_decay: Gates  # ln a
    log_momentum: Gates | None = None  # ln h; None: h = 0

    def cut(self, size: int) -> Iterator["Writing"]:
        """Cut it into chunks of so many vectors (M14); the last may be shorter."""
        for chunk in pieces(self.keys.shape[2], size):
            yield Writing(**{name: part[:, :, chunk] for name, part in vars(self).items() if part is not None})


def write(matrix: Matrix, momentum: Matrix | None, new: Writing, *, corrects: bool) -> tuple[Matrix, Matrix | None]:
    """Write vector by vector: P ← h P + b (v − a S k) kᵀ, S ← a S + P (M14); without momentum P is the new part alone.

    corrects: the delta rule; without it v is written whatever S answers.
    """
    for one in new.cut(1):
        rate, decay = one.rate[..., None], one.log_decay.exp()[..., None]
        answer = decay * (one.keys @ matrix) if corrects else 0
        step = one.keys.mT @ (rate * (one.values - answer))
        if momentum is not None and one.log_momentum is not None:
            step = momentum = one.log_momentum.exp()[..., None] * momentum + step
        matrix = decay * matrix + step
    return matrix, momentum


def write_at_once(
    matrix: Matrix, momentum: Matrix | None, new: Writing, *, corrects: bool
) -> tuple[Matrix, Matrix | None]:
    """Write a chunk at once, equal to `write`: the chunkwise form (Yang et al. 2024), here with momentum too (M14).

    S after vector i is α_i S_0 + ε_i P_0 + Σ_j c_ij u_j k_jᵀ with u_i = b_i (v_i − a_i S_{i−1} k_i), so the u solve a
    triangular system. With D and R, the products of a and of h between vectors: c = D R, α_i = D_i0, ε_i = c_i0 − D_i0,
    and before vector i is taken in there is less by R_ij.
    """
    # Equal to `write`: tests/memory/test_delta.py::test_a_chunk_is_written_as_vector_by_vector.
    # How much is left after each vector: of what was there (column 0), and of what each other one wrote.
    decay = left = among = _multiply_between(new.log_decay)
    there = [(matrix, decay[..., 1:, :1], decay[..., 1:, :1])]  # left of it after a vector, and just before
    kept = None if momentum is None or new.log_momentum is None else _multiply_between(new.log_momentum)
    if momentum is not None and kept is not None:
        left = decay @ kept
        among = left - kept
        there += [(momentum, (left - decay)[..., 1:, :1], (among - decay)[..., 1:, :1])]

    # What each writes: its value, less what is answered to it.
    written = new.values * new.rate[..., None]
    if corrects:
        answers = torch.stack([share * (new.keys @ known) for known, _, share in there]).sum(0)
        system = new.keys @ new.keys.mT * among[..., 1:, 1:] * new.rate[..., None]
        written = written - answers * new.rate[..., None]
        written = torch.linalg.solve_triangular(system, written, upper=False, unitriangular=True)

    # What there is in the end.
    old = torch.stack([share[..., -1:, :] * known for known, share, _ in there]).sum(0)
    after = old + (new.keys * left[..., -1, 1:, None]).mT @ written
    if momentum is None or kept is None:
        return after, momentum
    return after, kept[..., -1:, :1] * momentum + (new.keys * kept[..., -1, 1:, None]).mT @ written


def _multiply_between(logarithms: Gates) -> Float[Tensor, "batch heads after before"]:
    """Multiply the gates of all vectors after each one, up to each later one: g_{j+1} … g_i, 0 if j > i; from 0 on."""
    sums = F.pad(logarithms.cumsum(-1), (1, 0))
    between = sums[..., :, None] - sums[..., None, :]
    later = torch.ones_like(between, dtype=torch.bool).triu(1)
    return between.masked_fill(later, -torch.inf).exp()


class DeltaMemoryConfig(HeadedConfig):
    """Sizes and rules of one matrix memory (M14)."""

    kind: Literal["delta"] = Field(default="delta", description="a matrix per head, by the gated delta rule")
    segment_length: int = Field(gt=0, description="L, the shortest half-life that it begins with")
    key_size: int | None = Field(
        default=None, gt=0, description="numbers of a key per head; null: the head size, and queries are the layer's"
    )
    rule: Literal["delta", "add"] = Field(default="delta", description="whether v replaces what is answered, or adds")
    keys: Literal["unit", "elu"] = Field(
        default="unit", description="keys and queries of length 1; elu: elu + 1, and what is read divided by its weight"
    )
    forgets: bool = Field(default=True, description="whether it forgets, at a rate a of vector and head")
    write_rate: bool = Field(default=True, description="whether each vector has a rate b per head; false: 1")
    momentum: bool = Field(default=False, description="whether what is written goes on, at a rate h of vector and head")
    gate: bool = Field(default=True, description="whether a gate g per head scales what each query reads")

    @model_validator(mode="after")
    def _rules_fit(self) -> "DeltaMemoryConfig":
        if self.keys == "elu" and self.momentum:
            raise ValueError("momentum wants keys of length 1: keys: unit")
        return self

    def build(self) -> "DeltaMemory":
        """Build the memory of these sizes."""
        return DeltaMemory(self)

    @property
    def numbers_per_key(self) -> int:
        """Count the numbers of a key of one head."""
        return self.key_size or self.hidden_size // self.num_heads

    @property
    def slots(self) -> int:
        """Count the vectors kept of the past: none, it is a matrix. By its bytes it can be compared."""
        return 0

    @property
    def state_bytes(self) -> int:
        """Count the bytes of one stream's matrices, in float32."""
        values = self.hidden_size + self.num_heads * (self.keys == "elu")
        return torch.float32.itemsize * self.numbers_per_key * values * (1 + self.momentum)


@dataclass(frozen=True)
class DeltaState(SummaryState):
    """Matrices of each stream (M14)."""

    matrix: Matrix  # with elu keys one more value, that of 1: what is read is divided by it
    momentum: Float[Tensor, "batch heads moving value"]  # as many keys, or none if there is no momentum


class DeltaMemory(SummaryMemory[DeltaState]):
    """Matrix per head that answers a key with its value (M14)."""

    state_type = DeltaState

    def __init__(self, config: DeltaMemoryConfig) -> None:
        super().__init__()
        c = self.config = config
        keys = c.num_heads * c.numbers_per_key
        self.query = nn.Linear(c.hidden_size, keys, bias=False) if c.key_size else None
        self.key = nn.Linear(c.hidden_size, keys, bias=False)
        self.value = nn.Linear(c.hidden_size, c.hidden_size, bias=False)
        self.output = nn.Linear(c.hidden_size, c.hidden_size, bias=False)
        self.decay = make_gate(c, spread_half_lives(c.num_heads, c.segment_length)) if c.forgets else None
        self.rate = make_gate(c) if c.write_rate else None
        self.momentum = make_gate(c) if c.momentum else None
        self.gate = make_gate(c) if c.gate else None

    def initial_state(self, batch: int, seeds: PerRow | None = None) -> DeltaState:
        """Make an empty memory for `batch` streams: zeros. `seeds` are unused."""
        c, make = self.config, self.value.weight.new_zeros
        values = c.hidden_size // c.num_heads + (c.keys == "elu")
        return DeltaState(
            matrix=make(batch, c.num_heads, c.numbers_per_key, values),
            momentum=make(batch, c.num_heads, c.numbers_per_key if c.momentum else 0, values),
        )

    def take_in(self, state: DeltaState, x: Hidden) -> DeltaState:
        """Write vectors, oldest first, in chunks (M14)."""
        new, corrects = self.make_writing(x), self.config.rule == "delta"
        if self.config.keys == "elu":
            # Infini-attention's rule compares with what the memory answered before the segment: there is no system.
            values = new.values - divide(new.keys @ state.matrix) if corrects else new.values
            new, corrects = replace(new, values=F.pad(values, (0, 1), value=1.0)), False
        matrix, momentum = state.matrix, state.momentum if self.momentum else None
        for chunk in new.cut(CHUNK):
            matrix, momentum = write_at_once(matrix, momentum, chunk, corrects=corrects)
        return DeltaState(matrix, state.momentum if momentum is None else momentum)

    def make_writing(self, x: Hidden) -> Writing:
        """Make keys, values and gates of vectors (M14)."""
        keys, heads = self.map_keys(split_heads(self.key(x), self.config.num_heads)), self.config.num_heads
        none = keys.new_zeros(len(x), heads, x.shape[1])  # the logarithm of 1
        return Writing(
            keys=keys,
            values=split_heads(self.value(x), heads),
            rate=none.exp() if self.rate is None else self.rate(x).mT.sigmoid(),
            log_decay=none if self.decay is None else F.logsigmoid(self.decay(x).mT),
            log_momentum=None if self.momentum is None else F.logsigmoid(self.momentum(x).mT),
        )

    def map_keys(self, keys: Keys) -> Keys:
        """Map keys or queries to what the matrix is written and read with (M14)."""
        return F.normalize(keys, dim=-1) if self.config.keys == "unit" else F.elu(keys) + 1

    def read(
        self, queries: Wanted, x: Hidden, state: DeltaState, projection: Weight | None = None, prepared: None = None
    ) -> tuple[Wanted, DeltaState, Losses]:
        """Read what the matrices answer to each query (M14); zeros of an empty memory."""
        asked = queries if self.query is None else self.query(queries)
        answers = self.map_keys(split_heads(asked, self.config.num_heads)) @ state.matrix
        if self.config.keys == "elu":
            answers = divide(answers)
        if self.gate is not None:
            answers = answers * self.gate(x[:, x.shape[1] - queries.shape[1] :]).mT.sigmoid()[..., None]
        return self.output(join_heads(answers)), state, {}


def make_gate(config: DeltaMemoryConfig, bias: Float[Tensor, " heads"] | None = None) -> nn.Linear:
    """Make a gate per head (M14), a sigmoid of this; it begins at sigmoid(bias), by default ½."""
    gate = nn.Linear(config.hidden_size, config.num_heads)
    with torch.no_grad():
        gate.bias.copy_(torch.zeros(config.num_heads) if bias is None else bias)
    return gate


def divide(answers: Float[Tensor, "batch heads n value"]) -> Float[Tensor, "batch heads n fewer"]:
    """Divide what a matrix with elu keys answers by its last value, S φ(q)/(s·φ(q)) (M14); nothing by nothing is 0."""
    return answers[..., :-1] / answers[..., -1:].clamp(min=SMALLEST)
