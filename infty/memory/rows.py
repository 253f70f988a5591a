"""Handle rows of a batch that hold different numbers of vectors (M12), or are knocked out (not in the paper).

They share tensors: `filled` says how many of the vectors, the newest, are each row's own.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.nn import functional as F

from infty.memory.precision import HOST
from infty.memory.transforms import holds

Vectors = Float[Tensor, "batch n hidden"]
Counts = Int[Tensor, " batch"]


def send(kept: Shaped[Tensor, "*shape"], device: torch.device) -> Shaped[Tensor, "*shape"]:
    """Copy what the host keeps of rows to a device (for M6), without waiting for what that is doing."""
    return kept.to(device, non_blocking=True)


def replace_rows(
    numbers: Float[Tensor, "batch *rest"], rows: Bool[Tensor, " batch"], others: Float[Tensor, "batch *rest"]
) -> Float[Tensor, "batch *rest"]:
    """Replace the marked rows by those of others (M6). rows: on the host."""
    marked = send(rows, numbers.device).reshape(-1, *[1] * (numbers.dim() - 1))
    return torch.where(marked, others, numbers)


def zero_rows(numbers: Float[Tensor, " batch"], rows: Bool[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """Set the numbers of marked rows to 0 (M10). rows: on the host; if it marks none, nothing is sent."""
    return numbers.masked_fill(send(rows, numbers.device), 0) if holds(rows.any(), unknown=True) else numbers


def visible(vectors: Vectors, filled: Counts | None) -> Counts:
    """Count how many of the vectors, the newest, belong to each row (slots of M12); `filled` None: all."""
    return torch.full(vectors.shape[:1], vectors.shape[1], device=HOST) if filled is None else filled


def mark_own(vectors: Vectors, filled: Counts | None) -> Bool[Tensor, "batch n"]:
    """Mark, on the host, the vectors, the newest, that are each row's own (slots of M12); `filled` None: all."""
    count = vectors.shape[1]
    return torch.arange(count, device=HOST) >= count - visible(vectors, filled)[:, None]


def concatenate_rows(
    vectors: Sequence[Float[Tensor, "_ _ hidden"]], filled: Sequence[Int[Tensor, " _"] | None]
) -> tuple[Vectors, Counts | None]:
    """Make one batch of the rows of several (M12). If a part has fewer vectors, zeros that do not count stand first."""
    longest = max(part.shape[1] for part in vectors)
    own = torch.cat([visible(part, some) for part, some in zip(vectors, filled, strict=True)])
    rows = torch.cat([F.pad(part, (0, 0, longest - part.shape[1], 0)) for part in vectors])
    return rows, None if bool((own == longest).all()) else own


def interleave(parts: Sequence[Shaped[Tensor, "batch *rest"]]) -> Shaped[Tensor, "rows *rest"]:
    """Make one batch of several of the same rows, the parts of a row one after the other (not in the paper)."""
    return torch.stack(list(parts), 1).flatten(0, 1)


def exchange_halves(rows: Shaped[Tensor, "batch *rest"]) -> Shaped[Tensor, "batch *rest"]:
    """Put the second half of a batch's rows before the first, so that each stream has another's (not in the paper)."""
    return rows.roll(len(rows) // 2, 0)


def draw_fixed_numbers(count: int) -> Float[Tensor, " n"]:
    """Draw random numbers in [0, 1) to shuffle by, the same each time (not in the paper). Three keep their order."""
    return torch.rand(count, generator=torch.Generator().manual_seed(count))
