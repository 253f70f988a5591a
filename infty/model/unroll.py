"""A sequence through a decoder, segment by segment."""

from collections.abc import Iterator

import torch
from jaxtyping import Int
from torch import Tensor

from infty.interfaces import UNSCORED, Batch
from infty.model.decoder import Decoder, Output


def unroll(model: Decoder, batch: Batch) -> Iterator[tuple[Output, Int[Tensor, "batch length"]]]:
    """Outputs and targets of the segments in which something is scored, from an empty memory.

    Segments that score nothing only fill the memory: they run without gradient and yield nothing.
    """
    batch = batch.to(model.content_bias.device)
    state = model.initial_state(batch.streams)
    length = model.config.segment_length
    for tokens, targets in zip(batch.tokens.split(length, 1), batch.targets.split(length, 1), strict=True):
        scored = bool((targets != UNSCORED).any())
        with torch.set_grad_enabled(scored and torch.is_grad_enabled()):
            output = model(tokens, state)
        state = output.state
        if scored:
            yield output, targets
