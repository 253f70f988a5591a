"""Relative attention against loops over single queries and keys."""

import math

import torch

from infty.model.relative_attention import RelativeAttention, relative_shift, sinusoidal_encoding
from infty.model.short_term import KeyValue

BATCH, HEADS, TOKENS, CACHED, SIZE = 3, 2, 5, 13, 22  # head size 11


def test_shift_equals_a_double_loop() -> None:
    scores = torch.randn(BATCH, HEADS, TOKENS, TOKENS + CACHED)
    shifted = relative_shift(scores)
    for i in range(TOKENS):
        for j in range(CACHED + i + 1):
            distance = CACHED + i - j
            column = TOKENS + CACHED - 1 - distance
            assert torch.equal(shifted[:, :, i, j], scores[:, :, i, column])


def test_encoding_holds_sines_then_cosines_of_each_distance() -> None:
    encoding = sinusoidal_encoding(torch.tensor([7.0, 0.0]), SIZE)
    for i in range(SIZE // 2):
        angle = 7.0 / 10_000 ** (2 * i / SIZE)
        assert math.isclose(encoding[0, i].item(), math.sin(angle), abs_tol=1e-6)
        assert math.isclose(encoding[0, SIZE // 2 + i].item(), math.cos(angle), abs_tol=1e-6)
    assert encoding[1].tolist() == [0.0] * (SIZE // 2) + [1.0] * (SIZE // 2)


def test_attention_equals_its_definition_in_loops(float64: None) -> None:
    attention = RelativeAttention(SIZE, HEADS, dropout=0.0)
    x, cached = torch.randn(BATCH, TOKENS, SIZE), torch.randn(BATCH, CACHED, SIZE)
    u, v = torch.randn(HEADS, SIZE // HEADS), torch.randn(HEADS, SIZE // HEADS)
    encoding = sinusoidal_encoding(torch.arange(20, -1, -1.0), SIZE)  # longer than needed: the last rows count
    everything, d = torch.cat([cached, x], 1), SIZE // HEADS
    seen = KeyValue.concatenate(attention.key_values(cached), attention.key_values(x))
    queries = attention.query(x)
    context = attention(queries, seen, attention.positions(encoding, u, v))

    key_weight, value_weight = attention.key_value.weight.chunk(2)
    expected = torch.zeros(BATCH, TOKENS, SIZE)
    for b in range(BATCH):
        for i in range(TOKENS):
            heads = []
            for h in range(HEADS):
                part = slice(h * d, (h + 1) * d)
                q, scores, values = queries[b, i, part], [], []
                for j in range(CACHED + i + 1):
                    key = (key_weight @ everything[b, j])[part]
                    position = (attention.position.weight @ encoding[-1 - (CACHED + i - j)])[part]
                    scores.append(((q + u[h]) @ key + (q + v[h]) @ position) / d**0.5)
                    values.append((value_weight @ everything[b, j])[part])
                heads.append(torch.stack(scores).softmax(0) @ torch.stack(values))
            expected[b, i] = attention.output.weight @ torch.cat(heads)
    torch.testing.assert_close(context, expected)


def test_reading_by_content_holds_queries_and_projections_constant() -> None:
    attention = RelativeAttention(SIZE, HEADS, dropout=0.0)
    x, hidden = (torch.randn(BATCH, n, SIZE, requires_grad=True) for n in (TOKENS, 7))
    read = attention.read_by_content(x, slice(None), hidden)
    read.sum().backward()
    assert hidden.grad is not None
    assert x.grad is None
    assert all(p.grad is None for p in attention.parameters())
    q = (x @ attention.query.weight.T).view(BATCH, TOKENS, HEADS, -1)
    key, value = (hidden @ attention.key_value.weight.T).view(BATCH, 7, 2, HEADS, -1).unbind(2)
    weights = (torch.einsum("bthd,bnhd->bhtn", q, key) / (SIZE // HEADS) ** 0.5).softmax(-1)
    torch.testing.assert_close(read, torch.einsum("bhtn,bnhd->bthd", weights, value).flatten(2))
