"""The worked examples of docs/extending.md: patches that still apply; what they add trains, tests and reports."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import clean_environment

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "experiments/examples"


def patched(folder: Path, name: str) -> None:
    """A copy of the code and the experiments with an example's patch applied."""
    for part in ("infty", "experiments"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__", "results"))
    subprocess.run(["git", "apply", str(EXAMPLES / f"{name}.patch")], cwd=folder, check=True)


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """`infty …` of the copy."""
    return subprocess.run(
        [sys.executable, "-m", "infty", *words],
        cwd=folder,
        env=clean_environment(folder, PYTHONPATH=str(folder)),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("name", "experiment", "row", "kind"),
    [
        ("memory", "sort", "peak", {"kind": "peak"}),
        pytest.param("task", "rarest-first", "infty", {"kind": "rarest-first"}, marks=pytest.mark.slower),
    ],
)
def test_a_memory_and_a_task_of_ones_own(tmp_path: Path, name: str, experiment: str, row: str, kind: object) -> None:
    patched(tmp_path, name)
    trained = run(tmp_path, "train", experiment, "--model", row, "--scale", "smoke", "--json")
    assert trained.returncode == 0, trained.stderr
    assert "tested again with the memory emptied" in trained.stderr
    result = json.loads(trained.stdout)
    assert 0 <= result["metrics"]["test/accuracy"] <= 1
    (folder,) = (tmp_path / "runs" / experiment).glob(f"smoke/{row}@*/seed-0")
    assert str(kind)[1:-1].replace("'", "") in (folder / "config.yaml").read_text(encoding="utf-8")
    assert list((folder / "eval").glob("*-without-zero.json"))
    other = run(tmp_path, "eval", experiment, "--model", row, "--scale", "smoke", "--knock-out", "other")
    assert other.returncode == 0, other.stderr
    assert f"| {row} |" in run(tmp_path, "report").stdout


def test_the_page_names_each_example() -> None:
    named = re.findall(
        r"git apply (experiments/examples/\S+)", (ROOT / "docs/extending.md").read_text(encoding="utf-8")
    )
    assert sorted(ROOT / name for name in named) == sorted(EXAMPLES.glob("*.patch"))
