"""Say what layers, grafts, checkpoints and evaluations ask of a memory, whatever it is (section 3).

In each segment a layer asks in this order: `advance` with what left the short-term memory, `extra_keys` and `read` of
what is known then, and `mix` of what was read with what attention read. All of that is one graph, so the loss of the
task reaches a gate or a compressor. State goes in and comes out; a module holds parameters only.

A new memory is one file with its configuration, state and module, and one line of the union in `infty.model.config`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, Literal, TypeVar, get_args

import torch
from jaxtyping import Bool, Float, Int
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from infty.memory.equations import Hidden, Weight
from infty.memory.rows import interleave

Wanted = Float[Tensor, "batch wanted hidden"]  # the last `wanted` positions
Rows = Bool[Tensor, " batch"]  # some of a batch; on the host, like all that only the order of a step depends on
PerRow = Int[Tensor, " batch"]  # a number of each row; on the host
Losses = dict[str, Float[Tensor, ""]]
Chosen = Int[Tensor, " some"] | slice  # places of some rows, on the device of what they are taken from; or all
Attend = Callable[[Chosen, Float[Tensor, "some n hidden"]], Float[Tensor, "some queries hidden"]]
KnockOut = Literal["zero", "shuffle", "other"]  # what is read in the memory's place
KNOCK_OUTS: tuple[KnockOut, ...] = get_args(KnockOut)


class MemoryConfig(BaseModel, ABC):
    """Sizes and constants of one memory (section 3), told apart from other kinds by its field `kind`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @abstractmethod
    def build(self) -> "Memory[Any]":
        """Build the memory of these sizes."""

    @property
    @abstractmethod
    def slots(self) -> int:
        """Count the vectors kept of the past, by which kinds of memory are compared."""

    @property
    @abstractmethod
    def state_bytes(self) -> int:
        """Count the bytes of one stream's full state, in float32: all that is kept, to compare memories by."""

    @property
    def most_extra_keys(self) -> int:
        """Count the vectors that attention reads at most beside its own, each as one key."""
        return 0

    @property
    def auxiliary_weights(self) -> dict[str, float]:
        """Name the losses of this memory, each with its weight."""
        return {}

    @property
    def has_output(self) -> bool:
        """True if all that is read goes through one projection, the module's `output`, so that it can begin as 0."""
        return True


class HeadedConfig(MemoryConfig, ABC):
    """Sizes of a memory that each head of the layer reads a part of (section 3)."""

    hidden_size: int = Field(gt=0, description="E")
    num_heads: int = Field(gt=0, description="H")

    @model_validator(mode="after")
    def _heads_fit(self) -> "HeadedConfig":
        if self.hidden_size % self.num_heads:
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of num_heads {self.num_heads}")
        return self


AnyState = TypeVar("AnyState", bound="MemoryState")


@dataclass(frozen=True)
class MemoryState(ABC):
    """State of a memory (section 3): a frozen dataclass of tensors, a row per stream; checkpoints name its fields.

    Vectors are on the device of the weights. Whole numbers (`PerRow`) are on the host, which decides by them what is to
    be done, and asks a device nothing.
    """

    @abstractmethod
    def reset(self, rows: Rows, seeds: PerRow | None = None) -> "MemoryState":
        """Forget everything in the marked rows: a new document begins there, with new `seeds`."""

    def detach(self: AnyState) -> AnyState:
        """Cut the state from its graph: no gradient flows into earlier segments."""
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **{name: tensor.detach() for name, tensor in tensors.items()})

    @classmethod
    def concatenate(cls: type[AnyState], parts: Sequence[Any]) -> AnyState:
        """Make one state of those of several batches; their rows follow each other."""
        return cls(**{name: torch.cat([getattr(part, name) for part in parts]) for name in vars(parts[0])})

    @classmethod
    def interleave(cls: type[AnyState], parts: Sequence[Any]) -> AnyState:
        """Make one batch of a batch's states at several times, those of a row one after the other."""
        return cls(**{name: interleave([getattr(part, name) for part in parts]) for name in vars(parts[0])})


@dataclass(frozen=True)
class ExtraKeys:
    """Vectors that attention reads beside its own (Rae et al. 2019), oldest first; each counts as one place."""

    vectors: Float[Tensor, "batch n hidden"]
    filled: PerRow | None = None  # how many of them, the newest, are each row's own; None: all


def _never_attend(*_: Any) -> Tensor:
    raise RuntimeError("no loss is made without a gradient")


