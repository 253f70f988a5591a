"""Connect processes that train or evaluate one model together, with torch.distributed.

Gradients go between GPUs over NCCL, everything else between hosts over gloo. Nothing is pickled: processes exchange
numbers, and bytes that the receiver checks.
"""

import os
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import astuple
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Shaped
from numpy import ndarray
from torch import Tensor, distributed, nn

from infty.base.batch import Share, Totals
from infty.base.errors import InftyError, ProcessWarning, Stopped, describe_fault
from infty.machine.launch import Launch
from infty.machine.placement import is_gpu
from infty.memory.precision import HOST

Made = TypeVar("Made")

PATIENCE = timedelta(hours=4)  # the others wait while one process evaluates a stream
SOON = 1  # seconds after which it is told whom a process waits for
PROMPT = timedelta(minutes=10)  # to connect, and for gradients, which all processes send at about the same time
_KEPT: list[nn.Module] = []  # until the process ends: freeing one may wait forever for a gloo thread


class Group:
    """The processes that work together. All must make the same calls in the same order; one alone exchanges nothing."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size
        self.leads = rank == 0  # this process writes files and prints
        self.share = Share(rank, size)  # of an evaluation
        self._hosts: Any = distributed.new_group(backend="gloo", timeout=PATIENCE) if size > 1 else None

    def find_largest(self, value: int) -> int:
        """Find the largest number that any process holds."""
        return int(self._reduce(torch.tensor(value), distributed.ReduceOp.MAX))

    def is_true_anywhere(self, value: bool) -> bool:
        """Tell if the value is true in any process."""
        return bool(self.find_largest(value))

    def is_same_everywhere(self, value: int) -> bool:
        """Tell if the value is the same in all processes."""
        return self.find_largest(value) == -self.find_largest(-value)

    def wait(self) -> None:
        """Wait until all processes have called this."""
        self.find_largest(0)

    def sum_arrays(self, values: Shaped[ndarray, "*shape"]) -> Shaped[ndarray, "*shape"]:
        """Sum an array over all processes, element by element; booleans are combined by "or"."""
        as_bytes = values.astype(np.uint8) if values.dtype == bool else values
        return self._reduce(torch.from_numpy(as_bytes.copy())).numpy().astype(values.dtype)

    def sum_totals(self, own: Totals) -> Totals:
        """Sum totals over all processes."""
        values = self.sum_arrays(np.array(astuple(own), dtype=np.float64)).tolist()
        return Totals(*(kind(value) for kind, value in zip(map(type, astuple(own)), values, strict=True)))

    def gather(self, data: bytes) -> list[bytes]:
        """Gather the bytes of each process, by rank, in the process of rank 0; the others get an empty list."""
        if self.size == 1:
            return [data]
        sizes = self.sum_arrays(np.where(np.arange(self.size) == self.rank, len(data), 0))
        if not self.leads:
            distributed.send(torch.frombuffer(bytearray(data or b"\0"), dtype=torch.uint8), 0, self._hosts)
            return []
        found = [data]
        for rank in range(1, self.size):
            buffer = torch.empty(max(int(sizes[rank]), 1), dtype=torch.uint8)
            distributed.recv(buffer, rank, self._hosts)
            found.append(buffer.numpy().tobytes()[: sizes[rank]])
        return found

    @contextmanager
    def take_turns(self) -> Iterator[None]:
        """Run the block in the process of rank 0 first, so that the others find what it has made."""
        if not self.leads:
            self.wait()
        yield
        if self.leads:
            self.wait()

    @contextmanager
    def explain_lost_process(self) -> Iterator[None]:
        """Raise InftyError, with what to do, if another process is lost within the block."""
        try:
            yield
        except RuntimeError as fault:
            lost = isinstance(fault, distributed.DistError) or any(name in str(fault) for name in ("gloo", "NCCL"))
            if self.size == 1 or not lost:
                raise
            raise InftyError(
                f"process {self.rank} of {self.size} lost the others: one of them has ended, or can't be reached "
                f"({describe_fault(fault)}). Once that is seen to, the same command continues from the last checkpoint"
            ) from None

    def parallelize(self, module: nn.Module, *, may_leave_unused: bool) -> nn.Module:
        """Wrap a module so that gradients are averaged. may_leave_unused: some steps may not use every parameter."""
        if self.size == 1:
            return module
        for done in _KEPT:
            done.zero_grad()
            done.to(HOST)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated")  # its new name is not in torch 2.12
            parallel = nn.parallel.DistributedDataParallel(
                module, broadcast_buffers=False, find_unused_parameters=may_leave_unused, gradient_as_bucket_view=True
            )
        _KEPT.append(parallel)
        return parallel

    def _reduce(self, value: Tensor, how: "distributed.ReduceOp.RedOpType" = distributed.ReduceOp.SUM) -> Tensor:
        if self.size > 1:
            distributed.all_reduce(value, how, self._hosts)
        return value


def _meet(launch: Launch, backend: str) -> Group:
    """Connect the processes of a launch. Warn if the others have not come after a second, and wait on."""

    def connect() -> Group:
        distributed.init_process_group(backend, rank=launch.rank, world_size=launch.size, timeout=PROMPT)
        return Group(launch.rank, launch.size)

    # In the main thread torch would keep Python from handling a signal until all have come.
    meeting = Future[Group]()
    threading.Thread(target=_fulfil, args=(meeting, connect), daemon=True).start()
    try:
        return meeting.result(SOON)
    except TimeoutError:
        others = f"waiting for the other processes of {launch.size} at {launch.address} port {launch.port}"
        how = f"to work alone, unset {', '.join(launch.variables)}"
        warnings.warn(f"{others}; {how}", ProcessWarning, stacklevel=2)
    return meeting.result()


def _fulfil(promise: "Future[Made]", make: Callable[[], Made]) -> None:
    """Set the result of a future, or the error that came instead."""
    try:
        promise.set_result(make())
    except BaseException as fault:
        promise.set_exception(fault)


ALONE = Group()
_MET: list[Group] = []  # the group of this process, once it is connected


@contextmanager
def process_group(launch: Launch, device: torch.device) -> Iterator[Group]:
    """Connect the processes of a launch for the block and any inside it. InftyError if one is not reached, or lost."""
    if launch.size == 1 or _MET:
        yield ALONE if launch.size == 1 else _MET[0]
        return
    backend = f"{HOST.type}:gloo"
    if is_gpu(device):
        torch.cuda.set_device(device)
        backend += f",{device.type}:nccl"
    os.environ.update(MASTER_ADDR=launch.address, MASTER_PORT=str(launch.port))
    try:
        group = _meet(launch, backend)
    except (RuntimeError, ValueError) as fault:
        met = f"met no others at {launch.address} port {launch.port}"
        raise InftyError(f"process {launch.rank} of {launch.size} {met}: {describe_fault(fault)}") from None
    _MET.append(group)
    try:
        with group.explain_lost_process():
            yield group
    except Stopped:
        distributed.destroy_process_group()
        raise
    distributed.destroy_process_group()  # not after a failure: the others may still wait for this process
