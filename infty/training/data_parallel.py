"""Compute the gradients of a batch in one of several processes: its rows, a micro-batch at a time."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

import torch
from jaxtyping import Float
from safetensors.torch import load, save
from torch import Tensor, nn

from infty.base.batch import Batch
from infty.base.errors import UsageError
from infty.machine.launch import Launch
from infty.machine.placement import is_gpu
from infty.memory.contract import Losses
from infty.model.interface import SegmentModel, State, unroll
from infty.model.tensors import Named, concatenate_states, load_state, select_rows, state_tensors
from infty.training.distributed import ALONE, Group
from infty.training.recorded import Recorder

Memory = tuple[State | None, ...]  # one state per piece of this process's rows


@dataclass(frozen=True)
class Work:
    """What one process computes the gradient of in an optimiser step."""

    pieces: list[list[Batch]]  # of its rows; of each piece what is read, one batch after the other
    seeds: list[int]  # of each piece's dropout
    scored: int  # targets of the step, in all processes
    rows: int  # of the step, likewise
    gradient_segments: int = 1
    continues: bool = False  # from the memory of the step before


class Replica:
    """The model in one process of a group.

    micro_batch: most rows computed at once; None: all rows of the process. records: whether steps that are alike are
    recorded and replayed; None: if the model is on a GPU.

    The rows of a batch are divided among processes, and within a process into pieces, in order. Losses are sums over
    rows, so neither division changes a step but for rounding, and for dropout, which each piece draws for itself.
    """

    def __init__(
        self,
        model: SegmentModel,
        group: Group = ALONE,
        micro_batch: int | None = None,
        *,
        records: bool | None = None,
    ) -> None:
        self.model, self.group, self.micro_batch = model, group, micro_batch
        self._records = (is_gpu(model.device) if records is None else records) and group.size == 1
        self._recorder: tuple[Work, float, Recorder] | None = None
        unused = bool(model.memories)  # an empty memory is not read
        self._losses = group.parallelize(BatchLosses(model), may_leave_unused=unused)

    def assign_rows(self, batch_size: int) -> list[range]:
        """Assign rows of a batch to this process, in pieces that are computed one after the other."""
        own = batch_size // self.group.size
        start, size = self.group.rank * own, min(own, self.micro_batch or own)
        return [range(start + low, start + min(low + size, own)) for low in range(0, own, size)]

    def compute_gradient(
        self, work: Work, memory: Memory | None, clip_norm: float
    ) -> tuple[Float[Tensor, " figures"], Memory]:
        """Compute the gradient of a step over all processes, and clip it.

        Returns figures, on the model's device: each piece's part of each loss, and the norm before it was clipped. And
        the memory after the step.
        """
        if self._can_record(work, memory):
            recorder, (batch,) = self._find_recorder(work, clip_norm), work.pieces[0]
            return recorder(batch, work.seeds[0]), (None,)

        # Add the gradients piece by piece; they are summed over all processes after the last one.
        found, after = [], []
        for place, (piece, seed) in enumerate(zip(work.pieces, work.seeds, strict=True)):
            torch.manual_seed(seed)
            synchronises = place == len(work.pieces) - 1 or self.group.size == 1
            with nullcontext() if synchronises else self._losses.no_sync():  # pyright: ignore[reportCallIssue]
                losses, state = self._backward(piece, memory[place] if memory else None, work)
            found.append(losses)
            after.append(state)
        return torch.cat([*found, self._clip(clip_norm)]), tuple(after)

    def _backward(
        self, batches: Sequence[Batch], state: State | None, work: Work
    ) -> tuple[Float[Tensor, " losses"], State]:
        """Add a piece's gradient. Returns its part of each loss, and its state."""
        losses, after = self._losses(batches, state, work.scored, work.rows, work.gradient_segments)
        (weigh_losses(losses, self.model) * self.group.size).backward()  # DDP divides by the number of processes
        return torch.stack(list(losses.values())).detach(), after

    def _clip(self, norm: float) -> Float[Tensor, "1"]:
        return nn.utils.clip_grad_norm_(self.model.parameters(), norm)[None]

    def _can_record(self, work: Work, memory: Memory | None) -> bool:
        """Tell whether a step is a function of weights, tokens, targets and a seed: its rows begin in one batch."""
        if not self._records or work.continues or memory or len(work.pieces) > 1 or len(work.pieces[0]) > 1:
            return False
        if work.pieces[0][0].fresh is not None or getattr(self.model.config, "adaptive", None):  # sorted on the host
            return False
        return all(memory.is_repeatable for memory in self.model.memories)

    def _find_recorder(self, work: Work, clip_norm: float) -> Recorder:
        """Find the recorder of steps that differ from this one in tokens, targets and seed alone."""
        like = replace(work, pieces=[], seeds=[])
        if self._recorder is None or self._recorder[:2] != (like, clip_norm):

            def compute(batch: Batch) -> Float[Tensor, " figures"]:
                losses, _ = self._backward([batch], None, like)
                return torch.cat([losses, self._clip(clip_norm)])

            self._recorder = like, clip_norm, Recorder(compute, list(self.model.parameters()))
        return self._recorder[2]

    def gather_memory_tensors(self, memory: Memory) -> Named | None:
        """Gather the tensors of all memories, as `<piece>.…`, in the process of rank 0; None if there are none."""
        own = {
            f"{self.group.rank * len(memory) + place}.{name}": tensor.contiguous()
            for place, state in enumerate(memory)
            for name, tensor in (state_tensors(state) if state else {}).items()
        }
        if not own or self.group.size == 1:
            return own or None
        sent = self.group.gather(save(own))
        return {name: tensor for data in sent for name, tensor in load(data).items()} or None

    def load_memory(self, tensors: Named, batch_size: int) -> Memory:
        """Load this process's part of what `gather_memory_tensors` returned. KeyError if model or rows differ."""
        # Sort the tensors by piece.
        parts: dict[int, Named] = {}
        for name, tensor in tensors.items():
            piece, _, rest = name.partition(".")
            if not piece.isdigit():
                raise KeyError(f"{name} is of no piece")
            parts.setdefault(int(piece), {})[rest] = tensor
        if sorted(parts) != list(range(len(parts))):
            raise KeyError(f"it has the pieces {sorted(parts)}")

        # Load the states, with the rows of the batch that each one holds.
        states = [load_state(self.model, parts[piece]) for piece in sorted(parts)]
        sizes = [len(state[0].short_term.hidden) for state in states]
        if sum(sizes) != batch_size:
            raise KeyError(f"its memory is of {sum(sizes)} rows, and a batch has {batch_size}")
        edges = pairwise(accumulate(sizes, initial=0))
        saved = {range(low, high): state for (low, high), state in zip(edges, states, strict=True)}

        # States of the same pieces are taken unchanged, which is exact; otherwise they are joined and divided again.
        own, device = self.assign_rows(batch_size), self.model.device
        if all(rows in saved for rows in own):
            return tuple(select_rows(saved[rows], slice(None), device) for rows in own)
        whole = concatenate_states(states)
        return tuple(select_rows(whole, slice(rows.start, rows.stop), device) for rows in own)


