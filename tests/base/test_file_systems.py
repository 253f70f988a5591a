"""File systems of clusters and clouds, which refuse what a local disk grants: put in as the interpreter begins.

fsync of a folder: EINVAL on CIFS, VirtualBox and FUSE mounts (https://github.com/untitaker/python-atomicwrites/issues/27,
https://github.com/borgbackup/borg/issues/1287). chmod: EPERM on mounts whose rights are fixed. flock: ENOLCK on NFS
without a lock daemon, ENOSYS and EOPNOTSUPP on Lustre and FUSE; filelock 4.2 takes a file instead for ENOSYS alone, and
at the lock's own name, which a run from a disk with locks has left behind.
"""

import errno
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from infty.base.files import flush, remove_folder
from infty.runs.folder import RunFolder
from tests.conftest import Infty
from tests.forks import ROOT, clean_environment

WORDS = ("train", "sort", "--scale", "smoke", "--case", "x4")
RUN = "runs/sort/smoke/infty@x4/seed-0"
LONG = (*WORDS, "--set", "training.steps=100000", "--set", "training.evaluate_every=100000", "--name", "long")
HELD = "runs/sort/smoke/infty@x4+long/seed-0/.lock.held"
REFUSE = """
import errno, fcntl, os, stat
def refuse(name, number, when=lambda *_: True, module=os):
    real = getattr(module, name)
    def wrapped(*args, **options):
        if when(*args):
            raise OSError(number, os.strerror(number), *(str(a) for a in args[:1] if not isinstance(a, int)))
        return real(*args, **options)
    setattr(module, name, wrapped)
def is_folder(descriptor, *_): return stat.S_ISDIR(os.fstat(descriptor).st_mode)
def is_file(descriptor, *_): return not is_folder(descriptor)
"""


def refusing(folder: Path, lines: str) -> dict[str, str]:
    """The environment of a Python that meets such a file system."""
    (folder / "site").mkdir(exist_ok=True)
    (folder / "site/sitecustomize.py").write_text(REFUSE + lines)
    return {"PYTHONPATH": f"{folder / 'site'}:{ROOT}"}


@pytest.mark.parametrize(
    "number",
    ["EINVAL", pytest.param("ENOTSUP", marks=pytest.mark.slower), pytest.param("ENOSYS", marks=pytest.mark.slower)],
)
def test_a_folder_that_cannot_be_flushed_is_passed_over(infty: Infty, tmp_path: Path, number: str) -> None:
    done = infty(*WORDS, **refusing(tmp_path, f"refuse('fsync', errno.{number}, is_folder)"))
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr


def test_a_file_that_cannot_be_flushed_is_a_failure_with_its_path(infty: Infty, tmp_path: Path) -> None:
    done = infty(*WORDS, **refusing(tmp_path, "refuse('fsync', errno.EINVAL, is_file)"))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"{tmp_path / RUN}" in done.stderr
    assert "Invalid argument" in done.stderr
    done = infty(*WORDS, **refusing(tmp_path, "refuse('fsync', errno.EIO, is_folder)"))
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert f"{tmp_path / RUN}: Input/output error" in done.stderr


@pytest.mark.slower
@pytest.mark.parametrize("number", ["EPERM", "ENOTSUP"])
def test_rights_that_cannot_be_set_are_no_matter(infty: Infty, tmp_path: Path, number: str) -> None:
    done = infty(*WORDS, **refusing(tmp_path, f"refuse('chmod', errno.{number}); refuse('fchmod', errno.{number})"))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "number",
    ["ENOLCK", pytest.param("ENOSYS", marks=pytest.mark.slower), pytest.param("EOPNOTSUPP", marks=pytest.mark.slower)],
)
def test_without_locks_a_file_takes_their_place(infty: Infty, tmp_path: Path, number: str) -> None:
    refused = refusing(tmp_path, f"refuse('flock', errno.{number}, module=fcntl)")
    done = infty(*WORDS, **refused)
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stderr.splitlines() if "warning" in line]
    place = tmp_path / RUN
    assert told == [
        f"infty: warning: {place} is on a file system without locks: {place}/.lock.held takes the lock's place, and is "
        "to be removed if this process is killed"
    ]
    assert not (place / ".lock.held").exists()
    assert infty(*WORDS, "--fresh", **refused).returncode == 0
    assert infty("clean", "--yes", **refused).returncode == 0
    listed = json.loads(infty("list", "--scale", "smoke", "--json", **refused).stdout)
    states = {(row["experiment"], row["case"], row["model"]): row["state"] for row in listed}
    assert states["sort", "x4", "infty"] == "done"


