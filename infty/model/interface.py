"""Declare the interface of a model: it reads segments (Dai et al. 2019) one by one; state goes in and comes out."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from infty.base.batch import Batch
from infty.memory.contract import Losses, Memory, PerRow, Rows, Wanted
from infty.memory.precision import ExactConstants
from infty.model.config import ModelConfig
from infty.model.fast.runs import Queue, count_at_once, count_wanted, join
from infty.model.memory_layer import WHOLE, LayerState, MemoryLayer, Part
from infty.model.softmax import AdaptiveSoftmax, Softmax

State = tuple[LayerState, ...]


@dataclass(frozen=True)
class Output:
    """Output of a model for one segment."""

    hidden: Wanted
    softmax: Softmax | AdaptiveSoftmax  # makes probabilities of the hidden states
    state: State  # for the next segment; of a model that is called directly, with its graph
    auxiliary: Losses  # summed over layers; only if a gradient is wanted, and only once there is a memory to read

    @property
    def logits(self) -> Float[Tensor, "batch wanted vocab"]:
        """Compute the logits of every token of the vocabulary."""
        return self.softmax.logits(self.hidden)

    def nats(
        self, targets: Int[Tensor, "batch wanted"], known: Int[Tensor, "batch wanted"] | None = None
    ) -> Float[Tensor, "batch wanted"]:
        """Compute the cross-entropy of each target in nats; 0 if it is UNSCORED. known: the same on the host."""
        return self.softmax.nats(self.hidden, targets, known)


class SegmentModel(ExactConstants):
    """A causal model whose layers may each have a memory: our own decoder, or another library's with grafts."""

    config: ModelConfig

    if TYPE_CHECKING:

        def __call__(
            self,
            tokens: Int[Tensor, "batch length"],
            state: State,
            positions: Any = None,
            wanted: int | None = None,
            part: Part = WHOLE,
        ) -> Output:
            """Read a segment, or a part of one, from the state that the last one returned."""
            ...

    def load_decoder(self, source: "SegmentModel | Path") -> None:
        """Load the decoder's weights from another model or a Hugging Face folder; memories stay.

        Raises:
            MissingError: A folder lacks a tensor or has one of another shape.
            UsageError: It has more than this decoder.
            TypeError: Nothing is grafted here.
        """
        raise TypeError(f"a {type(self).__name__} is trained from scratch, and not from {source}")

    @property
    def memory_layers(self) -> list[MemoryLayer]:
        """List our part of each layer, first to last: all of it, or the memory beside another library's attention."""
        return [cast("MemoryLayer", block) for block in cast("nn.ModuleList", self.blocks)]

    @property
    def layers(self) -> list[nn.Module]:
        """List the whole layers, first to last: the units of activation checkpointing."""
        return list(self.memory_layers)

    @property
    def device(self) -> torch.device:
        """Get the device that its parameters are on."""
        return next(self.parameters()).device

    def initial_state(self, seeds: PerRow) -> State:
        """Make an empty state with one stream per seed, which decides what a sticky memory samples."""
        layers, like = len(self.memory_layers), next(self.parameters()).new_empty(self.config.hidden_size)
        return tuple(layer.initial_state(seeds * layers + i, like) for i, layer in enumerate(self.memory_layers))

    def reset(self, state: State, rows: Rows, seeds: PerRow) -> State:
        """Begin new streams in the marked rows, with an empty memory: short-term, compressed and long-term alike."""
        layers = len(self.memory_layers)
        return tuple(layer.reset(rows, seeds * layers + i) for i, layer in enumerate(state))

    def concatenate(self, states: Sequence[State]) -> State:
        """Concatenate the states of several batches along their rows, also within a segment that is read in parts."""
        parts = zip(self.memory_layers, *states, strict=True)
        return tuple(LayerState.concatenate(layer.complete(of_layer)) for layer, *of_layer in parts)

    def is_settled(self, state: State) -> bool:
        """Tell whether several further segments may be read at once: as rows of one batch, those of a text together."""
        return all(layer.is_settled(of_layer) for layer, of_layer in zip(self.memory_layers, state, strict=True))

    def positions(self) -> Any:
        """Make what the segments of a step share, to be passed to each of them; None if there is nothing."""
        return None

    @property
    def memories(self) -> list[Memory[Any]]:
        """List the long-range memories, first layer to last."""
        return [layer.long_range for layer in self.memory_layers if layer.long_range is not None]

    def memory_parameters(self) -> list[nn.Parameter]:
        """List the parameters of the long-range memories, which may learn at a rate of their own."""
        return [parameter for memory in self.memories for parameter in memory.parameters()]


def unroll(
    model: SegmentModel,
    segments: Iterable[Batch],
    state: State | None = None,
    *,
    one_graph_from: int | None = None,
    at_once: int | None = None,
) -> Iterator[tuple[Output, Batch]]:
    """Yield the output, and the batch that it is for, of each segment that scores a token. state: before the first.

    Outputs begin at a segment's first scored token. A segment without any only fills the memory, without gradient.
    States carry no graph, but between segments from number `one_graph_from` on, which are all yielded, scored or not.
    Small segments without a gradient are read together, `at_once` at most, as rows of one batch; None: as many as gain.
    """
    positions, queue, read = model.positions(), Queue(segments, model.config.segment_length), 0
    while (segment := queue.peek()) is not None:
        # New streams begin, in all rows or in some.
        if state is None or segment.fresh is None or segment.fresh.all():
            state = model.initial_state(segment.streams)
        elif segment.fresh.any():
            state = model.reset(state, segment.fresh, segment.streams)

        # Only what is scored wants a gradient, and what wants none can be read together.
        wanted, most = count_wanted(segment), 1
        before_graph = math.inf if one_graph_from is None else one_graph_from - read
        joined = before_graph <= 0 and torch.is_grad_enabled()
        learns = joined or (wanted > 0 and torch.is_grad_enabled())
        if not learns and at_once != 1 and model.is_settled(state):
            numbers = segment.tokens.numel() * model.config.hidden_size
            most = int(min(at_once or count_at_once(model, numbers, model.device), before_graph))
        run = queue.take(most)
        segment, read = join(run).to(model.device), read + len(run)
        with torch.set_grad_enabled(learns):
            output = model(segment.tokens, state, positions, wanted)

        # The graph ends here, or the next segment is part of it.
        state = tuple(layer.detach() for layer in output.state)
        if joined and queue.peek():
            state = output.state
        if wanted or joined:
            yield replace(output, state=state), segment.cut(segment.tokens.shape[1] - wanted)


def sum_losses(losses: Sequence[Losses]) -> Losses:
    """Add up each named loss over all layers."""
    return {name: torch.stack([layer[name] for layer in losses]).sum() for name in losses[0]}


def count_parameters(model: nn.Module) -> int:
    """Count the learnt numbers; shared ones count once."""
    return sum(parameter.numel() for parameter in model.parameters())
