"""Keep hidden states, keys and values of the tokens before: Transformer-XL's short-term memory (Dai et al. 2019)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from infty.memory.contract import Hidden, PerRow, Rows
from infty.memory.rows import concatenate_rows, visible


@dataclass(frozen=True)
class KeyValue:
    """Keys and values of some tokens, oldest first. Keys are held as columns, as products with queries need them."""

    key: Float[Tensor, "b h d n"]
    value: Float[Tensor, "b h n d"]

    @classmethod
    def concatenate(cls, *parts: "KeyValue") -> "KeyValue":
        """Put the keys and values of several groups of tokens one after the other."""
        return cls(torch.cat([part.key for part in parts], 3), torch.cat([part.value for part in parts], 2))


@dataclass(frozen=True)
class ShortTermState:
    """Input hidden states of one layer for the tokens before this segment, oldest first, without gradient."""

    hidden: Float[Tensor, "batch cached hidden"]
    key_value: KeyValue | None = None  # by the current weights, if no gradient is needed; None: to be computed again
    filled: PerRow | None = None  # number of newest tokens that belong to each row's stream; None: all

    @classmethod
    def concatenate(cls, parts: Sequence["ShortTermState"]) -> "ShortTermState":
        """Concatenate the states of several batches; keys and values are left out, to be computed again."""
        hidden, filled = concatenate_rows([part.hidden for part in parts], [part.filled for part in parts])
        return cls(hidden, filled=filled)

    def split(self, length: int) -> tuple[Hidden, Rows | None, "ShortTermState"]:
        """Separate what leaves a memory of `length` tokens, the rows that it belongs to (None: all), and what stays."""
        left = max(self.hidden.shape[1] - length, 0)
        kept = self.key_value and KeyValue(self.key_value.key[..., left:], self.key_value.value[:, :, left:])
        rows = None if self.filled is None else self.filled >= self.hidden.shape[1]
        filled = None if self.filled is None else self.filled.clamp(max=self.hidden.shape[1] - left)
        return self.hidden[:, :left], rows, ShortTermState(self.hidden[:, left:], kept, filled)

    def append(self, x: Hidden, key_value: KeyValue | None) -> "ShortTermState":
        """Append a segment; `key_value`: those of all tokens, the segment's included."""
        filled = None if self.filled is None else self.filled + x.shape[1]
        hidden = torch.cat([self.hidden, x], 1)
        whole = filled is None or bool((filled >= hidden.shape[1]).all())
        return ShortTermState(hidden, key_value, None if whole else filled)

    def reset(self, rows: Rows) -> "ShortTermState":
        """Forget everything in the marked rows: a new document begins there."""
        return replace(self, filled=visible(self.hidden, self.filled).masked_fill(rows, 0))