@pytest.mark.slower
def test_without_locks_a_second_run_is_refused_still(infty: Infty, tmp_path: Path) -> None:
    refused = refusing(tmp_path, "refuse('flock', errno.ENOLCK, module=fcntl)")
    with subprocess.Popen(
        [sys.executable, "-m", "infty", *LONG],
        cwd=tmp_path, env=clean_environment(tmp_path, **refused), stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        next(line for line in process.stderr if "training for" in line)
        done = infty(*LONG, **refused)
        listed = json.loads(infty("list", "--scale", "smoke", "--json", **refused).stdout)
        process.send_signal(signal.SIGTERM)
        assert process.wait(100) == 143
    assert done.returncode == 2
    assert f"another process is training in {(tmp_path / HELD).parent} (process {process.pid} on " in done.stderr
    assert f"; if it has ended, remove {tmp_path / HELD}); wait, or use --name for a second run" in done.stderr
    assert [row["state"] for row in listed if row["variant"] == "+long"] == ["running"]
    assert not (tmp_path / HELD).exists()


@pytest.mark.slower
def test_a_file_of_another_machines_process_says_how_to_remove_it(infty: Infty, tmp_path: Path) -> None:
    refused = refusing(tmp_path, "refuse('flock', errno.EOPNOTSUPP, module=fcntl)")
    held = tmp_path / RUN / ".lock.held"
    held.parent.mkdir(parents=True)
    held.write_text("4711\nnode7\n")
    done = infty(*WORDS, **refused)
    assert done.returncode == 2
    assert f"(process 4711 on node7; if it has ended, remove {held})" in done.stderr
    held.unlink()
    assert infty(*WORDS, **refused).returncode == 0


def test_what_cannot_be_flushed_or_removed_is_named_with_its_whole_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/c").write_text("")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EACCES, "no", "c")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", refuse)
        with pytest.raises(OSError, match="no") as raised:
            flush(tmp_path / "a/b/c")
    assert raised.value.filename == str(tmp_path / "a/b/c")
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").write_text("")
    (tmp_path / "a/link").symlink_to(tmp_path / "kept")
    remove_folder(tmp_path / "a")
    assert not (tmp_path / "a").exists()
    assert (tmp_path / "kept/file").exists()


def test_checkpoints_on_another_disk_are_removed_there_and_come_back_there(infty: Infty, tmp_path: Path) -> None:
    run, large = RunFolder(tmp_path / RUN), tmp_path / "large"
    run.path.mkdir(parents=True)
    large.mkdir()
    run.checkpoints.symlink_to(large)
    assert infty(*WORDS).returncode == 0
    first = {path.name for path in large.iterdir()}
    assert {"best.json", "last.json"} < first
    done = infty(*WORDS, "--fresh")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in large.iterdir()} == first
    done = infty("clean", "--yes")
    assert done.returncode == 0, done.stderr
    assert list(large.iterdir()) == []
    assert run.checkpoints.is_symlink()
    assert "Nothing here" in infty("clean").stdout
    assert infty(*WORDS, "--fresh").returncode == 0
    assert {path.name for path in large.iterdir()} == first


