"""FLOPs of a step are those of a memory that is full."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from infty.base.batch import Batch
from infty.config.definition import SHIPPED, CellKey, open_experiment
from infty.experiment import build_task, resolve
from infty.memory.fast import tiling
from infty.memory.longterm import LongTermMemory
from infty.model.config import DecoderConfig, Gpt2ModelConfig
from infty.model.fast import relative_tiled
from infty.tasks.sort import SortConfig
from infty.tasks.task import TrainingData
from infty.training import cost
from infty.training.cost import count_step_flops, count_training_flops, try_to_count_flops
from tests.training.by_hand import count_decoder, count_graft

SLOWER = pytest.mark.slower
EVEN = ["model.adaptive={cutoffs: []}"]  # with clusters a step costs what its tokens do


class Endless(TrainingData):
    """Streams of random tokens that never begin anew."""

    continues = True
    tokens_per_epoch: int | None = None

    def __init__(self, vocab_size: int, length: int) -> None:
        self.vocab_size, self.length, self.asked = vocab_size, length, 0

    def training_batch(self, step: int, batch_size: int, seed: int, rows: range | None = None) -> Batch:
        self.asked += 1
        names = torch.arange(batch_size)[slice(0, batch_size) if rows is None else slice(rows.start, rows.stop)]
        tokens = torch.randint(self.vocab_size, (len(names), self.length + 1))
        return Batch(tokens[:, :-1], tokens[:, 1:], names, torch.full(names.shape, step == 0))

    def count_steps_per_epoch(self, batch_size: int) -> int:
        return 1

    def count_tokens_seen(self, steps: int, batch_size: int) -> int:
        return steps * batch_size * self.length


@pytest.mark.parametrize(
    "row",
    ["infty", *(pytest.param(row, marks=SLOWER) for row in ("transformer-xl", "compressive", "infty-sticky"))],
)
def test_counted_once_the_memory_is_full(row: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many steps again change nothing; the first step alone, with nothing remembered, has fewer."""
    resolved = resolve(open_experiment("wikitext", SHIPPED), CellKey("wikitext", "smoke", row, "main"), EVEN)
    config, training = resolved.experiment.model, resolved.experiment.training
    assert isinstance(config, DecoderConfig)
    task = Endless(400, config.segment_length)
    two, six = (training.model_copy(update={"batch_size": size}) for size in (2, 6))
    (full, tokens), steps = count_step_flops(config, task, two, seed=0), task.asked
    assert tokens == 2 * config.segment_length
    sixfold = count_step_flops(config, task, six, seed=0)[0]
    shared = config.num_layers * 4 * config.attended_length * config.hidden_size**2  # positions
    assert sixfold - shared == 3 * (full - shared)
    monkeypatch.setattr(cost, "FULL", 2 * steps)
    assert count_step_flops(config, task, two, seed=0)[0] == full
    monkeypatch.setattr(cost, "FULL", 1)
    monkeypatch.setattr(cost, "MOST", 1)
    assert count_step_flops(config, task, two, seed=0)[0] < full


@pytest.mark.parametrize("case", [pytest.param("x4", marks=SLOWER), "x8"])
@pytest.mark.parametrize("row", ["transformer-xl", "compressive", "infty", "infty-sticky"])
def test_a_sorting_step_s_products_are_those_counted_by_hand(row: str, case: str) -> None:
    experiment = resolve(open_experiment("sort", SHIPPED), CellKey("sort", "smoke", row, case)).experiment
    assert isinstance(experiment.model, DecoderConfig)
    assert isinstance(experiment.task, SortConfig)
    task, training = experiment.task.open(), experiment.training
    found, tokens = count_step_flops(experiment.model, task, training, seed=0)
    sizes = task.vocab_size, task.sequence_length, experiment.task.vocabulary, training.batch_size
    assert found == count_decoder(experiment.model, *sizes)
    assert tokens == task.sequence_length * training.batch_size


