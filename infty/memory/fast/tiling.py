"""Cut big tables into tiles, so for the read of (M9): a tile in the cache costs no trip to memory."""

from collections.abc import Iterator

import torch

from infty.memory.precision import HOST

# Numbers of a tile. On a CPU 1 MB in float32 a thread, half a core's second-level cache; a GPU wants large tiles.
CPU_BLOCK, GPU_BLOCK = 2**18, 2**29


def pieces(total: int, size: int) -> Iterator[slice]:
    """Cut `range(total)` into slices of `size` (rows of M9); the last may be shorter."""
    # All of it once: tests/memory/test_states.py::test_pieces_are_the_whole_and_blocks_fit_what_holds_them.
    for start in range(0, total, size):
        yield slice(start, min(start + size, total))


def items_at_once(numbers: int, device: torch.device) -> int:
    """Count the batch items with `numbers` values each that go into one tile of (M9): one for each thread at least."""
    if device.type == HOST.type:
        threads = torch.get_num_threads()
        return max(threads, threads * CPU_BLOCK // numbers)
    return max(1, GPU_BLOCK // numbers)
