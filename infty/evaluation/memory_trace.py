"""What memories do with a text: where they look, what they keep of it, and what they keep the most of (section 3.3).

One stream is read, and what every layer's memory does with it is recorded as numbers, for pictures that need no torch.
Two measures tell if memories are read at all: their part of a layer's output, and their parameters' gradient.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from numpy import ndarray
from torch import Tensor

from infty.base.batch import UNSCORED, Batch
from infty.base.errors import one_line
from infty.corpora.tokenizers import Tokenizer
from infty.evaluation.evaluate import use_evaluation_mode
from infty.memory.contract import Memory, Rows
from infty.memory.equations import AttentionDensity, evaluate_signal, first_grid, refit_grid, sample_grid
from infty.memory.longterm import Hidden, Kept, LongTermMemory, LongTermState
from infty.memory.sticky import attention_histogram
from infty.model.interface import SegmentModel
from infty.runs.schemas import Gaze, MemoryTrace, Phrase, Reach, Reconstruction, Stream
from infty.tasks.task import Task

UPDATES = (1, 2, 4, 8)  # after so many, what is left of each segment is measured
BINS, HISTOGRAM_BINS = 64, 128  # of the densities; of the histogram, if no sticky sampling sets its own
PHRASE, PHRASES = 8, 12  # tokens of a phrase; phrases that are kept
LEAST = 1e-30  # lower bound of a divisor
GROUPS = ("gate", "where", "what")  # of a memory's parameters

Places = Float64[ndarray, " n"]  # in [0, 1]


class Trace:
    """What one layer's memory did with one stream."""

    def __init__(self, memory: LongTermMemory) -> None:
        self.memory = memory
        self.places = self.ends = np.empty(0)  # where each vector lies now, oldest first, and where its room ends
        self.density: AttentionDensity | None = None  # where the last segment looked
        self.state: LongTermState | None = None  # the signal that it looked at
        self.errors: list[float] = []  # of each update's fit
        self.explained: dict[int, list[float]] = {}  # by updates: share of each segment then explained
        self._smoothed: list[Float[Tensor, "length hidden"]] = []  # each segment, while it is needed
        self._written: tuple[LongTermState, Hidden, LongTermState] | None = None

    def update(self, state: LongTermState, evicted: Hidden, rows: Rows | None = None) -> LongTermState:
        """Update as the memory itself does, and record it."""
        after = LongTermMemory.update(self.memory, state, evicted, rows)
        self._written = state, evicted, after
        return after

    def look(
        self,
        queries: Hidden,
        state: LongTermState,
        projection: Float[Tensor, "hidden hidden"] | None = None,
        prepared: Kept = None,
    ) -> AttentionDensity:
        """Compute the density as the memory itself does, and record it."""
        self.density, self.state = LongTermMemory.density(self.memory, queries, state, projection, prepared), state
        return self.density

    def follow(self) -> None:
        """Record where the segment's update moved every vector, and how much it lost. Nothing if there was none."""
        if self._written is None:
            return
        (before, evicted, after), self._written = self._written, None
        c, new = self.memory.config, self.memory.smooth(evicted.to(self.memory.key.weight.dtype))[0]
        if not self.errors:
            grid, targets = first_grid(c.segment_length), new
            self.places, self.ends = grid.inside.numpy(), sample_grid(c.segment_length).numpy()
        else:
            grid, samples = refit_grid(c.num_samples, c.segment_length, c.contraction), self._samples(before)
            targets, added = torch.cat([self._read(before, samples), new]), grid.inside[c.num_samples :].numpy()
            self.places = np.concatenate([carry_places(self.places, samples, c.contraction), added])
            self.ends = np.concatenate([carry_places(self.ends, samples, c.contraction), added])
        self.errors.append(measure_loss(targets, self._read(after, grid.inside.numpy())))
        if len(self.errors) <= max(UPDATES):
            self._smoothed.append(new)
        if len(self.errors) in UPDATES:
            now = self._read(after, self.places).split(c.segment_length)
            left = [1 - measure_loss(x, y) for x, y in zip(self._smoothed, now, strict=True)]
            self.explained[len(self.errors)] = left

    def gaze(self) -> dict[str, float]:
        """Describe where the last segment looked: if densities differ, if they are narrow, and if something is there.

        center: mean of μ. apart: standard deviation of a head's μ over the queries, mean over heads. width: median σ.
        there: mean of ‖X̄(μ)‖, divided by the mean of ‖X̄(t)‖ over [0, 1].
        """
        assert self.density is not None
        assert self.state is not None
        mean, variance = self.density.mean[0].double().cpu(), self.density.variance[0].double().cpu()
        size, even = self._read(self.state, mean.numpy().ravel()).norm(dim=-1), (np.arange(BINS) + 0.5) / BINS
        return {
            "center": mean.mean().item(),
            "apart": mean.std(-1, correction=0).mean().item(),
            "width": variance.sqrt().median().item(),
            "there": (size.mean() / self._read(self.state, even).norm(dim=-1).mean().clamp(min=LEAST)).item(),
        }

    def _samples(self, state: LongTermState) -> Places:
        """Find the places at which an update of this state reads the old signal."""
        if (drawn := self.memory.sample_positions(state)) is None:
            return sample_grid(self.memory.config.num_samples).numpy()
        return drawn[0].double().cpu().numpy()

    def _read(self, state: LongTermState, places: Places) -> Float[Tensor, "n hidden"]:
        """Evaluate the signal X̄(t) of one stream at the points `places`."""
        points = torch.from_numpy(places).to(state.coefficients)
        return evaluate_signal(state.coefficients[0], self.memory.basis.evaluate(points))


