"""GPT-2 with a memory through the real command, and what its experiment file says."""

import contextlib
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2LMHeadModel

from infty.base.errors import UsageError
from infty.commands.train.requirements import find_base
from infty.config.definition import SHIPPED, CellKey, open_experiment
from infty.experiment import Cell, Experiment, resolve
from infty.model.interface import count_parameters
from infty.runs.folder import RunFolder
from infty.tasks.corpus import CorpusConfig
from tests import forks
from tests.conftest import Infty, clean_environment, save_gpt2

pytestmark = pytest.mark.slow

CELL = ("gpt2", "--scale", "smoke")
GPT2_SMALL = 124_439_808  # as published: 50,257 and 1,024 embeddings, 12 layers of 12 E² + 13 E, a norm; E 768


def document(infty: Infty, *words: str) -> dict[str, Any]:
    done = infty(*words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def cell(row: str, scale: str = "paper", case: str = "wikitext", sets: tuple[str, ...] = ()) -> Experiment:
    return resolve(open_experiment("gpt2", SHIPPED), CellKey("gpt2", scale, row, case), sets).experiment


def test_rows_start_from_one_gpt2_and_a_result_keeps_two_totals(infty: Infty, tmp_path: Path) -> None:
    first = document(infty, "train", *CELL, "--model", "infty")
    done = infty("train", *CELL, "--model", "gpt2", "--json")
    second = json.loads(done.stdout)
    assert "trained first" not in done.stderr
    assert first["starting_weights"] == second["starting_weights"]
    (base,) = tmp_path.glob("runs/gpt2/smoke/base@generated+*/seed-0")
    assert first["starting_weights"]["origin"] == f"{base.parent.name} seed 0"
    assert json.loads((base / "environment.json").read_text())["command"] == first["command"]

    metrics, totals = first["metrics"], first["totals"]
    whole = totals["nats"] + totals["aside_nats"]
    assert math.log(metrics["test/token_perplexity"]) * totals["scored"] == pytest.approx(totals["nats"], rel=1e-9)
    assert math.log(metrics["test/word_perplexity"]) * totals["words"] == pytest.approx(whole, rel=1e-9)
    assert metrics["test/bits_per_byte"] * math.log(2) * totals["bytes"] == pytest.approx(whole, rel=1e-9)
    (starts,) = tmp_path.glob("corpora/generated/tokens/*/test.starts.npy")
    assert totals["aside"] == sum(n // 16 for n in np.diff(np.load(starts)).tolist())  # blocks begun after the first

    kept = json.loads((tmp_path / "runs/gpt2/smoke/infty@wikitext/seed-0/eval/gpt2-blocks-v1-test.json").read_text())
    assert sum(kept["details"]["chunks"]["nats"]) == pytest.approx(whole, rel=1e-5)
    checked = document(infty, "eval", *CELL, "--check-batch")
    assert checked["relative_difference"] <= 1e-6
    knocked = document(infty, "eval", *CELL, "--knock-out", "zero")
    assert knocked["totals"]["nats"] != totals["nats"]
    report = infty("report").stdout
    assert "difference to gpt2" in report
    assert "as-released" not in report


def test_a_text_that_is_read_first_and_is_not_here_is_named(infty: Infty, tmp_path: Path) -> None:
    done = infty("train", *CELL, "--set", "pretraining.text.corpus=pg19", HF_HUB_OFFLINE="1")
    assert (done.returncode, done.stderr.count("\n")) == (3, 1), done.stderr
    assert "has no pg19 (train, validation), and HF_HUB_OFFLINE is set; get it with" in done.stderr
    assert not list(tmp_path.rglob("config.yaml"))


def test_one_s_own_texts_are_read_after_the_one_that_weights_are_trained_on(infty: Infty, tmp_path: Path) -> None:
    """Which the tokeniser is learnt from, and which is made or fetched like any other."""
    (tmp_path / "mine").mkdir()
    for i in range(3):
        (tmp_path / f"mine/{i}.txt").write_text(f"Chapter {i}.\n" + "The cat sat on the mat. " * 40)
    whole = [word for part in ("train", "validation", "test") for word in ("--set", f"task.{part}.last=null")]
    words = (*CELL, "--model", "gpt2", "--data", "mine", *whole)
    done = infty("train", *words, "--set", "pretraining.text.corpus=pg19", HF_HUB_OFFLINE="1")
    assert (done.returncode, "has no pg19 (train, validation)" in done.stderr) == (3, True), done.stderr
    result = document(infty, "train", *words)
    assert result["data"]["name"].startswith("text-mine-")
    assert result["starting_weights"]["origin"].startswith("base@generated+")


def test_one_stream_is_read_alone_and_other_blocks_have_another_protocol(infty: Infty) -> None:
    words = (*CELL, "--model", "gpt2", "--set", "task.memory_reset=never")
    document(infty, "train", *words)
    for more, message in (
        (("--batch", "2"), "one stream whose memory is never reset"),
        (("--protocol", "gpt2-block512-v1"), "is for blocks of 512 gpt2 tokens; these are of 16 bpe tokens"),
    ):
        done = infty("eval", *words, *more)
        assert (done.returncode, message in done.stderr, done.stderr.count("\n")) == (2, True, 1), done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 of the smoke scale's sizes, as Hugging Face saves it."""
    torch.manual_seed(1)
    return save_gpt2(tmp_path_factory.mktemp("weights") / "my gpt2")


def test_weights_come_from_a_folder(infty: Infty, tmp_path: Path, folder: Path) -> None:
    own = ("--set", "pretraining=null", "--set", "training.learning_rate=1e-20")
    words = (*CELL, "--model", "gpt2", "--set", f"model.weights={folder}", *own)
    result = document(infty, "train", *words)
    assert result["starting_weights"]["origin"] == "my gpt2"
    from infty.commands.load import load_run

    (run,) = tmp_path.glob("runs/gpt2/smoke/gpt2@wikitext+*/seed-0")
    trained = load_run(run).model
    given = GPT2LMHeadModel.from_pretrained(folder)
    for name, parameter in given.named_parameters():
        torch.testing.assert_close(trained.get_parameter(f"base.{name}"), parameter)


@pytest.mark.slower
def test_what_rows_start_from_is_trained_again_where_it_is_of_another_text_or_damaged(
    infty: Infty, tmp_path: Path
) -> None:
    """And nothing that was finished is removed before it is."""
    words = ("train", *CELL, "--model", "gpt2")
    first = document(infty, *words)
    (file,) = tmp_path.glob("runs/gpt2/smoke/base@*/seed-0/checkpoints/step-00000006/model.safetensors")
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + b"?")
    done = infty(*words, "--fresh", "--json")
    assert "is trained again" in done.stderr
    assert json.loads(done.stdout)["starting_weights"] == first["starting_weights"]
    assert file.read_bytes() == whole
    (file.parents[2] / "result.json").unlink()  # unfinished, and no checkpoint is whole
    for weights in file.parents[1].glob("step-*/model.safetensors"):
        weights.write_bytes(b"?")
    done = infty(*words, "--fresh", "--json")
    assert "no checkpoint in" in done.stderr
    assert json.loads(done.stdout)["starting_weights"] == first["starting_weights"]
    assert file.read_bytes() == whole


def test_a_forecast_says_base_and_memory_and_where_weights_come_from(infty: Infty, folder: Path) -> None:
    words = ("train", *CELL, "--dry-run")
    sizes = document(infty, *words)
    assert sizes["base_parameters"] == 400 * 16 + 16 * 16 + 2 * (12 * 16**2 + 13 * 16) + 2 * 16
    assert sizes["memory_parameters"] == 2 * (6 * 16**2 + 16 + 2 * 16)
    assert sizes["parameters"] == sizes["base_parameters"] + sizes["memory_parameters"]
    assert "trained first, 6 steps more" in sizes["starting_weights"]
    given = document(infty, *words, "--set", f"model.weights={folder}", "--set", "pretraining=null")
    assert given["starting_weights"].startswith("my gpt2, sha256 ")
    done = infty(*words, "--set", "model.weights=/nowhere/at/all", "--set", "pretraining=null")
    assert (done.returncode, done.stderr.count("\n")) == (3, 1), done.stderr


@pytest.mark.parametrize(
    ("weights", "sets", "code", "message"),
    [
        ("nowhere/at/all", (), 3, "nowhere/at/all"),
        ("", ("model.num_layers=3",), 2, "num_layers"),
        ("", ("task.tokenizer.vocab_size=300",), 2, "task.tokenizer"),
        ("", ("model.segment_length=32",), 2, "segment_length 32 is above num_positions 16"),
    ],
)
def test_weights_that_do_not_fit_are_refused_in_one_line(
    infty: Infty, tmp_path: Path, folder: Path, weights: str, sets: tuple[str, ...], code: int, message: str
) -> None:
    options = [f"model.weights={weights or folder}", "pretraining=null", *sets]
    done = infty("train", *CELL, *(word for text in options for word in ("--set", text)))
    faults = [line for line in done.stderr.splitlines() if line.startswith("infty: ")]
    assert (done.returncode, len(faults)) == (code, 1), done.stderr
    assert message in faults[0]
    assert not list(tmp_path.rglob("config.yaml"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: {**t, "lm_head.weight": torch.randn(400, 16)}, "lm_head.weight differs from wte.weight"),
        (lambda t: {**t, **{name.replace("h.1.", "h.2."): x.clone() for name, x in t.items()}}, "of 3 layers, not 2"),
    ],
)
def test_weights_that_are_not_what_they_say_are_refused_before_anything_is_written(
    infty: Infty, tmp_path: Path, folder: Path, change: Callable[[Any], dict[str, torch.Tensor]], message: str
) -> None:
    given = Path(shutil.copytree(folder, tmp_path / "given"))
    save_file(change(load_file(given / "model.safetensors")), given / "model.safetensors", metadata={"format": "pt"})
    for more in ((), ("--dry-run",)):
        done = infty("train", *CELL, "--set", f"model.weights={given}", "--set", "pretraining=null", *more)
        faults = [line for line in done.stderr.splitlines() if line.startswith("infty: ")]
        assert (done.returncode, len(faults), message in faults[0]) == (2, 1, True), done.stderr
    assert not list(tmp_path.rglob("config.yaml"))


