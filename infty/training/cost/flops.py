"""Floating-point operations of training, counted in real steps: products of matrices only, as usual."""

from torch.utils.flop_counter import FlopCounterMode

from infty.model.interface import SegmentModel, State
from infty.model.state_tensors import state_tensors
from infty.tasks.task import TrainingData
from infty.training.data_parallel import batch_losses, weighted

FEWEST = 5  # steps until a carried long-term memory was written, contracted and read
MOST = 100  # where documents end before a memory is full


def flops_a_step(
    model: SegmentModel, task: TrainingData, batch_size: int, seed: int, micro_batch: int | None = None
) -> int:
    """FLOPs of one optimiser step, forward and backward; where memory is carried, with a full one.

    micro_batch: most sequences at once; the others' work is the same.

    Leaves gradients in the model, and its weights as they are.
    """
    state: State | None = None
    counter, sizes = FlopCounterMode(display=False), []
    rows = range(min(batch_size, micro_batch or batch_size))
    model.train()
    while len(sizes) < FEWEST or (sizes[-1] != sizes[-2] and len(sizes) < MOST):
        with counter:  # counts anew each time
            batch = task.training_batch(len(sizes), batch_size, seed, rows)
            losses, state = batch_losses(model, batch, state)
            weighted(losses, model).backward()
        if state is None or not task.continues:
            break
        sizes.append([tensor.shape for tensor in state_tensors(state).values()])
    return counter.get_total_flops() * batch_size // len(rows)
