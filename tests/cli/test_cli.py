"""The command line as a user meets it: exit codes, one clear message, nothing written where nothing was done."""

import inspect
import json
import logging
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import pytest
from rich.console import Console

from infty.cli.options import MachineOptions, expand
from infty.cli.output import show_progress
from infty.config.definition import SHIPPED
from tests import forks
from tests.conftest import Infty, clean_environment

SMOKE = ("sort", "--scale", "smoke")


def written(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and ".cache" not in path.parts]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (
            ("train", "sort", "--set", "model.long_rnage.num_basis=3", "--set", "training.steps=x"),
            2,
            "infty: --set: model.long_rnage: unknown key; did you mean long_range?\n"
            "--set: training.steps: wanted an integer, got 'x'\n",
        ),
        (("train", "srot"), 2, "infty: no experiment 'srot'; did you mean sort?\n"),
        (
            ("train", "nowhere.yaml"),
            2,
            "infty: nowhere.yaml: can't be read: [Errno 2] No such file or directory: 'nowhere.yaml'\n",
        ),
        (("train", "sort", "--model", "inty"), 2, "infty: sort.yaml: models: no 'inty' here; did you mean infty?\n"),
        (("train", "sort", "--case", "x7"), 2, "infty: sort.yaml: cases: no 'x7' here; there is x4, x8, x16\n"),
        (
            ("show", "sort", "--scale", "huge"),
            2,
            "infty: sort.yaml: scales: no 'huge' here; there is paper, laptop, smoke\n",
        ),
        (
            ("train", "sort", "--name", "../x"),
            2,
            "infty: --name ../x: wanted up to 64 lower-case letters, digits, '-', '_' and '.', but no '.' at the end",
        ),
        (
            ("train", "sort", "--device", "tpu"),
            2,
            "infty: settings: device: wanted auto, cpu, cuda or cuda:N, got 'tpu'",
        ),
        (
            ("eval", "sort"),
            3,
            "/runs/sort/laptop/infty@x4/seed-0; train it with: "
            "infty train sort --model infty --case x4 --scale laptop --seed 0\n",
        ),
        (("list", "--scale", "huge"), 2, "infty: no experiment has a scale 'huge'; there is laptop, paper, smoke\n"),
        (("report",), 3, "; finished runs come from, for example: infty train sort --case x8\n"),
        (("report", "--format", "pdf", "."), 2, "infty: --format pdf: wanted some of md, tex, csv, html\n"),
        (("report", "."), 3, "infty: no finished runs in .; make one with: infty train sort --case x8\n"),
    ],
)
def test_a_mistake_gets_a_clear_message_and_writes_nothing(
    infty: Infty, tmp_path: Path, words: tuple[str, ...], code: int, message: str
) -> None:
    done = infty(*words)
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert written(tmp_path) == []


@pytest.mark.parametrize(
    "words",
    [
        ("train",),
        ("trian", "sort"),
        ("train", "sort", "--seed", "-1"),
        ("eval", "sort", "--split", "x"),
        ("train", "sort", "--precision", "float16"),
    ],
)
def test_wrong_usage_ends_with_2(infty: Infty, words: tuple[str, ...]) -> None:
    done = infty(*words)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


