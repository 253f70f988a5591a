"""Floating-point operations of training, counted in real steps: products of matrices only, as usual."""

from torch.utils.flop_counter import FlopCounterMode

from infty.interfaces import TrainingData
from infty.model.segments import SegmentModel, State
from infty.training.loop import batch_losses, weighted

PASSES = 3  # so that a carried memory is written, and then read


def flops_a_step(model: SegmentModel, task: TrainingData, batch_size: int, seed: int) -> int:
    """Of one optimiser step, forward and backward, with a memory that holds something.

    Leaves gradients in the model, and its weights as they are.
    """
    state: State | None = None
    counter = FlopCounterMode(display=False)
    model.train()
    for step in range(PASSES if task.continues else 1):
        with counter:  # counts anew each time
            losses, state = batch_losses(model, task.training_batch(step, batch_size, seed), state)
            weighted(losses, model).backward()
    return counter.get_total_flops()