@pytest.mark.parametrize("row", ["gpt2", "infty", "infty-sticky"])
def test_a_graft_s_products_are_those_counted_by_hand(row: str) -> None:
    experiment = resolve(open_experiment("gpt2", SHIPPED), CellKey("gpt2", "smoke", row, "wikitext")).experiment
    model, training = experiment.model, experiment.training
    assert isinstance(model, Gpt2ModelConfig)
    found, _ = count_step_flops(model, Endless(400, model.segment_length), training, seed=0)
    assert found == count_graft(model, 400, training.batch_size)


@pytest.mark.parametrize(
    ("name", "row", "case"), [("sort", "compressive", "x4"), ("sort", "infty", "x8"), ("gpt2", "infty", "wikitext")]
)
def test_neither_dropout_nor_tiles_alter_the_count(
    name: str, row: str, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch's counter, left to itself, misses a CPU's fused attention, unless there is dropout in it (torch 2.13)."""
    counts = set[int]()
    for changes in ("model.dropout=0.0", "model.dropout=0.3", *["model.attention_dropout=0.2"] * (name == "sort")):
        experiment = resolve(open_experiment(name, SHIPPED), CellKey(name, "smoke", row, case), [changes]).experiment
        task = Endless(400, experiment.model.segment_length)
        counts.add(count_step_flops(experiment.model, task, experiment.training, seed=0)[0])
        monkeypatch.setattr(relative_tiled, "QUERIES", 5)
        monkeypatch.setattr(tiling, "GPU_BLOCK", 7)
    assert len(counts) == 1


def test_a_memory_that_asks_for_numbers_costs_a_run_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is trained as before; on the meta device there are none, so its FLOPs are left out, with a warning."""

    def advance(self: LongTermMemory, state: Any, evicted: Tensor, rows: Any, attend: Any) -> Any:
        assert evicted.norm() < 1e9
        return self.update(state, evicted, rows), {}

    monkeypatch.setattr(LongTermMemory, "advance", advance)
    experiment = resolve(open_experiment("sort", SHIPPED), CellKey("sort", "smoke", "infty", "x4")).experiment
    assert isinstance(experiment.task, SortConfig)
    with pytest.warns(UserWarning, match="^FLOPs were not counted: .*meta"):
        found = try_to_count_flops(experiment.model, experiment.task.open(), experiment.training, seed=0, steps=1)
    assert found is None


def test_a_triangular_solve_counts_as_a_product_with_half_a_matrix() -> None:
    """6 systems of 5 × 5, 7 right sides: a row takes a product and a difference for each before it, a division."""
    system, sides = torch.eye(5).expand(2, 3, 5, 5), torch.ones(2, 3, 5, 7)
    with FlopCounterMode(display=False, custom_mapping=cost.SOLVED) as counter:
        torch.linalg.solve_triangular(system, sides, upper=False)
    assert counter.get_total_flops() == 6 * 7 * sum(1 + 2 * row for row in range(5))


def test_a_curriculum_s_steps_are_counted_stage_by_stage() -> None:
    cell = CellKey("recall", "smoke", "delta", "graph4")
    experiment = resolve(open_experiment("recall", SHIPPED), cell, ["task.curriculum=[2, 1, 3]"]).experiment
    task, training = build_task(experiment, SHIPPED), experiment.training

    def count(distances: str, pairs: int) -> int:
        changes = [f"task.distances={distances}", f"task.pairs={pairs}", "task.curriculum=[]"]
        plain = resolve(open_experiment("recall", SHIPPED), cell, changes).experiment
        return count_step_flops(plain.model, build_task(plain, SHIPPED), training, seed=0)[0]

    stages = [count("[0]", 4), count("[0, 1]", 2), count("[0, 1, 2]", 2), count("[0, 1, 2, 4]", 1)]
    expected = sum(steps * flops for steps, flops in zip((2, 1, 3, 5), stages, strict=True))
    assert count_training_flops(experiment.model, task, training, 0, 11) == expected
    assert count_training_flops(experiment.model, task, training, 0, 2) == 2 * stages[0]
