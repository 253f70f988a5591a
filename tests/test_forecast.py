"""What `--dry-run` foretells: sums that can be counted, lines between what was measured, and what helps."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import infty.training.cost.probe
from infty.model.interface import count_parameters
from infty.tasks.sort import SortConfig, SortTask
from infty.training.config import TrainingConfig
from infty.training.cost.budget import Budget, Room
from infty.training.cost.probe import Line, Probe, probe
from tests.conftest import Infty
from tests.model.test_decoder import make

SMOKE = ("sort", "--scale", "smoke")


def foretold(infty: Infty, *words: str, **environment: str) -> dict[str, Any]:
    done = infty("train", *words, "--dry-run", "--json", **environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_line_goes_through_both_points_and_does_not_fall() -> None:
    line = Line((1, 5), (10.0, 18.0))
    assert [line.at(rows) for rows in (1, 5, 11)] == [10, 18, 30]
    assert Line((1, 1), (7.0, 7.0)).at(9) == 7  # one point says nothing of more
    assert Line((1, 3), (9.0, 8.0)).at(5) == 8


def test_a_step_in_pieces_takes_what_a_piece_more_was_measured_to_take() -> None:
    found = Probe(Line((1, 4), (1.0, 2.5)), None, piece=2.0, state=0, flops_a_token=1, made_to_trained=1)
    assert found.step_seconds(own=4, at_once=4) == 2.5
    assert found.step_seconds(own=12, at_once=4) == 2.5 + 2 * 2.0
    assert found.step_seconds(own=8, at_once=8) == 4.5


def budget(own: int, together: bool, free: int = 10**12) -> Budget:
    found = Probe(
        Line((1, 4), (1.0, 1.0)), Line((1, 4), (5e6, 11e6)), 0.0, state=1000, flops_a_token=1, made_to_trained=1
    )
    return Budget(make("infty"), found, own, evaluation=0, together=together, room=Room(10**6, free))


def test_what_can_be_counted_is_counted() -> None:
    parameters = count_parameters(make("infty"))
    parts = budget(own=8, together=False).parts
    assert parts["gradients"] == 4 * parameters
    assert parts["optimizer"] == 8 * parameters
    assert parts["memory"] == 8000
    assert parts["weights"] == 4 * (parameters + sum(buffer.numel() for buffer in make("infty").buffers()))
    plan = budget(own=8, together=True)  # whose gradients have buffers that stay in a validation
    for larger, kept in ((budget(own=8, together=False), 0), (plan, 4 * parameters)):
        larger = replace(larger, evaluation=10**9)
        assert larger.total(1) == 10**9 + 10**6 + parts["weights"] + 8 * parameters + 8000 + kept
    document = budget(own=8, together=False).document(4)
    assert document["total"] == pytest.approx((11e6 + 4 * 1000) / 2**20, abs=0.1)
    names = (*parts, "activations")
    assert sum(document[name] for name in names) == pytest.approx(document["total"], abs=0.5)


def test_how_many_fit_is_the_most_whose_total_fits() -> None:
    plan = budget(own=50, together=False)
    for room in (1e6, 5.1e6, 33e6, 34e6, 1e12):
        fitting = [rows for rows in range(1, 51) if plan.total(rows) <= room]
        assert plan.largest(room) == (max(fitting) if fitting else None)
    assert "does_not_fit" not in plan.document(50)
    crowded = budget(own=50, together=False, free=30_000_000).document(50)["does_not_fit"]
    assert crowded == "--micro-batch 13 does; --recompute and more devices make it less"
    assert budget(own=50, together=False, free=1).document(50)["does_not_fit"].startswith("a larger device does")


def test_pieces_and_processes_share_a_batch(infty: Infty, tmp_path: Path) -> None:
    plain = foretold(infty, *SMOKE)
    assert (plain["processes"], plain["sequences_a_device"], plain["sequences_at_once"]) == (1, 4, 4)
    pieces = foretold(infty, *SMOKE, "--micro-batch", "3")
    assert (pieces["sequences_a_device"], pieces["sequences_at_once"]) == (4, 3)
    launcher = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "x"}
    two = foretold(infty, *SMOKE, **launcher)
    assert (two["processes"], two["sequences_a_device"]) == (2, 2)
    assert two["predicted_megabytes"]["weights"] == plain["predicted_megabytes"]["weights"]
    assert two["training_flops"] == pytest.approx(plain["training_flops"], rel=0.05)  # positions are made once a step
    other = infty("train", *SMOKE, "--dry-run", **{**launcher, "RANK": "1", "LOCAL_RANK": "1"})
    assert (other.returncode, other.stdout, other.stderr) == (0, "", "")
    assert not list(tmp_path.rglob("*.jsonl"))


def test_what_does_not_fit_is_told_with_what_would(infty: Infty) -> None:
    found = foretold(infty, *SMOKE, "--set", "training.batch_size=20000000")["predicted_megabytes"]
    assert found["total"] > found["free"]
    assert found["does_not_fit"].startswith("--micro-batch ")


def test_more_than_one_sequence_is_tried_however_slow_one_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line through one point would promise that a batch takes no longer than a sequence."""
    monkeypatch.setattr(infty.training.cost.probe, "SECONDS", 1e-9)
    config = SortConfig(vocabulary=3, length=13, train_sequences=9, validation_sequences=4, test_sequences=4)
    training = TrainingConfig(steps=9, batch_size=7, learning_rate=1e-3, evaluate_every=9)
    task, rows = SortTask(config), []
    for at_once in (1, 2, 7):
        rows.append(probe(make("infty"), task, training, 0, own=7, at_once=at_once).seconds.rows)
    assert rows == [(1, 1), (1, 2), (1, 4)]
