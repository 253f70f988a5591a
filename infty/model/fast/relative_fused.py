"""Attend with relative positions (Dai et al. 2019) in one kernel a block, on a GPU: no score leaves it.

Forward keeps what is read and one number for each query. `relative_attention.attend_plainly` is the same written
plainly; the kernels stand in `relative_kernels`. Every sum is made in a fixed order, so that results repeat.
"""

import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from infty.base.errors import describe_fault
from infty.memory.precision import without_autocast
from infty.memory.rows import send
from infty.model.fast.relative_tiled import Asked, Encoding, Keys, Unseen, Values, attend_in_tiles

# Rows of a block and warps for it: compiled for sm_90 nothing spills from registers, as it does with blocks of 64; and
# the stages of each kernel's loop, for the same reason.
BLOCK, WARPS = 32, 4
STAGES = {"attend": 2, "go_back_to_queries": 1, "go_back_to_keys": 2, "go_back_to_distances": 2}
WIDEST = 64  # numbers of a head: the backward pass of wider ones has no room in the shared memory of many GPUs
AVAILABLE = find_spec("triton") is not None
FAULTS: list[str] = []  # why kernels are not run in this process


def attend_in_kernels(
    content: Asked, position: Asked, key: Keys, value: Values, encoding: Encoding, unseen: Unseen | None = None
) -> Asked:
    """Compute what `attend_in_tiles` computes, products rounded as TF32 or bfloat16, sums in float32.

    Once a kernel can't be compiled (Triton wants a C compiler, say), all is computed in tiles, with a warning.

    Raises:
        OutOfMemoryError: The device has no room.
    """
    # Equal to attend_plainly:
    # tests/model/fast/test_relative_fused.py::test_equals_the_plain_equation_in_value_and_gradient.
    dtype, hidden = key.dtype, None if unseen is None else send(unseen, key.device)
    parts = content.to(dtype), position.to(dtype), key, value.to(dtype), encoding.to(dtype)
    try:
        if not FAULTS and content.shape[-1] <= WIDEST:
            with without_autocast(key.device):
                return _Attention.apply(*parts, hidden)
    except torch.OutOfMemoryError:
        raise
    except Exception as fault:  # any kind: a fault of the arguments recurs in tiles
        FAULTS.append(describe_fault(fault))
        warnings.warn(f"attention is not computed in one kernel: {FAULTS[0]}", stacklevel=2)
    return attend_in_tiles(content, position, key, value, encoding, unseen)


class _Attention(torch.autograd.Function):
    """Sizes: b batch, h heads, t queries, k keys, d head size."""

    @staticmethod
    def forward(
        ctx: Any, content: Tensor, position: Tensor, key: Tensor, value: Tensor, encoding: Tensor, unseen: Tensor | None
    ) -> Tensor:
        from infty.model.fast import relative_kernels as kernels

        read = torch.empty_like(content, memory_format=torch.contiguous_format)
        log_sums = torch.empty(content.shape[:3], dtype=torch.float32, device=content.device)
        rows = [_make_rows(part) for part in (content, position, key.mT, value, encoding[..., :-1].mT)]
        ctx.size = content.shape[3]
        _run(kernels.attend, content.shape[2], ctx.size, (*rows, unseen), (read, log_sums))
        ctx.save_for_backward(*rows, unseen, read, log_sums)
        return read

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        from infty.model.fast import relative_kernels as kernels

        *inputs, read, log_sums = ctx.saved_tensors
        (b, heads, t, _), k, size = inputs[0].shape, inputs[2].shape[2], ctx.size
        means = (gradient.float() * read.float()).sum(-1)  # Σ_j weight_j · d loss / d weight_j
        known = _make_rows(gradient), log_sums, means
        to_content, to_position, to_key, to_value = (read.new_empty(b, heads, n, size) for n in (t, t, k, k))
        by_item = log_sums.new_empty(b, heads, k, size)  # each item's part of the gradient of distances
        _run(kernels.go_back_to_queries, t, size, inputs, (*known, to_content, to_position))
        _run(kernels.go_back_to_keys, k, size, inputs, (*known, to_key, to_value))
        _run(kernels.go_back_to_distances, k, size, inputs, (*known, by_item))
        to_encoding = F.pad(by_item.sum(0).mT, (0, 1)).to(read)
        return to_content, to_position, to_key.mT, to_value, to_encoding, None


def _make_rows(vectors: Tensor) -> Tensor:
    """Make rows that lie one after the other, each of a power of two of numbers: zeros follow its own."""
    size = vectors.shape[-1]
    return F.pad(vectors, (0, max(16, 1 << (size - 1).bit_length()) - size)).contiguous()


def _run(kernel: Any, count: int, size: int, inputs: Sequence[Tensor | None], more: tuple[Tensor, ...]) -> None:
    """Run a kernel over blocks of `count` queries, keys or distances, and all items."""
    content, _, key, *_, unseen = cast("Any", inputs)
    b, heads, t, width = content.shape
    how = {"hides": unseen is not None, "how": "tf32", "block": BLOCK, "width": width}
    with torch.cuda.device_of(content):  # which need not be the current one
        kernel[(-(-count // BLOCK) * b * heads,)](*inputs, *more, heads, t, key.shape[2], size, **how, **tune(kernel))


def tune(kernel: Any) -> dict[str, int]:
    """Return the options that a kernel is compiled with."""
    return {"num_warps": WARPS, "num_stages": STAGES[kernel.__name__]}
