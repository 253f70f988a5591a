"""FLOPs of a step are those of a memory that is full."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from infty.base.batch import Batch
from infty.config.definition import SHIPPED, CellKey, open_experiment
from infty.experiment import resolve
from infty.tasks.task import TrainingData
from infty.training.cost import count_step_flops
from infty.training.data_parallel import compute_losses, weigh_losses

EVEN = ["model.adaptive={cutoffs: []}"]  # with clusters a step costs what its tokens do


class Endless(TrainingData):
    """Streams of random tokens that never begin anew."""

    continues = True
    tokens_per_epoch: int | None = None

    def __init__(self, vocab_size: int, length: int) -> None:
        self.vocab_size, self.length, self.asked = vocab_size, length, 0

    def training_batch(self, step: int, batch_size: int, seed: int, rows: range | None = None) -> Batch:
        self.asked += 1
        names = torch.arange(batch_size)[slice(0, batch_size) if rows is None else slice(rows.start, rows.stop)]
        tokens = torch.randint(self.vocab_size, (len(names), self.length + 1))
        return Batch(tokens[:, :-1], tokens[:, 1:], names, torch.full(names.shape, step == 0))

    def count_steps_per_epoch(self, batch_size: int) -> int:
        return 1

    def count_tokens_seen(self, steps: int, batch_size: int) -> int:
        return steps * batch_size * self.length


@pytest.mark.parametrize("row", ["transformer-xl", "compressive", "infty", "infty-sticky"])
def test_counted_once_the_memory_is_full(row: str) -> None:
    """As many steps again change nothing; the first step alone, with nothing remembered, has fewer."""
    resolved = resolve(open_experiment("wikitext", SHIPPED), CellKey("wikitext", "smoke", row, "main"), EVEN)
    model = resolved.experiment.model.build(400, seed=0)
    task = Endless(400, resolved.experiment.model.segment_length)
    config = resolved.experiment.training
    two, six = (config.model_copy(update={"batch_size": size}) for size in (2, 6))
    full, steps = count_step_flops(model, task, two, seed=0), task.asked
    assert count_step_flops(model, task, six, seed=0, micro_batch=2) == 3 * full
    counts, state = [], None
    for step in range(2 * steps):
        with FlopCounterMode(display=False) as counter:
            losses, state = compute_losses(model, [task.training_batch(step, 2, 0)], state)
            weigh_losses(losses, model).backward()
        counts.append(counter.get_total_flops())
    assert counts[0] < full
    assert set(counts[steps - 1 :]) == {full}
