"""Let rows of a batch that began at different times share tensors; `filled` says how much of one is a row's own.

So it is for the caches of Dai et al. 2019 and Rae et al. 2019 (M12).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

Vectors = Float[Tensor, "batch n hidden"]


def visible(vectors: Vectors, filled: Int[Tensor, " batch"] | None) -> Int[Tensor, " batch"]:
    """Count the vectors, the newest, that are each row's own (slots of M12); `filled` None: all."""
    return torch.full(vectors.shape[:1], vectors.shape[1], device=vectors.device) if filled is None else filled


def concatenate_rows(
    vectors: Sequence[Float[Tensor, "_ _ hidden"]], filled: Sequence[Int[Tensor, " _"] | None]
) -> tuple[Vectors, Int[Tensor, " batch"] | None]:
    """Make one batch of the rows of several (M12). If some have fewer vectors, zeros that are nobody's stand first."""
    longest = max(part.shape[1] for part in vectors)
    own = torch.cat([visible(part, some) for part, some in zip(vectors, filled, strict=True)])
    rows = torch.cat([F.pad(part, (0, 0, longest - part.shape[1], 0)) for part in vectors])
    return rows, None if bool((own == longest).all()) else own
