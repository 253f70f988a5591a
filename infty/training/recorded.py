"""Record what a GPU does in a step once and replay it: a CUDA graph, so that the host need not issue 1,000 kernels."""

import gc
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from infty.base.batch import UNSCORED, Batch
from infty.base.errors import describe_fault
from infty.machine.placement import is_gpu

BEFORE = 3  # steps that are taken as they come, so that all that is loaded or compiled at first use is there

Compute = Callable[[Batch], Float[Tensor, " figures"]]


class Recorder:
    """A computation on batches that is a function of weights, tokens, targets and random numbers alone.

    What it leaves in `parameters` are gradients. Batches of other shapes, or scored at other places, than the one that
    was recorded are computed as they come; so are all if recording fails, after one warning.
    """

    def __init__(self, compute: Compute, parameters: Sequence[nn.Parameter]) -> None:
        self._compute, self._parameters = compute, list(parameters)
        self._taken, self._works = 0, True
        self._recording: _Recording | None = None

    def __call__(self, batch: Batch, seed: int) -> Float[Tensor, " figures"]:
        """Compute on a batch, with random numbers from `seed`."""
        self._taken += 1
        if self._works and self._recording is None and self._taken >= BEFORE:
            try:
                if self._taken == BEFORE:  # a recording that breaks off may leave a GPU's state broken: try it first
                    with _refuse_questions(self._parameters[0].device):
                        torch.manual_seed(seed)
                        return self._compute(batch.to(self._parameters[0].device))
                self._recording = _Recording(self._compute, batch, self._parameters)
            except Exception as fault:  # any kind: a fault of the computation itself recurs without recording
                self._works = False
                warnings.warn(f"steps are not recorded as one CUDA graph: {describe_fault(fault)}", stacklevel=2)
                for parameter in self._parameters:
                    parameter.grad = None
        if self._recording is not None and self._recording.fits(batch):
            return self._recording.replay(batch, seed)
        torch.manual_seed(seed)
        return self._compute(batch)


@contextmanager
def _refuse_questions(device: torch.device) -> Iterator[None]:
    """Make it an error within the block that a GPU is asked for a number."""
    if not is_gpu(device):
        yield
        return
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


class _Recording:
    """What was recorded, on buffers of its own, to which each batch is copied; on a CPU it is computed again."""

    def __init__(self, compute: Compute, batch: Batch, parameters: list[nn.Parameter]) -> None:
        self._compute, self._parameters, self._graph = compute, parameters, None
        device = parameters[0].device
        self._batch = batch.to(device)
        if self._batch is batch:
            self._batch = replace(batch, tokens=batch.tokens.clone(), targets=batch.targets.clone())
        if is_gpu(device):
            gc.collect()  # nothing of earlier steps is to be freed within
            stream, self._graph = torch.cuda.current_stream(device), torch.cuda.CUDAGraph()
            try:  # on its own GPU, whatever other threads do meanwhile
                with torch.cuda.device(device), torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
                    self._figures = compute(self._batch)
            finally:  # torch does not put it back if a recording breaks off
                torch.cuda.set_stream(stream)
            self._gradients = [parameter.grad for parameter in parameters]

    def fits(self, batch: Batch) -> bool:
        own, others = self._batch.known_targets, batch.known_targets
        return own.shape == others.shape and torch.equal(own == UNSCORED, others == UNSCORED)

    def replay(self, batch: Batch, seed: int) -> Float[Tensor, " figures"]:
        self._batch.tokens.copy_(batch.tokens, non_blocking=True)
        self._batch.targets.copy_(batch.targets, non_blocking=True)
        torch.manual_seed(seed)
        if self._graph is None:
            return self._compute(self._batch)
        with torch.cuda.device(self._batch.tokens.device):
            self._graph.replay()
        for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
            parameter.grad = gradient
        return self._figures
