"""Each row of sort at smoke scale loses what it always lost, to 1e-5: no change goes unseen that moves a number."""

import json

import pytest

from tests.golden_losses import GOLDEN, ROWS, STEPS, train_first_steps


@pytest.mark.parametrize("row", ROWS)
def test_first_losses_are_the_golden_ones(row: str) -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    made = train_first_steps(row)
    assert len(made) == STEPS == len(golden[row])
    for mine, known in zip(made, golden[row], strict=True):
        assert mine == pytest.approx(known, rel=1e-5)
