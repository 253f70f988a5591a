"""Keep what leaves the short-term memory at a lower rate, first in, first out: the compressive memory (M12)."""

from typing import Literal

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from infty.memory.contract import Attend, ExtraKeys, Losses, MemoryConfig, Rows
from infty.memory.equations import Hidden, reconstruction_loss
from infty.memory.precision import full_precision
from infty.memory.queue import QueueMemory, QueueState, Slots
from infty.memory.rows import send
from infty.memory.transforms import holds, is_transformed


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


class CompressiveMemory(QueueMemory):
    """Compression by a 1-D convolution with kernel = stride = c (M12, Rae et al. 2019); attention reads its slots."""

    reads = False  # but attention does, through `extra_keys`

    def __init__(self, config: CompressiveMemoryConfig) -> None:
        super().__init__(config.num_slots, config.hidden_size)
        self.config, size, c = config, config.hidden_size, config.compression_rate
        self.compress = nn.Conv1d(size, size, kernel_size=c, stride=c)

    def advance(
        self, state: QueueState, evicted: Hidden, rows: Rows | None, attend: Attend
    ) -> tuple[QueueState, Losses]:
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

    def extra_keys(self, state: QueueState) -> ExtraKeys | None:
        """Give the slots that there are so far."""
        return ExtraKeys(state.slots, state.filled) if state.slots.shape[1] else None

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
