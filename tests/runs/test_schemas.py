"""The records of runs: what is read of a file is what the file holds, byte for byte; what is of no task is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from infty.base.errors import MissingError
from infty.config.definition import SHIPPED
from infty.runs.record import Record
from infty.runs.schemas import Evaluation, MemoryTrace, Result
from tests.report.handmade import DATA, SORT, evaluation, sort_result, text_result

CELL = {"experiment": "sort", "scale": "laptop", "model": "infty", "case": "x8", "seed": 0}
KINDS: tuple[tuple[str, type[Record]], ...] = (
    ("sort*/**/result.json", Result),
    ("wikitext*/**/result.json", Result),
    ("gpt2/**/result.json", Result),
    ("**/eval/*-test-memory.json", MemoryTrace),
    ("**/eval/*-test.json", Evaluation),
    ("**/eval/*-test-without-*.json", Evaluation),
)


@pytest.mark.parametrize(("files", "kind"), KINDS, ids=lambda value: value if isinstance(value, str) else "")
def test_what_is_read_is_written_again_to_the_byte(files: str, kind: type[Record], tmp_path: Path) -> None:
    found = sorted((SHIPPED / "results/laptop").glob(files))
    assert len(found) > 20
    for file in found:
        kind.read(file).write(tmp_path / "again.json")
        assert (tmp_path / "again.json").read_bytes() == file.read_bytes(), file


def test_records_are_made_of_records_as_of_what_files_hold() -> None:
    result = text_result(CELL, starting_weights={"origin": "base", "sha256": "c"})
    whole = Evaluation(
        protocol=result.protocol,
        split="test",
        knock_out=None,
        step=result.best_step,
        metrics=result.metrics,
        totals=result.totals,
        calibration=None,
        data=result.data,
        details=evaluation(result, {}).details,
    )
    assert whole == evaluation(result, {})
    assert json.loads(json.dumps(whole.model_dump())) == whole.model_dump()
    assert whole.metric("test/loss") == 1.0
    assert whole.find_metric("test/far_loss") is None


def test_keys_that_nobody_reads_may_hold_anything_and_absent_ones_stay_absent() -> None:
    result = sort_result(CELL)
    assert Result.check({**result.model_dump(), "more": float("nan")}, "x") == result
    assert {"starting_weights", "words", "bytes"}.isdisjoint({*result.model_dump(), *result.model_dump()["totals"]})


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"data": DATA}, "wanted all of it of one task"),
        ({"training_data": DATA}, "wanted all of it of one task"),
        ({"calibration": {}}, "wanted all of it of one task"),
        ({"totals": {**SORT["totals"], "words": 3}}, "wanted all of it of one task"),
        ({"metrics": {"test/accuracy": 0.5}}, "metrics: lacks test/loss"),
        ({"metrics": {"test/accuracy": 1.5, "test/loss": 1.0}}, "metrics: wanted test/accuracy from 0 to 1"),
        ({"data": {"name": "sort"}}, "data.sha256: is missing"),
        ({"data": {"name": "w", "title": "W"}}, "data.split: is missing"),
        ({"data": 3}, "data: wanted a mapping"),
        ({"best_step": 1.5}, "best_step: must be a valid integer"),
        ({"schema": 2}, "schema: must be 1"),
    ],
)
def test_what_does_not_fit_together_is_refused_in_one_line(changes: dict[str, Any], fault: str) -> None:
    with pytest.raises(MissingError) as caught:
        Result.check({**sort_result(CELL).model_dump(), **changes}, "result.json")
    assert str(caught.value) == f"result.json: {fault}; train again with --fresh"
