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
from infty.memory.equations import Hidden, Weight, join_heads, split_heads
from infty.memory.gates import spread_half_lives
from infty.memory.summary import SummaryMemory, SummaryPart, SummaryState

Matrix = Float[Tensor, "batch heads key value"]  # S transposed, so that q S is what a query reads
Keys = Float[Tensor, "batch heads *chunks n key"]
Gates = Float[Tensor, "batch heads *chunks n"]
CHUNK = 16  # vectors that are written at once, at most
SMALLEST = 1e-6  # that what is read is divided by


@dataclass(frozen=True)
class Writing(SummaryPart):
    """What vectors write into a matrix (M14), oldest first: keys, values and gates of each head."""

    keys: Keys
    values: Float[Tensor, "batch heads *chunks n value"]
    rate: Gates  # b
    log_decay: Gates  # ln a
    log_momentum: Gates | None = None  # ln h; None: h = 0

    def cut(self) -> Iterator["Writing"]:
        """Cut it into vectors (M14)."""
        for at in range(self.keys.shape[2]):
            yield self._change(lambda _, part, at=at: part[:, :, at : at + 1])

    def fold(self, most: int) -> "Writing":
        """Fold it into chunks of the same size (M14): `most` vectors, or the next fewer that divide it."""
        length = self.keys.shape[2]
        size = next(size for size in range(min(most, length), 0, -1) if length % size == 0)
        return self._change(lambda _, part: part.unflatten(2, (-1, size)))


def write(matrix: Matrix, momentum: Matrix | None, new: Writing, *, corrects: bool) -> tuple[Matrix, Matrix | None]:
    """Write vector by vector: P ← h P + b (v − a S k) kᵀ, S ← a S + P (M14); without momentum P is the new part alone.

    corrects: the delta rule; without it v is written whatever S answers.
    """
    for one in new.cut():
        rate, decay = one.rate[..., None], one.log_decay.exp()[..., None]
        answer = decay * (one.keys @ matrix) if corrects else 0
        step = one.keys.mT @ (rate * (one.values - answer))
        if momentum is not None and one.log_momentum is not None:
            step = momentum = one.log_momentum.exp()[..., None] * momentum + step
        matrix = decay * matrix + step
    return matrix, momentum


@dataclass(frozen=True)
class Chunks(SummaryPart):
    """What chunks of vectors do to (S, P), one below the other, or to S alone: a map A (S, P) + B for each (M14)."""

    factor: Float[Tensor, "batch heads chunks keys keys"]
    added: Float[Tensor, "batch heads chunks keys value"]


def write_chunks(known: Matrix, chunks: Chunks) -> Matrix:
    """Write chunk by chunk, equal to `write` (M14). known: S, or S above P if there is momentum."""
    # Equal: tests/memory/test_delta.py::test_a_chunk_is_written_as_vector_by_vector.
    for factor, added in zip(chunks.factor.unbind(2), chunks.added.unbind(2), strict=True):
        known = factor @ known + added
    return known


def make_chunks(new: Writing, *, corrects: bool) -> Chunks:
    """Make maps of what is written: the chunkwise form (Yang et al. 2024), here with momentum too (M14).

    S after vector i is α_i S_0 + ε_i P_0 + Σ_j c_ij u_j k_jᵀ with u_i = b_i (v_i − a_i S_{i−1} k_i), so the u solve a
    triangular system, and are linear in S_0 and P_0. With D and R, the products of a and of h between vectors: c = D R,
    α_i = D_i0, ε_i = c_i0 − D_i0, and before vector i is taken in there is less by R_ij.
    """
    # How much is left after each vector: of what was there (column 0), and of what each other one wrote.
    new = new.fold(CHUNK)
    decay = left = among = _multiply_between(new.log_decay)
    shares, ends = [decay], [[decay]]
    if new.log_momentum is not None:
        kept = _multiply_between(new.log_momentum)
        left = decay @ kept
        among = left - kept
        shares, ends = [decay, among - decay], [[decay, left - decay], [torch.zeros_like(kept), kept]]
    enters = [left] if len(ends) == 1 else [left, ends[1][1]]

    # What each writes, less what is answered to it: by others of the chunk, and by what was there.
    written, answers = new.rate[..., None] * new.values, None
    if corrects:
        asked = new.rate[..., None] * new.keys
        system = asked @ new.keys.mT * among[..., 1:, 1:]
        sides = torch.cat([written, *(share[..., 1:, :1] * asked for share in shares)], -1)
        sides = torch.linalg.solve_triangular(system, sides, upper=False, unitriangular=True)
        written, answers = sides.tensor_split([written.shape[-1]], -1)

    # In the end there is what is left of (S, P), and of each u.
    last = torch.cat([share[..., -1, 1:, None] * new.keys for share in enters], -1).mT  # (keys of S and of P) × n
    kept = torch.stack([torch.stack([end[..., -1, 0] for end in row], -1) for row in ends], -2)
    same = torch.eye(new.keys.shape[-1], dtype=kept.dtype, device=kept.device)
    factor = torch.einsum("...st,kl->...sktl", kept, same).flatten(-2).flatten(-3, -2)
    return Chunks(factor if answers is None else factor - last @ answers, last @ written)


def _multiply_between(logarithms: Gates) -> Float[Tensor, "... after before"]:
    """Multiply the gates of all vectors after each one, up to each later one: g_{j+1} … g_i, 0 if j > i; from 0 on."""
    sums = F.pad(logarithms.cumsum(-1), (1, 0))
    return (sums[..., :, None] - sums[..., None, :]).clamp(max=0).exp().tril()


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


class DeltaMemory(SummaryMemory[DeltaState, Writing | Chunks]):
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

    def summarise(self, x: Hidden) -> Writing | Chunks:
        """Compute what vectors write; with elu keys their values wait for what is answered before the segment (M14)."""
        new = self.make_writing(x)
        return new if self.config.keys == "elu" else make_chunks(new, corrects=self.config.rule == "delta")

    def join(self, state: DeltaState, part: Writing | Chunks) -> DeltaState:
        """Write vectors, in chunks (M14)."""
        if isinstance(part, Writing):
            answers = divide(part.keys @ state.matrix) if self.config.rule == "delta" else 0
            part = replace(part, values=F.pad(part.values - answers, (0, 1), value=1.0))
            part = make_chunks(part, corrects=False)
        known = write_chunks(torch.cat([state.matrix, state.momentum], 2), part)
        return DeltaState(*known.tensor_split([self.config.numbers_per_key], 2))

    def make_writing(self, x: Hidden) -> Writing:
        """Make keys, values and gates of vectors (M14)."""
        keys, heads = self.map_keys(split_heads(self.key(x), self.config.num_heads).contiguous()), self.config.num_heads
        none = keys.new_zeros(len(x), heads, x.shape[1])  # the logarithm of 1
        return Writing(
            keys=keys,
            values=split_heads(self.value(x), heads).contiguous(),
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
