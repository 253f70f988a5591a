"""Build the decoder: Transformer-XL (Dai et al. 2019), Compressive Transformer (Rae et al. 2019), ∞-former (M9)."""

import math
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from infty.memory.equations import Hidden
from infty.memory.precision import HOST
from infty.model.config import DecoderConfig
from infty.model.fast.dropout import Dropout
from infty.model.interface import Output, SegmentModel, State, sum_losses
from infty.model.layer import Layer
from infty.model.memory_layer import WHOLE, Part
from infty.model.relative_attention import Positions, sinusoidal_encoding
from infty.model.softmax import AdaptiveSoftmax, Softmax, TiedOutput


class Decoder(SegmentModel):
    """A causal decoder over segments: `forward` takes a segment and the state that the last one returned."""

    blocks: list[Layer]  # torch's container has no element type; its name stands in checkpoints

    def __init__(self, config: DecoderConfig, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(vocab_size, config.hidden_size)
        layers = nn.ModuleList(Layer(config) for _ in range(config.num_layers))
        self.blocks = cast("list[Layer]", layers)
        if config.adaptive is None:
            self.output = nn.Linear(config.hidden_size, vocab_size, bias=False)
        else:
            self.output = TiedOutput(config.adaptive, config.hidden_size, vocab_size)
        head_size = config.hidden_size // config.num_heads
        self.content_bias = nn.Parameter(torch.empty(config.num_heads, head_size))
        self.position_bias = nn.Parameter(torch.empty(config.num_heads, head_size))
        self.dropout = Dropout(config.dropout)
        distances = torch.arange(config.attended_length - 1, -1, -1, dtype=torch.float64, device=HOST)
        self.register_exact("encoding", sinusoidal_encoding(distances, config.hidden_size))
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=config.initial_std)

    @property
    def softmax(self) -> Softmax | AdaptiveSoftmax:
        """Make the softmax that turns hidden states into probabilities."""
        if isinstance(self.output, TiedOutput):
            return self.output.softmax(self.embedding.weight)
        return Softmax(self.output.weight)

    @property
    def encoding(self) -> Float[Tensor, "k hidden"]:
        """Get the encodings of all distances, the greatest first."""
        return self.round_exact("encoding", self.content_bias)

    def positions(self) -> tuple[Positions, ...]:
        """Make the positions of each layer, which the segments of a step share: in training, with one dropout mask."""
        encoding = self.dropout(self.encoding)
        return tuple(
            layer.attention.positions(encoding, self.content_bias, self.position_bias) for layer in self.blocks
        )

    def forward(
        self,
        tokens: Int[Tensor, "batch length"],
        state: State,
        positions: tuple[Positions, ...] | None = None,
        wanted: int | None = None,
        part: Part = WHOLE,
    ) -> Output:
        """Predict the token after each of the last `wanted` of at most `segment_length` ones per stream; None: all.

        positions: those of the step; None: made here. For other tokens the last layer only feeds its memory. part: of
        the segment that the tokens are; the state is the one that the parts before it returned.
        """
        wanted = tokens.shape[1] if wanted is None else wanted
        return self.read(self.embed(tokens), state, positions, wanted, part)

    def embed(self, tokens: Int[Tensor, "batch length"]) -> Hidden:
        """Make the first layer's input."""
        return self.dropout(self.embedding(tokens) * math.sqrt(self.config.hidden_size))

    def read(self, x: Hidden, state: State, positions: tuple[Positions, ...] | None, wanted: int, part: Part) -> Output:
        """Run all layers on the first one's input."""
        length, positions = x.shape[1], positions or self.positions()
        states, losses = [], []
        for layer, layer_state, layer_positions in zip(self.blocks, state, positions, strict=True):
            rows = wanted if layer is self.blocks[-1] else length
            x, layer_state, auxiliary = layer(x, layer_state, layer_positions, rows, part)
            states.append(layer_state)
            losses.append(auxiliary)
        return Output(x, self.softmax, tuple(states), sum_losses(losses))
