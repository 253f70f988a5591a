"""A sequence through a decoder, segment by segment."""

from collections.abc import Iterator

import torch
from jaxtyping import Int
from torch import Tensor

from infty.interfaces import UNSCORED, Batch
from infty.model.decoder import Decoder, Output


def unroll(model: Decoder, batch: Batch) -> Iterator[tuple[Output, Int[Tensor, "batch wanted"]]]:
    """Outputs and targets of the segments in which something is scored, from an empty memory.

    Only what is scored and what follows it in its segment has logits. Segments that score nothing only fill the
    memory: they run without gradient and yield nothing.
    """
    batch = batch.to(model.content_bias.device)
    state, positions = model.initial_state(batch.streams), model.positions()
    length = model.config.segment_length
    for tokens, targets in zip(batch.tokens.split(length, 1), batch.targets.split(length, 1), strict=True):
        scored = (targets != UNSCORED).any(0)
        wanted = int(scored.cummax(0).values.sum())
        with torch.set_grad_enabled(wanted > 0 and torch.is_grad_enabled()):
            output = model(tokens, state, positions, wanted)
        state = output.state
        if wanted:
            yield output, targets[:, -wanted:]
