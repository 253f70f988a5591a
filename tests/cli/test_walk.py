"""The recorded walk, taken again in a fresh clone: every command works and says what it said, but for numbers."""

import subprocess
from pathlib import Path

import pytest

from tests.walk import RECORD, ROOT, shape, walk


@pytest.mark.slower
@pytest.mark.slow
def test_the_walk_is_as_it_is_recorded(tmp_path: Path) -> None:
    if subprocess.run(["git", "rev-parse"], cwd=ROOT, capture_output=True, check=False).returncode:
        pytest.skip("no git repository here")
    told = walk(tmp_path)
    assert "(exit" not in told
    assert shape(told) == shape(RECORD.read_text(encoding="utf-8"))
