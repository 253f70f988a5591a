"""Keep what leaves the short-term memory at a lower rate, first in, first out: the compressive memory (M12)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, assert_never

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from infty.memory.contract import Attend, ExtraKeys, KnockOut, Losses, Memory, MemoryConfig, MemoryState, PerRow, Rows
from infty.memory.equations import Hidden, reconstruction_loss
from infty.memory.precision import HOST, full_precision
from infty.memory.rows import (
    concatenate_rows,
    draw_fixed_numbers,
    exchange_halves,
    mark_own,
    replace_rows,
    send,
    visible,
)
from infty.memory.transforms import holds, is_transformed

Slots = Float[Tensor, "batch slots hidden"]


class CompressiveMemoryConfig(MemoryConfig):
    """Sizes of one compressive memory (M12)."""

    kind: Literal["compressive"] = Field(
        default="compressive", description="the Compressive Transformer's memory (Rae et al. 2019)"
    )
    hidden_size: int = Field(gt=0, description="E")
    num_slots: int = Field(gt=0, description="compressed vectors kept")
    compression_rate: int = Field(gt=0, description="c, vectors that become one slot")
    reconstruction_weight: float = Field(default=1.0, ge=0, description="weight of the attention-reconstruction loss")

    def build(self) -> "CompressiveMemory":
        """Build the memory of these sizes."""
        return CompressiveMemory(self)

    @property
    def slots(self) -> int:
        """Count the vectors kept of the past: the slots."""
        return self.num_slots

    @property
    def state_bytes(self) -> int:
        """Count the bytes of all slots of one stream, in float32."""
        return torch.float32.itemsize * self.num_slots * self.hidden_size

    @property
    def most_extra_keys(self) -> int:
        """Count the vectors that attention reads at most beside its own: the slots."""
        return self.num_slots

    @property
    def auxiliary_weights(self) -> dict[str, float]:
        """Name the reconstruction loss, with its weight."""
        return {"reconstruction": self.reconstruction_weight}


@dataclass(frozen=True)
class CompressedState(MemoryState):
    """Compressed vectors (M12), oldest first, in the precision and on the device of the weights."""

    slots: Slots  # as many as there are so far, at most `num_slots`
    filled: PerRow | None = None  # how many of them, the newest, each stream may see; None: all

    @classmethod
    def concatenate(cls, parts: Sequence["CompressedState"]) -> "CompressedState":
        """Make one state of those of several batches; their rows follow each other."""
        return cls(*concatenate_rows([part.slots for part in parts], [part.filled for part in parts]))

    @classmethod
    def interleave(cls, parts: Sequence["CompressedState"]) -> "CompressedState":
        """Make one batch of a batch's states at several times, those of a row one after the other."""
        whole, times = cls.concatenate(parts), (len(parts), -1)
        filled = None if whole.filled is None else whole.filled.unflatten(0, times).T.flatten()
        return cls(whole.slots.unflatten(0, times).transpose(0, 1).flatten(0, 1), filled)

    def reset(self, rows: Rows, seeds: PerRow | None = None) -> "CompressedState":
        """Forget everything in the marked rows: a new document begins there. `seeds` are unused."""
        return replace(self, filled=visible(self.slots, self.filled).masked_fill(rows, 0))


