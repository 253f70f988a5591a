"""Several processes that train or evaluate one model together, by torch's own means.

Gradients go between GPUs over NCCL, everything else over gloo, between hosts. Nothing is pickled: what is said are
numbers, and what is sent are bytes whose receiver checks them.
"""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from jaxtyping import Shaped
from numpy import ndarray
from torch import Tensor, distributed, nn

from infty.base.batch import Share, Totals
from infty.base.errors import InftyError, Stopped
from infty.base.messages import describe_fault
from infty.machine.devices import backend, is_gpu
from infty.machine.launch import Launch
from infty.memory.precision import HOST

PATIENCE = timedelta(hours=4)  # of the others where one stream is evaluated, which only one process can do
PROMPT = timedelta(minutes=10)  # to meet at all, and for gradients, which come from all at about the same time


_KEPT: list[nn.Module] = []  # until the process ends: one that is freed may wait for ever for a thread of gloo's


class Group:
    """The processes that work together; of one alone everything is as it is. All must call what they call in order."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size
        made: Any = distributed.new_group(backend="gloo", timeout=PATIENCE) if size > 1 else None
        self._hosts = made

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    @property
    def share(self) -> Share:
        """What of an evaluation is this process's."""
        return Share(self.rank, self.size)

    def largest(self, value: int) -> int:
        """The largest number that any process holds."""
        return int(self._reduced(torch.tensor(value), distributed.ReduceOp.MAX))

    def any(self, value: bool) -> bool:
        """Whether one of them says so."""
        return bool(self.largest(value))

    def same(self, value: int) -> bool:
        """Whether all say the same."""
        return self.largest(value) == -self.largest(-value)

    def wait(self) -> None:
        """Wait until all processes are here."""
        self.largest(0)

    def summed(self, values: Shaped[ndarray, "*shape"]) -> Shaped[ndarray, "*shape"]:
        """Sum over all processes, element by element; of booleans whether any is true."""
        as_bytes = values.astype(np.uint8) if values.dtype == bool else values
        return self._reduced(torch.from_numpy(as_bytes.copy())).numpy().astype(values.dtype)

    def totals(self, own: Totals) -> Totals:
        """The totals of all processes together."""
        values = self.summed(np.array(astuple(own), dtype=np.float64)).tolist()
        return Totals(*(kind(value) for kind, value in zip(map(type, astuple(own)), values, strict=True)))

    def gathered(self, data: bytes) -> list[bytes]:
        """What each process has, for the one that leads; the others get nothing."""
        if self.size == 1:
            return [data]
        sizes = np.zeros(self.size, dtype=np.int64)
        sizes[self.rank] = len(data)
        sizes = self.summed(sizes)
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
    def in_turn(self) -> Iterator[None]:
        """The block is for the one that leads first, which makes what the others then find."""
        if not self.leads:
            self.wait()
        yield
        if self.leads:
            self.wait()

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Where another process is lost within the block: an InftyError that says so."""
        try:
            yield
        except RuntimeError as fault:
            if self.size == 1 or not _is_lost(fault):
                raise
            raise InftyError(
                f"process {self.rank} of {self.size} lost the others: one of them has ended, or can't be reached "
                f"({describe_fault(fault)}). Once that is seen to, the same command continues from the last checkpoint"
            ) from None

    def parallel(self, module: nn.Module, *, may_leave_unused: bool) -> nn.Module:
        """The module, so that gradients of all processes are averaged. may_leave_unused: a parameter, in some steps."""
        if self.size == 1:
            return module
        for done in _KEPT:
            done.zero_grad()
            done.to(HOST)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated")  # its new name is not in torch 2.12
            parallel = nn.parallel.DistributedDataParallel(
                module,
                broadcast_buffers=False,
                find_unused_parameters=may_leave_unused,
                gradient_as_bucket_view=True,
            )
        _KEPT.append(parallel)
        return parallel

    def _reduced(self, value: Tensor, how: "distributed.ReduceOp.RedOpType" = distributed.ReduceOp.SUM) -> Tensor:
        if self.size > 1:
            distributed.all_reduce(value, how, self._hosts)
        return value


ALONE = Group()
_MET: list[Group] = []  # the one that this process is in, once it has met the others


@contextmanager
def process_group(launch: Launch, device: torch.device) -> Iterator[Group]:
    """Meet the processes that this one was started with, for the block; in a block within it they are together already.

    InftyError where one of them is lost meanwhile.
    """
    if launch.size == 1:
        yield ALONE
        return
    if _MET:
        yield _MET[0]
        return
    if is_gpu(device):
        torch.cuda.set_device(device)
    os.environ.update(MASTER_ADDR=launch.address, MASTER_PORT=str(launch.port))
    try:
        distributed.init_process_group(backend(device), rank=launch.rank, world_size=launch.size, timeout=PROMPT)
        group = Group(launch.rank, launch.size)
    except (RuntimeError, ValueError) as fault:
        where = f"{launch.address} port {launch.port}"
        raise InftyError(
            f"process {launch.rank} of {launch.size} met no others at {where}: {describe_fault(fault)}"
        ) from None
    _MET.append(group)
    try:
        with group.explained():
            yield group
    except Stopped:
        distributed.destroy_process_group()
        raise
    distributed.destroy_process_group()  # not where something failed: the others may be waiting for what does not come


def _is_lost(fault: RuntimeError) -> bool:
    """Whether a library of communication says it."""
    return isinstance(fault, distributed.DistError) or any(name in str(fault) for name in ("gloo", "NCCL"))