@contextmanager
def watch_signals(model: SegmentModel) -> Iterator[list[Trace]]:
    """Trace the updates and densities of each memory that is a signal, within the block; its results do not change."""
    traces = [Trace(memory) for memory in model.memories if isinstance(memory, LongTermMemory)]
    for trace in traces:
        trace.memory.update, trace.memory.density = trace.update, trace.look
    try:
        yield traces
    finally:
        for trace in traces:
            del trace.memory.update, trace.memory.density


def inspect_memory(model: SegmentModel, task: Task, split: str, step: int) -> MemoryTrace | None:
    """Trace the memories over a sequence or document of a split; None if none is a signal, or nothing enters one."""
    with use_evaluation_mode(model), watch_signals(model) as traces:
        if not traces:
            return None
        # Read the stream segment by segment, and let each memory note what it does with it.
        kind, index, batch = task.choose_sample(split, model.config.segment_length)
        segments = list(batch.segments(model.config.segment_length))
        state, positions = model.initial_state(batch.streams), model.positions()
        for segment in segments:
            state = model(segment.tokens.to(model.device), state, positions).state
            for trace in traces:
                trace.follow()
    # Turn the records into numbers, in double precision; measuring the reach reads the stream once more.
    seen = [(trace, AttentionDensity(d.mean.double(), d.variance.double())) for trace in traces if (d := trace.density)]
    if not seen:
        return None
    errors = [float(np.mean(trace.errors)) for trace in traces]
    counts = [k for k in UPDATES if k in traces[0].explained]
    even = np.linspace(0, 1, BINS + 1)
    return MemoryTrace(
        step=step,
        protocol=task.protocol.name,
        stream=Stream(kind=kind, index=index, segments=len(segments), tokens=batch.tokens.shape[1]),
        density=[measure_shares(density, even).tolist() for _, density in seen],
        histogram=[
            attention_histogram(density, trace.memory.config.num_bins or HISTOGRAM_BINS)[0].clamp(min=0).tolist()
            for trace, density in seen
        ],
        reconstruction=[Reconstruction(updates=k, layers=[trace.explained[k] for trace in traces]) for k in counts],
        regression_error=errors,
        regression_error_mean=float(np.mean(errors)),
        reach=Reach(**measure_reach(model, batch)),
        gaze=[Gaze(**trace.gaze()) for trace, _ in seen],
        room=_phrases(seen, batch.targets[0].numpy(), task.tokenizer) if task.continues and task.tokenizer else None,
    )


def carry_places(places: Places, samples: Places, contraction: float) -> Places:
    """Map `places` to those that a refit moves them to: piecewise linearly through (s_i, τ·i/M), (0, 0) and (1, τ).

    samples: s, ascending. If some coincide, a place there is mapped to the middle of their images.
    """
    marks = np.concatenate([[0.0], samples, [1.0]])
    ranks = np.arange(len(marks)).clip(max=len(samples))
    places = places.clip(0, 1)
    above, below = np.searchsorted(marks, places), np.searchsorted(marks, places, side="right") - 1
    apart = marks[above] - marks[below]
    share = np.divide(places - marks[below], apart, out=np.full_like(places, 0.5), where=apart > 0)
    return contraction * (ranks[below] + share * (ranks[above] - ranks[below])) / len(samples)


