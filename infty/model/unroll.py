"""Sequences through a decoder, segment by segment."""

from collections.abc import Iterable, Iterator

import torch
from jaxtyping import Int
from torch import Tensor

from infty.interfaces import UNSCORED, Batch
from infty.model.decoder import Decoder, Output


def unroll(model: Decoder, segments: Iterable[Batch]) -> Iterator[tuple[Output, Int[Tensor, "batch wanted"]]]:
    """Outputs and targets of the segments in which something is scored, from an empty memory.

    Only what is scored and what follows it in its segment has logits. Segments that score nothing only fill the
    memory: they run without gradient and yield nothing.
    """
    state, positions = None, model.positions()
    for segment in segments:
        segment = segment.to(model.content_bias.device)
        state = model.initial_state(segment.streams) if state is None else state
        scored = (segment.targets != UNSCORED).any(0)
        wanted = int(scored.cummax(0).values.sum())
        with torch.set_grad_enabled(wanted > 0 and torch.is_grad_enabled()):
            output = model(segment.tokens, state, positions, wanted)
        state = output.state
        if wanted:
            yield output, segment.targets[:, -wanted:]
