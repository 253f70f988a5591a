"""What memories were seen to do: against quadrature, closed forms, plain loops and plain linear algebra."""

import statistics
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import Tensor, nn

from infty.evaluation.evaluate import use_evaluation_mode
from infty.evaluation.memory_trace import BINS, Trace, carry_places, inspect_memory, measure_shares, watch_signals
from infty.memory.equations import AttentionDensity
from infty.memory.longterm import LongTermMemory, LongTermMemoryConfig, LongTermState
from infty.model.interface import SegmentModel, State
from infty.runs.schemas import Stream
from infty.tasks.sort import SortConfig, SortTask
from tests.model import test_graft
from tests.model.test_decoder import SEGMENT, make

LONG_TERM: dict[str, Any] = {"kind": "long_term", "num_basis": 14, "num_samples": 19, "widths": (0.05, 0.2)}
STICKY = {**LONG_TERM, "sticky": {"num_bins": 29}}
LEFT = {**LONG_TERM, "sticky": {"num_bins": 10, "within_bin": "left"}}  # edges of bins are edges of vectors
TAU, SAMPLES = 0.75, 19


def sorting(segments: int, length: int = SEGMENT) -> SortTask:
    sizes: dict[str, Any] = {f"{split}_sequences": 3 for split in ("train", "validation", "test")}
    return SortTask(SortConfig(vocabulary=3, length=segments * length - 3, **sizes))


def read(model: SegmentModel, task: SortTask) -> tuple[list[Tensor], list[State]]:
    """The first test sequence by a plain loop: logits of each segment, and the states before and after each."""
    batch = task.make_batch("test", np.array([0]))
    states, logits = [model.initial_state(batch.streams)], []
    with use_evaluation_mode(model):
        for segment in batch.segments(model.config.segment_length):
            output = model(segment.tokens, states[-1])
            states.append(output.state)
            logits.append(output.logits)
    return logits, states


def traced(model: SegmentModel, task: SortTask) -> list[Trace]:
    batch = task.make_batch("test", np.array([0]))
    with use_evaluation_mode(model), watch_signals(model) as traces:
        state = model.initial_state(batch.streams)
        for segment in batch.segments(model.config.segment_length):
            state = model(segment.tokens, state).state
            for trace in traces:
                trace.follow()
    return traces


def test_shares_are_those_of_quadrature_of_the_normal_density() -> None:
    density = AttentionDensity(torch.rand(1, 2, 3).double(), 0.001 + 0.1 * torch.rand(1, 2, 3).double())
    edges = np.array([0, 0.1, 0.35, 0.8, 1])
    for head, found in enumerate(measure_shares(density, edges)):
        queries = list(zip(density.mean[0, head].tolist(), density.variance[0, head].sqrt().tolist(), strict=True))
        mass = [
            sum(integrate.quad(stats.norm.pdf, low, high, args, points=[args[0]])[0] for args in queries)
            for low, high in pairwise(edges)
        ]
        np.testing.assert_allclose(found, np.array(mass) / sum(mass), rtol=1e-7)


@pytest.mark.parametrize("segments", [3, 4, 7])
def test_with_fixed_samples_a_vector_s_place_and_room_shrink_by_the_contraction(segments: int) -> None:
    """A vector of segment j lies at τ^(k−j) · (τ + (1 − τ)·i/L) after k updates, of the first at τ^(k−1)·(i − ½)/L."""
    for trace in traced(make("infty", long_range=LONG_TERM), sorting(segments)):
        k, i = segments - 2, np.arange(1, SEGMENT + 1)
        firsts = [TAU ** (k - 1) * (i - 0.5) / SEGMENT]
        others = [TAU ** (k - j) * (TAU + (1 - TAU) * i / SEGMENT) for j in range(2, k + 1)]
        np.testing.assert_allclose(trace.places, np.concatenate([*firsts, *others]), rtol=1e-12)
        room = np.diff(trace.ends, prepend=0).reshape(k, SEGMENT)
        expected = np.array([TAU ** (k - 1), *((1 - TAU) * TAU ** (k - j) for j in range(2, k + 1))])
        np.testing.assert_allclose(room, np.repeat(expected[:, None] / SEGMENT, SEGMENT, 1), rtol=1e-9)
        assert room.sum() == pytest.approx(1, abs=1e-12)


def rank(place: float, samples: list[float]) -> float:
    """How many samples stand before a place, in parts where it lies between two, or where several stand on it."""
    on = [i + 1 for i, sample in enumerate(samples) if sample == place]
    if on:
        return sum(on) / len(on)
    before = sum(sample < place for sample in samples)
    low, high = ([0.0, *samples][before], [*samples, 1.0][before])
    return before if before == len(samples) else before + (place - low) / (high - low)


