"""Attention in blocks against the plain equation: values and gradients, whatever the blocks."""

import pytest
import torch
from torch import Tensor, nn

from infty.memory.fast import tiling as blocks
from infty.model.fast import relative_tiled as blockwise
from infty.model.fast.relative_tiled import attend_in_tiles
from infty.model.relative_attention import attend_plainly
from infty.model.short_term import KeyValue

# Distinct primes: batch 3, heads 2, queries 13, keys 31 (18 of them cached), head size 7.
BATCH, HEADS, QUERIES, KEYS, SIZE = 3, 2, 13, 31, 7


def inputs(queries: int = QUERIES, keys: int = KEYS) -> list[Tensor]:
    shapes = [(BATCH, HEADS, queries, SIZE)] * 2 + [(BATCH, HEADS, SIZE, keys), (BATCH, HEADS, keys, SIZE)]
    return [torch.randn(shape, requires_grad=True) for shape in [*shapes, (HEADS, SIZE, keys + 1)]]


def plainly(content: Tensor, position: Tensor, key: Tensor, value: Tensor, encoding: Tensor) -> Tensor:
    return attend_plainly(content, position, KeyValue(key, value), encoding, nn.Identity(), None)


@pytest.mark.parametrize("rows", [1, 5, 13, 128])
@pytest.mark.parametrize("numbers", [1, 300, 2**18])
@pytest.mark.parametrize(("queries", "keys"), [(QUERIES, KEYS), (QUERIES, QUERIES), (1, KEYS)])
def test_equals_the_plain_equation_in_value_and_gradient(
    float64: None, monkeypatch: pytest.MonkeyPatch, rows: int, numbers: int, queries: int, keys: int
) -> None:
    monkeypatch.setattr(blockwise, "QUERIES", rows)
    monkeypatch.setattr(blocks, "CPU_BLOCK", numbers)
    given = inputs(queries, keys)
    weights = torch.randn(BATCH, HEADS, queries, SIZE)
    results = []
    for attend in (attend_in_tiles, plainly):
        read = attend(*given)
        results.append([read, *torch.autograd.grad((read * weights).sum(), given)])
    for fast, plain in zip(*results, strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-10, atol=1e-12)


def test_equals_the_plain_equation_in_float32() -> None:
    given = inputs(200, 456)
    weights, results = torch.randn(BATCH, HEADS, 200, SIZE), []
    for attend in (attend_in_tiles, plainly):
        read = attend(*given)
        results.append([read, *torch.autograd.grad((read * weights).sum(), given)])
    for fast, plain in zip(*results, strict=True):
        assert (fast - plain).abs().max() <= 1e-5 * plain.abs().max()


def test_gradients_equal_finite_differences(float64: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blockwise, "QUERIES", 3)
    assert torch.autograd.gradcheck(attend_in_tiles, inputs(5, 11), fast_mode=True)


def test_no_query_asks_nothing() -> None:
    given = inputs(0, KEYS)
    assert attend_in_tiles(*given).shape == (BATCH, HEADS, 0, SIZE)


def test_large_scores_do_not_overflow() -> None:
    given = [100 * x.detach() for x in inputs()]
    torch.testing.assert_close(attend_in_tiles(*given), plainly(*given), rtol=1e-3, atol=1e-3)
    assert attend_in_tiles(*given).isfinite().all()


def test_bfloat16_stays_near_float32() -> None:
    given = inputs(200, 456)
    exact = plainly(*given)
    rounded = attend_in_tiles(*[x.bfloat16() for x in given])
    assert rounded.dtype == torch.bfloat16
    assert (rounded - exact).abs().max() <= 0.05 * exact.abs().max()
    gradients = [torch.autograd.grad(y.float().sum(), given) for y in (rounded, exact)]
    for near, gradient in zip(*gradients, strict=True):
        assert (near - gradient).norm() <= 0.05 * gradient.norm()
