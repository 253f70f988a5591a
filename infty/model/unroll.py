"""Lead segments through a model, one after the other (Dai et al. 2019)."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import torch

from infty.base.batch import UNSCORED, Batch
from infty.model.interface import Output, SegmentModel, State


def unroll(
    model: SegmentModel, segments: Iterable[Batch], state: State | None = None
) -> Iterator[tuple[Output, Batch]]:
    """Yield outputs, and what they are of, for the segments in which something is scored; `state`: from before them.

    Only what is scored and what follows it in its segment has logits. Segments that score nothing only fill the
    memory: they run without gradient and yield nothing.
    """
    positions = model.positions()
    for segment in segments:
        segment = segment.to(model.device)
        state = _begin(model, segment, state)
        scored = (segment.targets != UNSCORED).any(0)
        wanted = int(scored.cummax(0).values.sum())
        with torch.set_grad_enabled(wanted > 0 and torch.is_grad_enabled()):
            output = model(segment.tokens, state, positions, wanted)
        state = output.state
        if wanted:
            yield output, _last(segment, wanted)


def _begin(model: SegmentModel, segment: Batch, state: State | None) -> State:
    """Make the state that a segment starts from: empty in the rows that begin anew."""
    if state is None or segment.fresh is None or segment.fresh.all():
        return model.initial_state(segment.streams)
    return model.reset(state, segment.fresh, segment.streams) if segment.fresh.any() else state


def _last(segment: Batch, wanted: int) -> Batch:
    left = segment.tokens.shape[1] - wanted
    places = None if segment.places is None else segment.places + left
    aside = None if segment.aside is None else segment.aside[:, left:]
    return replace(
        segment, tokens=segment.tokens[:, left:], targets=segment.targets[:, left:], places=places, aside=aside
    )
