"""Big tables a piece at a time, so for the read of section 3.1: a block in the cache costs no trip to memory."""

from collections.abc import Iterator

import torch

from infty.memory.precision import HOST

# Numbers of a block. On a CPU 2 MB in float32, the second-level cache of two cores; a GPU wants large blocks.
CPU_BLOCK, GPU_BLOCK = 2**19, 2**29


def pieces(total: int, size: int) -> Iterator[slice]:
    """`range(total)` in slices of `size`; the last may be shorter."""
    for start in range(0, total, size):
        yield slice(start, min(start + size, total))


def items_at_once(numbers: int, device: torch.device) -> int:
    """How many batch items with `numbers` scores each go into one block: one for each thread at least."""
    if device.type == HOST.type:
        return max(torch.get_num_threads(), CPU_BLOCK // numbers)
    return max(1, GPU_BLOCK // numbers)