COMMANDS = ["train", "eval", "generate", "reproduce", "report", "tune", "compare", "list", "show", "bench", "env"]
COMMANDS += ["export", "clean", "data list", "data fetch", "data import", "data verify"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_has_an_example(infty: Infty, command: str) -> None:
    done = infty(*command.split(), "--help")
    assert done.returncode == 0
    assert f"Example: infty {command}" in done.stdout


def test_help_imports_nothing_heavy() -> None:
    """What makes --help slow is torch, pydantic or matplotlib; none may be imported for it."""
    code = (
        "import sys; sys.argv = ['infty', '--help']\n"
        "try:\n  from infty.cli import main; main()\n"
        "except SystemExit: print(sorted(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = set(re.findall(r"'([a-z_]+)'", done.stdout))
    assert modules.isdisjoint({"torch", "pydantic", "matplotlib", "numpy", "wandb", "yaml"})


def test_the_command_line_is_frozen(infty: Infty) -> None:
    """A new option is a decision: change it here too."""
    options = {
        command: set(re.findall(r"--[a-z][a-z-]*", infty(*command.split(), "--help").stdout)) for command in COMMANDS
    }
    common = {"--help", "--json"}
    cell = {"--model", "--case", "--scale", "--set"}
    machine = {"--runs", "--device", "--threads"}
    arithmetic = {"--precision", "--compile"}
    assert options["train"] == common | cell | machine | arithmetic | {
        "--seed",
        "--name",
        "--dry-run",
        "--fresh",
        "--data",
        "--micro-batch",
        "--recompute",
    }
    assert options["eval"] == common | cell | machine | arithmetic | {
        "--seed",
        "--name",
        "--split",
        "--batch",
        "--stream",
        "--data",
        "--protocol",
        "--check-batch",
        "--knock-out",
    }
    assert options["generate"] == common | cell | machine | arithmetic | {
        "--seed",
        "--name",
        "--data",
        "--prompt",
        "--file",
        "--tokens",
        "--temperature",
        "--top-k",
        "--draw",
        "--batch",
    }
    whole = {"--version", "--quiet", "--verbose", "--install-completion", "--show-completion", "--help"}
    assert set(re.findall(r"--[a-z][a-z-]*", infty("--help").stdout)) - {"--case"} == whole  # which an example has
    assert options["report"] == common | {"--out", "--format", "--check", "--keep"}
    assert options["tune"] == common | machine | {"--case", "--scale", "--precision"}
    assert options["compare"] == common | {"--runs"}
    assert options["export"] == common | {"--runs", "--out"}
    assert options["clean"] == common | {"--runs", "--yes"}
    assert options["reproduce"] == common | machine | {"--scale", "--precision", "--jobs", "--out", "--dry-run"}
    assert options["list"] == common | {"--scale", "--runs"}
    assert options["show"] == common | cell
    assert options["bench"] == common | {"--device", "--against", "--length", "--batch", "--rounds", "--threads"}
    assert options["env"] == common | machine
    assert options["data list"] == options["data verify"] == common | {"--folder"}
    assert options["data import"] == common | {"--folder", "--replace"}
    assert options["data fetch"] == common | {"--folder", "--replace", "--split"}


def test_a_command_gets_the_options_that_it_offers_as_one_set() -> None:
    """Shared options stand last, in the same order for every command, and those not offered keep their defaults."""
    got = []

    @expand
    def command(machine_options: Annotated[MachineOptions, "threads", "device"], own: int = 1) -> None:
        got.append((machine_options, own))

    assert list(inspect.signature(command).parameters) == ["own", "device", "threads"]
    command(own=2, device="cpu", threads=None)
    assert got == [(MachineOptions(device="cpu"), 2)]


def test_dry_run_says_sizes_and_time_and_writes_nothing(infty: Infty, tmp_path: Path) -> None:
    done = infty("train", *SMOKE, "--dry-run", "--json")
    sizes = json.loads(done.stdout)
    # embedding and output 2·6·16, biases u and v 2·16, and a layer: attention 5·16², feed-forward 2·(16² + 16),
    # norms 4·16, memory: gate 3·16² + 16, key, value, output 3·16², mean and variance 2·16
    assert sizes["parameters"] == 2 * 6 * 16 + 2 * 16 + 2 * (5 * 256 + 2 * 272 + 64 + 784 + 768 + 32)
    assert sizes["memory_slots"] == 32
    assert sizes["tokens"] == 6 * 4 * 64
    assert sizes["predicted_training_seconds"] > 0
    assert written(tmp_path) == []


def test_show_gives_each_value_its_origin_and_meaning(infty: Infty) -> None:
    lines = {
        line["key"]: line for line in json.loads(infty("show", *SMOKE, "--set", "training.steps=9", "--json").stdout)
    }
    assert (lines["training.steps"]["value"], lines["training.steps"]["origin"]) == (9, "--set")
    assert lines["task.length"]["origin"] == "sort.yaml: scales.smoke.cases.x4"
    assert lines["model.attention_dropout"]["origin"] == "default"
    assert lines["model.long_range.hidden_size"]["origin"] == "model.hidden_size"
    assert "section 3.1" in lines["model.long_range.num_basis"]["meaning"]


def test_env_tells_no_more_than_a_bug_report_needs(infty: Infty, tmp_path: Path) -> None:
    said = json.loads(infty("env", "--json").stdout)
    assert said["versions"]["torch"]
    assert said["threads"] == 1
    assert json.loads(infty("env", "--json", "--threads", "2", OMP_NUM_THREADS="1").stdout)["threads"] == 2
    assert said["settings"]["runs"] == str(tmp_path / "runs")


def test_list_describes_cells_truthfully(infty: Infty, tmp_path: Path) -> None:
    infty("train", *SMOKE)
    stopped = tmp_path / "runs/sort/smoke/infty@x8/seed-0"
    stopped.mkdir(parents=True)
    (stopped / "status.json").write_text('{"status": "running"}')
    damaged = tmp_path / "runs/sort/smoke/compressive@x8/seed-0"
    damaged.mkdir(parents=True)
    (damaged / "result.json").write_text("{")
    listed = json.loads(infty("list", "--scale", "smoke", "--json").stdout)
    shipped = {path.stem for path in SHIPPED.glob("*.yaml")}
    assert {row["experiment"] for row in listed} == shipped
    rows = {(row["model"], row["case"]): row for row in listed if row["experiment"] == "sort"}
    assert len(rows) == 15
    assert rows["infty", "x4"]["state"] == "done"
    assert rows["infty", "x4"]["next"] is None
    assert rows["infty", "x8"]["state"] == "interrupted"
    assert rows["compressive", "x8"]["state"] == "damaged"
    assert rows["compressive", "x8"]["next"].endswith("--seed 0 --fresh")
    assert rows["infty", "x16"]["next"] == "infty train sort --model infty --case x16 --scale smoke --seed 0"
    assert "1 of 1 done" in infty("list", "--scale", "smoke").stdout


def test_paths_are_printed_as_they_are(infty: Infty, tmp_path: Path) -> None:
    done = infty("train", *SMOKE, "--runs", "odd [/b] ü")
    assert done.returncode == 0, done.stderr
    assert "odd [/b] ü" in done.stderr


def test_piped_tables_are_whole_lines(infty: Infty) -> None:
    lines = infty("list", COLUMNS="40").stdout.splitlines()
    assert "| model | x4 | x8 | x16 |" in lines
    assert "| transformer-xl | 0 of 3 done | 0 of 3 done | 0 of 3 done |" in lines
    assert "next: infty train sort --model transformer-xl --case x4 --scale laptop --seed 0" in lines


def test_a_pipe_that_closes_does_not_end_a_training(tmp_path: Path) -> None:
    """`infty train … 2>&1 | head -1`: the reader goes away after a line, and the run finishes all the same."""
    with forks.heard([(("train", *SMOKE), clean_environment(tmp_path))], tmp_path) as (running, stderr):
        stderr.readline()
    running.wait(100)
    assert json.loads((tmp_path / "runs/sort/smoke/infty@x4/seed-0/status.json").read_text())["status"] == "done"


def test_a_terminal_without_greek_gets_question_marks(infty: Infty) -> None:
    done = infty("show", *SMOKE, PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert "?" in done.stdout


def test_one_broken_file_does_not_hide_the_other_experiments(infty: Infty, tmp_path: Path) -> None:
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments/mine.yaml").write_text("seeds: 5\n")
    done = infty("list")
    assert done.returncode == 0
    assert "mine is left out: mine.yaml: seeds: wanted a list of integers" in done.stderr
    assert "sort, laptop scale" in done.stdout


def test_a_file_where_a_folder_belongs_is_one_line_with_a_way_out(infty: Infty, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    done = infty("train", *SMOKE, "--runs", "taken")
    place = "taken/sort/smoke/infty@x4/seed-0"
    hint = "(another folder: --runs, INFTY_RUNS or infty.toml)"
    assert (done.returncode, done.stderr) == (1, f"infty: {place}: Not a directory {hint}\n")
    shutil.copytree(SHIPPED / "results/laptop/sort", tmp_path / "kept/sort")
    done = infty("report", "kept", "--out", "taken/report")  # which --runs has no say in
    assert (done.returncode, done.stderr) == (1, "infty: taken/report: Not a directory\n")


def test_quiet_leaves_results_and_errors(infty: Infty) -> None:
    done = infty("-q", "train", *SMOKE)
    assert (done.returncode, done.stderr) == (0, "")
    assert "test/accuracy: " in done.stdout
    done = infty("--quiet", "train", "srot")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "infty: no experiment 'srot'; did you mean sort?\n")


def test_what_is_logged_is_shown_as_it_is_while_a_command_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """A long line stays one, and what looks like markup is none; before and after, a library says nothing."""
    logger, said = logging.getLogger("infty.corpora"), "100%s [bold]: a line that is longer than the screen"
    for width in (20, 200):
        logger.info("before")
        with show_progress(Console(width=width, markup=False, highlight=False, stderr=True)):
            logger.info(said)
        logger.info("after")
        assert capsys.readouterr() == ("", f"{said}\n")
    with show_progress(Console(quiet=True)):
        logger.info(said)
    assert capsys.readouterr() == ("", "")


def test_verbose_shows_where_settings_and_unexpected_faults_come_from(infty: Infty, tmp_path: Path) -> None:
    (tmp_path / "infty.toml").write_text('wandb = "disabled"\nthreads = 3\n')
    (tmp_path / "taken").write_text("")
    done = infty("-v", "train", *SMOKE, "--runs", "taken", WANDB_MODE="")
    assert done.returncode == 1
    said = f"runs from --runs, threads from INFTY_THREADS, wandb from {tmp_path}/infty.toml, the others are defaults"
    assert done.stderr.startswith(f"settings: {said}\nTraceback (most recent call last):\n")


def test_what_was_begun_is_continued_first(infty: Infty, tmp_path: Path) -> None:
    begun = tmp_path / "runs/sort/smoke/infty@x16/seed-0"
    begun.mkdir(parents=True)
    (begun / "status.json").write_text('{"status": "stopped"}')
    assert "next: infty train sort --model infty --case x16" in infty("list", "--scale", "smoke").stdout


def test_checkpoints_that_are_gone_are_made_anew_with_fresh(infty: Infty, tmp_path: Path) -> None:
    infty("train", *SMOKE)
    shutil.rmtree(tmp_path / "runs/sort/smoke/infty@x4/seed-0/checkpoints")
    done = infty("eval", *SMOKE)
    assert done.returncode == 3
    assert done.stderr.endswith("--scale smoke --seed 0 --fresh\n")


def test_version_is_printed(infty: Infty) -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*\n", infty("--version").stdout)
