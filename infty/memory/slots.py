"""Keep N slots of a key and a value per head, each of which forgets at its own rate: gated slot attention (M15).

K_i ← a_i K_i + (1 − a_i) k, V_i ← a_i V_i + (1 − a_i) v for each slot i and each vector x that leaves, with k = W_K x,
v = W_V x and a = sigmoid(W_a x + c_a), a rate per head and slot. A query reads z = W_O softmax(K q/√d)ᵀ V: attention
over the slots. Source: Gated Slot Attention (Zhang et al. 2024, arXiv 2409.07146).

Departure: keys, values and rates are projections of the layer's input alone, without SiLU; queries are the layer's own,
as all memories here have them. Departure: in the place of the exponent 1/8 on a, which keeps it near 1, slots begin
with half-lives from one segment to sixteen.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from infty.memory.contract import HeadedConfig, Losses, PerRow, Wanted
from infty.memory.equations import Heads, Hidden, Weight, join_heads, split_heads
from infty.memory.gates import spread_half_lives
from infty.memory.summary import SummaryMemory, SummaryPart, SummaryState

Slots = Float[Tensor, "batch heads slots d"]
Decays = Float[Tensor, "batch heads n slots"]


def fill_slots(slots: Slots, vectors: Heads, log_decay: Decays) -> Slots:
    """Take vectors into slots one by one: K_i ← a_i K_i + (1 − a_i) k (M15), with ln a given."""
    for vector, decay in zip(vectors.unbind(2), log_decay.exp().unbind(2), strict=True):
        slots = decay[..., None] * slots + (1 - decay)[..., None] * vector[:, :, None]
    return slots


class SlotMemoryConfig(HeadedConfig):
    """Sizes of one memory of slots (M15)."""

    kind: Literal["slots"] = Field(default="slots", description="N keys and values per head: gated slot attention")
    segment_length: int = Field(gt=0, description="L, the shortest half-life that slots begin with")
    num_slots: int = Field(gt=0, description="N, each a key and a value: 2 N vectors")

    def build(self) -> "SlotMemory":
        """Build the memory of these sizes."""
        return SlotMemory(self)

    @property
    def slots(self) -> int:
        """Count the slots kept of the past. Each has two vectors, a key and a value."""
        return self.num_slots

    @property
    def state_bytes(self) -> int:
        """Count the bytes of one stream's keys and values, in float32."""
        return torch.float32.itemsize * 2 * self.num_slots * self.hidden_size


@dataclass(frozen=True)
class SlotState(SummaryState):
    """Keys and values of each stream's slots (M15)."""

    keys: Slots
    values: Slots


@dataclass(frozen=True)
class SlotPart(SummaryPart):
    """Keys and values that vectors bring, and what is left of those before (M15)."""

    kept: Float[Tensor, "batch heads slots 1"]
    keys: Slots
    values: Slots


class SlotMemory(SummaryMemory[SlotState, SlotPart]):
    """Slots that forget at rates of their own, read by attention (M15)."""

    state_type = SlotState

    def __init__(self, config: SlotMemoryConfig) -> None:
        super().__init__()
        c = self.config = config
        self.key = nn.Linear(c.hidden_size, c.hidden_size, bias=False)
        self.value = nn.Linear(c.hidden_size, c.hidden_size, bias=False)
        self.output = nn.Linear(c.hidden_size, c.hidden_size, bias=False)
        self.decay = nn.Linear(c.hidden_size, c.num_heads * c.num_slots)
        with torch.no_grad():
            self.decay.bias.copy_(spread_half_lives(c.num_slots, c.segment_length).repeat(c.num_heads))

    def initial_state(self, batch: int, seeds: PerRow | None = None) -> SlotState:
        """Make an empty memory for `batch` streams: zeros. `seeds` are unused."""
        c = self.config
        zeros = self.key.weight.new_zeros(batch, c.num_heads, c.num_slots, c.hidden_size // c.num_heads)
        return SlotState(zeros, zeros)

    def summarise(self, x: Hidden) -> SlotPart:
        """Take vectors into empty slots, all at once (M15)."""
        # Equal to `fill_slots`: tests/memory/test_slots.py::test_vectors_at_once_fill_slots_as_one_by_one.
        heads, x = self.config.num_heads, x.flip(1)  # newest first: what is left of each is what comes before it here
        logits = split_heads(self.decay(x), heads)  # b h n slots
        left = F.logsigmoid(logits).cumsum(2)  # ln of what a vector, and all that come after it, leave
        shares = (left - logits).exp()  # of each vector in each slot: (1 − a)/a is e to minus the logit
        return SlotPart(
            kept=left[:, :, -1, :, None].exp(),
            keys=shares.mT @ split_heads(self.key(x), heads),
            values=shares.mT @ split_heads(self.value(x), heads),
        )

    def join(self, state: SlotState, part: SlotPart) -> SlotState:
        """Add what is left of what the slots held (M15)."""
        return SlotState(part.kept * state.keys + part.keys, part.kept * state.values + part.values)

    def read(
        self, queries: Wanted, x: Hidden, state: SlotState, projection: Weight | None = None, prepared: None = None
    ) -> tuple[Wanted, SlotState, Losses]:
        """Read the slots by attention (M15); zeros of an empty memory."""
        asked = split_heads(queries, self.config.num_heads)
        # Products, not torch's fused attention: with that `infty bench memories` has slots at 0.87, with these at 0.96.
        weights = (asked @ state.keys.mT * asked.shape[-1] ** -0.5).softmax(-1)
        return self.output(join_heads(weights @ state.values)), state, {}
