"""A recorded step: on a CPU what would be recorded is computed again, on the same buffers, and must be the same."""

import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from infty.commands.train.requirements import ensure_corpora
from infty.config.definition import SHIPPED, CellKey, open_experiment
from infty.config.settings import load_settings
from infty.experiment import build_task, resolve
from infty.training import recorded
from infty.training.data_parallel import Replica, Work
from infty.training.step import make_optimizer, optimize

STEPS = 20


def train(
    data: Path, experiment: str, row: str, *, records: bool, micro_batch: int | None = None
) -> tuple[list[dict[str, float]], dict[str, Tensor]]:
    """Take steps with dropout on; their figures, and the weights after them."""
    more = ["model.adaptive={cutoffs: [3]}"] if experiment == "adaptive" else []
    experiment = "sort" if more else experiment
    definition = open_experiment(experiment, SHIPPED)
    key = CellKey(experiment, "smoke", row, definition.names("cases")[0])
    resolved = resolve(definition, key, ["model.dropout=0.2", "training.steps=20", "training.batch_size=4", *more])
    ensure_corpora(resolved.experiment, load_settings(data=data))
    task, config = build_task(resolved.experiment, data), resolved.experiment.training
    model = resolved.experiment.model.build(task.vocab_size, 0)
    replica = Replica(model, micro_batch=micro_batch, records=records)
    optimizer, memory, figures = make_optimizer(model, config.learning_rate), None, []
    for step in range(STEPS):
        metrics, memory = optimize(replica, optimizer, task, config, step, 0, memory)
        figures.append({name: value for name, value in metrics.items() if name != "train/tokens_per_second"})
    return figures, model.state_dict()


@pytest.fixture
def replayed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The seed of each step that was replayed."""
    seeds, replay = list[int](), recorded._Recording.replay

    def note(self: recorded._Recording, batch: recorded.Batch, seed: int) -> Tensor:
        seeds.append(seed)
        return replay(self, batch, seed)

    monkeypatch.setattr(recorded._Recording, "replay", note)
    return seeds


@pytest.mark.parametrize(
    "row", ["infty", *(pytest.param(row, marks=pytest.mark.slower) for row in ("transformer-xl", "compressive"))]
)
def test_a_replayed_step_is_the_same_step_to_the_byte(tmp_path: Path, row: str, replayed: list[int]) -> None:
    figures, weights = train(tmp_path, "sort", row, records=True)
    assert len(set(replayed)) == len(replayed) == STEPS - recorded.BEFORE
    plainly, expected = train(tmp_path, "sort", row, records=False)
    assert figures == plainly
    assert figures[0]["train/loss"] != figures[-1]["train/loss"]
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    ("experiment", "row", "micro_batch"),
    [
        ("sort", "infty-sticky", None),
        ("adaptive", "transformer-xl", None),
        pytest.param("sort", "infty", 2, marks=pytest.mark.slower),
        pytest.param("wikitext", "infty", None, marks=pytest.mark.slower),
    ],
    ids=["the host draws", "the host sorts", "pieces with a seed each", "a memory goes on"],
)
def test_other_steps_are_taken_as_they_come(
    tmp_path: Path, experiment: str, row: str, micro_batch: int | None, replayed: list[int]
) -> None:
    found = train(tmp_path, experiment, row, records=True, micro_batch=micro_batch)
    assert replayed == []
    assert found[0] == train(tmp_path, experiment, row, records=False, micro_batch=micro_batch)[0]


def test_if_recording_fails_one_line_says_so_and_steps_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("operation not permitted when stream is capturing\nCUDA kernel errors might be …")

    monkeypatch.setattr(recorded._Recording, "__init__", fail)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        figures, weights = train(tmp_path, "sort", "infty", records=True)
    why = "operation not permitted when stream is capturing CUDA kernel errors might be …"
    assert [str(line.message) for line in told] == [f"steps are not recorded as one CUDA graph: {why}"]
    monkeypatch.undo()
    plainly, expected = train(tmp_path, "sort", "infty", records=False)
    assert figures == plainly
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_a_batch_that_is_scored_elsewhere_is_not_replayed(replayed: list[int]) -> None:
    key = CellKey("sort", "smoke", "transformer-xl", "x4")
    experiment = resolve(open_experiment("sort", SHIPPED), key).experiment
    task = experiment.task.open(Path(), experiment.model.segment_length)
    replica = Replica(experiment.model.build(task.vocab_size, 0), records=True)
    for step in range(recorded.BEFORE + 2):
        batch = task.training_batch(step, 2, 0)
        if step == recorded.BEFORE + 1:
            targets = batch.targets.clone()
            targets[0, 0] = 1
            batch = replace(batch, targets=targets)
        replica.compute_gradient(Work([[batch]], [step], 10, 2), None, 1.0)
        replica.model.zero_grad()
    assert replayed == [recorded.BEFORE]
