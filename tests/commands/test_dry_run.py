"""What `--dry-run` foretells: sums that can be counted, lines between what was measured, and what helps."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infty.base.batch import Batch
from infty.commands import dry_run
from infty.commands.dry_run import describe_memory
from infty.config.definition import CellKey, open_experiment
from infty.config.settings import load_settings
from infty.experiment import resolve
from infty.machine.launch import Launch
from infty.machine.placement import Machine
from infty.memory.precision import HOST
from infty.model.interface import count_parameters
from infty.training.config import TrainingConfig
from infty.training.cost import LinearCost, RunCost, measure_run
from tests.conftest import Infty
from tests.model.test_decoder import SEGMENT, VOCAB, make
from tests.training.test_cost import Endless

SMOKE = ("sort", "--scale", "smoke")
LINE = LinearCost(5e6, 2e6)


def foretold(infty: Infty, *words: str, **environment: str) -> dict[str, Any]:
    done = infty("train", *words, "--dry-run", "--json", **environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_line_goes_through_both_points_and_does_not_fall() -> None:
    assert [LinearCost.fit({1: 10.0, 5: 18.0}).predict(rows) for rows in (1, 5, 11)] == [10, 18, 30]
    assert LinearCost.fit({1: 7.0}).predict(9) == 7  # one point says nothing of more
    assert LinearCost.fit({3: 8.0, 1: 9.0}).predict(5) == 8


@given(fixed=st.integers(-50, 50), each=st.integers(0, 9), room=st.integers(-60, 200), most=st.integers(1, 20))
def test_how_many_fit_is_the_most_whose_cost_fits(fixed: int, each: int, room: int, most: int) -> None:
    cost = LinearCost(fixed, each)
    fitting = [rows for rows in range(1, most + 1) if cost.predict(rows) <= room]
    assert cost.count_fitting(room, most) == (max(fitting) if fitting else 0)


def test_a_step_takes_its_pieces_one_after_the_other_and_an_update(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = resolve(open_experiment("sort", Path()), CellKey("sort", "smoke", "infty", "x4", 0))
    seconds, nothing = LinearCost(0.5, 0.25), {"gradients": 0, "optimizer": 0, "memory": 0}
    cost = RunCost(12, 4, (1, 4), seconds, parts=nothing, training=LINE, evaluation=LINE)
    monkeypatch.setattr(dry_run, "measure_run", lambda *_: cost)
    monkeypatch.setattr(dry_run, "measure_update", lambda *_: 1.0)
    told = dry_run.forecast(cell, load_settings())
    assert told["seconds_a_step"] == 3 * 0.5 + 12 * 0.25 + 1.0  # three pieces of four
    assert told["predicted_training_seconds"] == told["seconds_a_step"] * told["steps"]


class Validated(Endless):
    def evaluation_batches(self, split: str, batch_size: int) -> Iterator[Batch]:
        yield self.training_batch(0, batch_size, 0)


def measure(batch_size: int, processes: int = 1) -> RunCost:
    """What streams take to train on, as measured, but for the most bytes in steps: 5 MB and 2 MB a sequence."""
    config = TrainingConfig(steps=9, batch_size=batch_size, learning_rate=1e-3, evaluate_every=9)
    machine = Machine(HOST, launch=Launch(size=processes))
    return replace(measure_run(make("infty"), Validated(VOCAB, SEGMENT), config, 0, machine), training=LINE)


def test_what_can_be_counted_is_counted() -> None:
    parameters, cost = count_parameters(make("infty")), measure(8)
    assert cost.parts["gradients"] == 4 * parameters
    assert cost.parts["optimizer"] == 8 * parameters
    # Of 2 layers: 10 vectors of short-term and 14 of long-term memory, 22 numbers of 4 bytes; its updates and its seed.
    assert cost.parts["memory"] == 8 * 2 * ((10 + 14) * 22 * 4 + 8 + 8)
    # The fewest that are validated at once need this much; below one row the fitted line says nothing.
    assert cost.evaluation.predict(1) >= cost.parts["optimizer"] + cost.parts["memory"]
    two = measure(16, processes=2)  # whose gradients have buffers that stay in a validation
    assert (two.own, two.parts) == (8, cost.parts)
    assert two.evaluation.predict(1) >= sum(cost.parts.values())


def test_what_is_held_is_told_in_parts_with_what_would_fit() -> None:
    model, cost = make("infty"), replace(measure(50), evaluation=LinearCost(0, 1e6))
    document = describe_memory(model, cost, evaluated=4, program=10**6, held=3 * 10**6, free=10**12)
    assert document["total"] == pytest.approx((3e6 + 5e6 + 50 * 2e6) / 2**20, abs=0.1)
    names = ("program", "weights", "gradients", "optimizer", "memory", "activations")
    assert sum(document[name] for name in names) == pytest.approx(document["total"], abs=0.5)
    assert document["largest_micro_batch"] == {"16 GB": 50, "24 GB": 50, "40 GB": 50, "80 GB": 50}
    assert "does_not_fit" not in document
    for free, change in (
        (34_000_000, "--micro-batch 13"),
        (9_000_000, "--micro-batch 1"),
        (8_900_000, "a larger device"),
    ):
        document = describe_memory(model, cost, evaluated=4, program=10**6, held=3 * 10**6, free=int(free))
        assert document["does_not_fit"] == f"{change} does; --recompute and more devices make it less"
    document = describe_memory(model, cost, evaluated=10**6, program=0, held=0, free=10**11)
    assert document["total"] == pytest.approx(1e12 / 2**20, abs=0.1)  # of validations, which fewer at once make no less
    assert document["does_not_fit"].startswith("a larger device does")
    assert set(document["largest_micro_batch"].values()) == {None}


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
