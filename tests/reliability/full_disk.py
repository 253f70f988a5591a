"""`python -m tests.reliability.full_disk RUN WORD…` drives `infty WORD…`, which trains RUN on a small disk mounted
here: fills the disk in mid-run, frees it, continues, and tells as JSON what happened."""

import json
import os
import sys
from pathlib import Path
from typing import Any

from infty.base.files import read_json
from infty.runs.folder import RunFolder
from tests import forks
from tests.reliability.runs import outcome

MOUNTED, AT = Path("disk"), "step 6/30"


def fill(path: Path) -> None:
    """To the last byte."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 4096)
        except OSError:
            pass


def is_saved(run: RunFolder) -> bool:
    """Whether the checkpoint of that step, or of a later one, is whole: it is named last."""
    named = run.checkpoints / "last.json"
    return named.is_file() and read_json(named)["checkpoint"] >= "step-00000006"


def main(run: RunFolder, words: tuple[str, ...]) -> dict[str, Any]:
    folder, told = Path.cwd(), []
    environment = dict(os.environ)
    with forks.heard([(words, environment)], folder) as (running, stderr):
        for line in stderr:
            told.append(line)
            if line.startswith(AT):
                while Path(f"/proc/{running.pids[0]}").exists() and not is_saved(run):
                    pass  # the line is told before the checkpoint is whole
                fill(MOUNTED / "filler")
                break
        told += stderr.readlines()
    code = running.wait(200)[0].returncode
    kept = sorted(path.name for path in run.checkpoints.iterdir())
    state = run.state()
    finished = run.finished
    (MOUNTED / "filler").unlink()
    again = forks.run(words, folder, environment, 200)
    return {
        "code": code, "told": told, "kept": kept, "state": state, "finished": finished,
        "again": again.returncode, "again_told": again.stderr, "outcome": outcome(run) if run.finished else None,
    }  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(main(RunFolder(Path(sys.argv[1])), tuple(sys.argv[2:]))))
