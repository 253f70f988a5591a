"""Begin the gates of memories that forget (M13 to M15)."""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def spread_half_lives(count: int, shortest: int, octaves: int = 4) -> Float[Tensor, " count"]:
    """Place a bias for each of several gates (M13 to M15), so that sigmoid(bias) halves in times spread over octaves.

    shortest: the least of the half-lives, in vectors. The others are evenly spread in their logarithm, up to 2^octaves
    times as long: a memory that begins with one rate for all would have to learn which of its parts are to be slow.
    """
    half_lives = shortest * 2 ** torch.linspace(0, octaves, count, dtype=torch.float64)
    return torch.logit(torch.exp(-math.log(2) / half_lives)).to(torch.get_default_dtype())
