"""A batch in pieces is the same batch, and memories may be cut and joined as its rows are."""

from pathlib import Path

import pytest
import torch

from infty.commands.train.requirements import ensure_corpora
from infty.config.definition import SHIPPED, CellKey, open_experiment
from infty.config.settings import load_settings
from infty.experiment import build_task, resolve
from infty.model.tensors import concatenate_states, select_rows, state_tensors
from infty.tasks.task import Task
from infty.training.config import TrainingConfig
from infty.training.data_parallel import Memory, Replica
from infty.training.step import _derive_seed, make_optimizer, optimize

ROWS = [
    ("sort", "infty"),
    ("wikitext", "compressive"),
    pytest.param("sort", "compressive", marks=pytest.mark.slower),
    pytest.param("wikitext", "infty", marks=pytest.mark.slower),
]


def cell(data: Path, experiment: str, model: str, micro_batch: int | None) -> tuple[Replica, Task, TrainingConfig]:
    definition = open_experiment(experiment, SHIPPED)
    changes = ("model.dropout=0.0", "training.batch_size=8", "training.steps=20")
    resolved = resolve(definition, CellKey(experiment, "smoke", model, definition.names("cases")[0]), changes)
    ensure_corpora(resolved.experiment, load_settings(data=data))
    task = build_task(resolved.experiment, data)
    replica = Replica(resolved.experiment.model.build(task.vocab_size, 0), micro_batch=micro_batch)
    return replica, task, resolved.experiment.training


def losses(data: Path, experiment: str, model: str, micro_batch: int | None, steps: int = 20) -> list[dict[str, float]]:
    replica, task, config = cell(data, experiment, model, micro_batch)
    optimizer, memory, found = make_optimizer(replica.model, config.learning_rate), None, []
    for step in range(steps):
        metrics, memory = optimize(replica, optimizer, task, config, step, 0, memory)
        found.append({key: value for key, value in metrics.items() if key != "train/tokens_per_second"})
    return found


@pytest.mark.parametrize(("experiment", "model"), ROWS)
def test_four_pieces_of_two_are_a_batch_of_eight(tmp_path: Path, experiment: str, model: str) -> None:
    whole = losses(tmp_path, experiment, model, None)
    assert whole[0]["train/loss"] != whole[-1]["train/loss"]
    for micro_batch in (2, 3):  # the latter leaves a smaller last piece
        for one, other in zip(whole, losses(tmp_path, experiment, model, micro_batch), strict=True):
            assert other["train/loss"] == pytest.approx(one["train/loss"], abs=1e-5)
            assert other == pytest.approx(one, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("model", ["infty-sticky", "compressive", "transformer-xl"])
def test_memories_of_pieces_are_those_of_the_batch(tmp_path: Path, model: str) -> None:
    """Rows begin anew at different steps, so pieces remember different lengths; joined they read as before."""
    kept: dict[int, Memory] = {}
    for size in (8, 2, 3):
        replica, task, config = cell(tmp_path, "wikitext", model, size)
        optimizer, memory = make_optimizer(replica.model, 0.0), None
        for step in range(30):
            batch = task.training_batch(step, 8, 0)
            assert batch.fresh is not None
            _, memory = optimize(replica, optimizer, task, config, step, 0, memory)
            if step > 5 and 0 < batch.fresh.sum() < 8:
                break
        assert memory is not None
        kept[size] = memory
    assert len(kept[2]) == 4
    assert len(kept[3]) == 3
    with torch.no_grad():
        model_ = cell(tmp_path, "wikitext", model, None)[0].model.eval()
        tokens = torch.randint(300, (8, 16))
        (whole,) = kept[8]
        assert whole is not None
        wanted = model_(tokens, whole).logits
        for pieces in (kept[2], kept[3]):
            again = concatenate_states([piece for piece in pieces if piece is not None])
            torch.testing.assert_close(model_(tokens, again).logits, wanted, rtol=1e-4, atol=1e-4)
            some = select_rows(again, slice(3, 6), model_.device)
            torch.testing.assert_close(model_(tokens[3:6], some).logits, wanted[3:6], rtol=1e-4, atol=1e-4)


def test_what_is_kept_of_pieces_comes_back_as_it_was(tmp_path: Path) -> None:
    replica, task, config = cell(tmp_path, "wikitext", "infty", 3)
    optimizer, memory = make_optimizer(replica.model, 1e-3), None
    for step in range(3):
        _, memory = optimize(replica, optimizer, task, config, step, 0, memory)
    assert memory is not None
    tensors = replica.gather_memory_tensors(memory)
    assert tensors is not None
    assert {name.partition(".")[0] for name in tensors} == {"0", "1", "2"}
    for one, other in zip(memory, replica.load_memory(tensors, 8), strict=True):
        assert one is not None
        assert other is not None
        before, after = state_tensors(one), state_tensors(other)
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)
    with pytest.raises(KeyError, match="its memory is of 8 rows, and a batch has 4"):
        replica.load_memory(tensors, 4)
    with pytest.raises(KeyError, match="is of no piece"):
        replica.load_memory({"x.0.short_term.hidden": tensors["0.0.short_term.hidden"]}, 8)


def test_each_seed_step_and_piece_draws_its_own_dropout() -> None:
    """A CPU's generator takes the lowest 32 bits of what it is seeded with."""
    places = [(seed, step, row) for seed in (0, 1, 2**31 - 1) for step in (0, 1, 99_999) for row in (0, 1, 39)]
    assert len({_derive_seed(*place) % 2**32 for place in places}) == len(places)
