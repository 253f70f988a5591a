"""Every experiment that ships: all of its cells load, its rows are fairly matched, and it has a pulse."""

import functools
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from infty.config.definition import SHIPPED, CellKey, experiment_files, open_experiment
from infty.experiment import resolve
from infty.memory.longterm import LongTermMemoryConfig
from infty.memory.signal import make_operators
from infty.model.config import DecoderConfig
from infty.model.decoder import Decoder
from infty.model.interface import count_parameters
from infty.runs.folder import differences
from infty.tasks.corpus import CorpusConfig
from infty.tasks.sort import SortConfig
from infty.training.data_parallel import Replica
from infty.training.step import make_optimizer, optimize
from tests.conftest import Infty

EXPERIMENTS = sorted(experiment_files(SHIPPED))
AS_PUBLISHED = {("wikitext", "paper"), ("pg19", "paper")}
OTHER_SLOTS = {
    "gpt2",  # as published: fine-tuned without a memory
    "infty-no-memory",  # what the memory brings
    "infty-basis-x4",  # what it loses for its size
    *("mean", "mean-forgetting"),  # one vector
    *("delta", "delta-64"),  # a matrix, and no vectors
    "slots-32",  # as many bytes
    "cache-all",  # the ceiling
}
SCALES = [(name, scale) for name in EXPERIMENTS for scale in open_experiment(name, SHIPPED).names("scales")]


def mark_variation(name: str) -> list[pytest.MarkDecorator]:
    """One that varies another, or has a row a memory, waits for `make slow`: those are trained elsewhere."""
    return [pytest.mark.slower] if "-" in name or name == "recall" else []


def cells(name: str, scale: str) -> list[CellKey]:
    return [cell for cell in open_experiment(name, SHIPPED).cells(scale) if cell.seed == 0]


@pytest.mark.parametrize(("name", "scale"), SCALES)
def test_every_cell_loads_and_the_rows_of_a_case_have_equal_slots(name: str, scale: str) -> None:
    if (name, scale) in AS_PUBLISHED:
        pytest.skip("the published rows differ here: Transformer-XL has its short-term memory alone")
    slots: dict[str, set[int]] = {}
    for cell in cells(name, scale):
        experiment = resolve(open_experiment(name, SHIPPED), cell).experiment
        if cell.model not in OTHER_SLOTS:
            slots.setdefault(cell.case, set()).add(experiment.model.memory_slots)
    assert all(len(found) == 1 for found in slots.values())


@pytest.mark.parametrize("scale", ["smoke", "laptop", "paper"])
@pytest.mark.parametrize("name", ["sort", "wikitext", "pg19"])
def test_the_wide_transformer_xl_has_as_many_parameters_as_the_memory_brings(name: str, scale: str) -> None:
    definition, counts = open_experiment(name, SHIPPED), {}
    for row in ("transformer-xl", "transformer-xl-wide", "infty"):
        e = resolve(definition, CellKey(name, scale, row, definition.names("cases")[0])).experiment
        assert isinstance(e.model, DecoderConfig)
        with torch.device("meta"):
            counts[row] = count_parameters(Decoder(e.model, 267_735))  # which adds the same to both
    more = {row: count - counts["transformer-xl"] for row, count in counts.items()}
    assert more["infty"] > 1000
    assert more["transformer-xl-wide"] == pytest.approx(more["infty"], rel=2e-3)


@pytest.mark.parametrize("scale", ["smoke", "laptop", "paper"])
@pytest.mark.parametrize(
    ("name", "case", "of", "column"),
    [
        ("sort-ablation", "x16", "sort", "x16"),
        ("sort-basis", "n1", "sort", "x8"),
        ("wikitext-ablation", "main", "wikitext", "main"),
    ],
)
def test_what_is_varied_starts_from_the_row_infty_as_it_stands_elsewhere(
    name: str, case: str, of: str, column: str, scale: str
) -> None:
    found = resolve(open_experiment(name, SHIPPED), CellKey(name, scale, "infty", case)).experiment
    assert found == resolve(open_experiment(of, SHIPPED), CellKey(of, scale, "infty", column)).experiment


@pytest.mark.parametrize("scale", ["smoke", "laptop", "paper"])
@pytest.mark.parametrize("name", ["sort-ablation", "wikitext-ablation", "wikitext", "pg19"])
def test_the_row_without_a_memory_is_the_row_infty_less_its_memory(name: str, scale: str) -> None:
    definition = open_experiment(name, SHIPPED)
    infty, without = (
        resolve(definition, CellKey(name, scale, row, definition.names("cases")[0])).experiment
        for row in ("infty", "infty-no-memory")
    )
    assert infty.model.long_range is not None
    assert without == infty.model_copy(update={"model": infty.model.model_copy(update={"long_range": None})})


