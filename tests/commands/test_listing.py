"""`infty list` tells the truth of every run on disk: cells, other names, other rows, and what a crash left."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from infty.commands.listing import list_cells, overview_tables
from infty.config.settings import Settings, load_settings
from infty.runs.folder import RunFolder
from tests.conftest import Infty

Rows = dict[tuple[str, str, str, int], dict[str, Any]]


@pytest.fixture
def machine(tmp_path: Path) -> Settings:
    return load_settings(runs=tmp_path / "runs", data=tmp_path, experiments=tmp_path / "experiments", wandb="disabled")


def begin(
    machine: Settings,
    name: str,
    status: dict[str, Any] | str | None,
    *,
    experiment: str = "sort",
    seed: int = 0,
    command: Any = "infty train sort --model infty",
) -> RunFolder:
    """What training leaves before it is finished; `name`: <model>@<case>+<variant>."""
    run = RunFolder(machine.runs / experiment / "smoke" / name / f"seed-{seed}")
    run.path.mkdir(parents=True)
    model, case = name.split("+")[0].split("@")
    cell = {"experiment": experiment, "scale": "smoke", "model": model, "case": case, "seed": seed}
    run.write_config({"cell": cell, "task": {"kind": "sort", "length": 59}})
    (run.path / "environment.json").write_text(json.dumps({"command": command}))
    if status is not None:
        (run.path / "status.json").write_text(status if isinstance(status, str) else json.dumps(status))
    return run


def rows_of(machine: Settings, experiment: str = "sort") -> Rows:
    found = [row for row in list_cells(machine, "smoke") if row["experiment"] == experiment]
    rows = {(row["model"], row["case"], row["variant"], row["seed"]): row for row in found}
    assert len(rows) == len(found)
    return rows


def notes_of(machine: Settings, experiment: str = "sort") -> list[str]:
    rows = [row for row in list_cells(machine, "smoke") if row["experiment"] == experiment]
    (table,) = overview_tables(rows, "smoke")
    return table.notes


def test_runs_with_other_settings_stand_after_the_cells_with_the_command_that_was_recorded(machine: Settings) -> None:
    begin(machine, "infty@x8+mine", {"status": "failed", "why": "no room"}, command="infty train sort --name mine")
    begin(
        machine, "infty@x4+0123abcd", {"status": "stopped", "why": "by a signal"}, command="infty train sort --set a=b"
    )
    rows = rows_of(machine)
    assert list(rows)[-2:] == [("infty", "x4", "+0123abcd", 0), ("infty", "x8", "+mine", 0)]
    assert rows["infty", "x8", "+mine", 0] == {
        "experiment": "sort",
        "case": "x8",
        "model": "infty",
        "variant": "+mine",
        "seed": 0,
        "state": "failed",
        "why": "no room",
        "metrics": {},
        "next": "infty train sort --name mine",
    }
    assert rows["infty", "x4", "+0123abcd", 0]["next"] == "infty train sort --set a=b"
    cell = rows["infty", "x8", "", 0]
    assert (cell["variant"], cell["why"], cell["state"]) == ("", "", "missing")


def test_rows_outside_the_table_other_seeds_and_what_is_trained_first_are_listed(machine: Settings) -> None:
    command = "infty train gpt2 --model infty --case wikitext --scale smoke --seed 0"
    for name in ("as-released@wikitext", "base@wikitext+01234567"):
        begin(machine, name, {"status": "running"}, experiment="gpt2", command=command)
    begin(machine, "infty@x4", {"status": "running"}, seed=7)
    rows = rows_of(machine, "gpt2")
    for place in (("as-released", "wikitext", "", 0), ("base", "wikitext", "+01234567", 0)):
        assert (rows[place]["state"], rows[place]["next"]) == ("interrupted", command)
    assert rows_of(machine)["infty", "x4", "", 7]["state"] == "interrupted"


@pytest.mark.parametrize(
    "command",
    [
        *(None, 3, ["infty", "train"], "", "infty\ntrain", "infty train '\x1b[2J'", "infty train 'sort"),
        *("rm x", "infty report", "infty train sort; rm x", "infty train `rm x`", "infty train sort > x"),
    ],
)
def test_a_command_that_is_not_known_is_none(machine: Settings, command: Any) -> None:
    run = begin(machine, "infty@x4+mine", {"status": "failed"}, command=command)
    assert rows_of(machine)["infty", "x4", "+mine", 0]["next"] is None
    assert "infty@x4+mine seed 0: failed; its command is not known" in notes_of(machine)
    for damage in (b"", b"[]", b"\xff"):
        (run.path / "environment.json").write_bytes(damage)
        assert rows_of(machine)["infty", "x4", "+mine", 0]["next"] is None
    (run.path / "environment.json").unlink()
    assert rows_of(machine)["infty", "x4", "+mine", 0]["next"] is None


def test_every_run_that_failed_or_was_interrupted_or_damaged_has_a_line_with_its_command(machine: Settings) -> None:
    begin(machine, "infty@x8", {"status": "failed", "why": f"loss is nan\nat step 3 {'of many' * 99}"})
    begin(machine, "compressive@x8", {"status": "running"})
    begin(machine, "infty@x16+odd", "{", command="infty train sort --name odd")
    run = begin(machine, "infty@x4+mine", None, command="infty train sort --name mine")
    (run.path / "config.yaml").write_text("{")
    for name, status in (("infty@x16", "stopped"), ("compressive@x16+a", "stopped")):
        begin(machine, name, {"status": status, "why": "by a signal"})
    notes = sorted(notes_of(machine), key=lambda note: "nfid".index(note_kind(note)))
    next_one, failed, interrupted, unread, damaged = notes
    assert next_one == "next: infty train sort --model compressive --case x8 --scale smoke --seed 0"
    assert failed.startswith("infty@x8 seed 0: failed: loss is nan at step 3 of many")
    assert failed.endswith("…; continue with: infty train sort --model infty --case x8 --scale smoke --seed 0")
    assert len(failed) < 300
    command = "infty train sort --model compressive --case x8 --scale smoke --seed 0"
    assert interrupted == f"compressive@x8 seed 0: interrupted; continue with: {command}"
    assert unread.startswith("infty@x16+odd seed 0: interrupted: ")
    assert "status.json can't be read" in unread
    assert unread.endswith("; continue with: infty train sort --name odd")
    assert damaged.startswith("infty@x4+mine seed 0: damaged: ")
    assert "config.yaml can't be read" in damaged
    assert damaged.endswith("; start over with: infty train sort --name mine --fresh")


def note_kind(note: str) -> str:
    return "n" if note.startswith("next: ") else note.split(" seed 0: ")[1][0]


def test_the_screen_has_a_row_a_name_and_nothing_where_there_is_no_run(machine: Settings) -> None:
    begin(machine, "infty@x8+mine", {"status": "stopped"})
    rows = [row for row in list_cells(machine, "smoke") if row["experiment"] == "sort"]
    (table,) = overview_tables(rows, "smoke")
    assert table.headings == ["model", "x4", "x8", "x16"]
    assert [row[0] for row in table.rows] == [
        "transformer-xl",
        "transformer-xl-wide",
        "compressive",
        "infty",
        "infty-sticky",
        "infty+mine",
    ]
    assert table.rows[3] == ["infty", *["0 of 1 done"] * 3]
    assert table.rows[-1] == ["infty+mine", "–", "0 of 1 done, stopped (seed 0)", "–"]
    assert table.notes == ["next: infty train sort --model transformer-xl --case x4 --scale smoke --seed 0"]


def test_what_is_no_run_of_its_own_is_not_listed(machine: Settings) -> None:
    """W&B keeps a config.yaml of its own within a run; folders that somebody renamed are nobody's runs."""
    run = begin(machine, "infty@x4+mine", {"status": "stopped"})
    half_copied = run.path.parents[1] / ".infty@x8.tmp/seed-0"
    for path in (run.path / "wandb/run-1/files", run.path.parents[1] / "infty@x4 old/seed-0", half_copied):
        path.mkdir(parents=True)
        (path / "config.yaml").write_text("{}")
    assert len(rows_of(machine)) == 15 + 1


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ({"status": "running", "why": ""}, "interrupted"),
        ({"status": "done", "why": ""}, "interrupted"),  # somebody removed its result
        (None, "interrupted"),
        ({"status": "failed", "why": "x"}, "failed"),
        ({"status": "stopped", "why": "x"}, "stopped"),
        ({"status": "flying"}, "interrupted"),  # training reads none of it: what can't be believed is no damage
        ({"status": ["done"]}, "interrupted"),
        ({}, "interrupted"),
        ("", "interrupted"),
        ("[]", "interrupted"),
    ],
)
def test_the_state_of_a_run_without_a_result(machine: Settings, status: Any, state: str) -> None:
    run = begin(machine, "infty@x4", status)
    assert run.state() == state
    with run.lock():
        assert run.state() == "running"
    assert run.state() == state


