"""Attend with relative positions over [cached, segment]: Transformer-XL attention (Dai et al. 2019).

Sizes: b batch, t tokens that attend, k keys (cached ones and the segment's), h heads, d head size.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from infty.memory.contract import Chosen, Hidden
from infty.memory.equations import join_heads, split_heads
from infty.memory.precision import are_products_rounded
from infty.memory.rows import send
from infty.memory.transforms import is_transformed
from infty.model.fast.dropout import Dropout
from infty.model.fast.relative_fused import AVAILABLE, attend_in_kernels
from infty.model.fast.relative_tiled import Asked, Encoding, Unseen, attend_in_tiles
from infty.model.short_term import KeyValue

Bias = Float[Tensor, "h d"]


@dataclass(frozen=True)
class Positions:
    """Positions that every segment of a step shares in one layer."""

    encoding: Encoding  # W_R R: a column per distance, from the largest possible one down to 0, then one of zeros
    content_bias: Bias
    position_bias: Bias


def sinusoidal_encoding(distances: Float[Tensor, " k"], size: int) -> Float[Tensor, "k size"]:
    """Make R: sines, then cosines, of each distance at wavelengths from 2π to 10,000·2π."""
    frequencies = 10_000 ** (-torch.arange(0, size, 2, dtype=distances.dtype, device=distances.device) / size)
    angles = distances[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], -1)


def relative_shift(scores: Float[Tensor, "b h t k"]) -> Float[Tensor, "b h t k"]:
    """Move row i left by t − 1 − i, so that column r (distance k − 1 − r) moves to the key j at that distance.

    Entries for keys after the query come from neighbouring rows; the mask removes them.
    """
    b, h, t, k = scores.shape
    return F.pad(scores, (1, 0)).view(b, h, k + 1, t)[:, :, 1:].view(b, h, t, k)


def attend_plainly(
    content: Asked,
    position: Asked,
    seen: KeyValue,
    encoding: Encoding,
    dropout: nn.Module,
    unseen: Unseen | None = None,
) -> Asked:
    """Attend as the equation is written, all scores at once, with `dropout` on the weights: the reference for tiles."""
    scores = content @ seen.key + relative_shift(position @ encoding[..., :-1])  # b h t k
    t, k = scores.shape[2:]
    hidden = torch.ones(t, k, dtype=torch.bool, device=scores.device).triu(1 + k - t)
    if unseen is not None:
        own = send(unseen, scores.device)[:, None]
        hidden = hidden | (torch.arange(k, device=scores.device) < own)[:, None, None]  # b 1 t k
    return dropout(scores.masked_fill(hidden, -torch.inf).softmax(-1)) @ seen.value


class RelativeAttention(nn.Module):
    """Attention with scores ((q_i + u)·k_j + (q_i + v)·W_R R_{i−j}) / √d, causal, over [cached, segment]."""

    def __init__(self, hidden_size: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(hidden_size, hidden_size, bias=False)
        self.key_value = nn.Linear(hidden_size, 2 * hidden_size, bias=False)
        self.position = nn.Linear(hidden_size, hidden_size, bias=False)
        self.output = nn.Linear(hidden_size, hidden_size, bias=False)
        self.dropout = Dropout(dropout)

    def forward(self, queries: Hidden, seen: KeyValue, positions: Positions, unseen: Unseen | None = None) -> Hidden:
        """Attend to `seen` from its last t tokens; queries lack u, v. unseen: number of oldest keys a row can't see."""
        q = split_heads(queries, self.num_heads).contiguous()  # once, not for content and for position
        scale = q.shape[-1] ** -0.5
        content = torch.add(positions.content_bias[:, None] * scale, q, alpha=scale)
        position = torch.add(positions.position_bias[:, None] * scale, q, alpha=scale)
        encoding = positions.encoding[..., -seen.key.shape[-1] - 1 :]
        alone = queries.shape[1] == 1  # needs no tiles, and no copy of the keys for them
        if alone or (self.training and self.dropout.p) or is_transformed():
            context = attend_plainly(content, position, seen, encoding, self.dropout, unseen)
        else:  # kernels' products are rounded, and quick for that
            attend = attend_in_kernels if AVAILABLE and are_products_rounded(seen.key) else attend_in_tiles
            context = attend(content, position, seen.key, seen.value, encoding, unseen)
        return self.output(join_heads(context))

    def key_values(self, hidden: Hidden) -> KeyValue:
        """Make keys and values of hidden states."""
        key, value = self.key_value(hidden).chunk(2, -1)
        return KeyValue(split_heads(key, self.num_heads).mT, split_heads(value, self.num_heads))

    def positions(
        self, encoding: Float[Tensor, "distances hidden"], content_bias: Bias, position_bias: Bias
    ) -> Positions:
        """Make this layer's positions from R and the biases u, v."""
        projected = self.position(encoding).unflatten(-1, (self.num_heads, -1)).permute(1, 2, 0)
        return Positions(F.pad(projected, (0, 1)), content_bias, position_bias)

    def read_by_content(
        self, x: Hidden, rows: Chosen, vectors: Float[Tensor, "some n hidden"]
    ) -> Float[Tensor, "some length hidden"]:
        """Read `vectors` as some rows of x would by content alone, with x and the projections held constant."""
        query = F.linear(x[rows].detach(), self.query.weight.detach())
        key, value = F.linear(vectors, self.key_value.weight.detach()).chunk(2, -1)
        q, k, v = (split_heads(part, self.num_heads) for part in (query, key, value))
        return join_heads(F.scaled_dot_product_attention(q, k, v))
