"""`python -m tests.reliability.full_disk RUN WORD…` drives `infty WORD…`, which trains RUN on a small disk mounted
here: fills the disk in mid-run, frees it, continues, and tells as JSON what happened."""

import json
import sys
from pathlib import Path
from typing import Any

from infty.files import read_json
from infty.runs import RunFolder
from tests.reliability.runs import outcome, start

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
    """Whether the checkpoint of that step is whole: it is named last."""
    named = run.checkpoints / "last.json"
    return named.is_file() and read_json(named) == {"checkpoint": "step-00000006"}


def main(run: RunFolder, words: list[str]) -> dict[str, Any]:
    folder, told = Path.cwd(), []
    with start(folder, ["-m", "infty", *words]) as process:
        assert process.stderr is not None
        for line in process.stderr:
            told.append(line)
            if line.startswith(AT):
                while process.poll() is None and not is_saved(run):
                    pass  # the line is told before the checkpoint is whole
                fill(MOUNTED / "filler")
                break
        told += process.stderr.readlines()
    code = process.returncode
    kept = sorted(path.name for path in run.checkpoints.iterdir())
    state = run.state()
    finished = run.finished
    (MOUNTED / "filler").unlink()
    again = start(folder, ["-m", "infty", *words])
    again_told = again.communicate()[1]
    return {
        "code": code, "told": told, "kept": kept, "state": state, "finished": finished,
        "again": again.returncode, "again_told": again_told, "outcome": outcome(run) if run.finished else None,
    }  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(main(RunFolder(Path(sys.argv[1])), sys.argv[2:])))
