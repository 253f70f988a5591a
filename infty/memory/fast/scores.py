"""Compute two scores of each query without the N that they are sums of (M8).

w·(K q) = ((w B) W_K)·q, so that two vectors per head, for w_μ and w_σ, take the place of the N scores of a query.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def score_queries(
    queries: Float[Tensor, "batch query hidden"],
    coefficients: Float[Tensor, "batch basis hidden"],
    key: Float[Tensor, "hidden hidden"],
    weights: Float[Tensor, "2 basis"],
    num_heads: int,
    projection: Float[Tensor, "hidden hidden"] | None = None,
) -> Float[Tensor, "batch heads query 2"]:
    """Compute w_μ·(K q)/√d and w_σ·(K q)/√d of each head and query, with K = B W_K (M8).

    Equal to `equations.score_queries` and a sum by w_μ, w_σ; held by
    tests/memory/test_longterm.py::test_reading_equals_the_plain_equations_in_value_and_gradient, with a projection by
    test_queries_that_are_yet_to_be_projected_look_at_the_same_places there.

    projection: W_Q, if `queries` are the x that it is to make queries of; ((w B) W_K W_Qᵀ)·x does without them.
    """
    both = torch.bmm(weights.expand(len(coefficients), -1, -1), coefficients)  # b 2 hidden
    summaries = split_heads(F.linear(both, key), num_heads)  # b h 2 d
    summaries = summaries / summaries.shape[-1] ** 0.5
    q = queries.to(summaries.dtype)
    if projection is None:
        return split_heads(q, num_heads) @ summaries.mT
    summaries = summaries @ projection.unflatten(0, (num_heads, -1))  # b h 2 hidden
    return (q @ summaries.flatten(1, 2).mT).unflatten(-1, (-1, 2)).transpose(1, 2)


def split_heads(x: Float[Tensor, "batch n hidden"], num_heads: int) -> Float[Tensor, "batch heads n d"]:
    """Give each head its slice of the hidden size (M8)."""
    return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)