def test_a_disk_that_is_not_there_is_missed_before_the_first_step(infty: Infty, tmp_path: Path) -> None:
    """Checkpoints would be computed and then lost, or `--fresh` would put a folder of this disk in the link's place."""
    run, large = RunFolder(tmp_path / RUN), tmp_path / "large"
    run.path.mkdir(parents=True)
    run.checkpoints.symlink_to(large)
    told = f"infty: {run.checkpoints} is a link to {large}, which is not there; bring that disk or folder back"
    for words in (WORDS, (*WORDS, "--fresh"), ("eval", *WORDS[1:])):
        done = infty(*words)
        assert (done.returncode, done.stderr.startswith(told)) == (3, True), done.stderr
    assert list(run.path.glob("[!.]*")) == [run.checkpoints]
    assert run.checkpoints.is_symlink()
    large.mkdir()
    assert infty(*WORDS).returncode == 0
    assert (large / "best.json").is_file()
    large.rename(tmp_path / "away")  # a finished run says so
    assert infty(*WORDS).returncode == 0
    done = infty("report", "--check")
    assert (done.returncode, f"{run.checkpoints} is a link to" in done.stdout) == (4, True), done
    (tmp_path / "elsewhere").symlink_to(large)
    told = f"elsewhere is a link to {large}, which is not there"
    for words in (WORDS, ("list",), ("clean",), ("report", "elsewhere"), ("export", str(run.path), "--out", "x")):
        done = infty(*words, INFTY_RUNS="elsewhere")
        assert done.returncode == 3, (words, done.stderr)
        assert (told if words[0] != "export" else f"{run.checkpoints} is a link to") in done.stderr


def test_checkpoints_that_are_linked_to_a_file_are_refused(infty: Infty, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / RUN)
    run.path.mkdir(parents=True)
    (tmp_path / "file").write_text("")
    run.checkpoints.symlink_to(tmp_path / "file")
    for words in (WORDS, (*WORDS, "--fresh")):
        done = infty(*words)
        assert (done.returncode, "which is no folder; bring" in done.stderr) == (3, True), done.stderr
    assert run.checkpoints.is_symlink()


def test_what_may_not_be_removed_is_told_before_anything_is(infty: Infty, tmp_path: Path) -> None:
    """Somebody took the right to write from a run's checkpoints, to keep them."""
    assert infty(*WORDS).returncode == 0
    before = sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / RUN).rglob("*") if path.name != ".lock")
    kept = "real = os.access\nos.access = lambda path, *more: 'step-' not in str(path) and real(path, *more)"
    done = infty(*WORDS, "--fresh", **refusing(tmp_path, kept))
    assert done.returncode == 1
    place = (
        rf"{tmp_path / RUN}/checkpoints/step-\d+: it may not be written to, so nothing of this was removed; change its"
    )
    assert re.search(place, done.stderr), done.stderr
    cleaned = infty("clean", "--yes", **refusing(tmp_path, kept))
    assert cleaned.returncode == 1
    assert re.search(place, cleaned.stderr), cleaned.stderr
    after = sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / RUN).rglob("*") if path.name != ".lock")
    changed = {path.name for path, _ in set(after) ^ set(before)}
    assert changed <= {"seed-0", "status.json"}, changed


@pytest.mark.slower
def test_a_move_that_fails_is_told_with_where_it_was_to_lead(infty: Infty, tmp_path: Path) -> None:
    line = "refuse('replace', errno.EBUSY, lambda source, *_: 'result.json' in str(source))"
    done = infty(*WORDS, **refusing(tmp_path, line))
    assert done.returncode == 1
    assert f"{tmp_path / RUN}/result.json: Device or resource busy" in done.stderr, done.stderr


