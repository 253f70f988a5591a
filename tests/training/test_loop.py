"""Runs that are stopped, killed, damaged or refused, with real processes and real files."""

import hashlib
import json
import math
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from infty.base.errors import MissingError, Stopped
from infty.commands.load import load_run
from infty.model.config import DecoderConfig
from infty.model.decoder import Decoder
from infty.runs.folder import RunFolder, differences
from infty.tasks.sort import SortConfig, SortTask
from infty.training.checkpoint import Checkpoint, TrainingState, load_best, load_last
from infty.training.config import TrainingConfig
from infty.training.data_parallel import Replica, compute_losses
from infty.training.loop import train
from infty.training.signals import StopSignals
from infty.training.step import make_optimizer, schedule
from tests.conftest import Infty, clean_environment
from tests.forks import ROOT
from tests.model.test_decoder import make

STEPS = 30
LONG = ("--set", f"training.steps={STEPS}", "--name", "long")


def weights(run: Path, step: int = STEPS) -> str:
    return hashlib.sha256((run / f"checkpoints/step-{step:08d}/model.safetensors").read_bytes()).hexdigest()


def metrics(run: Path) -> list[dict[str, Any]]:
    """Metrics without the one that is not a function of the configuration."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "train/tokens_per_second"} for line in lines]


@pytest.mark.slower
@pytest.mark.parametrize("pointer", ["last.json", "best.json"])
def test_a_run_killed_between_a_checkpoint_and_its_pointers_continues_the_same(
    infty: Infty, tmp_path: Path, pointer: str
) -> None:
    """The process dies at the moment it would write the pointer of its last checkpoint: no other comes after it."""
    words = ["train", "sort", "--scale", "smoke", *LONG]
    dying = (
        "import os, sys; from infty.training import checkpoint; write = checkpoint.write_json\n"
        "def die(path, value):\n"
        f"    os._exit(9) if path.name == {pointer!r} and '{STEPS:08d}' in str(value) else write(path, value)\n"
        "checkpoint.write_json = die; from infty.cli import main; main()"
    )
    command = [sys.executable, "-c", dying, *words, "--runs", "stopped"]
    assert subprocess.run(command, cwd=tmp_path, env=clean_environment(tmp_path), check=False).returncode == 9
    for folder in ("stopped", "whole"):
        assert infty(*words, "--runs", folder).returncode == 0
    stopped, whole = (tmp_path / f"{f}/sort/smoke/infty@x4+long/seed-0" for f in ("stopped", "whole"))
    assert weights(stopped) == weights(whole)
    for name in ("best.json", "last.json"):
        assert (stopped / "checkpoints" / name).read_text() == (whole / "checkpoints" / name).read_text()
    results = [json.loads((run / "result.json").read_text()) for run in (stopped, whole)]
    assert results[0]["metrics"] == results[1]["metrics"]
    assert results[0]["best_step"] == results[1]["best_step"]


def test_a_mistake_beside_fresh_removes_nothing(infty: Infty, tmp_path: Path) -> None:
    words = ("train", "sort", "--scale", "smoke")
    infty(*words)
    done = infty(*words, "--fresh", "--device", "cuda:63")
    assert done.returncode == 2
    assert "torch sees" in done.stderr
    assert RunFolder(tmp_path / "runs/sort/smoke/infty@x4/seed-0").finished


def test_a_run_that_was_never_validated_is_not_called_untrained(infty: Infty, tmp_path: Path) -> None:
    assert infty("train", "sort", "--scale", "smoke").returncode == 0
    run = tmp_path / "runs/sort/smoke/infty@x4/seed-0"
    for file in ("result.json", "checkpoints/best.json"):
        (run / file).unlink()
    done = infty("eval", "sort", "--scale", "smoke")
    assert done.returncode == 3
    assert f"no validation yet in {run}; continue it with: infty train sort --model infty " in done.stderr


def test_an_edited_experiment_is_not_evaluated_as_the_old_run(infty: Infty, tmp_path: Path) -> None:
    words = ("sort", "--scale", "smoke", "--name", "mine")
    infty("train", *words)
    done = infty("eval", *words, "--set", "model.hidden_size=32")
    assert done.returncode == 2
    assert "model.hidden_size: 16 -> 32" in done.stderr


def test_a_run_tested_again_has_no_doubled_lines(infty: Infty, tmp_path: Path) -> None:
    words = ("train", "sort", "--scale", "smoke")
    infty(*words)
    run = tmp_path / "runs/sort/smoke/infty@x4/seed-0"
    before = metrics(run)
    (run / "result.json").unlink()
    with (run / "metrics.jsonl").open("a") as file:
        file.write("9" * 5000 + "\n" + "[" * 100_000 + '\n{"step": 7, "train/lo')
    infty(*words)
    assert metrics(run) == before


@pytest.mark.slow
def test_no_command_needs_a_network(infty: Infty, tmp_path: Path) -> None:
    """In a network namespace of its own, with no interface but loopback."""
    alone = ["unshare", "--map-root-user", "--net", "sh", "-c", 'ip link set lo up 2>/dev/null; exec "$0" "$@"']
    if shutil.which("unshare") is None or subprocess.run([*alone, "true"], check=False).returncode:
        pytest.skip("no network namespaces here")
    cells = [(verb, name, "--scale", "smoke") for name in ("sort", "wikitext") for verb in ("train", "eval")]
    commands = (
        "import json, os, pathlib, sys; from tests import forks\n"
        "for words in json.loads(sys.argv[1]):\n"
        "    done = forks.run(tuple(words), pathlib.Path.cwd(), os.environ, 100)\n"
        "    print(done.returncode, done.stderr.count('warning'))"
    )
    words = [*cells, ("report",), ("list",), ("data", "list")]
    done = subprocess.run(
        [*alone, sys.executable, "-c", commands, json.dumps(words)],
        cwd=tmp_path,
        env=clean_environment(tmp_path, PYTHONPATH=str(ROOT), WANDB_MODE=""),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines() == ["0 0"] * len(words), done.stderr


def test_a_finished_run_is_not_trained_again_unless_asked(infty: Infty, tmp_path: Path) -> None:
    words = ("train", "sort", "--scale", "smoke")
    infty(*words)
    result = tmp_path / "runs/sort/smoke/infty@x4/seed-0/result.json"
    before = result.stat().st_mtime_ns
    assert "already finished" in infty(*words).stderr
    assert result.stat().st_mtime_ns == before
    assert infty(*words, "--fresh").returncode == 0
    assert result.stat().st_mtime_ns != before


def test_a_run_with_other_settings_is_refused_and_shown(infty: Infty, tmp_path: Path) -> None:
    words = ("train", "sort", "--scale", "smoke", "--name", "mine", "--set")
    infty(*words, "training.batch_size=3")
    run = tmp_path / "runs/sort/smoke/infty@x4+mine/seed-0"
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    done = infty(*words, "training.batch_size=5")
    assert done.returncode == 2
    assert "training.batch_size: 3 -> 5" in done.stderr
    assert "--fresh" in done.stderr
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_run_folder_that_is_not_what_it_was_is_refused_in_one_line(infty: Infty, tmp_path: Path) -> None:
    words = ("sort", "--scale", "smoke")
    infty("train", *words)
    config = tmp_path / "runs/sort/smoke/infty@x4/seed-0/config.yaml"
    text = config.read_text()
    for damage in ("", "cell: 3", "[", "a: !!python/name:os.system"):
        config.write_text(damage)
        done = infty("eval", *words)
        assert (done.returncode, len(done.stderr.splitlines())) == (3, 1), done.stderr
        assert "config.yaml" in done.stderr
    config.write_text(text.replace("num_layers: 2", "num_layers: two"))
    with pytest.raises(MissingError, match=r"config\.yaml is no configuration of this version"):
        load_run(config.parent)


def test_a_second_process_on_one_run_is_refused(infty: Infty, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "runs/sort/smoke/infty@x4/seed-0")
    run.path.mkdir(parents=True)
    with run.lock():
        done = infty("train", "sort", "--scale", "smoke")
    assert done.returncode == 2
    assert "another process is training" in done.stderr


def test_training_works_without_wandb_and_with_stdin_closed(infty: Infty, tmp_path: Path) -> None:
    """A module of that name that can't be imported is what an uninstalled W&B looks like."""
    (tmp_path / "without").mkdir()
    (tmp_path / "without/wandb.py").write_text("raise ModuleNotFoundError(\"No module named 'wandb'\", name='wandb')\n")
    words = ("train", "sort", "--scale", "smoke")
    closed = subprocess.run(
        ["sh", "-c", 'exec "$0" "$@" <&-', sys.executable, "-m", "infty", *words, "--runs", "without-wandb"],
        cwd=tmp_path,
        env=clean_environment(tmp_path, PYTHONPATH=str(tmp_path / "without"), WANDB_MODE=""),
        capture_output=True,
        text=True,
        check=False,
    )
    assert closed.returncode == 0, closed.stderr
    assert "warning: wandb is not installed: metrics go to metrics.jsonl only" in closed.stderr
    assert infty(*words).returncode == 0
    place = "sort/smoke/infty@x4/seed-0"
    assert weights(tmp_path / "without-wandb" / place, 6) == weights(tmp_path / "runs" / place, 6)


