"""Keep one vector of the past, its average (M13): the smallest memory there is, and a control for all others.

w ← a w + 1, m ← m + (x − m)/w for each vector x that leaves, and z = W_O m for every query. With a = 1 that is the mean
of everything, in which each vector counts alike; with a < 1, learnt for each head, one that forgets exponentially.

Not in the paper. What an average can't do shows what a memory is worth beyond it: it knows neither order nor place, and
every query reads the same.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from infty.memory.contract import HeadedConfig, Losses, PerRow, Wanted
from infty.memory.equations import Hidden, Weight
from infty.memory.gates import spread_half_lives
from infty.memory.summary import SummaryMemory, SummaryPart, SummaryState

Mean = Float[Tensor, "batch heads d"]
Count = Float[Tensor, "batch heads"]


def average(
    mean: Mean, count: Count, x: Float[Tensor, "batch n heads d"], decay: Float[Tensor, " heads"]
) -> tuple[Mean, Count]:
    """Average vector by vector: w ← a w + 1, m ← m + (x − m)/w (M13)."""
    for vector in x.unbind(1):
        count = decay * count + 1
        mean = mean + (vector - mean) / count[..., None]
    return mean, count


class MeanMemoryConfig(HeadedConfig):
    """Sizes of one mean (M13)."""

    kind: Literal["mean"] = Field(default="mean", description="the average of the past, one vector (a control)")
    segment_length: int = Field(gt=0, description="L, the shortest half-life that a forgetting one begins with")
    forgets: bool = Field(default=False, description="whether it forgets exponentially, at a learnt rate per head")

    def build(self) -> "MeanMemory":
        """Build the memory of these sizes."""
        return MeanMemory(self)

    @property
    def slots(self) -> int:
        """Count the vectors kept of the past: one."""
        return 1

    @property
    def state_bytes(self) -> int:
        """Count the bytes of one stream's mean, and of what it counts, in float32."""
        return torch.float32.itemsize * (self.hidden_size + self.num_heads)


@dataclass(frozen=True)
class MeanState(SummaryState):
    """Means of what each stream has taken in, and how many vectors they count (M13)."""

    mean: Mean
    count: Count


@dataclass(frozen=True)
class MeanPart(SummaryPart):
    """Means of what comes, what they count, and what is left of the count before (M13)."""

    kept: Count
    mean: Mean
    count: Count


class MeanMemory(SummaryMemory[MeanState, MeanPart]):
    """Average of all that has left the short-term memory, projected, and the same for every query (M13)."""

    state_type = MeanState

    def __init__(self, config: MeanMemoryConfig) -> None:
        super().__init__()
        self.config = config
        self.output = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        half_lives = spread_half_lives(config.num_heads, config.segment_length)
        self.decay = nn.Parameter(half_lives) if config.forgets else None  # a = sigmoid of it

    def initial_state(self, batch: int, seeds: PerRow | None = None) -> MeanState:
        """Make an empty memory for `batch` streams: zeros. `seeds` are unused."""
        c, like = self.config, self.output.weight
        return MeanState(
            mean=like.new_zeros(batch, c.num_heads, c.hidden_size // c.num_heads),
            count=like.new_zeros(batch, c.num_heads),
        )

    def summarise(self, x: Hidden) -> MeanPart:
        """Average over vectors, all at once (M13)."""
        # With `join` equal to `average`: tests/memory/test_mean.py::test_vectors_at_once_are_averaged_as_one_by_one.
        x, length = x.unflatten(2, (self.config.num_heads, -1)), x.shape[1]
        like = x.new_ones(len(x), self.config.num_heads)
        if self.decay is None:
            return MeanPart(like, x.mean(1), like * length)
        newer = torch.arange(length, -1, -1, dtype=x.dtype, device=x.device)  # vectors that come after each
        shares = (F.logsigmoid(self.decay) * newer[:, None]).exp()  # n + 1, heads: aᴸ, …, a, 1
        count = shares[1:].sum(0)
        return MeanPart(like * shares[0], torch.einsum("bnhd,nh->bhd", x, shares[1:] / count), like * count)

    def join(self, state: MeanState, part: MeanPart) -> MeanState:
        """Move the mean towards the new one, by the share that this counts (M13)."""
        count = part.kept * state.count + part.count
        return MeanState(state.mean + (part.mean - state.mean) * (part.count / count)[..., None], count)

    def read(
        self, queries: Wanted, x: Hidden, state: MeanState, projection: Weight | None = None, prepared: None = None
    ) -> tuple[Wanted, MeanState, Losses]:
        """Read the mean, projected, for each query alike (M13); zeros of an empty memory."""
        return self.output(state.mean.flatten(1))[:, None].expand(-1, queries.shape[1], -1), state, {}