def test_clean_goes_on_with_other_runs_and_ends_with_1(infty: Infty, tmp_path: Path) -> None:
    for case in ("x4", "x8"):
        assert infty(*WORDS[:-1], case).returncode == 0
    lines = "refuse('unlink', errno.EACCES, lambda path, **_: 'infty@x4' in str(path) and 'model.safe' in str(path))"
    done = infty("clean", "--yes", "--json", **refusing(tmp_path, lines))
    assert done.returncode == 1
    assert f"{tmp_path / RUN}/checkpoints/step-" in done.stderr
    assert "Permission denied" in done.stderr
    assert [Path(run["run"]).parent.name for run in json.loads(done.stdout)["runs"]] == ["infty@x8"]
    assert not (tmp_path / "runs/sort/smoke/infty@x8/seed-0/checkpoints").exists()
    assert infty("clean", "--yes").returncode == 0
    assert not (tmp_path / RUN / "checkpoints").exists()


READ_ONLY = """
import io
def of_others(path): return isinstance(path, (str, os.PathLike)) and os.path.abspath(path).startswith(OTHERS)
refuse('open', errno.EACCES, lambda path, flags=0, *_, **__: of_others(path) and flags & (os.O_WRONLY | os.O_RDWR))
refuse('open', errno.EACCES, lambda path, mode='r', *_, **__: of_others(path) and set(mode) & set('wax+'), io)
refuse('mkdir', errno.EACCES, lambda path, *_: of_others(path) and not os.path.isdir(path))
"""


def test_somebody_elses_run_is_evaluated_shown_and_not_stored(infty: Infty, tmp_path: Path) -> None:
    """Reading should not ask for the right to write (https://github.com/ray-project/ray/pull/64340)."""
    assert infty(*WORDS).returncode == 0
    refused = refusing(tmp_path, f"OTHERS = {str(tmp_path / RUN)!r}\n{READ_ONLY}")
    evaluate = ("eval", *WORDS[1:], "--json", "--split", "validation")
    done = infty(*evaluate, **refused)
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stderr.splitlines() if "warning" in line]
    assert len(told) == 1
    assert told[0].startswith(f"infty: warning: the evaluation was not stored: {tmp_path / RUN}/eval/")
    assert told[0].endswith(": Permission denied")
    assert not list((tmp_path / RUN / "eval").glob("*validation*"))
    assert done.stdout == infty(*evaluate).stdout

    # A finished run says so, and what would have to be written does not begin.
    again = infty(*WORDS, "--json", **refused)
    assert again.returncode == 0, again.stderr
    assert again.stderr.startswith("already finished: ")
    assert json.loads(again.stdout)["best_step"]
    fresh = infty(*WORDS, "--fresh", **refused)
    assert fresh.returncode == 1
    assert f"{tmp_path / RUN}/.lock: Permission denied" in fresh.stderr


@pytest.mark.slower
def test_token_files_of_a_shared_corpus_lie_in_a_folder_of_ones_own(infty: Infty, tmp_path: Path) -> None:
    """Without a copy of the texts (https://github.com/huggingface/datasets/issues/2837): the message says how."""
    words = ("train", "wikitext", "--scale", "smoke", "--runs", "runs")
    assert infty("data", "fetch", "generated", INFTY_DATA="shared").returncode == 0
    refused = refusing(tmp_path, f"OTHERS = {str(tmp_path / 'shared')!r}\n{READ_ONLY}")
    done = infty(*words, INFTY_DATA="shared", **refused)
    assert done.returncode == 1
    told = done.stderr.splitlines()[-1]
    way_out = f"mkdir FOLDER; cp -rs {tmp_path / 'shared/generated'} FOLDER"
    assert told.endswith(f"INFTY_DATA or infty.toml, where links to the texts suffice: {way_out})"), told
    subprocess.run(way_out.replace("FOLDER", "mine"), shell=True, check=True, cwd=tmp_path)
    done = infty(*words, INFTY_DATA="mine", **refused)
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "mine/generated/tokens").iterdir())
    assert (tmp_path / "mine/generated/train.txt").is_symlink()
