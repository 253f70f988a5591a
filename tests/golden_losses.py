"""Make the losses of the first training steps of sort's rows at smoke scale.

`python -m tests.golden_losses` writes them to the file again.
"""

import json
from pathlib import Path

from infty.config.definition import CellKey, open_experiment
from infty.experiment import build_task, resolve
from infty.training.data_parallel import Replica
from infty.training.step import make_optimizer, optimize

GOLDEN = Path(__file__).parent / "golden" / "first_losses.json"
ROWS = ("transformer-xl", "compressive", "infty", "infty-sticky")
STEPS = 3


def train_first_steps(row: str) -> list[dict[str, float]]:
    """Take the first steps of a row at x4, seed 0, and return each step's loss and its memory's losses."""
    experiment = resolve(open_experiment("sort", Path()), CellKey("sort", "smoke", row, "x4", 0)).experiment
    task = build_task(experiment, Path())
    model = experiment.model.build(task.vocab_size, seed=0)
    replica, optimizer = Replica(model), make_optimizer(model, experiment.training.learning_rate)
    names = [f"train/{name}" for name in ("loss", *experiment.model.auxiliary_weights)]
    made = []
    for step in range(STEPS):
        metrics, _ = optimize(replica, optimizer, task, experiment.training, step, 0)
        made.append({name: metrics[name] for name in names})
    return made


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps({row: train_first_steps(row) for row in ROWS}, indent=1) + "\n", encoding="utf-8")
