"""Compressive memory (Rae et al. 2019): what leaves the short-term memory, at a lower rate, first in first out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional as F

from infty.memory.precision import full_precision
from infty.memory.ragged import joined, visible

Hidden = Float[Tensor, "batch length hidden"]
Slots = Float[Tensor, "batch slots hidden"]


class CompressiveMemoryConfig(BaseModel):
    """Sizes of one compressive memory (Rae et al. 2019)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    kind: Literal["compressive"] = Field(
        default="compressive", description="the Compressive Transformer's memory (Rae et al. 2019)"
    )
    hidden_size: int = Field(gt=0, description="E")
    num_slots: int = Field(gt=0, description="compressed vectors kept")
    compression_rate: int = Field(gt=0, description="c, vectors that become one slot")
    reconstruction_weight: float = Field(default=1.0, ge=0, description="weight of the attention-reconstruction loss")

    @property
    def slots(self) -> int:
        """Vectors kept of the past, to compare memories of other kinds by."""
        return self.num_slots

    @property
    def auxiliary_weights(self) -> dict[str, float]:
        """Named losses of this memory and their weights."""
        return {"reconstruction": self.reconstruction_weight}


@dataclass(frozen=True)
class CompressedState:
    """Compressed vectors (Rae et al. 2019), oldest first; as many as there are so far, at most `num_slots`.

    slots: those vectors, in the precision and on the device of the weights.
    filled: how many of them, the newest, each stream may see; None: all.
    """

    slots: Slots
    filled: Int[Tensor, " batch"] | None = None

    @classmethod
    def joined(cls, parts: Sequence["CompressedState"]) -> "CompressedState":
        """States of several batches as that of one."""
        return cls(*joined([part.slots for part in parts], [part.filled for part in parts]))

    def detach(self) -> "CompressedState":
        """The state to keep: no gradient flows into earlier segments."""
        return replace(self, slots=self.slots.detach())

    def reset(self, rows: Bool[Tensor, " batch"], seeds: Int[Tensor, " batch"] | None = None) -> "CompressedState":
        """Forget everything in the marked rows: a new document begins there. `seeds` are unused."""
        return replace(self, filled=visible(self.slots, self.filled).masked_fill(rows, 0))

    def emptied(self) -> "CompressedState":
        """The memory of streams that nothing has left yet."""
        return self.reset(torch.ones(len(self.slots), dtype=torch.bool, device=self.slots.device))

    def exchanged(self) -> "CompressedState":
        """Streams of the first half of the rows with what those of the second half remember, and vice versa."""
        half = len(self.slots) // 2
        return CompressedState(self.slots.roll(half, 0), None if self.filled is None else self.filled.roll(half, 0))


class CompressiveMemory(nn.Module):
    """Compression by a 1-D convolution with kernel = stride = c, one of the functions of Rae et al. 2019.

    State goes in and comes out; the module holds parameters only. What is read from the slots is up to attention.
    """

    def __init__(self, config: CompressiveMemoryConfig) -> None:
        super().__init__()
        self.config = config
        c = config.compression_rate
        self.compress = nn.Conv1d(config.hidden_size, config.hidden_size, kernel_size=c, stride=c)

    def initial_state(self, batch: int, seeds: Int[Tensor, " batch"] | None = None) -> CompressedState:
        """An empty memory (Rae et al. 2019) for `batch` streams: no slot yet. `seeds` are unused."""
        return CompressedState(self.compress.weight.new_zeros(batch, 0, self.config.hidden_size))

    def compressed(self, evicted: Hidden) -> Slots:
        """Compress what left the short-term memory c : 1 (Rae et al. 2019), into ⌈length / c⌉ slots.

        Where c does not divide the length, the oldest window begins with zeros.
        """
        missing = -evicted.shape[1] % self.config.compression_rate
        with full_precision(evicted.device):
            return self.compress(F.pad(evicted, (0, 0, missing, 0)).mT).mT

    def update(
        self, state: CompressedState, slots: Slots, rows: Bool[Tensor, " batch"] | None = None
    ) -> CompressedState:
        """Append new slots and drop the oldest beyond `num_slots`, first in, first out (Rae et al. 2019).

        In rows that are not marked the new ones stay unseen; `rows` None: all are updated.
        """
        kept = torch.cat([state.slots, slots], 1)[:, -self.config.num_slots :]
        if rows is None and state.filled is None:
            return CompressedState(kept)
        more = slots.shape[1] if rows is None else slots.shape[1] * rows
        return CompressedState(kept, (visible(state.slots, state.filled) + more).clamp(max=kept.shape[1]))


def reconstruction_loss(attend: Callable[[Hidden], Hidden], evicted: Hidden, slots: Slots) -> Float[Tensor, ""]:
    """Attention-reconstruction loss (Rae et al. 2019): how far a read of the slots is from one of the evicted vectors.

    It is the mean squared difference between what is read from the one and from the other.

    `attend` maps the vectors to look at to what a segment reads from them; its own parameters and
    queries must be constants, so that this loss trains the compressor only.
    """
    return F.mse_loss(attend(slots), attend(evicted).detach())
