"""What a step asks of a GPU: nothing. The weights lie on the meta device, which has no answer to give."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from infty.base.batch import Batch
from infty.config.definition import SHIPPED, CellKey, open_experiment
from infty.experiment import resolve
from infty.model import relative_attention
from infty.model.fast import relative_fused
from infty.model.interface import SegmentModel, State
from infty.tasks.sort import SortConfig
from infty.training.data_parallel import Replica, Work, compute_losses
from tests.machine.test_devices import ROWS, model_of, pieces
from tests.machine.watch import Watch, as_on_a_gpu


def watch_step(model: SegmentModel, batch: Batch, memory: tuple[State | None] | None = None) -> Watch:
    """Take a second step: in a first one, constants are made on the device."""
    replica, work = Replica(model), Work([[batch]], [3], batch.count_scored(), len(batch.tokens))
    replica.compute_gradient(work, memory, 1.0)
    model.zero_grad()
    with Watch() as watch:
        figures, _ = replica.compute_gradient(work, memory, 1.0)
    assert figures.is_meta
    assert watch.mixed == []
    return watch


def choose(*shown: tuple[str, str]) -> list[Any]:
    """All rows; those that others are of the kind of only when an issue is closed."""
    return [row if (row[0], row[2]) in shown else pytest.param(*row, marks=pytest.mark.slower) for row in ROWS]


@pytest.mark.parametrize(
    ("name", "case", "row"),
    choose(
        ("sort", "infty"), ("sort", "infty-sticky"), ("wikitext", "infty"), ("gpt2", "infty"), ("gpt2", "compressive")
    ),
)
def test_a_step_asks_its_device_nothing(name: str, case: str, row: str) -> None:
    """Copied are tokens and targets, how an adaptive softmax sorts them, and what a sticky memory draws."""
    model = model_of(name, case, row)
    batch = pieces(model, name, 6)
    copies = watch_step(model.to("meta").train(), batch).copies
    draws = [shape for shape in copies if row == "infty-sticky" and shape == (2, 16)]
    plans = [shape for shape in copies if name == "wikitext" and len(shape) == 1]
    assert len(plans) == (name == "wikitext")
    assert len(copies) == 2 + len(draws) + len(plans)
    assert copies.count(tuple(batch.tokens.shape)) == 2
    assert bool(draws) == (row == "infty-sticky")


@pytest.mark.parametrize(("name", "case", "row"), choose(("wikitext", "infty"), ("gpt2", "compressive"))[4:])
def test_nor_does_it_if_only_some_rows_begin_anew(name: str, case: str, row: str) -> None:
    """Then what is copied besides are marks of rows, and numbers of theirs: none is larger than the tokens."""
    model = model_of(name, case, row)
    batch, goes_on = pieces(model, name, 6), torch.zeros(2, dtype=torch.bool)
    with torch.no_grad():
        state = compute_losses(model, [batch])[1]
    model.to("meta").train()
    memory = tuple(move(layer) for layer in state)
    for fresh in (goes_on, torch.tensor([True, False])):
        watch = watch_step(model, replace(batch, fresh=fresh), (memory,))
        most = batch.tokens.numel() if fresh.any() else 0
        beside = [shape for shape in watch.copies if len(shape) == 2 and shape != (2, 16)]
        assert sum(torch.Size(shape).numel() for shape in beside[2:]) <= most


def move(part: Any) -> Any:
    """Move a state to the meta device, but for whole numbers of rows."""
    if isinstance(part, Tensor):
        return part.to("meta") if part.is_floating_point() else part
    return (
        replace(part, **{name: move(value) for name, value in vars(part).items()})
        if hasattr(part, "__dict__")
        else part
    )


def count_kernels(row: str, case: str, monkeypatch: pytest.MonkeyPatch) -> Watch:
    """Count those of a step at the paper's sizes, each kernel of attention as one."""
    experiment = resolve(open_experiment("sort", SHIPPED), CellKey("sort", "paper", row, case)).experiment
    assert isinstance(experiment.task, SortConfig)
    with torch.device("meta"):
        model = experiment.model.build(experiment.task.vocab_size, seed=0)
    as_on_a_gpu(monkeypatch)
    launched: list[str] = []
    monkeypatch.setattr(relative_attention, "are_products_rounded", lambda _: True)
    monkeypatch.setattr(relative_attention, "AVAILABLE", True)
    monkeypatch.setattr(relative_fused, "_run", lambda kernel, *_: launched.append(kernel.__name__))
    length = experiment.task.length
    tokens = torch.zeros(8, length + experiment.task.vocabulary, dtype=torch.int64)
    targets = torch.where(torch.arange(tokens.shape[1]) < length, -100, tokens)
    watch = watch_step(model.to("meta").train(), Batch(tokens, targets, torch.arange(8)))
    watch.kernels["attention"] = len(launched) // 2  # of two steps
    return watch


@pytest.mark.parametrize(
    ("row", "most"),
    [("infty", 1_100), ("transformer-xl", 700), pytest.param("compressive", 800, marks=pytest.mark.slower)],
)
def test_a_step_of_the_papers_size_launches_few_kernels(row: str, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """They were 2,170 and 1,571 in 0.1.0. `python -m tests.machine.test_questions` prints what they are."""
    pytest.importorskip("triton")
    kernels = count_kernels(row, "x4", monkeypatch).kernels
    assert kernels["attention"] == 9 + 3 * 3  # 9 forward passes, of which 3 have a backward pass of 3
    assert kernels.total() <= most


if __name__ == "__main__":
    for row in ("infty", "transformer-xl", "compressive"):
        for case in ("x4", "x16"):
            with pytest.MonkeyPatch.context() as patch:
                found = count_kernels(row, case, patch)
            print(f"{row} {case}: {found.kernels.total():,} kernels, {len(found.copies)} copies")
