"""Keep the last n vectors as they are, and attend to those that answer best: an exact cache (M16), perfect recall.

A query reads z = W_O (g ⊙ softmax(K q/√d)ᵀ V), K = X W_K, V = X W_V, over the k vectors of X with the highest scores,
for each head alone; g = sigmoid(c), one gate per head, that begins at ½. Source: Memorizing Transformers (Wu et al.
2022, arXiv 2203.08913).

With a `compression_rate` c > 1, X are the slots of a compressive memory (M12), each made of c vectors: read here in a
branch of their own, which can begin at 0, and not by attention beside its tokens.

Departure: vectors are kept, and keys and values made of them when they are read, so that those of the past are by
today's weights; kept are n vectors where the paper keeps 2 n. Departure: what attention reads is not scaled by 1 − g.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from infty.memory.compressor import Compressor
from infty.memory.contract import Attend, HeadedConfig, Losses, Rows, Wanted
from infty.memory.equations import Heads, Hidden, Weight, join_heads, split_heads
from infty.memory.queue import QueueMemory, QueueState
from infty.memory.rows import mark_own, replace_rows, send


class CacheMemoryConfig(HeadedConfig):
    """Sizes of one cache (M16)."""

    kind: Literal["cache"] = Field(default="cache", description="the last vectors as they are, read by attention")
    num_slots: int = Field(gt=0, description="n, vectors kept")
    top_k: int | None = Field(default=None, gt=0, description="k, vectors that a query reads; null: all")
    compression_rate: int = Field(
        default=1,
        gt=0,
        exclude_if=lambda rate: rate == 1,
        description="c, vectors that become one that is kept (M12); 1: each is",
    )
    reconstruction_weight: float = Field(
        default=1.0,
        ge=0,
        exclude_if=lambda weight: weight == 1,
        description="weight of the attention-reconstruction loss, if c is above 1",
    )

    def build(self) -> "CacheMemory":
        """Build the memory of these sizes."""
        return CacheMemory(self)

    @property
    def slots(self) -> int:
        """Count the vectors kept of the past."""
        return self.num_slots

    @property
    def state_bytes(self) -> int:
        """Count the bytes of one stream's vectors, in float32."""
        return torch.float32.itemsize * self.num_slots * self.hidden_size

    @property
    def auxiliary_weights(self) -> dict[str, float]:
        """Name the reconstruction loss, with its weight, if vectors are compressed (M12)."""
        return {"reconstruction": self.reconstruction_weight} if self.compression_rate > 1 else {}


@dataclass(frozen=True)
class CachedKeys:
    """Keys and values of what a cache keeps (M16)."""

    keys: Heads
    values: Heads


class CacheMemory(QueueMemory):
    """The newest vectors that have left the short-term memory, read by attention (M16)."""

    def __init__(self, config: CacheMemoryConfig) -> None:
        super().__init__(config.num_slots, config.hidden_size)
        self.config, size = config, config.hidden_size
        self.key = nn.Linear(size, size, bias=False)
        self.value = nn.Linear(size, size, bias=False)
        self.output = nn.Linear(size, size, bias=False)
        self.gate = nn.Parameter(torch.zeros(config.num_heads))
        self.compress = Compressor(size, config.compression_rate) if config.compression_rate > 1 else None

    def advance(
        self, state: QueueState, evicted: Hidden, rows: Rows | None, attend: Attend
    ) -> tuple[QueueState, Losses]:
        """Append what left the short-term memory, compressed if c > 1 (M16). The loss is that of reconstruction (M12).

        Raises:
            RuntimeError: vmap or torch.export rewrites this with `rows`, compression and a gradient, and can't.
        """
        evicted = evicted.to(self.key.weight.dtype)
        if self.compress is None:
            return self.append(state, evicted, rows), {}
        fresh = self.compress.make_slots(evicted)
        return self.append(state, fresh, rows), self.compress.measure_loss(evicted, fresh, rows, attend)

    def initialise_graft(self, std: float, num_layers: int) -> None:
        """Make each slot the mean of its vectors, if they are compressed; the rest as of other memories."""
        super().initialise_graft(std, num_layers)
        if self.compress is not None:
            self.compress.start_as_mean()

    def prepare(self, state: QueueState) -> CachedKeys:
        """Make the keys and values that are read, once for a segment that is read in parts."""
        heads = self.config.num_heads
        return CachedKeys(split_heads(self.key(state.slots), heads), split_heads(self.value(state.slots), heads))

    def read(
        self,
        queries: Wanted,
        x: Hidden,
        state: QueueState,
        projection: Weight | None = None,
        prepared: CachedKeys | None = None,
    ) -> tuple[Wanted | None, QueueState, Losses]:
        """Read what is kept by attention (M16); None as long as no stream has anything, zeros of one that has not."""
        if not state.slots.shape[1]:
            return None, state, {}
        known, asked = prepared or self.prepare(state), split_heads(queries, self.config.num_heads)
        if state.filled is None:
            return self.output(join_heads(self.attend(asked, known))), state, {}

        # A row that has nothing attends to what is not its own, so that there are numbers, and reads zeros.
        own, empty = mark_own(state.slots, state.filled), state.filled == 0
        seen = send(own | empty[:, None], state.slots.device)[:, None, None]
        heads = self.attend(asked, known, seen)
        return self.output(join_heads(replace_rows(heads, empty, torch.zeros_like(heads)))), state, {}

    def attend(self, queries: Heads, known: CachedKeys, seen: Bool[Tensor, "batch 1 1 kept"] | None = None) -> Heads:
        """Attend to the best answers among what is seen, all if None, behind the gate (M16). Equals score as one."""
        best = self.config.top_k
        if best is not None and best < known.keys.shape[2]:
            with torch.no_grad():
                scores = queries @ known.keys.mT
                scores = scores if seen is None else scores.masked_fill(~seen, -torch.inf)
                chosen = scores >= scores.topk(best, -1).values[..., -1:]
            seen = chosen if seen is None else chosen & seen
        read = F.scaled_dot_product_attention(queries, known.keys, known.values, attn_mask=seen)
        return read * self.gate.sigmoid()[:, None, None]
