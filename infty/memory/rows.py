"""Rows of a batch that began at different times share tensors; `filled` says how much of one is a row's own."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def visible(vectors: Float[Tensor, "batch n hidden"], filled: Int[Tensor, " batch"] | None) -> Int[Tensor, " batch"]:
    """How many of the vectors, the newest, are each row's own; `filled` None: all."""
    return torch.full(vectors.shape[:1], vectors.shape[1], device=vectors.device) if filled is None else filled
