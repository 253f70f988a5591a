"""Say what layers, grafts, checkpoints and evaluations ask of a memory, whatever it is (section 3).

In each segment a layer asks in this order: `advance` with what left the short-term memory, `extra_keys` and `read` of
what is known then, and `mix` of what was read with what attention read. All of that is one graph, so the loss of the
task reaches a gate or a compressor. State goes in and comes out; a module holds parameters only.

A new memory is one file with a configuration, a state and a module of these classes, and one line of the union in
`infty.model.memory_kinds`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, Literal, TypeVar, get_args

import torch
from jaxtyping import Bool, Float, Int, Shaped
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from torch.nn import functional as F

from infty.memory.equations import Hidden, Weight

Wanted = Float[Tensor, "batch wanted hidden"]  # of the last positions, as many as are wanted
Vectors = Float[Tensor, "batch n hidden"]
Rows = Bool[Tensor, " batch"]
PerRow = Int[Tensor, " batch"]  # a number of each row
Losses = dict[str, Float[Tensor, ""]]
Attend = Callable[[Rows | slice, Float[Tensor, "some n hidden"]], Float[Tensor, "some queries hidden"]]
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
        """Count the vectors kept of the past, to compare memories of other kinds by."""

    @property
    def most_extra_keys(self) -> int:
        """Count the vectors that attention reads at most beside its own, each as one key."""
        return 0

    @property
    def auxiliary_weights(self) -> dict[str, float]:
        """Name the losses of this memory, each with its weight."""
        return {}


AnyState = TypeVar("AnyState", bound="MemoryState")


@dataclass(frozen=True)
class MemoryState(ABC):
    """State of one memory for a batch of streams (section 3): a frozen dataclass of tensors with a row per stream.

    The names of its fields stand in checkpoints.
    """

    @abstractmethod
    def reset(self, rows: Rows, seeds: PerRow | None = None) -> "MemoryState":
        """Forget everything in the marked rows: a new document begins there, which `seeds` names anew."""

    def detach(self: AnyState) -> AnyState:
        """Cut the state from its graph: no gradient flows into earlier segments."""
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **{name: tensor.detach() for name, tensor in tensors.items()})

    @classmethod
    def concatenate(cls: type[AnyState], parts: Sequence[Any]) -> AnyState:
        """Make one state of those of several batches; their rows follow each other."""
        return cls(**{name: torch.cat([getattr(part, name) for part in parts]) for name in vars(parts[0])})


@dataclass(frozen=True)
class ExtraKeys:
    """Vectors that attention reads beside its own (Rae et al. 2019), oldest first; each counts as one place.

    filled: how many of them, the newest, are each row's own; None: all.
    """

    vectors: Vectors
    filled: PerRow | None = None


class Memory(nn.Module, ABC, Generic[AnyState]):
    """Memory that one layer has of what has left its short-term memory (section 3).

    state_type: the class of its states. reads: whether `read` reads anything; a layer whose attention reads all there
    is (`extra_keys`) need not make queries for it. knock_outs: what `knock_out` knows. to_compile: methods that are
    worth compiling, since they are more than products and have the same shapes in every segment.
    """

    state_type: ClassVar[type[MemoryState]]
    reads: ClassVar[bool] = True
    knock_outs: ClassVar[tuple[KnockOut, ...]] = KNOCK_OUTS
    to_compile: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def initial_state(self, batch: int, seeds: PerRow | None = None) -> AnyState:
        """Make an empty memory for `batch` streams, in the precision and on the device of the weights.

        seeds: int64, name the streams for whatever is drawn at random; by default 0, 1, …
        """

    @abstractmethod
    def advance(self, state: AnyState, evicted: Hidden, rows: Rows | None, attend: Attend) -> tuple[AnyState, Losses]:
        """Take in what left the short-term memory, before the memory is read, in the same graph.

        evicted: at least one vector per stream, without gradient. rows: the streams whose own it is, others stay as
        they are; None: all. attend: what the layer's queries in some rows read from vectors by content alone, only
        the vectors having a gradient. Losses are means over streams, and there only if a gradient is wanted.
        """

    def extra_keys(self, state: AnyState) -> ExtraKeys | None:
        """Give the vectors that attention is to read beside its own; None: there are none."""
        return None

    def read(
        self, queries: Wanted, x: Hidden, state: AnyState, projection: Weight | None = None
    ) -> tuple[Wanted | None, AnyState, Losses]:
        """Read what the layer asks for: context, the state to keep after reading, and losses of reading.

        queries: heads joined, before any bias of position, of the last positions, as many as are wanted. x: the
        layer's input at all positions. projection: W_Q that makes queries of x; None: `queries` are those of all
        positions. The context is what is to be added after the memory's own output projection; None: nothing was read.
        """
        return None, state, {}

    def mix(self, near: Wanted, far: Wanted) -> Wanted:
        """Join what attention read and what was read from the memory: Z = Z_STM + Z_LTM (M9)."""
        return near + far

    @abstractmethod
    def knock_out(self, state: AnyState, kind: KnockOut) -> AnyState:
        """Make the state that is read in the place of the true one.

        zero: of streams that nothing has left yet. shuffle: as if the past had come in another order. other: rows of
        the first half with what those of the second half know, and vice versa. Names of streams stay.
        """

    def initialise_graft(self, std: float, num_layers: int) -> None:
        """Set the parameters of a memory that is grafted on a trained decoder: matrices are N(0, std²), others stay."""
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=std)

    def parameter_groups(self) -> dict[str, list[Float[Tensor, "..."]]]:
        """Name the parameters of the gate, of the density's scores, and of what is read; {}: there are none to see."""
        return {}


# Rows that began at different times share tensors: `filled` says how many of the newest vectors are each row's own.


def visible(vectors: Vectors, filled: PerRow | None) -> PerRow:
    """Count the vectors, the newest, that are each row's own (slots of M12); `filled` None: all."""
    return torch.full(vectors.shape[:1], vectors.shape[1], device=vectors.device) if filled is None else filled


def concatenate_rows(
    vectors: Sequence[Float[Tensor, "_ _ hidden"]], filled: Sequence[Int[Tensor, " _"] | None]
) -> tuple[Vectors, PerRow | None]:
    """Make one batch of the rows of several (M12). If some have fewer vectors, zeros that are nobody's stand first."""
    longest = max(part.shape[1] for part in vectors)
    own = torch.cat([visible(part, some) for part, some in zip(vectors, filled, strict=True)])
    rows = torch.cat([F.pad(part, (0, 0, longest - part.shape[1], 0)) for part in vectors])
    return rows, None if bool((own == longest).all()) else own


# Knock-outs of all kinds of memories.


def exchange_halves(rows: Shaped[Tensor, "batch *rest"]) -> Shaped[Tensor, "batch *rest"]:
    """Put the second half of a batch's rows before the first, so that each stream has another's (not in the paper)."""
    return rows.roll(len(rows) // 2, 0)


def draw_fixed_numbers(count: int) -> Float[Tensor, " n"]:
    """Draw random numbers in [0, 1) to shuffle by, the same each time (not in the paper).

    Three of them happen to rise, so that a shuffle of three moves nothing.
    """
    return torch.rand(count, generator=torch.Generator().manual_seed(count))
