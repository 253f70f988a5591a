"""Runs that several tests report on."""

from pathlib import Path

import pytest

from tests.report.handmade import put


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    root = tmp_path / "runs"
    put(root, "infty", "x8", 0.5012)
    put(root, "infty", "x8", 0.5212, seed=1)
    put(root, "infty", "x8", 0.4812, seed=2)
    put(root, "transformer-xl", "x8", 0.2954, commit=None, dirty=None)
    put(root, "infty", "x8", 0.99, variant="+other")
    put(root, "infty", "x16", 0.4)
    return root