def test_a_run_that_goes_on_needs_its_starting_weights_no_more(infty: Infty, tmp_path: Path) -> None:
    """They are recorded in the checkpoint: nothing is read, trained or fetched again."""
    words = ("train", *CELL, "--model", "gpt2")
    result = document(infty, *words)
    run = tmp_path / "runs/gpt2/smoke/gpt2@wikitext/seed-0"
    (run / "result.json").unlink()
    (base,) = tmp_path.glob("runs/gpt2/smoke/base@*")
    base.rename(tmp_path / "away")
    done = infty(*words, "--json")
    assert "trained first" not in done.stderr
    assert json.loads(done.stdout)["starting_weights"] == result["starting_weights"]


# A layer, E 768, N 512: compressor 4 E² + E; gate 3 E² + E, W_K, W_V, W_O 3 E², w_μ and w_σ 2 N.
MEMORY = {"gpt2": 0, "compressive": 4 * 768**2 + 768, "infty": 6 * 768**2 + 768 + 2 * 512}
MEMORY["infty-sticky"] = MEMORY["infty"]


@pytest.mark.parametrize("row", MEMORY)
@pytest.mark.parametrize("case", ["wikitext", "pg19"])
def test_the_paper_scale_is_the_papers(row: str, case: str) -> None:
    """Sizes as method and sources state them, and as many parameters as one counts by hand."""
    e = cell(row, case=case)
    assert isinstance(e.task, CorpusConfig)
    t, memory = e.training, e.model.long_range
    assert (t.epochs, t.batch_size, t.learning_rate, t.memory_learning_rate) == (1, 1, 5e-5, 2.5e-4)
    assert (t.schedule, t.clip_norm, e.model.segment_length, e.model.num_layers) == ("linear", 1.0, 512, 12)
    assert (e.task.memory_reset, e.task.protocol, e.task.tokenizer.kind) == ("never", "gpt2-block512-v1", "gpt2")
    assert (e.task.corpus, e.task.train.last) == (case, 2000 if case == "pg19" else None)
    if memory is not None and memory.kind == "long_term":
        assert (memory.num_basis, memory.num_samples, memory.contraction) == (512, 512, 0.5)
        assert (memory.widths, memory.ridge_penalty, memory.kl_weight) == ((0.005, 0.01), 0.5, 1e-6)
        assert (memory.prior_std, memory.prior_mean, memory.variance_floor) == (0.05, None, 1e-4)
        assert (memory.sticky is not None) == (row == "infty-sticky")
    if memory is not None and memory.kind == "compressive":
        assert (memory.num_slots, memory.compression_rate) == (512, 4)
    with torch.device("meta"):
        model = e.model.build(e.task.tokenizer.vocab_size, seed=0)
    assert count_parameters(model) == GPT2_SMALL + 12 * MEMORY[row]
    assert sum(parameter.numel() for parameter in model.memory_parameters()) == 12 * MEMORY[row]