@pytest.mark.parametrize("memory", [STICKY, LEFT])
def test_with_drawn_samples_each_vector_is_where_a_loop_finds_it(memory: dict[str, Any], float64: None) -> None:
    model, task, distinct = make("infty", long_range=memory, initial_std=1.0), sorting(7), []
    for layer, trace in enumerate(traced(model, task)):
        places: list[float] = []
        ends: list[float] = []
        for states in read(model, task)[1][2:-1]:  # before each update
            before = states[layer].long_range
            assert isinstance(before, LongTermState)
            new = [TAU + (1 - TAU) * i / SEGMENT for i in range(1, SEGMENT + 1)]
            if not places:
                places, ends = [(i - 0.5) / SEGMENT for i in range(1, 6)], [i / SEGMENT for i in range(1, 6)]
                continue
            drawn = trace.memory.sample_positions(before)
            assert drawn is not None
            samples = drawn[0].tolist()
            distinct.append(len(set(samples)))
            places = [TAU * rank(place, samples) / SAMPLES for place in places] + new
            ends = [TAU * rank(place, samples) / SAMPLES for place in ends] + new
        np.testing.assert_allclose(trace.places, places, rtol=1e-10)
        np.testing.assert_allclose(trace.ends, ends, rtol=1e-10)
        assert ends[-1] == 1
        assert (np.diff(trace.ends, prepend=0) >= 0).all()
    assert (min(distinct) < SAMPLES) == (memory is LEFT)


def test_samples_that_all_coincide_give_all_room_to_what_is_there() -> None:
    ends = np.array([0.25, 0.5, 1.0])
    np.testing.assert_allclose(carry_places(ends, np.full(7, 0.3), 0.6), [0.6 * (0.25 / 0.3) / 7, 0.6, 0.6], rtol=1e-12)
    assert carry_places(np.array([0.3]), np.full(7, 0.3), 0.7)[0] == pytest.approx(0.7 * 4 / 7)
    assert carry_places(np.array([1.0]), np.zeros(7), 0.7)[0] == 0.7


def psi(places: np.ndarray) -> np.ndarray:
    """places basis: the documented basis, centre-major."""
    columns = [stats.norm.pdf(places, center, width) for center in np.linspace(0, 1, 7) for width in (0.05, 0.2)]
    return np.stack(columns, 1)


