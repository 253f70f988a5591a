"""Count the FLOPs, or the bytes of state, of finished runs again from their configurations.

`python experiments/recount.py flops FOLDER [DATA]` writes `training_flops` and `flops_counted_by` of each result.json
below FOLDER, and nothing else. Texts must lie in DATA, as a run's configuration names them, unless they are generated.
`python experiments/recount.py state FOLDER` writes `state_bytes`, which results from before it was counted lack.
"""

import json
import re
import sys
from pathlib import Path

from infty.base.errors import InftyError, MissingError
from infty.commands.load import load_experiment
from infty.experiment import build_task
from infty.runs.folder import RunFolder
from infty.runs.schemas import FLOPS_COUNTED_BY
from infty.training.cost import count_training_flops

FLOPS = re.compile(r'(\n *)"training_flops": (\d+|null)(,\n *"flops_counted_by": "[^"]*")?')
STATE = re.compile(r'(\n *)("memory_slots": \d+),\n *("state_bytes": \d+,\n *)?("tokens_seen")')


def recount_flops(path: Path, data: Path) -> str:
    """Count the FLOPs of one run again; return a line that says what changed. InftyError if a text is missing."""
    run = RunFolder(path)
    experiment, seed = load_experiment(run), run.config()["cell"]["seed"]
    task = build_task(experiment, data)
    file = path / "result.json"
    before = file.read_text(encoding="utf-8")
    if json.loads(before)["training_data"] != task.describe_data("train"):
        raise MissingError(f"it was trained on another text than the {task.name} in {data}")
    training = experiment.training.count_steps(task)
    flops = count_training_flops(experiment.model, task, training, seed, training.total_steps)
    written, count = FLOPS.subn(rf'\1"training_flops": {flops},\1"flops_counted_by": "{FLOPS_COUNTED_BY}"', before)
    assert count == 1, file
    file.write_text(written, encoding="utf-8")
    (found,) = FLOPS.findall(before)
    return f"{path}: {found[1]} → {flops}"


def recount_state(path: Path, _data: Path) -> str:
    """Count the bytes of one run's state again; return a line that says them."""
    size, file = load_experiment(RunFolder(path)).model.state_bytes, path / "result.json"
    written, count = STATE.subn(rf'\1\2,\1"state_bytes": {size},\1\4', file.read_text(encoding="utf-8"))
    assert count == 1, file
    file.write_text(written, encoding="utf-8")
    return f"{path}: {size}"


def main(what: str, folder: str, data: str = "data") -> None:
    """Recount every run below a folder."""
    recount = {"flops": recount_flops, "state": recount_state}[what]
    for file in sorted(Path(folder).rglob("result.json")):
        try:
            print(recount(file.parent, Path(data)), flush=True)
        except InftyError as fault:
            print(f"{file.parent}: left as it was: {fault}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