@pytest.mark.parametrize("status", ["", "[]", "{}", '{"status": "flying"}'])
def test_why_a_status_is_not_believed_is_told_with_the_command_that_goes_on(machine: Settings, status: str) -> None:
    begin(machine, "infty@x4", status)
    row = rows_of(machine)["infty", "x4", "", 0]
    assert (row["state"], "status.json" in row["why"]) == ("interrupted", True)
    assert row["next"].endswith("--scale smoke --seed 0")


@pytest.mark.parametrize(
    "config",
    [
        "",
        "{",
        "cell: 3",
        "cell: {model: infty}",
        "cell: {experiment: ../x, scale: smoke, model: infty, case: x4, seed: 0}",
        "cell: {experiment: sort, scale: smoke, model: infty, case: x4, seed: 1}",
        "cell: {experiment: sort, scale: smoke, model: compressive, case: x4, seed: 0}",
        "cell: {experiment: sort, scale: smoke, model: infty, case: x4, seed: 0, when: 2001-99-99}",
        "cell: !!int ''",
        "[" * 3000,
    ],
)
def test_a_run_that_does_not_say_what_it_is_is_damaged_and_is_begun_anew(machine: Settings, config: str) -> None:
    run = begin(machine, "infty@x4", {"status": "failed", "why": "x"})
    (run.path / "config.yaml").write_text(config)
    row = rows_of(machine)["infty", "x4", "", 0]
    assert (row["state"], row["next"][-8:]) == ("damaged", " --fresh")
    assert "config.yaml" in row["why"]
    assert "train again with --fresh" in row["why"]