@functools.cache
def growth(geometry: tuple[Any, ...]) -> float:
    """Many experiments have the same memory."""
    return make_operators(*geometry).growth


@pytest.mark.parametrize(
    ("name", "scale"), [pytest.param(name, scale, marks=mark_variation(name)) for name, scale in SCALES]
)
def test_no_memory_that_ships_grows_without_bound(name: str, scale: str) -> None:
    """With fixed sample points, in the long run: a stream of any length stays finite."""
    sizes = {
        (m.num_basis, m.widths, m.segment_length, m.num_samples, m.contraction, m.ridge_penalty)
        for cell in cells(name, scale)
        if isinstance(
            m := resolve(open_experiment(name, SHIPPED), cell).experiment.model.long_range, LongTermMemoryConfig
        )
        and m.num_basis <= 1024  # more takes long
    }
    assert sizes
    assert all(growth(found) < 0.95 for found in sizes)


@pytest.mark.parametrize("scale", ["laptop", "paper"])
@pytest.mark.parametrize("name", ["sort-ablation", "wikitext-ablation"])
def test_each_row_of_an_ablation_changes_one_thing(name: str, scale: str) -> None:
    definition = open_experiment(name, SHIPPED)
    case = definition.names("cases")[0]
    configs = {m: resolve(definition, CellKey(name, scale, m, case)).config for m in definition.names("models")}
    for row, config in configs.items():
        of = "infty-sticky" if row.startswith("infty-sticky-") else "infty"
        changed = differences({**configs[of], "cell": None}, {**config, "cell": None})
        assert len(changed) == (row != "infty"), changed


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_head_says_which_figure_what_to_expect_how_long_and_the_command(name: str) -> None:
    lines = (SHIPPED / f"{name}.yaml").read_text(encoding="utf-8").split("\n\n")[0]
    assert all(line.startswith("#") for line in lines.splitlines())
    for word in ("arXiv 2109.00301", "Expect:", "Time:", f"Command: infty train {name}"):
        assert word in lines


def smoke_cells() -> list[CellKey]:
    """Every row of every experiment once, going round its columns, so that each column runs too."""
    found = []
    for name in EXPERIMENTS:
        definition = open_experiment(name, SHIPPED)
        cases, rows = itertools.cycle(definition.names("cases")), definition.names("models")
        found += [CellKey(name, "smoke", model, case) for model, case in zip(rows, cases, strict=False)]
    return found


MAIN = ("sort", "wikitext", "gpt2")  # experiments of which every row is trained at every change, …
LIKE_DELTA = ("infty-softmax", "mean", "slots", "cache", "rmt")  # … but for these, which go delta's way


def how_slow(cell: CellKey) -> list[pytest.MarkDecorator]:
    if cell.model == "infty":
        return mark_variation(cell.experiment)
    return [pytest.mark.slow if cell.experiment in MAIN and cell.model not in LIKE_DELTA else pytest.mark.slower]


EVERY_ROW = [pytest.param(cell, marks=how_slow(cell)) for cell in smoke_cells()]


@pytest.mark.parametrize("cell", EVERY_ROW, ids=lambda cell: f"{cell.experiment}-{cell.model}@{cell.case}")
def test_the_smoke_scale_runs_through_the_real_command(infty: Infty, tmp_path: Path, cell: CellKey) -> None:
    words = (cell.experiment, "--scale", "smoke", "--model", cell.model, "--case", cell.case, "--json")
    logged = cell.model == "infty"
    done = infty("train", *words, WANDB_MODE="" if logged else "disabled")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    folder = tmp_path / "runs" / cell.folder
    assert result == json.loads((folder / "result.json").read_text())
    assert json.loads((folder / "status.json").read_text())["status"] == "done"
    assert bool(list(folder.glob("wandb/offline-run-*"))) == logged
    steps = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 3, 4, 5, 6, 6, 6]
    again = infty("eval", *words, "--batch", "5")
    assert json.loads(again.stdout)["totals"]["correct"] == result["totals"]["correct"]
    assert json.loads(again.stdout)["data"] == result["data"]
    assert json.loads(again.stdout)["metrics"]["test/loss"] == pytest.approx(result["metrics"]["test/loss"], rel=1e-6)


def test_the_paper_scale_of_sorting_is_the_papers() -> None:
    """Figures of the paper and of the released code, as method and sources state them, not read from the YAML."""
    definition = open_experiment("sort", SHIPPED)
    for case, length, rate in (("x4", 4000, 2.5e-4), ("x8", 8000, 2.5e-4), ("x16", 16000, 2e-4)):
        e = resolve(definition, CellKey("sort", "paper", "infty", case)).experiment
        assert isinstance(e.task, SortConfig)
        assert isinstance(e.model, DecoderConfig)
        assert (e.task.vocabulary, e.task.length, e.training.learning_rate) == (20, length, rate)
        assert (e.task.train_sequences, e.task.validation_sequences, e.task.test_sequences) == (8000, 800, 800)
        assert e.training.total_steps * e.training.batch_size == 20 * e.task.train_sequences
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