def measure_loss(targets: Float[Tensor, "n hidden"], found: Float[Tensor, "n hidden"]) -> float:
    """Measure the share of the targets that is lost, ‖targets − found‖² / ‖targets‖²."""
    targets, found = targets.double(), found.double()
    return ((targets - found).square().sum() / targets.square().sum().clamp(min=LEAST)).item()


def measure_shares(density: AttentionDensity, edges: Places) -> Float64[ndarray, "heads pieces"]:
    """Measure shares of each head's attention between neighbouring edges, mean over queries; they sum to 1."""
    distance = torch.from_numpy(edges).to(density.mean) - density.mean[..., None]  # 1 heads queries edges
    below = torch.special.ndtr(distance * density.variance.rsqrt()[..., None])
    mass = below.mean(dim=(0, 2)).diff().clamp(min=0)
    return (mass / mass.sum(-1, keepdim=True)).cpu().numpy()


def _phrases(
    seen: list[tuple[Trace, AttentionDensity]], tokens: Int64[ndarray, " n"], tokenizer: Tokenizer
) -> list[Phrase]:
    """Find the phrases most attended to: text, first token, share of [0, 1] and of attention, mean over layers.

    Only tokens whose vectors are in the memory count; the first vector is the separator's.
    """
    edges = [np.concatenate([[0], trace.ends[:-1:PHRASE], [1]]) for trace, _ in seen]
    room = np.mean([np.diff(places)[1:] for places in edges], axis=0)
    found = [measure_shares(density, places).mean(0)[1:] for (_, density), places in zip(seen, edges, strict=True)]
    attention, known = np.mean(found, axis=0), tokens[: len(seen[0][0].ends) - 1].tolist()
    return [
        Phrase(
            text=one_line(" ".join(tokenizer.decode(known[PHRASE * i : PHRASE * (i + 1)]).split())),
            token=PHRASE * i,
            room=float(room[i]),
            attention=float(attention[i]),
        )
        for i in np.argsort(-attention, kind="stable")[:PHRASES].tolist()
    ]


def measure_reach(model: SegmentModel, batch: Batch) -> dict[str, Any]:
    """Measure how much memories matter in a stream's last segment, per layer whose memory names parameter groups.

    share: ‖Z_LTM‖ / ‖Z_STM‖ over all its positions. gate, where, what: root mean square of the gradient of its mean
    loss in nats, without the KL, over the parameters of the gate (None without one), those that say where to look (W_K,
    w_μ, w_σ) and those that say what is read there (W_V, W_O). rest: over all parameters outside of memories.
    """
    groups = {memory: found for memory in model.memories if (found := memory.parameter_groups())}
    with use_evaluation_mode(model), _note_shares(groups) as shares:
        state, positions = model.initial_state(batch.streams), model.positions()
        *earlier, last = batch.segments(model.config.segment_length)
        for segment in earlier:
            state = model(segment.tokens.to(model.device), state, positions).state
        with torch.enable_grad():
            output = model(last.tokens.to(model.device), state, model.positions())
            targets = last.targets.to(model.device)
            loss = output.nats(targets).sum() / (targets != UNSCORED).sum()
        parameters: list[Tensor] = list(model.parameters())
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
    gradients = {p: torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)}
    of_memories = set(model.memory_parameters())
    return {
        "share": list(shares.values()),
        **{name: [_root_mean_square(gradients, group[name]) for group in groups.values()] for name in GROUPS},
        "rest": _root_mean_square(gradients, [parameter for parameter in parameters if parameter not in of_memories]),
    }


@contextmanager
def _note_shares(memories: Iterable[Memory[Any]]) -> Iterator[dict[Memory[Any], float]]:
    """Record the last ‖Z_LTM‖ / ‖Z_STM‖ of each memory within the block; 0 if nothing was read."""
    found = dict.fromkeys(memories, 0.0)

    def mix(memory: Memory[Any], near: Hidden, far: Hidden) -> Hidden:
        found[memory] = (far.float().norm() / near.float().norm()).item()
        return type(memory).mix(memory, near, far)

    for memory in found:
        memory.mix = partial(mix, memory)
    try:
        yield found
    finally:
        for memory in found:
            del memory.mix


def _root_mean_square(gradients: dict[Tensor, Tensor], group: Sequence[Tensor]) -> float | None:
    """Compute the root mean square of the gradients of a group of parameters; None for an empty group."""
    count = sum(parameter.numel() for parameter in group)
    squares = sum(gradients[parameter].double().square().sum().item() for parameter in group)
    return (squares / count) ** 0.5 if count else None
