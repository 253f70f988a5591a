"""Keep hidden states, keys and values of the tokens before: Transformer-XL's short-term memory (Dai et al. 2019)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from infty.memory.contract import Hidden, PerRow, Rows
from infty.memory.rows import concatenate_rows, visible
from infty.model.fast.growing import append


@dataclass(frozen=True)
class KeyValue:
    """Keys and values of some tokens, oldest first. Keys are held as columns, as products with queries need them."""

    key: Float[Tensor, "b h d n"]
    value: Float[Tensor, "b h n d"]

    @classmethod
    def concatenate(cls, *parts: "KeyValue") -> "KeyValue":
        """Put the keys and values of several groups of tokens one after the other."""
        return cls(torch.cat([part.key for part in parts], 3), torch.cat([part.value for part in parts], 2))

    def append(self, new: "KeyValue", room: int) -> "KeyValue":
        """Append those of more tokens, without a copy of what is there. room: for so many tokens at least."""
        return KeyValue(append(self.key, new.key, 3, room), append(self.value, new.value, 2, room))

    @classmethod
    def stack(cls, parts: Sequence["KeyValue"], length: int) -> "KeyValue":
        """Make one batch of those of several, with zeros before the oldest of each so that it has `length`."""
        keys = [F.pad(part.key, (length - part.key.shape[3], 0)) for part in parts]
        values = [F.pad(part.value, (0, 0, length - part.value.shape[2], 0)) for part in parts]
        return cls(torch.cat(keys), torch.cat(values))

    def make_zeros(self, rows: int, length: int) -> "KeyValue":
        """Make zeros of this kind for so many rows and tokens."""
        (_, heads, size, _), make = self.key.shape, self.key.new_zeros
        return KeyValue(make(rows, heads, size, length), make(rows, heads, length, size))

    def reorder(self, order: Int[Tensor, "b n"]) -> "KeyValue":
        """Put each row's tokens in another order."""
        key = self.key.gather(3, order[:, None, None].expand_as(self.key))
        return KeyValue(key, self.value.gather(2, order[:, None, :, None].expand_as(self.value)))

    def cut_windows(self, size: int, step: int) -> "KeyValue":
        """Cut out every window of `size` tokens at a multiple of `step`: rows of a batch, those of a text together."""
        key = self.key.unfold(3, size, step).permute(0, 3, 1, 2, 4)  # b windows h d size
        value = self.value.unfold(2, size, step).permute(0, 2, 1, 4, 3)
        return KeyValue(key.flatten(0, 1), value.flatten(0, 1))

    def drop(self, count: int) -> "KeyValue":
        """Leave out the oldest `count` tokens."""
        return KeyValue(self.key[..., count:], self.value[:, :, count:])


@dataclass(frozen=True)
class ShortTermState:
    """Input hidden states of one layer for the tokens before this segment, oldest first."""

    hidden: Float[Tensor, "batch cached hidden"]
    key_value: KeyValue | None = None  # by the current weights, if no gradient is needed; None: to be computed again
    filled: PerRow | None = None  # on the host: number of newest tokens that belong to each row's stream; None: all

    @classmethod
    def concatenate(cls, parts: Sequence["ShortTermState"]) -> "ShortTermState":
        """Concatenate the states of several batches, with keys and values if all parts have them."""
        hidden, filled = concatenate_rows([part.hidden for part in parts], [part.filled for part in parts])
        known = [part.key_value for part in parts if part.key_value]
        return cls(hidden, KeyValue.stack(known, hidden.shape[1]) if len(known) == len(parts) else None, filled)

    def fill(self, like: KeyValue | None) -> "ShortTermState":
        """Put zeros in the place of keys and values that are missing: for rows whose tokens nobody attends to."""
        if self.key_value or like is None:
            return self
        return replace(self, key_value=like.make_zeros(*self.hidden.shape[:2]))

    def trim(self) -> "ShortTermState":
        """Leave out the oldest tokens, as far as they are no row's own."""
        if self.filled is None:
            return self
        left = self.hidden.shape[1] - int(self.filled.max())
        kept = self.key_value and self.key_value.drop(left)
        whole = bool((self.filled == self.filled.max()).all())
        return ShortTermState(self.hidden[:, left:], kept, None if whole else self.filled)

    def drop(self, count: int) -> "ShortTermState":
        """Leave out the oldest `count` tokens, if all are every row's own."""
        return ShortTermState(self.hidden[:, count:], self.key_value and self.key_value.drop(count))

    def split(self, length: int | None) -> tuple[Hidden, Rows | None, "ShortTermState"]:
        """Separate what leaves a memory of `length` tokens, the rows that it belongs to (None: all), and what stays.

        length: None: nothing leaves.
        """
        left = 0 if length is None else max(self.hidden.shape[1] - length, 0)
        kept = self.key_value and self.key_value.drop(left)
        rows = None if self.filled is None else self.filled >= self.hidden.shape[1]
        filled = None if self.filled is None else self.filled.clamp(max=self.hidden.shape[1] - left)
        return self.hidden[:, :left], rows, ShortTermState(self.hidden[:, left:], kept, filled)

    def append(self, x: Hidden, key_value: KeyValue | None, room: int | None = None) -> "ShortTermState":
        """Append a segment, or a part of one; `key_value`: those of all tokens, these included.

        room: of a part, the number of tokens that there will be.
        """
        filled = None if self.filled is None else self.filled + x.shape[1]
        hidden = torch.cat([self.hidden, x], 1) if room is None else append(self.hidden, x, 1, room)
        whole = filled is None or bool((filled >= hidden.shape[1]).all())
        return ShortTermState(hidden, key_value, None if whole else filled)

    def detach(self) -> "ShortTermState":
        """Cut it from its graph; keys and values are kept only if there is none."""
        return replace(self, hidden=self.hidden.detach())

    def reset(self, rows: Rows) -> "ShortTermState":
        """Forget everything in the marked rows: a new document begins there."""
        return replace(self, filled=visible(self.hidden, self.filled).masked_fill(rows, 0))