def test_what_the_released_code_does_otherwise_is_a_row_each() -> None:
    found = {}
    for row in ("infty", "as-released-prior", "as-released-wipe", "as-released-bins", "as-released"):
        e = cell(row)
        assert isinstance(e.task, CorpusConfig)
        memory = e.model.long_range
        assert memory is not None
        assert memory.kind == "long_term"
        reset = e.task.model_dump(mode="json")["memory_reset"]
        found[row] = (memory.prior_mean, reset, memory.sticky.within_bin if memory.sticky else None)
    wiped = {"tokens": 2048}
    assert found == {
        "infty": (None, "never", None),
        "as-released-prior": (-1.0, "never", None),
        "as-released-wipe": (None, wiped, None),
        "as-released-bins": (None, "never", "left"),
        "as-released": (-1.0, wiped, "left"),
    }
    assert not [c for c in open_experiment("gpt2", SHIPPED).cells("laptop") if c.model.startswith("as-released")]


def base_of(row: str, case: str, seed: int, *sets: str) -> Cell:
    found = find_base(resolve(open_experiment("gpt2", SHIPPED), CellKey("gpt2", "laptop", row, case, seed), sets))
    assert found is not None
    return found


def test_what_is_trained_first_depends_on_nothing_but_its_own_settings_and_text() -> None:
    def base(row: str, case: str, seed: int, *sets: str) -> str:
        return str(base_of(row, case, seed, *sets).key.folder)

    one = base("infty", "wikitext", 0)
    assert one == base("as-released", "wikitext", 3, "training.learning_rate=1")
    assert one == base("gpt2", "pg19", 0)
    changes = ["pretraining.steps=7", "model.hidden_size=64", "task.tokenizer.vocab_size=999"]
    others = [base("infty", "wikitext", 0, change) for change in changes]
    own = [base("infty", case, 0, "pretraining.text=null") for case in ("wikitext", "pg19")]
    assert len({one, *others, *own}) == 6


