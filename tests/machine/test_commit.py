"""Which commit a result names: this checkout's or none, whatever git's own variables say.

git hands GIT_DIR and the like on to hooks, and in them `git -C` follows the variables, not the folder
(https://github.com/wafflebase/wafflebase/pull/592).
"""

import json
import os
import subprocess
from pathlib import Path

import pytest

from infty.base.errors import UsageError
from infty.machine import placement
from tests.conftest import Infty
from tests.forks import ROOT

LOCAL = "git -c user.name=a -c user.email=a@b -c commit.gpgsign=false"
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}


def git(folder: Path, *words: str) -> str:
    command = [*LOCAL.split(), "-C", str(folder), *words]
    return subprocess.run(command, env=CLEAN, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Somebody else's repository, with one commit."""
    folder = tmp_path / "other"
    folder.mkdir()
    git(folder, "init", "-q")
    git(folder, "commit", "-q", "--allow-empty", "-m", "x")
    return folder


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no checkout")
def test_variables_that_git_hands_to_hooks_do_not_choose_the_commit(infty: Infty, other: Path) -> None:
    def state(**environment: str) -> tuple[str, bool]:
        found = json.loads(infty("env", "--json", **environment).stdout)
        return found["commit"], found["dirty"]

    own = git(ROOT, "rev-parse", "HEAD"), bool(git(ROOT, "status", "--porcelain", "--untracked-files=no"))
    at = str(other / ".git")
    assert state(GIT_DIR=at) == own
    assert state(GIT_DIR=at, GIT_WORK_TREE=str(other), GIT_INDEX_FILE=f"{at}/index", GIT_PREFIX="x/") == own
    assert state(GIT_COMMON_DIR=at) == state(GIT_OBJECT_DIRECTORY=f"{at}/objects") == own
    assert state(GIT_CONFIG_COUNT="1", GIT_CONFIG_KEY_0="core.worktree", GIT_CONFIG_VALUE_0=str(other)) == own


def test_a_repository_around_the_package_is_not_its_own(other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image may hold a copy of the code with a `.git` that is empty; git itself then looks further up."""
    (other / "copy/.git").mkdir(parents=True)
    monkeypatch.setattr(placement, "PACKAGE", other / "copy/infty")
    described = placement.Machine(placement.HOST).describe_environment()
    assert (described["commit"], described["dirty"]) == (None, None)


def test_a_checkout_whose_state_is_not_known_is_not_called_clean(other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (other / ".git/index").write_text("damaged")
    monkeypatch.setattr(placement, "PACKAGE", other / "infty")
    described = placement.Machine(placement.HOST).describe_environment()
    assert (described["commit"], described["dirty"]) == (git(other, "rev-parse", "HEAD"), None)


def test_a_copy_without_a_checkout_names_the_commit_that_a_variable_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def describe() -> tuple[str | None, bool | None]:
        found = placement.Machine(placement.HOST).describe_environment()
        return found["commit"], found["dirty"]

    monkeypatch.setenv("INFTY_COMMIT", "16eb226" + "0" * 33)
    if (ROOT / ".git").exists():  # a checkout knows better
        assert describe()[0] == git(ROOT, "rev-parse", "HEAD")
    monkeypatch.setattr(placement, "PACKAGE", tmp_path / "copy/infty")
    assert describe() == ("16eb226" + "0" * 33, None)
    monkeypatch.setenv("INFTY_COMMIT", "")
    assert describe() == (None, None)
    monkeypatch.setenv("INFTY_COMMIT", "main")
    with pytest.raises(UsageError, match="INFTY_COMMIT is 'main': wanted 7 to 40 hexadecimal digits"):
        describe()