class Memory(nn.Module, ABC, Generic[AnyState]):
    """Memory that one layer has of what has left its short-term memory (section 3)."""

    state_type: ClassVar[type[MemoryState]]
    reads: ClassVar[bool] = True  # False: `read` reads nothing, so that no queries need be made
    knock_outs: ClassVar[tuple[KnockOut, ...]] = KNOCK_OUTS  # what `knock_out` knows
    to_compile: ClassVar[tuple[str, ...]] = ()  # methods worth compiling: the same shapes in every segment

    @property
    def notes_reading(self) -> bool:
        """True if `read` changes the state, so that segments are read in turn. Then there are no extra keys."""
        return False

    @property
    def is_repeatable(self) -> bool:
        """True if a GPU may record a step and replay it: what it launches depends neither on seeds nor on numbers."""
        return not self.notes_reading

    @abstractmethod
    def initial_state(self, batch: int, seeds: PerRow | None = None) -> AnyState:
        """Make an empty memory for `batch` streams, in the precision and on the device of the weights.

        seeds: int64, on the host, name the streams for whatever is drawn at random; by default 0, 1, …
        """

    @abstractmethod
    def advance(self, state: AnyState, evicted: Hidden, rows: Rows | None, attend: Attend) -> tuple[AnyState, Losses]:
        """Take in what left the short-term memory, before the memory is read, in the same graph.

        evicted: at least one vector per stream; losses of what enters send no gradient back to it. rows: the streams
        that it belongs to, others stay as they are; None: all. attend(rows, vectors): what the layer's queries in these
        rows read from vectors by content alone; only the vectors have a gradient. Losses are means over streams, made
        only if a gradient is wanted.
        """

    def advance_in_turn(self, state: AnyState, evicted: Hidden, count: int) -> list[AnyState]:
        """Take in what left before each of `count` segments, in all rows, without a gradient: the state at each.

        Equal to `advance` for one after the other; a memory may do at once what does not need their order.
        """
        states = [state]
        for left in evicted.chunk(count, 1):
            states.append(self.advance(states[-1], left, None, _never_attend)[0])
        return states[1:]

    def extra_keys(self, state: AnyState) -> ExtraKeys | None:
        """Give the vectors that attention is to read beside its own; None: there are none."""
        return None

    def prepare(self, state: AnyState) -> Any:
        """Compute what `read` makes of a state alone, once for a segment that is read in parts: a dataclass of tensors.

        None: nothing, and `read` need not take it.
        """
        return None

    def read(
        self, queries: Wanted, x: Hidden, state: AnyState, projection: Weight | None = None, prepared: Any = None
    ) -> tuple[Wanted | None, AnyState, Losses]:
        """Read what the layer asks for: context, the state to keep after reading, and losses of reading.

        queries: of the last `wanted` positions, heads joined, before any bias of position. x: the layer's input at all
        positions. projection: W_Q, to make the other queries of x; None: `queries` are those of all positions. The
        context is what is to be added, after the memory's own output projection; None: nothing was read. prepared: what
        `prepare` made of the state, if the segment is read in parts.
        """
        return None, state, {}

    def mix(self, near: Wanted, far: Wanted) -> Wanted:
        """Join what attention read and what was read from the memory: Z = Z_STM + Z_LTM (M9)."""
        return near + far

    @abstractmethod
    def knock_out(self, state: AnyState, kind: KnockOut) -> AnyState:
        """Make the state that is read in the place of the true one.

        zero: as if the memory were empty. shuffle: as if the past had come in another order. other: as if the halves of
        the batch had exchanged their memories. Seeds stay.
        """

    def initialise_graft(self, std: float, num_layers: int) -> None:
        """Set the parameters of a memory that is grafted on a trained decoder: matrices are N(0, std²), others stay.

        What its `output` adds to a layer is divided by √(2·layers), as in a GPT-2 (Radford et al. 2019).
        """
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=std)
            if name == "output.weight":
                with torch.no_grad():
                    parameter /= (2 * num_layers) ** 0.5

    def silence(self) -> None:
        """Let nothing be read until the memory is trained: its `output` becomes 0, and nothing else on that path is.

        So the output has a gradient at once, and all that comes before it from the next step on.
        """
        nn.init.zeros_(self.get_parameter("output.weight"))

    def parameter_groups(self) -> dict[str, list[Float[Tensor, "..."]]]:
        """Name the parameters of the gate, of the density's scores, and of what is read; {}: there are none to see."""
        return {}