def test_environment_and_result_hold_no_path_and_no_host(infty: Infty, tmp_path: Path) -> None:
    import platform

    infty("train", "sort", "--scale", "smoke")
    run = tmp_path / "runs/sort/smoke/infty@x4/seed-0"
    for name in ("environment.json", "result.json", "config.yaml", "eval/sort-accuracy-v1-test.json"):
        text = (run / name).read_text()
        assert str(tmp_path) not in text
        assert platform.node() not in text
    assert json.loads((run / "environment.json").read_text())["command"] == (
        "infty train sort --model infty --case x4 --scale smoke --seed 0 --threads 1"
    )


# The loop in small


def small() -> tuple[Decoder, SortTask]:
    config = DecoderConfig(
        num_layers=1,
        num_heads=2,
        hidden_size=8,
        feed_forward_size=8,
        dropout=0.0,
        segment_length=8,
        short_term_length=8,
    )
    task = SortTask(SortConfig(vocabulary=3, length=13, train_sequences=9, validation_sequences=4, test_sequences=4))
    return Decoder(config, task.vocab_size), task


def test_the_command_of_a_run_gives_its_numbers_again(infty: Infty, tmp_path: Path) -> None:
    """To the last digit, with whatever decided how it computed, wherever that was said."""
    asked = ("train", "sort", "--scale", "smoke", "--model", "infty-sticky", "--seed", "3", "--micro-batch", "3")
    first = json.loads(infty(*asked, "--set", "training.steps=4", "--json", INFTY_THREADS="1").stdout)
    words = shlex.split(first["command"])
    assert words[-4:] == ["--micro-batch", "3", "--threads", "1"]
    again = json.loads(infty(*words[1:], "--runs", str(tmp_path / "others"), "--json").stdout)
    assert again["metrics"] == first["metrics"]
    assert again["command"] == first["command"]


