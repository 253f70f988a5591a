"""An assessment without a command line: its sums against plain loops, what a knock-out reads, and what is written."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from infty.base.errors import UsageError
from infty.commands.evaluate import EvaluationRequest, evaluate_run
from infty.commands.load import TrainedModel
from infty.config.definition import CellKey, open_experiment
from infty.experiment import build_task, resolve
from infty.memory.longterm import LongTermMemory
from infty.runs.parts import AnswerDetails
from infty.tasks.sort import SortTask

Assessed = tuple[TrainedModel, SortTask]


def untrained(row: str) -> Assessed:
    """A row of sort at smoke scale with the weights that it begins with, and its task."""
    overrides = ["task.test_sequences=3", "training.evaluation_batch_size=2"]
    cell = resolve(open_experiment("sort", Path()), CellKey("sort", "smoke", row, "x4", 0), overrides)
    task = build_task(cell.experiment, Path())
    assert isinstance(task, SortTask)
    return TrainedModel(cell.experiment.model.build(task.vocab_size, seed=0).eval(), None, cell.experiment, 7), task


def answer_sequences(trained: TrainedModel, task: SortTask) -> tuple[list[float], list[int]]:
    """Nats and right symbols of each test sequence, read alone by a plain loop."""
    nats, right = [], []
    for batch in task.evaluation_batches("test", 1):
        state, logits = trained.model.initial_state(batch.streams), []
        with torch.no_grad():
            for segment in batch.segments(trained.experiment.model.segment_length):
                output = trained.model(segment.tokens, state)
                state = output.state
                logits.append(output.logits)
        answer = slice(task.config.length, None)
        own, wanted = torch.cat(logits, 1)[0, answer], batch.targets[0, answer]
        nats.append(float(F.cross_entropy(own.double(), wanted, reduction="sum")))
        right.append(int((own.argmax(-1) == wanted).sum()))
    return nats, right


@pytest.mark.parametrize("row", ["transformer-xl", "compressive", "infty", "infty-sticky"])
def test_totals_metrics_and_details_are_those_of_a_plain_loop(row: str, tmp_path: Path) -> None:
    trained, task = untrained(row)
    evaluation = evaluate_run(trained, task, EvaluationRequest(), folder=tmp_path)
    nats, right = answer_sequences(trained, task)
    assert evaluation
    assert evaluation.totals.nats == pytest.approx(sum(nats), rel=1e-5)
    assert evaluation.metrics["test/loss"] == pytest.approx(sum(nats) / (3 * task.config.vocabulary), rel=1e-5)
    assert evaluation.totals.correct == sum(right)
    assert isinstance(evaluation.details, AnswerDetails)
    assert evaluation.details.answers.right == right
    assert (evaluation.step, evaluation.split, evaluation.knock_out) == (7, "test", None)
    traced = (tmp_path / "sort-accuracy-v1-test-memory.json").exists()
    assert traced == row.startswith("infty"), "signals are traced, and nothing else is"


def test_an_emptied_memory_is_read_as_if_nothing_had_entered_it(monkeypatch: pytest.MonkeyPatch) -> None:
    trained, task = untrained("infty")
    with torch.no_grad():
        for parameter in trained.model.parameters():
            parameter.mul_(5)  # so that what is read counts
    whole = evaluate_run(trained, task, EvaluationRequest())
    emptied = evaluate_run(trained, task, EvaluationRequest(knock_out="zero"))
    read = LongTermMemory.read

    def read_nothing(*args: Any) -> tuple[Any, ...]:
        far, state, losses = read(*args)
        return None if far is None else torch.zeros_like(far), state, losses

    monkeypatch.setattr(LongTermMemory, "read", read_nothing)
    nats, _ = answer_sequences(trained, task)
    assert whole
    assert emptied
    assert emptied.totals.nats == pytest.approx(sum(nats), rel=1e-5)
    assert emptied.totals.nats != pytest.approx(whole.totals.nats, rel=1e-3)
    assert emptied.knock_out == "zero"


def test_what_has_no_meaning_is_refused_in_words() -> None:
    for row, request, why in (
        ("transformer-xl", EvaluationRequest(knock_out="zero"), "there is nothing to knock out"),
        ("infty", EvaluationRequest(protocol="text-documents-v1"), "this task has sort-accuracy-v1 only"),
    ):
        with pytest.raises(UsageError, match=why):
            evaluate_run(*untrained(row), request)


def test_an_evaluation_is_written_by_its_protocol_split_and_knock_out(tmp_path: Path) -> None:
    trained, task = untrained("infty")
    for request in (EvaluationRequest(), EvaluationRequest(split="validation"), EvaluationRequest(knock_out="shuffle")):
        evaluate_run(trained, task, request, folder=tmp_path)
    names = ["sort-accuracy-v1-test", "sort-accuracy-v1-test-memory", "sort-accuracy-v1-test-without-shuffle"]
    assert sorted(path.stem for path in tmp_path.iterdir()) == [*names, "sort-accuracy-v1-validation"]
