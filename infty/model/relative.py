"""Transformer-XL attention (Dai et al. 2019): relative positions over [cached, segment].

Sizes: b batch, t tokens of the segment, k keys (cached ones and the segment's), h heads, d head size.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

Hidden = Float[Tensor, "batch length hidden"]


@dataclass(frozen=True)
class ShortTermState:
    """Input hidden states of one layer for the tokens before this segment, oldest first, without gradient."""

    hidden: Float[Tensor, "batch cached hidden"]

    def split(self, length: int) -> tuple[Float[Tensor, "batch left hidden"], Float[Tensor, "batch kept hidden"]]:
        """What leaves a short-term memory of `length` tokens, and what stays in it."""
        left = max(self.hidden.shape[1] - length, 0)
        return self.hidden[:, :left], self.hidden[:, left:]


@dataclass(frozen=True)
class Positions:
    """What all layers share: R for falling distances, down to 0 (as many as may be needed), and the biases u, v."""

    encoding: Float[Tensor, "distances hidden"]
    content_bias: Float[Tensor, "h d"]
    position_bias: Float[Tensor, "h d"]


def sinusoidal_encoding(distances: Float[Tensor, " k"], size: int) -> Float[Tensor, "k size"]:
    """R: sines, then cosines, of each distance at wavelengths from 2π to 10,000·2π."""
    frequencies = 10_000 ** (-torch.arange(0, size, 2, dtype=distances.dtype, device=distances.device) / size)
    angles = distances[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], -1)


def relative_shift(scores: Float[Tensor, "b h t k"]) -> Float[Tensor, "b h t k"]:
    """Move row i left by t − 1 − i, so that column r (distance k − 1 − r) becomes key j of that distance.

    Entries of keys after the query are left over from neighbouring rows; the mask removes them.
    """
    b, h, t, k = scores.shape
    return F.pad(scores, (1, 0)).view(b, h, k + 1, t)[:, :, 1:].view(b, h, t, k)


class RelativeAttention(nn.Module):
    """score(i, j) = ((q_i + u)·k_j + (q_i + v)·W_R R_{i−j}) / √d, causal, over [cached, segment]."""

    def __init__(self, hidden_size: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(hidden_size, hidden_size, bias=False)
        self.key_value = nn.Linear(hidden_size, 2 * hidden_size, bias=False)
        self.position = nn.Linear(hidden_size, hidden_size, bias=False)
        self.output = nn.Linear(hidden_size, hidden_size, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "b t hidden"],
        cached: Float[Tensor, "b cached hidden"],
        positions: Positions,
    ) -> tuple[Float[Tensor, "b t hidden"], Float[Tensor, "b t hidden"]]:
        """What the segment reads, and its queries before the biases u and v are added."""
        queries = self.query(x)
        key, value = self.key_value(torch.cat([cached, x], 1)).chunk(2, -1)
        q, key, value = self.split_heads(queries), self.split_heads(key), self.split_heads(value)
        encoding = self.position(positions.encoding[-key.shape[2] :])  # k hidden
        encoding = encoding.unflatten(-1, (self.num_heads, -1)).permute(1, 2, 0)  # h d k
        scores = (q + positions.content_bias[:, None]) @ key.mT
        scores = scores + relative_shift((q + positions.position_bias[:, None]) @ encoding)  # b h t k
        t, k = scores.shape[-2:]
        future = torch.ones(t, k, dtype=torch.bool, device=x.device).triu(1 + k - t)
        weights = (scores * q.shape[-1] ** -0.5).masked_fill(future, -torch.inf).softmax(-1)
        context = self.dropout(weights) @ value  # b h t d
        return self.output(context.transpose(1, 2).flatten(-2)), queries

    def read_by_content(
        self, x: Float[Tensor, "b t hidden"], hidden: Float[Tensor, "b n hidden"]
    ) -> Float[Tensor, "b t hidden"]:
        """What x would read from `hidden` by content alone, with x and the projections held constant."""
        q = self.split_heads(F.linear(x.detach(), self.query.weight.detach()))
        key, value = F.linear(hidden, self.key_value.weight.detach()).chunk(2, -1)
        context = F.scaled_dot_product_attention(q, self.split_heads(key), self.split_heads(value))
        return context.transpose(1, 2).flatten(-2)

    def split_heads(self, x: Float[Tensor, "b n hidden"]) -> Float[Tensor, "b h n d"]:
        """One slice of the hidden size a head."""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
