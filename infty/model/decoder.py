"""The decoder: Transformer-XL, Compressive Transformer and ∞-former are one stack with another memory in the seat."""

import math
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from infty.memory.exact import ExactBuffers
from infty.model.adaptive import AdaptiveSoftmax, Softmax, TiedOutput
from infty.model.block import Auxiliary, Block, LayerState
from infty.model.config import DecoderConfig
from infty.model.dropout import Dropout
from infty.model.relative import Positions, sinusoidal_encoding

State = tuple[LayerState, ...]


@dataclass(frozen=True)
class Output:
    """hidden: of the last positions, as many as were wanted. state: for the next segment, detached.

    softmax: what makes probabilities of them. auxiliary: named losses, summed over layers; only where a gradient is,
    and only once there is a memory to read.
    """

    hidden: Float[Tensor, "batch wanted hidden"]
    softmax: Softmax | AdaptiveSoftmax
    state: State
    auxiliary: Auxiliary

    @property
    def logits(self) -> Float[Tensor, "batch wanted vocab"]:
        """Of every token of the vocabulary."""
        return self.softmax.logits(self.hidden)

    def nats(self, targets: Int[Tensor, "batch wanted"]) -> Float[Tensor, "batch wanted"]:
        """Cross-entropy of each target; 0 where it is UNSCORED."""
        return self.softmax.nats(self.hidden, targets)


class Decoder(ExactBuffers):
    """A causal decoder over segments: `forward` takes a segment and the state that the last one returned."""

    encoding: Float[Tensor, "k hidden"]

    def __init__(self, config: DecoderConfig, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(vocab_size, config.hidden_size)
        blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.blocks = cast("list[Block]", blocks)  # torch's container has no element type
        self.output = _build_output(config, vocab_size)
        head_size = config.hidden_size // config.num_heads
        self.content_bias = nn.Parameter(torch.empty(config.num_heads, head_size))
        self.position_bias = nn.Parameter(torch.empty(config.num_heads, head_size))
        self.dropout = Dropout(config.dropout)
        distances = torch.arange(config.attended_length - 1, -1, -1, dtype=torch.float64, device="cpu")
        self.register_exact("encoding", sinusoidal_encoding(distances, config.hidden_size))
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=config.initial_std)

    def initial_state(self, seeds: Int[Tensor, " batch"]) -> State:
        """Empty state of one stream for each seed. Seeds decide what a sticky memory samples."""
        layers = len(self.blocks)
        return tuple(block.initial_state(seeds * layers + i) for i, block in enumerate(self.blocks))

    def reset(self, state: State, rows: Bool[Tensor, " batch"], seeds: Int[Tensor, " batch"]) -> State:
        """New streams begin in the marked rows, with an empty memory: short-term, compressed and long-term alike."""
        device, layers = self.content_bias.device, len(self.blocks)
        rows, seeds = rows.to(device), seeds.to(device)
        return tuple(layer.reset(rows, seeds * layers + i) for i, layer in enumerate(state))

    @property
    def softmax(self) -> Softmax | AdaptiveSoftmax:
        """What makes probabilities of hidden states."""
        match self.output:
            case TiedOutput():
                return self.output.softmax(self.embedding.weight)
            case nn.Linear():
                return Softmax(self.output.weight)

    def positions(self) -> tuple[Positions, ...]:
        """What the segments of a step share, for each layer; with dropout in training, so they are drawn once."""
        encoding = self.dropout(self.encoding)
        return tuple(
            block.attention.positions(encoding, self.content_bias, self.position_bias) for block in self.blocks
        )

    def forward(
        self,
        tokens: Int[Tensor, "batch length"],
        state: State,
        positions: tuple[Positions, ...] | None = None,
        wanted: int | None = None,
    ) -> Output:
        """What is said of the token after each of `tokens`, of which there are at most `segment_length` a stream.

        positions: of the step, by default made anew. wanted: of how many of the last tokens; by default of all.
        The last layer computes nothing for the others but what its memory and its losses need.
        """
        length = tokens.shape[1]
        wanted = length if wanted is None else wanted
        positions = positions or self.positions()
        x = self.dropout(self.embedding(tokens) * math.sqrt(self.config.hidden_size))
        states, losses = [], []
        for block, layer_state, layer_positions in zip(self.blocks, state, positions, strict=True):
            rows = wanted if block is self.blocks[-1] else length
            x, layer_state, auxiliary = block(x, layer_state, layer_positions, rows)
            states.append(layer_state)
            losses.append(auxiliary)
        auxiliary = {name: torch.stack([layer[name] for layer in losses]).sum() for name in losses[0]}
        return Output(x, self.softmax, tuple(states), auxiliary)


def _build_output(config: DecoderConfig, vocab_size: int) -> nn.Linear | TiedOutput:
    if config.adaptive is None:
        return nn.Linear(config.hidden_size, vocab_size, bias=False)
    return TiedOutput(config.adaptive, config.hidden_size, vocab_size)


def count_parameters(model: nn.Module) -> int:
    """Numbers that are learnt; what is shared counts once."""
    return sum(parameter.numel() for parameter in model.parameters())