def test_no_row_is_fine_tuned_or_judged_on_what_was_read_before() -> None:
    first = base_of("infty", "wikitext", 0).experiment
    assert first.model.long_range is None
    assert isinstance(first.task, CorpusConfig)
    read = {(first.task.corpus, first.task.train.split, i) for i in range(1000)[first.task.train.first :]}
    for case in ("wikitext", "pg19"):
        task = cell("infty", "laptop", case).task
        assert isinstance(task, CorpusConfig)
        for portion in task.portions.values():
            assert not read & {(task.corpus, portion.split, i) for i in range(1000)[portion.first : portion.last]}


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (("training.epochs=2", "training.steps=3"), "wanted either steps or epochs"),
        (("model.weights=x/y",), "pretraining: model.weights is 'x/y': one of the two must be null"),
        (("training.schedule=square",), "training.schedule"),
        (("pretraining.text.train=null",), "pretraining.text.train"),
        (("pretraining.text.corpus=PG 19",), "pretraining.text.corpus"),
        (("task.protocol=gpt2-block512-v1",), "gpt2-block512-v1 is for model.segment_length 512 and gpt2 tokens"),
    ],
)
def test_settings_that_contradict_each_other_are_named(sets: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        cell("infty", "laptop", sets=sets)


@pytest.mark.slow
def test_a_row_waits_for_the_process_that_trains_what_all_start_from(tmp_path: Path) -> None:
    """And trains it itself where that process ends without it."""
    resolved = resolve(open_experiment("gpt2", SHIPPED), CellKey("gpt2", "smoke", "infty", "wikitext"))
    base = find_base(resolved)
    assert base is not None
    run = RunFolder(tmp_path / "runs" / base.key.folder)
    run.path.mkdir(parents=True)
    command = (("train", "gpt2", "--scale", "smoke", "--model", "infty"), clean_environment(tmp_path))
    held = contextlib.ExitStack()
    held.enter_context(run.lock())
    with held, forks.heard([command], tmp_path) as (running, stderr):
        assert any(line.startswith("waiting for another process, which trains") for line in stderr)
        assert not run.finished
        held.close()
        told = stderr.read()
    assert running.wait(200)[0].returncode == 0, told
    assert told.count("all rows start from one GPT-2") == 1
    assert run.finished
