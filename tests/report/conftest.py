"""Runs that several tests report on."""

from pathlib import Path

import pytest

from infty.report.figures import Picture
from tests.report.handmade import put


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that look at no picture: drawing takes longer than all else. Its files are there, empty."""
    monkeypatch.setattr(Picture, "draw", lambda _, stem: [stem.with_suffix(end).touch() for end in (".svg", ".png")])


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
