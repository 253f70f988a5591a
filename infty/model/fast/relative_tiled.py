"""Attend with relative positions (Dai et al. 2019) in tiles of queries and keys: only one tile's scores are held.

Forward and backward make a tile's weights, use them and forget them, so that memory does not grow with t · k.
`relative_attention.attend_plainly` is the same written plainly.

The shift costs nothing: the position scores of n queries are made for the falling distances w − 1 … 0 to w keys and
for one extra column, as n × (w + 1) contiguous numbers. Read from place n − 1 on as n × w, they hold at (i, j) the
score of query i for its distance to key j (here n = 2, w = 4, digits are distances, x is the extra column):

    made   3 2 1 0 x 3 2 1 0 x     read from place 1   2 1 0 x    query 0: the last key is its future
                                                       3 2 1 0    query 1
"""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from infty.memory.fast.tiling import items_at_once, pieces
from infty.memory.precision import without_autocast
from infty.memory.rows import send

QUERIES = 128  # rows of a tile
Asked = Float[Tensor, "b h t d"]  # of the t tokens that attend
Keys = Float[Tensor, "b h d k"]
Values = Float[Tensor, "b h k d"]
Encoding = Float[Tensor, "h d places"]  # k + 1 of them
Unseen = Int[Tensor, " b"]


def attend_in_tiles(
    content: Asked, position: Asked, key: Keys, value: Values, encoding: Encoding, unseen: Unseen | None = None
) -> Asked:
    """Compute Σ_j softmax_j(content_i·k_j + position_i·r_{i−j}) v_j for the last t of k tokens, causally.

    encoding: r of distances k − 1 … 0, and one unread column. unseen: how many of the oldest keys a row does not see.
    """
    # Equal to attend_plainly:
    # tests/model/fast/test_relative_tiled.py::test_equals_the_plain_equation_in_value_and_gradient.

    # One item per row and head; all rows share the encoding.
    (b, heads, *_), dtype = key.shape, key.dtype
    hidden = None if unseen is None else _mask_unseen(unseen, key)
    encoding = encoding.to(dtype).repeat(b, 1, 1)  # i d k+1, with i = b · h

    # In the precision of the keys: autocast would round the sums over tiles.
    with without_autocast(key.device):
        read = _Attention.apply(
            content.to(dtype).flatten(0, 1),
            position.to(dtype).flatten(0, 1),
            key.flatten(0, 1).contiguous(),
            value.to(dtype).flatten(0, 1).contiguous(),
            encoding,
            hidden,
        )
    return read.unflatten(0, (b, heads))


class _Attention(torch.autograd.Function):
    """Sizes: i items (b · h), t queries, k keys, d head size; in a tile n queries and w keys."""

    @staticmethod
    def forward(
        ctx: Any, content: Tensor, position: Tensor, key: Tensor, value: Tensor, encoding: Tensor, hidden: Tensor | None
    ) -> Tensor:
        read, future = torch.empty_like(content), _future(content)
        for items, rows, keys, distances in _tiles(content, key):
            k, r = key[items, :, keys], encoding[items, :, distances]
            weights = _weights(content[items, rows], position[items, rows], k, r, future, hidden, items)
            read[items, rows] = torch.bmm(weights, value[items, keys])
        ctx.save_for_backward(content, position, key, value, encoding, hidden, read)
        return read

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        content, position, key, value, encoding, hidden, read = ctx.saved_tensors
        value = value.mT.contiguous()  # i d k: products are quicker this way round
        to_content, to_position = torch.empty_like(content), torch.empty_like(position)
        exact = torch.promote_types(key.dtype, torch.float32)  # for sums over many tiles
        to_key, to_value, to_encoding = (torch.zeros_like(x, dtype=exact) for x in (key, value, encoding))
        future = _future(content)
        mean = (gradient * read).sum(-1, keepdim=True)  # Σ_j weight_j · d loss / d weight_j
        for items, rows, keys, distances in _tiles(content, key):
            c, p, g = content[items, rows], position[items, rows], gradient[items, rows]
            k, r = key[items, :, keys], encoding[items, :, distances]
            weights = _weights(c, p, k, r, future, hidden, items)
            to_value[items, :, keys] += torch.bmm(g.mT, weights)
            to_weights = torch.bmm(g, value[items, :, keys])
            to_made, to_scores = _make_room(to_weights)
            torch.mul(to_weights.sub_(mean[items, rows]), weights, out=to_scores)
            to_content[items, rows] = torch.bmm(to_scores, k.mT)
            to_key[items, :, keys] += torch.bmm(c.mT, to_scores)
            to_position[items, rows] = torch.bmm(to_made, r.mT)
            to_encoding[items, :, distances] += torch.bmm(p.mT, to_made)
        return to_content, to_position, to_key.to(key), to_value.mT.to(key), to_encoding.to(key), None


def _tiles(content: Tensor, key: Tensor) -> Iterator[tuple[slice, slice, slice, slice]]:
    """Yield the items, the queries, the keys that these see, and the distances to them, of each tile."""
    (items, t, _), k = content.shape, key.shape[-1]
    for rows in pieces(t, QUERIES):
        seen = k - t + rows.stop
        scores = 2 * (rows.stop - rows.start) * seen  # by content and by position
        for part in pieces(items, items_at_once(scores, key.device)):
            yield part, rows, slice(0, seen), slice(k - seen, k + 1)


def _future(content: Tensor) -> Tensor:
    """Make the mask that is added to the scores of a tile's own keys: −∞ for those after the query."""
    n = min(content.shape[1], QUERIES)
    return torch.full((n, n), -torch.inf, dtype=content.dtype, device=content.device).triu(1)


def _mask_unseen(unseen: Tensor, key: Tensor) -> Tensor:
    """Make the mask that is added to the scores, i 1 k: −∞ for the keys that a row does not see."""
    _, heads, _, k = key.shape
    hidden = torch.zeros(len(unseen), k, dtype=key.dtype, device=key.device)
    hidden.masked_fill_(torch.arange(k, device=key.device) < send(unseen, key.device)[:, None], -torch.inf)
    return hidden.repeat_interleave(heads, 0)[:, None]


def _weights(
    content: Tensor, position: Tensor, key: Tensor, encoding: Tensor, future: Tensor, hidden: Tensor | None, part: slice
) -> Tensor:
    """Compute attention weights of a tile, i n w."""
    n, w = content.shape[1], key.shape[2]
    scores = torch.bmm(content, key)
    scores += _shift(torch.bmm(position, encoding))
    if hidden is not None:
        scores += hidden[part, :, :w]
    scores[..., w - n :] += future[:n, :n]
    return torch.softmax(scores, -1, out=scores)


def _shift(made: Tensor) -> Tensor:
    """View `made`, i n w+1, as the scores that keys want, i n w."""
    _, n, wide = made.shape
    return made.flatten(1)[:, n - 1 : n - 1 + n * (wide - 1)].unflatten(1, (n, wide - 1))


def _make_room(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Make an array, i n w+1, that is zero outside of its view by `_shift`; and that view, to be filled."""
    items, n, w = scores.shape
    made = scores.new_empty(items, n, w + 1)
    flat = made.flatten(1)
    flat[:, : n - 1] = 0
    flat[:, n - 1 + n * w :] = 0
    return made, _shift(made)