def test_the_schedule_warms_up_and_ends_near_zero() -> None:
    rates = [0.5 * schedule(step, 100, 10, "cosine") for step in range(100)]
    assert rates[:10] == pytest.approx([0.05 * i for i in range(1, 11)])
    assert rates[10] == 0.5
    assert rates[55] == pytest.approx(0.25)
    assert rates[99] == pytest.approx(0.25 * (1 + math.cos(math.pi * 89 / 90)))


def test_a_line_falls_to_zero_and_memories_have_a_rate_of_their_own() -> None:
    assert [schedule(step, 12, 2, "linear") for step in (0, 1, 2, 7, 11)] == pytest.approx([0.5, 1, 1, 0.5, 0.1])
    model = make("infty")
    optimizer = make_optimizer(model, 1e-3, 5e-3)
    rates = {name: g["peak"] for g in optimizer.param_groups for name, p in model.named_parameters()
             if any(p is other for other in g["params"])}  # fmt: skip
    assert rates.keys() == dict(model.named_parameters()).keys()
    assert {rate for name, rate in rates.items() if "long_range" in name} == {5e-3}
    assert {rate for name, rate in rates.items() if "long_range" not in name} == {1e-3}
    assert len(make_optimizer(make("transformer-xl"), 1e-3, 5e-3).param_groups) == 1


