"""Keep what leaves the short-term memory at a lower rate, first in, first out: the compressive memory (M12)."""

from typing import Literal

import torch
from pydantic import Field

from infty.memory.compressor import Compressor
from infty.memory.contract import Attend, ExtraKeys, Losses, MemoryConfig, Rows
from infty.memory.equations import Hidden
from infty.memory.queue import QueueMemory, QueueState


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
    def has_output(self) -> bool:
        """False: attention reads the slots, through its own output."""
        return False

    @property
    def auxiliary_weights(self) -> dict[str, float]:
        """Name the reconstruction loss, with its weight."""
        return {"reconstruction": self.reconstruction_weight}


class CompressiveMemory(QueueMemory):
    """Compression by a 1-D convolution with kernel = stride = c (M12, Rae et al. 2019); attention reads its slots."""

    reads = False  # but attention does, through `extra_keys`

    def __init__(self, config: CompressiveMemoryConfig) -> None:
        super().__init__(config.num_slots, config.hidden_size)
        self.config = config
        self.compress = Compressor(config.hidden_size, config.compression_rate)

    def advance(
        self, state: QueueState, evicted: Hidden, rows: Rows | None, attend: Attend
    ) -> tuple[QueueState, Losses]:
        """Compress what left, and append it. The loss is that of reconstruction.

        Raises:
            RuntimeError: vmap or torch.export rewrites this with `rows` and a gradient, and can't.
        """
        fresh = self.compress.make_slots(evicted)
        return self.append(state, fresh, rows), self.compress.measure_loss(evicted, fresh, rows, attend)

    def extra_keys(self, state: QueueState) -> ExtraKeys | None:
        """Give the slots that there are so far."""
        return ExtraKeys(state.slots, state.filled) if state.slots.shape[1] else None

    def initialise_graft(self, std: float, num_layers: int) -> None:
        """Make each slot the mean of its vectors. Departure: trained attention can't read what N(0, std²) makes."""
        super().initialise_graft(std, num_layers)
        self.compress.start_as_mean()
