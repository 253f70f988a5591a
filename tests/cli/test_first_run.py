"""What meets a newcomer: another Python, no compiler, a home that can't be written to, odd paths, a narrow terminal."""

import contextlib
import fcntl
import os
import pty
import re
import shlex
import shutil
import struct
import subprocess
import sys
import termios
import tomllib
import zipfile
from pathlib import Path

import pytest
from rich.cells import cell_len

import infty
from infty.config.definition import SHIPPED
from tests import forks
from tests.conftest import Infty, clean_environment
from tests.reliability.runs import dies, finish

ROOT = Path(infty.__file__).parents[1]
SMOKE = ("sort", "--scale", "smoke")
RUN = "sort/smoke/infty@x4/seed-0"
NARROW = 60  # cells
# Stand-ins for interpreters: of what make asks them, one fails.
OLD = "import sys; sys.version_info = (3, 9, 2, 'final', 0); exec(sys.argv[1])"
PYTHONS = {
    "old": (f'[ "$1" = -c ] && exec {{python}} -c "{OLD}" "$2"', "infty needs Python 3.11 or newer, as with: make PYT"),
    "bare": ('case "$2" in *venv*) exit 1;; esac', "on Debian and Ubuntu: apt install python3-venv"),
}


@pytest.mark.parametrize("name", PYTHONS)
@pytest.mark.skipif(shutil.which("make") is None, reason="no make here")
def test_make_says_what_a_python_lacks(tmp_path: Path, name: str) -> None:
    for file in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / file, tmp_path)
    lacks, message = PYTHONS[name]
    python = shlex.quote(sys.executable)
    (tmp_path / name).write_text(f'#!/bin/sh\n{lacks.format(python=python)}\nexec {python} "$@"\n')
    (tmp_path / name).chmod(0o755)
    done = subprocess.run(["make", f"PYTHON=./{name}"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert message in done.stdout
    assert "Traceback" not in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_pip_and_make_want_the_same_python() -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["requires-python"]
    assert (wanted, "sys.version_info < (3, 11)" in (ROOT / "Makefile").read_text(encoding="utf-8")) == (">=3.11", True)


@pytest.mark.slow
def test_without_a_compiler_compile_is_left_out_with_one_line(infty: Infty, tmp_path: Path) -> None:
    done = infty("train", *SMOKE, "--compile", PATH=str(tmp_path), CXX="")
    assert done.returncode == 0, done.stderr
    gain, line = [line for line in done.stderr.splitlines() if "warning" in line]
    assert gain.startswith("infty: warning: --compile gains nothing on a CPU")
    assert line.startswith("infty: warning: --compile failed and is left out: ")
    assert "Traceback" not in done.stderr


def test_a_home_that_cannot_be_written_to_is_no_matter(infty: Infty, tmp_path: Path) -> None:
    """W&B and matplotlib keep caches there, and log where they cannot."""
    (tmp_path / "tmp").mkdir()
    given = {
        "WANDB_MODE": "",
        "HOME": "/dev/null/home",
        "TMPDIR": str(tmp_path / "tmp"),
        "XDG_CACHE_HOME": "",
        "XDG_CONFIG_HOME": "",
    }
    done = infty("train", *SMOKE, "--runs", "runs", **given)
    assert done.returncode == 0
    lines = [re.split("[ :]", line)[0] for line in done.stderr.splitlines()]
    assert lines == ["sort", "step", "step", "tested", "finished"], done.stderr
    assert list((tmp_path / "runs" / RUN / "wandb").glob("offline-run-*"))
    assert list((tmp_path / "tmp").rglob("*debug*")) == []
    done = infty("report", "runs", "--format", "html", **given)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that nobody can write to")
def test_where_nothing_can_be_written_it_says_which_file_and_what_chooses_another(infty: Infty) -> None:
    hint = "(another folder: --runs, INFTY_RUNS or infty.toml)"
    done = infty("train", *SMOKE, "--runs", "/proc/runs")
    assert (done.returncode, done.stderr) == (1, f"infty: /proc/runs: No such file or directory {hint}\n")
    assert infty("-q", "train", *SMOKE).returncode == 0
    done = infty("export", RUN, "--out", "/proc/a.zip")
    assert (done.returncode, done.stderr) == (1, "infty: /proc/a.zip: No such file or directory\n")


def test_blanks_and_letters_of_other_languages_in_paths_survive_from_train_to_report(
    infty: Infty, tmp_path: Path
) -> None:
    """A command that is told can be pasted as it stands."""
    folder = "mes résultats ∞/été 2024"
    (tmp_path / folder).mkdir(parents=True)
    shutil.copy(SHIPPED / "sort.yaml", tmp_path / folder / "l'essai.yaml")
    words = (f"{folder}/l'essai.yaml", "--scale", "smoke", "--runs", f"{folder}/runs")
    refused = infty("eval", *words)
    assert refused.returncode == 3
    command = shlex.split(refused.stderr.rpartition("train it with: infty ")[2])
    trained = infty(*command, "--runs", f"{folder}/runs")
    assert trained.returncode == 0, trained.stderr
    assert f"{folder}/runs/l'essai/smoke/infty@x4/seed-0" in trained.stderr
    assert infty("eval", *words).returncode == 0
    report = infty("report", f"{folder}/runs")
    assert (report.returncode, report.stderr) == (0, "")
    assert (tmp_path / folder / "report/l'essai-smoke.md").is_file()


def on_a_narrow_terminal(folder: Path, *words: str) -> list[str]:
    """The lines that `infty …` writes to a terminal of 60 cells, without colours."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, NARROW, 0, 0))
    given = clean_environment(folder, TERM="xterm")
    del given["COLUMNS"]
    running, said = forks.start([(words, given)], folder, streams=dict.fromkeys(range(3), os.ttyname(theirs))), b""
    os.close(theirs)
    with contextlib.suppress(OSError):  # nobody has the terminal open any more
        while more := os.read(ours, 65536):
            said += more
    os.close(ours)
    assert running.wait(100)[0].returncode == 0, said.decode()
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", said.decode()).replace("\r", "").split("\n")


@pytest.mark.slower
@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("list --scale smoke", ["transformer-xl-wide", "infty-contraction-50"]),
        ("show sort", ["model.long_range.num_basis", "sort.yaml: scales.laptop.cases.x4", "basis functions N"]),
        ("report kept --out out", ["transformer-xl-wide", "last-window oracle", "compressive ahead of transformer-xl"]),
        ("--help", ["reproduce", "--show-completion"]),
        ("train --help", ["--micro-batch", "KEY.PATH=VALUE"]),
    ],
)
def test_a_narrow_terminal_breaks_no_name_and_cuts_no_line(tmp_path: Path, words: str, names: list[str]) -> None:
    """But for commands to paste, which a terminal wraps by itself."""
    shutil.copytree(SHIPPED / "results/laptop/sort", tmp_path / "kept/sort")
    lines = on_a_narrow_terminal(tmp_path, *words.split())
    said = "\n".join(lines)
    assert [name for name in names if name not in said] == []
    assert [line for line in lines if cell_len(line) > NARROW and ": infty " not in line and "/out/" not in line] == []


@pytest.mark.parametrize("name", ["con", "aux.x", "nul", "com1", "x.", "a ", *(f"a{sign}" for sign in ':*?"<>|')])
def test_names_that_a_folder_cannot_have_everywhere_are_refused(infty: Infty, tmp_path: Path, name: str) -> None:
    done = infty("train", *SMOKE, "--name", name)
    assert done.returncode == 2
    assert re.fullmatch(r"infty: --name .+: wanted up to 64 .+, and no name .+\n", done.stderr)


@pytest.mark.parametrize("part", ["file", "models", "cases", "scales"])
def test_so_are_such_names_in_a_file(infty: Infty, tmp_path: Path, part: str) -> None:
    text = "models: {infty: {}}\ncases: {x: {}}\nscales: {laptop: {}}\n"
    file = "aux.yaml" if part == "file" else "mine.yaml"
    (tmp_path / file).write_text(text if part == "file" else text.replace(f"{part}: {{", f"{part}: {{nul: {{}}, "))
    done = infty("show", file)
    assert done.returncode == 2
    told = "aux.yaml: no folder on Windows" if part == "file" else f"mine.yaml: {part}.nul: names are "
    assert told in done.stderr


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    assert finish(folder, "train", *SMOKE, INFTY_WANDB="disabled").returncode == 0
    return folder


@pytest.mark.parametrize(("words", "moments"), [("export " + RUN, (8, 14, 20)), ("report", (10, 20, 30))])
def test_a_signal_while_files_are_written_leaves_no_half_of_one(
    trained: Path, words: str, moments: tuple[int, ...]
) -> None:
    """And the same command ends as if nothing had happened."""
    for moment in moments:
        done = dies(trained, f"files:{moment}:SIGINT", *words.split())
        assert done.returncode == 130
        assert re.fullmatch(r"infty: stopped by SIGINT\n(events: \d+\n)?", done.stderr)
        assert not list(trained.glob("*.zip"))
        assert not list(trained.rglob("*.tmp"))
    assert finish(trained, *words.split()).returncode == 0
    for archive in trained.glob("*.zip"):
        assert zipfile.ZipFile(archive).testzip() is None
        archive.unlink()
