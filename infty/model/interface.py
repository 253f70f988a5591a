"""Say what is known of a model: it reads segments (Dai et al. 2019), state goes in and comes out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from infty.memory.contract import Losses
from infty.memory.precision import ExactBuffers
from infty.model.config import ModelConfig
from infty.model.memory_layer import LayerState, MemoryLayer
from infty.model.softmax import AdaptiveSoftmax, Softmax

State = tuple[LayerState, ...]


@dataclass(frozen=True)
class Output:
    """Output of a model for one segment.

    hidden: states of the last positions, as many as were wanted. softmax: what makes probabilities of them. state: for
    the next segment, detached. auxiliary: named losses, summed over layers; only if a gradient is wanted, and only once
    there is a memory to read.
    """

    hidden: Float[Tensor, "batch wanted hidden"]
    softmax: Softmax | AdaptiveSoftmax
    state: State
    auxiliary: Losses

    @property
    def logits(self) -> Float[Tensor, "batch wanted vocab"]:
        """Compute the logits of every token of the vocabulary."""
        return self.softmax.logits(self.hidden)

    def nats(self, targets: Int[Tensor, "batch wanted"]) -> Float[Tensor, "batch wanted"]:
        """Compute the cross-entropy of each target in nats; 0 if it is UNSCORED."""
        return self.softmax.nats(self.hidden, targets)


class SegmentModel(ExactBuffers):
    """A causal model of layers that may have a memory each: our own decoder, or another's, grafted."""

    config: ModelConfig

    if TYPE_CHECKING:

        def __call__(
            self, tokens: Int[Tensor, "batch length"], state: State, positions: Any = None, wanted: int | None = None
        ) -> Output:
            """Read a segment, from the state that the last one returned."""
            ...

    def load_decoder(self, source: "SegmentModel | Path") -> None:
        """Load the decoder's weights from another model or a Hugging Face folder; memories stay.

        MissingError if a folder lacks a tensor or has one of another shape; TypeError if nothing is grafted here.
        """
        raise TypeError(f"a {type(self).__name__} is trained from scratch, and not from {source}")

    @property
    def memory_layers(self) -> list[MemoryLayer]:
        """List what is ours of the model's layers, first to last: all of it, or what is beside another's attention."""
        return [cast("MemoryLayer", block) for block in cast("nn.ModuleList", self.blocks)]

    @property
    def layers(self) -> list[nn.Module]:
        """List the layers themselves, first to last: activations are kept of these."""
        return list(self.memory_layers)

    @property
    def device(self) -> torch.device:
        """Get the device that its parameters are on."""
        return next(self.parameters()).device

    def initial_state(self, seeds: Int[Tensor, " batch"]) -> State:
        """Make an empty state of one stream for each seed. Seeds decide what a sticky memory samples."""
        layers, like = len(self.memory_layers), next(self.parameters()).new_empty(self.config.hidden_size)
        return tuple(layer.initial_state(seeds * layers + i, like) for i, layer in enumerate(self.memory_layers))

    def reset(self, state: State, rows: Bool[Tensor, " batch"], seeds: Int[Tensor, " batch"]) -> State:
        """Begin new streams in the marked rows, with an empty memory: short-term, compressed and long-term alike."""
        layers, rows, seeds = len(self.memory_layers), rows.to(self.device), seeds.to(self.device)
        return tuple(layer.reset(rows, seeds * layers + i) for i, layer in enumerate(state))

    def positions(self) -> Any:
        """Make what the segments of a step share, once, to be given to each; None if there is nothing."""
        return None

    def memory_parameters(self) -> list[nn.Parameter]:
        """List the parameters of the long-range memories, which may learn at a rate of their own."""
        memories = [layer.long_range for layer in self.memory_layers if layer.long_range is not None]
        return [parameter for memory in memories for parameter in memory.parameters()]


def sum_losses(losses: Sequence[Losses]) -> Losses:
    """Add up each named loss over all layers."""
    return {name: torch.stack([layer[name] for layer in losses]).sum() for name in losses[0]}


def count_parameters(model: nn.Module) -> int:
    """Count the numbers that are learnt; what is shared counts once."""
    return sum(parameter.numel() for parameter in model.parameters())
