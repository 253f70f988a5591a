"""A model as one of several processes trains it: its part of each batch, a few rows at a time."""

from contextlib import nullcontext

import torch
from jaxtyping import Float
from safetensors.torch import load, save
from torch import Tensor, nn

from infty.base.batch import UNSCORED, Batch
from infty.base.errors import UsageError
from infty.machine.launch import Launch
from infty.memory.precision import HOST
from infty.model.interface import SegmentModel, State
from infty.model.state_tensors import concatenate_states, load_state, move_state, select_rows, state_tensors
from infty.model.unroll import unroll
from infty.model.weight_tensors import Named
from infty.training.distributed import ALONE, Group

Losses = dict[str, Float[Tensor, ""]]
Memory = tuple[State | None, ...]  # of each piece of this process's rows


class Replica:
    """What takes part in a step. group: with whom. micro_batch: most rows at once; None: all that are its own.

    The rows of a batch lie in order of processes, and within a process in order of pieces. A sum over rows is that over
    pieces, so neither number changes a step but for rounding, and for dropout, which each piece draws for itself.
    """

    def __init__(self, model: SegmentModel, group: Group = ALONE, micro_batch: int | None = None) -> None:
        self.model, self.group, self.micro_batch = model, group, micro_batch
        unused = any(layer.long_range is not None for layer in model.memory_layers)  # until there is something to read
        self._losses = group.parallel(BatchLosses(model), may_leave_unused=unused)

    def pieces(self, batch_size: int) -> list[range]:
        """Which rows of a batch this process takes, and which of them at once."""
        own = batch_size // self.group.size
        start, size = self.group.rank * own, min(own, self.micro_batch or own)
        return [range(start + low, start + min(low + size, own)) for low in range(0, own, size)]

    def backward(
        self, batch: Batch, state: State | None, scored: int, batch_rows: int, *, last: bool
    ) -> tuple[Losses, State]:
        """Add a piece's gradient; after the `last` piece of a step the model has the sum over all processes.

        scored, batch_rows: of the whole batch. Returns the piece's part of each loss, and its memory.
        """
        synchronises = last or self.group.size == 1
        with nullcontext() if synchronises else self._losses.no_sync():  # pyright: ignore[reportCallIssue]
            losses, after = self._losses(batch, state, scored, batch_rows)
            (weighted(losses, self.model) * self.group.size).backward()  # for it is averaged over processes
        return losses, after

    def memory_tensors(self, memory: Memory) -> Named | None:
        """`<piece>.…` of the memories of all processes' pieces, for a checkpoint; None but for the one that leads."""
        own = {
            f"{self.group.rank * len(memory) + place}.{name}": tensor.contiguous()
            for place, state in enumerate(memory)
            for name, tensor in (state_tensors(state) if state else {}).items()
        }
        if not own or self.group.size == 1:
            return own or None
        sent = self.group.gathered(save(own))
        return {name: tensor for data in sent for name, tensor in load(data).items()} or None

    def load_memory(self, tensors: Named, batch_size: int) -> Memory:
        """The inverse: what of it is this process's. As it was saved where pieces are the same, else cut anew.

        KeyError where it is another model's, or another number of rows.
        """
        parts: dict[int, Named] = {}
        for name, tensor in tensors.items():
            piece, _, rest = name.partition(".")
            if not piece.isdigit():
                raise KeyError(f"{name} is of no piece")
            parts.setdefault(int(piece), {})[rest] = tensor
        if sorted(parts) != list(range(len(parts))):
            raise KeyError(f"it has the pieces {sorted(parts)}")
        states = [load_state(self.model, parts[piece], HOST) for piece in sorted(parts)]
        sizes = [len(state[0].short_term.hidden) for state in states]
        if sum(sizes) != batch_size:
            raise KeyError(f"its memory is of {sum(sizes)} rows, and a batch has {batch_size}")
        edges = [sum(sizes[:piece]) for piece in range(len(sizes) + 1)]
        saved = {range(low, high): state for low, high, state in zip(edges[:-1], edges[1:], states, strict=True)}
        own = self.pieces(batch_size)
        if all(rows in saved for rows in own):
            found = [saved[rows] for rows in own]
        else:
            whole = concatenate_states(states)
            found = [select_rows(whole, slice(rows.start, rows.stop)) for rows in own]
        return tuple(move_state(state, self.model.device) for state in found)


class BatchLosses(nn.Module):
    """All of a step that has a gradient, in one call: what DistributedDataParallel wants to see."""

    def __init__(self, model: SegmentModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch, state: State | None, scored: int, batch_rows: int) -> tuple[Losses, State]:
        """The losses and the state that `batch_losses` gives."""
        return batch_losses(self.model, batch, state, scored, batch_rows)


def batch_losses(
    model: SegmentModel,
    batch: Batch,
    state: State | None = None,
    scored: int | None = None,
    batch_rows: int | None = None,
) -> tuple[Losses, State]:
    """`loss`, the cross-entropy of the scored targets in nats, and the model's auxiliary losses: means over a batch.

    state: what the batch goes on from, where it does; what comes after it is returned beside the losses. scored,
    batch_rows: of the batch that this one is a part of; then it is that part of each mean. ValueError where nothing is
    scored.
    """
    scored = int((batch.targets != UNSCORED).sum()) if scored is None else scored
    share = len(batch.streams) / (batch_rows or len(batch.streams))
    zero = torch.zeros((), device=model.device)
    losses = dict.fromkeys(("loss", *model.config.auxiliary_weights), zero)
    for output, segment in unroll(model, batch.segments(model.config.segment_length), state):
        losses["loss"] = losses["loss"] + output.nats(segment.targets).sum() / scored
        for name, loss in output.auxiliary.items():
            losses[name] = losses[name] + loss * share
        state = output.state
    if state is None:
        raise ValueError("a batch in which nothing is scored has no loss")
    return losses, state


def weighted(losses: Losses, model: SegmentModel) -> Float[Tensor, ""]:
    """What is minimised: the loss and the auxiliary losses with the model's weights."""
    weights = {"loss": 1.0, **model.config.auxiliary_weights}
    return torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()


def refuse_uneven(name: str, batch_size: int, launch: Launch) -> None:
    """UsageError where processes would not all have the same number of a batch's rows. name: of that setting."""
    if batch_size % launch.size:
        fitting = max(size for size in range(1, launch.size) if batch_size % size == 0)
        raise UsageError(
            f"{name} {batch_size} does not divide among {launch.size} processes: start {fitting} of them, "
            "or another number that divides it"
        )