def ridge(places: np.ndarray, margin: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Least squares with zeros in the margin and rows √λ I = I."""
    rows = np.concatenate([psi(places), psi(margin), np.eye(14)])
    return np.linalg.lstsq(rows, np.concatenate([targets, np.zeros((len(rows) - len(places), targets.shape[1]))]))[0]


def relative(targets: np.ndarray, found: np.ndarray) -> float:
    return float(((targets - found) ** 2).sum() / (targets**2).sum())


def test_errors_and_what_is_explained_are_those_of_plain_least_squares(float64: None) -> None:
    """Of the first layer, whose input is the embedding, over two updates."""
    model, task = make("infty", long_range=LONG_TERM), sorting(4)
    trace, tokens = traced(model, task)[0], task.make_batch("test", np.array([0])).tokens
    x, gate = model.embedding(tokens)[0] * 22**0.5, trace.memory.gate
    assert gate is not None
    smoothed = [
        (torch.sigmoid(nn.functional.conv1d(part.T, gate.weight, gate.bias, padding=1)).T * part).detach().numpy()
        for part in x.split(SEGMENT)[:2]
    ]
    cells = (np.arange(SEGMENT) + 0.5) / SEGMENT
    half = cells[: SEGMENT // 2]
    one = ridge(cells, np.concatenate([-half, 1 + half]), smoothed[0])
    targets = np.concatenate([psi(np.arange(1, SAMPLES + 1) / SAMPLES) @ one, smoothed[1]])
    inside = np.concatenate(
        [TAU * np.arange(1, SAMPLES + 1) / SAMPLES, TAU + (1 - TAU) * np.arange(1, SEGMENT + 1) / SEGMENT]
    )
    shift = 1 / (2 * SEGMENT + SAMPLES)
    around = np.linspace(-0.5 + shift, 1.5 - shift, 2 * (SEGMENT + SAMPLES))
    two = ridge(inside, around[(around < 0) | (around > 1)], targets)
    errors = [relative(smoothed[0], psi(cells) @ one), relative(targets, psi(inside) @ two)]
    assert trace.errors == pytest.approx(errors, rel=1e-6)
    assert trace.explained[1] == pytest.approx([1 - errors[0]], rel=1e-6)
    left = [relative(smoothed[0], psi(TAU * cells) @ two), relative(smoothed[1], psi(inside[SAMPLES:]) @ two)]
    assert trace.explained[2] == pytest.approx([1 - left[0], 1 - left[1]], rel=1e-6)


def test_the_error_of_the_fit_falls_with_the_number_of_basis_functions() -> None:
    sizes: dict[str, Any] = {"hidden_size": 6, "num_heads": 2, "segment_length": 16, "num_samples": 64}
    means, x = [], torch.randn(5, 1, 16, 6)
    for count in (4, 8, 16, 32, 64):
        memory = LongTermMemory(LongTermMemoryConfig(num_basis=count, gate=False, **sizes))
        trace, state = Trace(memory), memory.initial_state(1)
        for evicted in x:
            state = trace.update(state, evicted)
            trace.follow()
        means.append(float(np.mean(trace.errors)))
    assert means == sorted(means, reverse=True)
    assert means[0] > 0.7
    assert means[-1] < 0.2


@pytest.mark.parametrize("memory", [LONG_TERM, STICKY])
def test_watching_changes_nothing_and_leaves_nothing_behind(memory: dict[str, Any]) -> None:
    model, task = make("infty", long_range=memory, dropout=0.3), sorting(6)
    before, inside = read(model, task)[0], [set(vars(module)) for module in model.modules()]
    random = torch.get_rng_state()
    assert inspect_memory(model, task, "test", 1) == inspect_memory(model, task, "test", 1)
    assert model.training
    assert torch.equal(torch.get_rng_state(), random)
    assert [set(vars(module)) for module in model.modules()] == inside
    with watch_signals(model):
        assert all(map(torch.equal, read(model, task)[0], before))
    with pytest.raises(KeyError), watch_signals(model):
        raise KeyError
    assert [set(vars(module)) for module in model.modules()] == inside


def test_the_document_says_where_the_last_segment_s_queries_look(float64: None) -> None:
    """By the first layer's own queries, read again, and by what a sticky state keeps."""
    model, task, queries = make("infty", long_range=STICKY, initial_std=0.7), sorting(6), []
    found = inspect_memory(model, task, "test", 1)
    model.blocks[0].attention.query.register_forward_hook(lambda _m, _i, out: queries.append(out))
    (*_, last) = read(model, task)[1]
    assert found is not None
    assert found.stream == Stream(kind="sequence", index=0, segments=6, tokens=6 * SEGMENT)
    assert [kept.updates for kept in found.reconstruction] == [1, 2, 4]
    assert found.room is None
    memory, state = model.blocks[0].long_range, last[0].long_range
    assert isinstance(memory, LongTermMemory)
    assert isinstance(state, LongTermState)
    density = memory.density(queries[-1], state)
    centers, widths = density.mean[0].detach(), density.variance[0].detach().sqrt()
    size = np.linalg.norm(psi(np.linspace(0, 1, 20_001)) @ state.coefficients[0].detach().numpy(), axis=1)
    sizes = [size[round(20_000 * place)] for place in centers.flatten().tolist()]
    expected = {
        "center": centers.mean().item(),
        "apart": np.mean([statistics.pstdev(head) for head in centers.tolist()]),
        "width": statistics.median_low(widths.flatten().tolist()),
        "there": np.mean(sizes) / np.mean(size),
    }
    assert found.gaze[0].model_dump() == pytest.approx(expected, rel=1e-3)
    edges = np.arange(BINS + 1) / BINS
    for head in range(2):
        below = stats.norm.cdf(
            edges[:, None], density.mean[0, head].detach(), density.variance[0, head].detach().sqrt()
        )
        mass = np.diff(below.sum(1))
        np.testing.assert_allclose(found.density[0][head], mass / mass.sum(), rtol=1e-5, atol=1e-12)
    for layer, kept in zip(found.histogram, last, strict=True):
        assert isinstance(kept.long_range, LongTermState)
        np.testing.assert_allclose(layer, kept.long_range.histogram[0], rtol=1e-5, atol=1e-12)
    assert found.regression_error_mean == pytest.approx(np.mean(found.regression_error), rel=1e-5)


@pytest.mark.parametrize("row", ["infty", "infty-sticky"])
def test_a_grafted_gpt2_is_seen_like_a_decoder_of_ours(row: str) -> None:
    found = inspect_memory(test_graft.make(row), sorting(6, test_graft.LENGTH), "test", 1)
    assert found is not None
    assert [kept.updates for kept in found.reconstruction] == [1, 2, 4]  # there are five


@pytest.mark.parametrize(("memory", "segments"), [("transformer-xl", 6), ("compressive", 6), ("infty", 2)])
def test_where_nothing_is_remembered_there_is_nothing_to_see(memory: str, segments: int) -> None:
    assert inspect_memory(make(memory), sorting(segments), "test", 1) is None