class CompressiveMemory(Memory[CompressedState]):
    """Compression by a 1-D convolution with kernel = stride = c (M12, Rae et al. 2019); attention reads its slots."""

    state_type = CompressedState
    reads = False  # but attention does, through `extra_keys`

    def __init__(self, config: CompressiveMemoryConfig) -> None:
        super().__init__()
        self.config, size, c = config, config.hidden_size, config.compression_rate
        self.compress = nn.Conv1d(size, size, kernel_size=c, stride=c)

    def initial_state(self, batch: int, seeds: PerRow | None = None) -> CompressedState:
        """Make an empty memory (M12) for `batch` streams: no slot yet. `seeds` are unused."""
        return CompressedState(self.compress.weight.new_zeros(batch, 0, self.config.hidden_size))

    def advance(
        self, state: CompressedState, evicted: Hidden, rows: Rows | None, attend: Attend
    ) -> tuple[CompressedState, Losses]:
        """Compress what left, and append it. The loss of reconstruction is 0 of streams outside `rows`.

        Raises:
            RuntimeError: vmap or torch.export rewrites this with `rows` and a gradient, and can't.
        """
        fresh = self.make_slots(evicted)
        after = self.append(state, fresh, rows)
        if not torch.is_grad_enabled() or not fresh.shape[0]:
            return after, {}
        if rows is not None and is_transformed():
            raise RuntimeError(
                "vmap and torch.export can't tell which rows a compressive memory's loss is of: give all rows (None), "
                "or no gradient (torch.no_grad)"
            )
        if rows is not None and not holds(rows.any(), unknown=False):
            return after, {}
        own = slice(None) if rows is None else send(rows.nonzero()[:, 0], evicted.device)  # whose the vectors are
        if evicted.requires_grad:  # the loss is the compressor's own, and not that of earlier segments
            fresh = self.make_slots(evicted.detach())
        loss = reconstruction_loss(lambda vectors: attend(own, vectors), evicted[own], fresh[own])
        return after, {"reconstruction": loss * (fresh[own].shape[0] / fresh.shape[0])}  # the others count as 0

    def extra_keys(self, state: CompressedState) -> ExtraKeys | None:
        """Give the slots that there are so far."""
        return ExtraKeys(state.slots, state.filled) if state.slots.shape[1] else None

    def knock_out(self, state: CompressedState, kind: KnockOut) -> CompressedState:
        """Make the slots that are read in the place of the true ones; in another order a row's own still come last."""
        match kind:
            case "zero":
                return state.reset(torch.ones(state.slots.shape[0], dtype=torch.bool, device=HOST))
            case "shuffle":
                count, own = state.slots.shape[1], mark_own(state.slots, state.filled)
                places = torch.arange(count, device=HOST)
                order = torch.where(own, draw_fixed_numbers(count), places - count).argsort(1)
                chosen = send(order, state.slots.device)[..., None].expand_as(state.slots)
                return replace(state, slots=state.slots.gather(1, chosen))
            case "other":
                filled = None if state.filled is None else exchange_halves(state.filled)
                return CompressedState(exchange_halves(state.slots), filled)
            case _:
                assert_never(kind)

    def initialise_graft(self, std: float, num_layers: int) -> None:
        """Make each slot the mean of its vectors. Departure: trained attention can't read what N(0, std²) makes."""
        super().initialise_graft(std, num_layers)
        rate, identity = self.config.compression_rate, torch.eye(self.config.hidden_size)
        assert self.compress.bias is not None
        with torch.no_grad():
            self.compress.weight.copy_(identity[..., None].expand(-1, -1, rate) / rate)
            nn.init.zeros_(self.compress.bias)

    def make_slots(self, evicted: Hidden) -> Slots:
        """Compress what left the short-term memory c : 1 into ⌈length / c⌉ slots (M12)."""
        # Equal to equations.compress: tests/memory/test_compressive.py::test_a_slot_is_a_weighted_sum_of_its_window.
        missing = -evicted.shape[1] % self.config.compression_rate
        with full_precision(evicted.device, convolutions=True):
            return self.compress(F.pad(evicted, (0, 0, missing, 0)).mT).mT

    def append(self, state: CompressedState, slots: Slots, rows: Rows | None = None) -> CompressedState:
        """Append new slots, and drop the oldest beyond `num_slots` (M12). Rows that are not marked stay as they are."""
        kept = torch.cat([state.slots, slots], 1)[:, -self.config.num_slots :]
        if rows is None and state.filled is None:
            return CompressedState(kept)
        more = slots.shape[1]
        if rows is not None:  # a row that isn't marked has the new ones where it doesn't see them: before its own
            others = torch.cat([slots, state.slots], 1)[:, -self.config.num_slots :]
            kept, more = replace_rows(others, rows, kept), more * rows
        return CompressedState(kept, (visible(state.slots, state.filled) + more).clamp(max=kept.shape[1]))
