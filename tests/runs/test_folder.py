"""Runs are found wherever their folders lie, each once."""

import json
import shutil
from pathlib import Path

import pytest

from infty.config.definition import SHIPPED
from infty.runs.folder import find_runs
from tests.conftest import Infty

ROW = "sort/laptop/infty@x4"


@pytest.mark.parametrize("name", ["as it was", pytest.param("other", marks=pytest.mark.slower)])
@pytest.mark.parametrize("linked", ["sort", "sort/laptop", ROW, f"{ROW}/seed-0"])
def test_a_report_shows_every_run_that_list_shows(infty: Infty, tmp_path: Path, linked: str, name: str) -> None:
    """Folders are moved to another disk and linked; Python's rglob passes links by (python/cpython issue 77609)."""
    runs = tmp_path / "runs"
    shutil.copytree(SHIPPED / "results/laptop/sort/infty@x4/seed-0", runs / ROW / "seed-0")
    place = tmp_path / "disk" / (name if name == "other" else linked)
    place.parent.mkdir(parents=True)
    (runs / linked).rename(place)
    (runs / linked).symlink_to(place)
    listed = json.loads(infty("list", "--json").stdout)
    assert [(run["model"], run["case"], run["seed"]) for run in listed if run["state"] == "done"] == [
        ("infty", "x4", 0)
    ]
    done = infty("report", "--format", "md")
    assert done.returncode == 0, done.stderr
    [row] = [line for line in done.stdout.splitlines() if line.startswith("| infty |")][:1]
    assert "(n = 1)" in row


def test_a_run_is_found_once_whatever_leads_to_it(tmp_path: Path) -> None:
    run = tmp_path / "runs/sort/infty@x4/seed-0"
    run.mkdir(parents=True)
    (run / "config.yaml").touch()
    (run / "up").symlink_to("../..")
    (tmp_path / "runs/tors").symlink_to("sort")
    (tmp_path / "runs/sort/infty@x4/.seed-1.tmp").symlink_to("seed-0")
    assert [found.path for found in find_runs([tmp_path / "runs", tmp_path])] == [run]