def test_epochs_are_counted_by_the_task() -> None:
    config = TrainingConfig(epochs=3, batch_size=4, learning_rate=1.0, evaluate_every=1)
    with pytest.raises(ValueError, match="not counted"):
        _ = config.total_steps
    task = SortTask(SortConfig(vocabulary=5, length=9, train_sequences=30, validation_sequences=1, test_sequences=1))
    assert config.count_steps(task).total_steps == 3 * 8  # 30 sequences are 8 batches of 4
    faults: list[dict[str, Any]] = [{}, {"steps": 1, "epochs": 1}]
    for wrong in faults:
        with pytest.raises(ValueError, match="wanted either steps or epochs"):
            TrainingConfig(batch_size=4, learning_rate=1.0, evaluate_every=1, **wrong)


def test_the_loss_is_the_mean_over_scored_targets() -> None:
    model, task = small()
    batch = task.training_batch(0, 5, seed=0)
    logits = []
    state = model.initial_state(batch.streams)
    for tokens in batch.tokens.split(8, 1):
        output = model(tokens, state)
        state = output.state
        logits.append(output.logits)
    log_probabilities = torch.cat(logits, 1).log_softmax(-1)
    nats = [-log_probabilities[b, 13 + i, batch.targets[b, 13 + i]] for b in range(5) for i in range(3)]
    torch.testing.assert_close(compute_losses(model, [batch])[0]["loss"], torch.stack(nats).mean())


def test_training_learns_what_can_be_learnt(tmp_path: Path) -> None:
    """A sequence within reach of attention: far above chance after a few hundred steps."""
    model, task = small()
    before = compute_losses(model, [task.make_batch("test", torch.arange(4).numpy())])[0]["loss"].item()

    class Quiet:
        def log(self, step: int, metrics: Mapping[str, float | None]) -> None:
            pass

    config = TrainingConfig(steps=150, batch_size=8, learning_rate=1e-2, evaluate_every=150)
    begin = Checkpoint(TrainingState(wandb_id="a1"), {})
    end = train(Replica(model), task, config, seed=0, folder=tmp_path, begin=begin, log=Quiet().log, stop=StopSignals())
    assert (end.step, end.validated_step, end.best_step) == (150, 150, 150)
    assert compute_losses(model, [task.make_batch("test", torch.arange(4).numpy())])[0]["loss"].item() < 0.7 * before


def test_the_best_step_is_the_one_with_the_lowest_validation_loss_across_a_stop(tmp_path: Path) -> None:
    """A rate so high that losses go up and down; the run is stopped after its best step."""
    config = TrainingConfig(steps=24, batch_size=2, learning_rate=0.3, evaluate_every=2)
    losses: dict[int, float] = {}

    class Noted:
        def __init__(self, stop: StopSignals, last: int) -> None:
            self.stop, self.last = stop, last

        def log(self, step: int, metrics: Mapping[str, float | None]) -> None:
            if (loss := metrics.get("validation/loss")) is not None:
                losses[step] = loss
                self.stop.received = signal.SIGTERM if step == self.last else None

    for last in (18, 24):
        torch.manual_seed(1)
        model, task = small()
        stop, begin = StopSignals(), load_last(tmp_path) or Checkpoint(TrainingState(wandb_id="a1"), {})
        with pytest.raises(Stopped):
            train(Replica(model), task, config, seed=0, folder=tmp_path, begin=begin,
                  log=Noted(stop, last).log, stop=stop)  # fmt: skip
    best = min(losses, key=lambda step: losses[step])
    assert len(losses) == 12
    assert best < 18, "these numbers show nothing: the best step is after the stop"
    state = load_best(tmp_path).state
    assert (state.step, state.best_loss) == (best, losses[best])
    last = load_last(tmp_path)
    assert last is not None
    assert (last.state.step, last.state.best_step) == (24, best)


def test_differences_name_the_key_and_both_values() -> None:
    assert differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}, "d": 4}) == ["a.c: 2 -> 3", "d: None -> 4"]