# Transformer-XL's own base model is known to have 151,107,538 parameters on WikiText-103. To it come, a layer (E 410):
# compressor 4 E² + E; gate 3 E² + E, W_K, W_V, W_O 3 E², w_μ and w_σ 2 N.
COMPRESSOR, GATE_AND_READ = 16 * (4 * 410**2 + 410), 16 * (6 * 410**2 + 410)
PG19 = 151_107_538 - (267_735 - 32_768) * 411 - 3 * 411
PAPER_PARAMETERS = {
    ("wikitext", "transformer-xl"): 151_107_538,
    ("wikitext", "compressive"): 151_107_538 + COMPRESSOR,
    ("wikitext", "infty"): 151_107_538 + GATE_AND_READ + 16 * 2 * 150,
    ("wikitext", "infty-sticky"): 151_107_538 + GATE_AND_READ + 16 * 2 * 150,
    ("pg19", "transformer-xl"): PG19,
    ("pg19", "compressive"): PG19 + COMPRESSOR,
    ("pg19", "infty"): PG19 + GATE_AND_READ + 16 * 2 * 512,
    ("pg19", "infty-sticky"): PG19 + GATE_AND_READ + 16 * 2 * 512,
}


@pytest.mark.parametrize(("name", "row"), PAPER_PARAMETERS)
def test_the_paper_scale_of_language_modelling_is_the_papers(name: str, row: str) -> None:
    """Built on the meta device: sizes as published, and as many parameters as one counts by hand."""
    e = resolve(open_experiment(name, SHIPPED), CellKey(name, "paper", row, "main")).experiment
    assert isinstance(e.task, CorpusConfig)
    assert isinstance(e.model, DecoderConfig)
    m, memory, length = e.model, e.model.long_range, 150 if name == "wikitext" else 512
    assert (m.num_layers, m.num_heads, m.hidden_size, m.feed_forward_size, m.dropout) == (16, 10, 410, 2100, 0.1)
    assert (m.segment_length, m.short_term_length) == (length, length)
    assert (e.training.steps, e.training.batch_size, e.training.learning_rate) == (250_000, 40, 2.5e-4)
    if name == "wikitext":
        assert (e.task.tokenizer.kind, e.task.tokenizer.vocab_size, e.task.memory_reset) == ("word", 267_735, "never")
        assert m.adaptive is not None
        assert m.adaptive.cutoffs == (20_000, 40_000, 200_000)
    if memory is not None and memory.kind == "long_term":
        assert (memory.num_basis, memory.num_samples, memory.contraction) == (length, length, 0.5)
        assert (memory.widths, memory.prior_std, memory.kl_weight) == ((0.01, 0.05), 0.05, 1e-5)
        assert (memory.sticky is not None) == (row == "infty-sticky")
    if memory is not None and memory.kind == "compressive":
        assert (memory.num_slots, memory.compression_rate) == (length, 4)
    with torch.device("meta"):
        model = Decoder(m, e.task.tokenizer.vocab_size)
    assert count_parameters(model) == PAPER_PARAMETERS[name, row]


@pytest.mark.slower
@pytest.mark.parametrize(("name", "row"), [("wikitext", "compressive"), ("gpt2", "infty-sticky")])
def test_the_papers_models_take_real_steps_on_a_cpu(name: str, row: str) -> None:
    """Full sizes, random weights, one stream, random text: three steps, so that the memory is read as well."""
    definition = open_experiment(name, SHIPPED)
    e = resolve(definition, CellKey(name, "paper", row, definition.names("cases")[0])).experiment
    assert isinstance(e.task, CorpusConfig)
    model = e.model.build(e.task.tokenizer.vocab_size, seed=0)
    task = e.task.stand_in(e.model.segment_length, "not here")
    config = e.training.model_copy(update={"batch_size": 1, "steps": 100, "epochs": None})
    optimizer = make_optimizer(model, config.learning_rate, config.memory_learning_rate)
    state, losses, metrics = None, [], {}
    for step in range(3):
        metrics, state = optimize(Replica(model), optimizer, task, config, step, 0, state)
        losses.append(metrics["train/loss"])
        assert metrics["train/gradient_norm"] > 0
    assert all(0 < loss < 20 for loss in losses)
    auxiliary = {"infty-sticky": "train/kl", "compressive": "train/reconstruction"}
    assert metrics[auxiliary[row]] > 0
