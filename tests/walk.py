"""A walk through infty: commands that a newcomer gives in a fresh clone, and what they print.

It is kept in `walk.txt`, and a test takes it again. `python -m tests.walk` writes it anew.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.conftest import clean_environment

ROOT = Path(__file__).parents[1]
RECORD = Path(__file__).with_name("walk.txt")
ROW = "  infty-broad: {model: {long_range: {widths: [0.05, 0.2]}}}"
STEPS = (  # `-o`: what is installed already is not installed again
    "make -s -o .venv/installed demo SCALE=smoke",
    "infty list --scale smoke",
    "infty report --format md",
    "infty train sort --case x8 --scale smoke --set model.long_range.contraction=0.5 --name half",
    "infty compare sort/smoke/infty@x8/seed-0 sort/smoke/infty@x8+half/seed-0",
    rf"sed -i 's/^  infty: {{}}$/&\n{ROW}/' experiments/sort-ablation.yaml",
    "infty train sort-ablation --model infty-broad --scale smoke --dry-run",
    "infty -q reproduce sort-ablation --scale smoke --jobs 2",
)


def walk(folder: Path) -> str:
    """All steps in a clone of this repository in `folder`, each after a `$ `, with all that it says."""
    clone = folder / "infty"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    (clone / ".venv").symlink_to(sys.prefix)
    path = f"{Path(sys.prefix) / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = clean_environment(folder, PATH=path, PYTHONPATH=str(clone))
    told = []
    for step in STEPS:
        done = subprocess.run(
            ["bash", "-c", f"{step} 2>&1"],
            cwd=clone,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        told += [f"$ {step}", done.stdout.replace(str(clone), "…").rstrip()]
        told += [f"(exit {done.returncode})"] if done.returncode else []
    return "\n".join(line for line in told if line) + "\n"


def shape(told: str) -> list[str]:
    """What is the same wherever and whenever the walk is taken: all but numbers, and the room that they take.

    `compare` tells of seconds only where they differ.
    """
    numbers = re.sub(r"[−+-]?\d[\d,.]*(e[-+]?\d+)?", "0", told)
    return [re.sub(r" +", " ", line) for line in numbers.splitlines() if not line.startswith("| wall_seconds")]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        RECORD.write_text(walk(Path(name)), encoding="utf-8")
