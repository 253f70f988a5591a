"""Fast weights against loops over vectors and heads, and against the rules of other papers in their own words."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from infty.memory import delta
from infty.memory.delta import DeltaMemory, DeltaState, Writing, make_chunks, write, write_chunks
from tests.memory.kinds import BATCH, HEAD_SIZE, HEADS, HIDDEN, SEGMENT, build

Rules = dict[str, Any]
LENGTH, KEY = 12, 11


def take_in(memory: DeltaMemory, state: DeltaState, x: Tensor) -> DeltaState:
    return memory.advance(state, x, None, lambda _, vectors: vectors)[0]


def write_at_once(
    matrix: Tensor, momentum: Tensor | None, new: Writing, *, corrects: bool
) -> tuple[Tensor, Tensor | None]:
    """As `write`, in chunks."""
    known = torch.cat([matrix] if momentum is None else [matrix, momentum], 2)
    matrix, *moved = write_chunks(known, make_chunks(new, corrects=corrects)).split(matrix.shape[2], 2)
    return matrix, moved[0] if moved else None


def make_writing(momentum: bool) -> Writing:
    some = BATCH, HEADS, LENGTH
    return Writing(
        keys=F.normalize(torch.randn(*some, KEY), dim=-1).requires_grad_(),
        values=torch.randn(*some, HEAD_SIZE, requires_grad=True),
        rate=torch.rand(some, requires_grad=True),
        log_decay=F.logsigmoid(torch.randn(some)).requires_grad_(),
        log_momentum=F.logsigmoid(torch.randn(some)).requires_grad_() if momentum else None,
    )


@pytest.mark.parametrize("momentum", [False, True])
@pytest.mark.parametrize("corrects", [False, True])
@pytest.mark.parametrize("size", [1, 5, LENGTH])
def test_a_chunk_is_written_as_vector_by_vector(
    float64: None, monkeypatch: pytest.MonkeyPatch, momentum: bool, corrects: bool, size: int
) -> None:
    """Values and every gradient, with what was there before; chunks of 4 if they may have 5."""
    monkeypatch.setattr(delta, "CHUNK", size)
    new = make_writing(momentum)
    before = [torch.randn(BATCH, HEADS, KEY, HEAD_SIZE, requires_grad=True) for _ in range(1 + momentum)]
    inputs = [*before, *(part for part in vars(new).values() if part is not None)]
    found = []
    for act in (write_at_once, write):
        matrix, carried = act(before[0], before[1] if momentum else None, new, corrects=corrects)
        ends = [matrix] if carried is None else [matrix, carried]
        torch.manual_seed(1)
        loss = torch.stack([(end * torch.randn_like(end)).sum() for end in ends]).sum()
        found.append([*ends, *torch.autograd.grad(loss, inputs)])
    for at_once, one_by_one in zip(*found, strict=True):
        torch.testing.assert_close(at_once, one_by_one, rtol=1e-10, atol=1e-10)


def test_near_copies_of_a_key_are_written_without_loss_of_precision() -> None:
    """A chunk of 64 keys that are nearly one: the system is far from the identity, and float32 has to do."""
    torch.manual_seed(0)
    keys = F.normalize(torch.randn(KEY) + 0.01 * torch.randn(1, 1, 64, KEY), dim=-1)
    new = Writing(keys, torch.randn(1, 1, 64, HEAD_SIZE), torch.full((1, 1, 64), 0.99), torch.zeros(1, 1, 64))
    exact = Writing(**{name: part.double() for name, part in vars(new).items() if part is not None})
    zeros = torch.zeros(1, 1, KEY, HEAD_SIZE)
    expected, _ = write(zeros.double(), None, exact, corrects=True)
    found, _ = write_at_once(zeros, None, new, corrects=True)
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-4)


def test_the_gated_rule_is_the_product_in_the_paper(float64: None) -> None:
    """S ← a S (I − b k kᵀ) + b v kᵀ, matrix by matrix, heads in a loop; then z = W_O (g ⊙ S q)."""
    memory, x, later = build("delta").double(), torch.randn(BATCH, LENGTH, HIDDEN), torch.randn(BATCH, SEGMENT, HIDDEN)
    assert isinstance(memory, DeltaMemory)
    assert memory.decay is not None
    assert memory.rate is not None
    assert memory.gate is not None
    queries = torch.randn(BATCH, 2, HIDDEN)
    state = take_in(memory, memory.initial_state(BATCH), x)
    context, after, losses = memory.read(queries, later, state)
    assert (after is state, losses) == (True, {})
    for row in range(BATCH):
        parts = []
        for head in range(HEADS):
            own = slice(head * HEAD_SIZE, (head + 1) * HEAD_SIZE)
            s = torch.zeros(HEAD_SIZE, HEAD_SIZE)
            for vector in x[row]:
                k, v = (memory.key.weight @ vector)[own], (memory.value.weight @ vector)[own]
                k = k / k.norm()
                a, b = ((gate.weight @ vector + gate.bias)[head].sigmoid() for gate in (memory.decay, memory.rate))
                s = a * s @ (torch.eye(HEAD_SIZE) - b * torch.outer(k, k)) + b * torch.outer(v, k)
            torch.testing.assert_close(state.matrix[row, head], s.T)
            gates = (later[row, -2:] @ memory.gate.weight.T + memory.gate.bias)[:, head].sigmoid()
            asked = F.normalize(queries[row, :, own], dim=-1)
            parts.append(gates[:, None] * (asked @ s.T))
        torch.testing.assert_close(context[row], torch.cat(parts, -1) @ memory.output.weight.T)


def test_one_pair_is_answered_and_a_new_value_takes_the_place_of_the_old(float64: None) -> None:
    """DeltaNet with a rate of 1: what was written under a key is read under it again, and only the newest."""
    key, values = F.normalize(torch.randn(1, 1, 1, KEY), dim=-1), torch.randn(2, 1, 1, 1, HEAD_SIZE)
    first, second = (Writing(key, value, torch.ones(1, 1, 1), torch.zeros(1, 1, 1)) for value in values)
    matrix, _ = write_at_once(torch.zeros(1, 1, KEY, HEAD_SIZE), None, first, corrects=True)
    torch.testing.assert_close(key @ matrix, values[0])
    matrix, _ = write_at_once(matrix, None, second, corrects=True)
    torch.testing.assert_close(key @ matrix, values[1])
    added = write_at_once(matrix, None, second, corrects=False)[0]
    torch.testing.assert_close(key @ added, 2 * values[1])


def test_linear_attention_is_attention_with_a_kernel_in_the_place_of_the_exponential(float64: None) -> None:
    """Katharopoulos et al. 2020, equation 4: Σ φ(q)·φ(k) v / Σ φ(q)·φ(k), all pairs at once and no state."""
    memory, parts, queries = (
        build("linear-attention"),
        torch.randn(3, BATCH, SEGMENT, HIDDEN),
        torch.randn(BATCH, 2, HIDDEN),
    )
    assert isinstance(memory, DeltaMemory)
    state = memory.initial_state(BATCH)
    for part in parts:
        state = take_in(memory, state, part)
    x = torch.cat(list(parts), 1)
    k, v, q = (y.unflatten(2, (HEADS, -1)) for y in (memory.key(x), memory.value(x), queries))
    similar = torch.einsum("bqhd,bnhd->bhqn", F.elu(q) + 1, F.elu(k) + 1)
    read = torch.einsum("bhqn,bnhd->bqhd", similar / similar.sum(-1, keepdim=True), v).flatten(2)
    torch.testing.assert_close(memory.read(queries, x, state)[0], read @ memory.output.weight.T)


def test_infini_attentions_rule_takes_off_what_was_read_before_the_segment(float64: None) -> None:
    """Munkhdalai et al. 2024: M ← M + σ(K)ᵀ (V − σ(K) M / σ(K) z), z ← z + Σ σ(K), read σ(Q) M / σ(Q) z."""
    memory = build("infini-attention")
    assert isinstance(memory, DeltaMemory)
    state = memory.initial_state(BATCH)
    m, z = torch.zeros(BATCH, HEADS, HEAD_SIZE, HEAD_SIZE), torch.zeros(BATCH, HEADS, HEAD_SIZE, 1)
    for number in range(3):
        x = torch.randn(BATCH, SEGMENT, HIDDEN)
        state = take_in(memory, state, x)
        k, v = (y.unflatten(2, (HEADS, -1)).transpose(1, 2) for y in (F.elu(memory.key(x)), memory.value(x)))
        k = k + 1
        m = m + k.mT @ (v - (k @ m / (k @ z) if number else 0))
        z = z + k.sum(2)[..., None]
        torch.testing.assert_close(state.matrix, torch.cat([m, z], -1))


def test_momentum_with_a_perfect_memory_is_gradient_descent_with_momentum(float64: None) -> None:
    """Titans (Behrouz et al. 2024), linear: S ← S + P, P ← h P − b ∇ ½‖S k − v‖², the gradient by autograd."""
    new = make_writing(momentum=True)
    new = Writing(new.keys, new.values, new.rate, torch.zeros_like(new.rate), new.log_momentum)
    assert new.log_momentum is not None
    zeros = torch.zeros(BATCH, HEADS, KEY, HEAD_SIZE)
    found, _ = write_at_once(zeros, zeros, new, corrects=True)
    for row in range(BATCH):
        for head in range(HEADS):
            s, p = torch.zeros(HEAD_SIZE, KEY), torch.zeros(HEAD_SIZE, KEY)
            for i in range(LENGTH):
                s = s.detach().requires_grad_()
                loss = (s @ new.keys[row, head, i] - new.values[row, head, i]).square().sum() / 2
                (slope,) = torch.autograd.grad(loss, s)
                p = new.log_momentum[row, head, i].exp() * p - new.rate[row, head, i] * slope
                s = s + p
            torch.testing.assert_close(found[row, head], s.T)


def test_a_matrix_begins_with_half_lives_of_one_segment_to_sixteen() -> None:
    memory = build("delta")
    assert isinstance(memory, DeltaMemory)
    assert memory.decay is not None
    left = memory.decay.bias.sigmoid() ** torch.tensor([SEGMENT, 16 * SEGMENT])
    torch.testing.assert_close(left, torch.full((HEADS,), 0.5), rtol=1e-4, atol=0)