def test_what_is_trained_first_is_not_begun_anew_with_the_row_it_was_trained_for(machine: Settings) -> None:
    """--fresh would remove the row's own run."""
    run = begin(machine, "base@wikitext+01234567", None, experiment="gpt2", command="infty train gpt2 --model infty")
    (run.path / "config.yaml").write_text("{")
    row = rows_of(machine, "gpt2")["base", "wikitext", "+01234567", 0]
    assert (row["state"], row["next"]) == ("damaged", "infty train gpt2 --model infty")


def test_where_the_lock_cannot_be_opened_the_status_stands(machine: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else's runs, which we may only read: nobody can tell whether a process is at them."""
    run = begin(machine, "infty@x4", {"status": "running"})
    (run.path / ".lock").mkdir()  # can't be opened to write, whoever we are
    assert (run.state(), run.is_locked()) == ("running", None)
    (run.path / ".lock").rmdir()
    (run.path / ".lock").touch()
    assert run.state() == "interrupted"

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("infty.base.locks.FileLock.acquire", refuse)
    assert (run.state(), run.is_locked()) == ("running", None)
    run.write_status("failed", "x")
    assert run.state() == "failed"


def test_the_command_lists_a_run_that_failed_under_another_name(infty: Infty, tmp_path: Path) -> None:
    words = ("train", "sort", "--scale", "smoke", "--case", "x4")
    assert infty(*words, "--set", "training.learning_rate=1e30", "--set", "training.clip_norm=1e30").returncode == 1
    assert infty(*words, "--set", "training.steps=1", "--name", "short").returncode == 0
    rows = {row["variant"]: row for row in json.loads(infty("list", "--scale", "smoke", "--json").stdout)}
    (failed,) = [row for variant, row in rows.items() if variant not in ("", "+short")]
    assert (failed["model"], failed["case"], failed["state"]) == ("infty", "x4", "failed")
    assert failed["why"]
    assert rows["+short"]["state"] == "done"
    assert (rows["+short"]["next"], rows["+short"]["why"]) == (None, "")
    assert rows["+short"]["metrics"]["test/accuracy"] >= 0
    (run,) = tmp_path.glob(f"runs/sort/smoke/infty@x4{failed['variant']}/seed-0")
    assert failed["next"] == json.loads((run / "environment.json").read_text())["command"]
    assert yaml.safe_load((run / "config.yaml").read_text())["training"]["learning_rate"] == 1e30
    lines = infty("list", "--scale", "smoke").stdout.splitlines()
    (line,) = [line for line in lines if line.startswith(f"infty@x4{failed['variant']} seed 0: failed: ")]
    assert line.endswith(f"; continue with: {failed['next']}")
    assert any(line.startswith("| infty+short | 1 of 1 done, ") for line in lines)
