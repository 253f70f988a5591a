"""Tab completion in real shells, with what `infty --install-completion` writes for each."""

import contextlib
import os
import pty
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import infty
from tests.conftest import clean_environment

RUN = "sort/laptop/infty@x8/seed-0"
# What is typed before Tab, and what is offered for its last word.
OFFERED = {
    "infty train s": ["sort", "sort-ablation", "sort-basis", "sort-memories", "sort-stretch"],
    "infty train sort --model i": ["infty", "infty-softmax", "infty-sticky"],
    "infty train mine --model ": ["long", "plain"],
    "infty train mine --case x": ["x2"],
    "infty reproduce te": ["text"],
    "infty eval sort --scale l": ["laptop"],
    "infty eval wikitext --protocol text-s": ["text-stream-v1"],
    "infty eval sort --precision t": ["tf32"],
    "infty data fetch w": ["wikitext"],
    "infty export so": [RUN],
    "infty compare sort/laptop/infty@x8/se": [RUN],
    "infty train broken --model inft": [],
}
INFTY = """#!/bin/sh
exec {python} -c 'import sys; sys.argv[0] = "infty"; from infty.cli import main; main()' "$@"
"""
# Tab puts all that is offered into the line, and Ctrl-O keeps it as it stands.
SHELLS = {
    "bash": """
bind '"\\t": insert-completions'
bind -x '"\\C-o": echo "$READLINE_LINE" >> ~/lines; READLINE_LINE='
PS1='ready> '
""",
    "zsh": """
zstyle ':completion:*' completer _all_matches _complete
zstyle ':completion:*' insert true
keep() { print -r -- $BUFFER >> ~/lines; BUFFER= }
zle -N keep
bindkey '^O' keep
PS1='ready> '
""",
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """With `infty` on the path, experiments of one's own, and a run."""
    for name, text in (
        ("bin/infty", INFTY.format(python=shlex.quote(sys.executable))),
        ("experiments/mine.yaml", "models: {plain: {}, long: {}}\ncases: {x2: {}}\nscales: {laptop: {}}\n"),
        ("experiments/broken.yaml", "models: {infty: {}"),
        (f"runs/{RUN}/config.yaml", ""),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "bin/infty").chmod(0o755)
    return tmp_path


def environment(home: Path, **more: str) -> dict[str, str]:
    path = f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}"
    root = str(Path(infty.__file__).parents[1])
    return clean_environment(home, PATH=path, PYTHONPATH=root, TERM="dumb", **more)


def shell(home: Path, name: str, script: str) -> str:
    """What a script prints; it says nothing else."""
    done = subprocess.run(
        [name, "-c", script], cwd=home, env=environment(home), capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def install(home: Path, name: str) -> None:
    """As a user does, in that shell."""
    if shutil.which(name) is None:
        pytest.skip(f"no {name} here")
    assert f"{name} completion installed" in shell(home, name, "infty --install-completion; true")


def test_fish_completes(home: Path) -> None:
    install(home, "fish")
    script = "".join(f"complete -C '{typed}'; echo\n" for typed in OFFERED)
    offered = [names.split() for names in shell(home, "fish", script).split("\n\n")]
    assert [sorted(names) for names in offered] == [sorted(names) for names in OFFERED.values()]


@pytest.mark.parametrize("name", ["bash", "zsh"])
def test_a_terminal_completes_from_the_first_tab(home: Path, name: str) -> None:
    install(home, name)
    with (home / f".{name}rc").open("a") as file:
        file.write(SHELLS[name])
    type_in(home, name, "".join(f"{typed}\t\x0f" for typed in OFFERED) + "exit\r")
    lines = (home / "lines").read_text().splitlines()
    assert len(lines) == len(OFFERED)
    for line, (typed, names) in zip(lines, OFFERED.items(), strict=True):
        given, _, last = typed.rpartition(" ")
        assert line.startswith(f"{given} ")
        assert sorted(line.removeprefix(given).split()) == sorted(names or [last])


def type_in(home: Path, name: str, keys: str) -> None:
    """Keys in a terminal with that shell, until it ends."""
    ours, theirs = pty.openpty()
    with subprocess.Popen([name, "-i"], cwd=home, env=environment(home), stdin=theirs, stdout=theirs, stderr=theirs):
        os.close(theirs)
        said = b""
        while b"ready> " not in said:
            said += os.read(ours, 4096)
        os.write(ours, keys.encode())
        with contextlib.suppress(OSError):  # nobody has the terminal open any more
            while os.read(ours, 4096):
                pass
    os.close(ours)


@pytest.mark.parametrize("text", ["runs = ", 'rums = "x"'])
def test_a_broken_infty_toml_is_no_matter_for_a_prompt(home: Path, text: str) -> None:
    (home / "infty.toml").write_text(text)
    asked = {"_INFTY_COMPLETE": "complete_bash", "COMP_WORDS": "infty\ntrain\ns", "COMP_CWORD": "2"}
    done = subprocess.run(
        [home / "bin/infty"], cwd=home, env=environment(home, **asked), capture_output=True, text=True, check=False
    )
    assert (done.stdout.strip(), done.stderr) == ("", "")
