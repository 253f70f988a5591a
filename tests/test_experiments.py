"""Every experiment that ships: all of its cells load, its rows are fairly matched, and it has a pulse."""

import itertools
import json
from pathlib import Path

import pytest

from infty.catalog import SHIPPED, experiment_files, open_experiment
from infty.definition import Cell
from infty.experiment import resolve
from infty.tasks.sort import SortConfig
from tests.conftest import Infty

EXPERIMENTS = sorted(experiment_files(SHIPPED))
SCALES = [(name, scale) for name in EXPERIMENTS for scale in open_experiment(name, SHIPPED).names("scales")]


def cells(name: str, scale: str) -> list[Cell]:
    return [cell for cell in open_experiment(name, SHIPPED).cells(scale) if cell.seed == 0]


@pytest.mark.parametrize(("name", "scale"), SCALES)
def test_every_cell_loads_and_the_rows_of_a_case_have_equal_slots(name: str, scale: str) -> None:
    slots: dict[str, set[int]] = {}
    for cell in cells(name, scale):
        experiment = resolve(open_experiment(name, SHIPPED), cell).experiment
        slots.setdefault(cell.case, set()).add(experiment.model.memory_slots)
    assert all(len(found) == 1 for found in slots.values())


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_head_says_which_figure_what_to_expect_how_long_and_the_command(name: str) -> None:
    lines = (SHIPPED / f"{name}.yaml").read_text(encoding="utf-8").split("\n\n")[0]
    assert all(line.startswith("#") for line in lines.splitlines())
    for word in ("arXiv 2109.00301", "Expect:", "Time:", f"Command: infty train {name}"):
        assert word in lines


def smoke_cells() -> list[Cell]:
    """Every row of every experiment once, going round its columns, so that each column runs too."""
    found = []
    for name in EXPERIMENTS:
        cases = itertools.cycle(open_experiment(name, SHIPPED).names("cases"))
        found += [
            Cell(name, "smoke", model, case)
            for model, case in zip(open_experiment(name, SHIPPED).names("models"), cases, strict=False)
        ]
    return found


@pytest.mark.parametrize("cell", smoke_cells(), ids=lambda cell: f"{cell.experiment}-{cell.model}@{cell.case}")
def test_the_smoke_scale_runs_through_the_real_command(infty: Infty, tmp_path: Path, cell: Cell) -> None:
    words = (cell.experiment, "--scale", "smoke", "--model", cell.model, "--case", cell.case, "--json")
    done = infty("train", *words)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    folder = tmp_path / "runs" / cell.folder
    assert result == json.loads((folder / "result.json").read_text())
    assert json.loads((folder / "status.json").read_text())["status"] == "done"
    assert list((folder / "wandb").glob("offline-run-*"))
    steps = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 3, 4, 5, 6, 6, 6]
    again = infty("eval", *words, "--batch", "5")
    assert json.loads(again.stdout)["totals"]["correct"] == result["totals"]["correct"]
    assert json.loads(again.stdout)["metrics"]["test/loss"] == pytest.approx(result["metrics"]["test/loss"], rel=1e-6)


def test_the_paper_scale_is_the_papers() -> None:
    """Figures of the paper and of the released code, as method and sources state them, not read from the YAML."""
    definition = open_experiment("sort", SHIPPED)
    for case, length, rate in (("x4", 4000, 2.5e-4), ("x8", 8000, 2.5e-4), ("x16", 16000, 2e-4)):
        e = resolve(definition, Cell("sort", "paper", "infty", case)).experiment
        assert isinstance(e.task, SortConfig)
        assert (e.task.vocabulary, e.task.length, e.training.learning_rate) == (20, length, rate)
        assert (e.task.train_sequences, e.task.validation_sequences, e.task.test_sequences) == (8000, 800, 800)
        assert e.training.steps * e.training.batch_size == 20 * e.task.train_sequences
        m, memory = e.model, e.model.long_range
        assert (m.num_layers, m.num_heads, m.hidden_size, m.feed_forward_size, m.dropout) == (3, 6, 300, 300, 0.1)
        assert (m.segment_length, m.short_term_length) == (1024, 1024)
        assert memory is not None
        assert memory.kind == "long_term"
        assert (memory.num_basis, memory.num_samples, memory.contraction, memory.widths) == (
            1024,
            512,
            0.75,
            (0.01, 0.05),
        )
        assert (memory.ridge_penalty, memory.prior_std, memory.kl_weight) == (1.0, 0.05, 1e-5)