class BatchLosses(nn.Module):
    """The losses of a step as one module, which is what DistributedDataParallel wraps."""

    def __init__(self, model: SegmentModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, batches: Sequence[Batch], state: State | None, scored: int, batch_rows: int, gradient_segments: int
    ) -> tuple[Losses, State]:
        """Return what `compute_losses` returns."""
        return compute_losses(self.model, batches, state, scored, batch_rows, gradient_segments)


def compute_losses(
    model: SegmentModel,
    batches: Sequence[Batch],
    state: State | None = None,
    scored: int | None = None,
    batch_rows: int | None = None,
    gradient_segments: int = 1,
) -> tuple[Losses, State]:
    """Compute the mean losses of the batches that a step reads one after the other, and the state after them.

    `loss` is the cross-entropy of the scored targets in nats; the others are the model's auxiliary losses. state: what
    the first batch continues from; None: empty memories. scored, batch_rows: targets and rows of the whole step, if
    these are pieces of its batches; each loss is then the piece's part of the mean. gradient_segments: the last ones,
    through which the gradient flows; before them it stays within a segment.

    Raises:
        ValueError: Nothing is scored.
    """
    scored = sum(batch.count_scored() for batch in batches) if scored is None else scored
    sent = [batch.to(model.device) for batch in batches]
    segments = [segment for batch in sent for segment in batch.segments(model.config.segment_length)]
    rows = len(batches[0].streams)
    share = rows / (batch_rows or rows)
    zero = torch.zeros((), device=model.device)
    losses = dict.fromkeys(("loss", *model.config.auxiliary_weights), zero)
    first = len(segments) - gradient_segments if gradient_segments > 1 else None
    for output, segment in unroll(model, segments, state, one_graph_from=first):
        losses["loss"] = losses["loss"] + output.nats(segment.targets, segment.known).sum() / scored
        for name, loss in output.auxiliary.items():
            losses[name] = losses[name] + loss * share
        state = output.state
    if state is None:
        raise ValueError("a batch in which nothing is scored has no loss")
    return losses, state


def weigh_losses(losses: Losses, model: SegmentModel) -> Float[Tensor, ""]:
    """Weigh and sum the losses to the objective: the loss, and the auxiliary losses with the model's weights."""
    weights = {"loss": 1.0, **model.config.auxiliary_weights}
    return torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()


def refuse_uneven(name: str, batch_size: int, launch: Launch) -> None:
    """Raise UsageError if processes can't share a batch's rows evenly. name: the setting's, for the message."""
    if batch_size % launch.size:
        fitting = max(size for size in range(1, launch.size) if batch_size % size == 0)
        raise UsageError(
            f"{name} {batch_size} does not divide among {launch.size} processes: start {fitting} of them, "
            "or another number that divides it"
        )
