"""Compress vectors c : 1 by a convolution, which learns what attention would miss (M12, Rae et al. 2019)."""

import torch
from torch import nn
from torch.nn import functional as F

from infty.memory.contract import Attend, Losses, Rows
from infty.memory.equations import Hidden, reconstruction_loss
from infty.memory.precision import full_precision
from infty.memory.queue import Slots
from infty.memory.rows import send
from infty.memory.transforms import holds, is_transformed


class Compressor(nn.Conv1d):
    """1-D convolution with kernel = stride = c (M12): each slot is made of c vectors."""

    def __init__(self, hidden_size: int, rate: int) -> None:
        super().__init__(hidden_size, hidden_size, kernel_size=rate, stride=rate)
        self.rate = rate

    def make_slots(self, evicted: Hidden) -> Slots:
        """Compress what left the short-term memory into ⌈length / c⌉ slots (M12)."""
        # Equal to equations.compress: tests/memory/test_compressive.py::test_a_slot_is_a_weighted_sum_of_its_window.
        missing = -evicted.shape[1] % self.rate
        with full_precision(evicted.device, convolutions=True):
            return self(F.pad(evicted, (0, 0, missing, 0)).mT).mT

    def measure_loss(self, evicted: Hidden, fresh: Slots, rows: Rows | None, attend: Attend) -> Losses:
        """Measure what attention reads otherwise from slots than from what they were made of (M12), if asked for.

        fresh: the slots. It is 0 of streams outside `rows`, and sends no gradient back to `evicted`.

        Raises:
            RuntimeError: vmap or torch.export rewrites this with `rows` and a gradient, and can't.
        """
        if not torch.is_grad_enabled() or not fresh.shape[0]:
            return {}
        if rows is not None and is_transformed():
            raise RuntimeError(
                "vmap and torch.export can't tell which rows a compressive memory's loss is of: give all rows (None), "
                "or no gradient (torch.no_grad)"
            )
        if rows is not None and not holds(rows.any(), unknown=False):
            return {}
        own = slice(None) if rows is None else send(rows.nonzero()[:, 0], evicted.device)  # whose the vectors are
        if evicted.requires_grad:  # the loss is the compressor's own, and not that of earlier segments
            fresh = self.make_slots(evicted.detach())
        loss = reconstruction_loss(lambda vectors: attend(own, vectors), evicted[own], fresh[own])
        return {"reconstruction": loss * (fresh[own].shape[0] / fresh.shape[0])}  # the others count as 0

    def start_as_mean(self) -> None:
        """Make each slot the mean of its vectors."""
        identity = torch.eye(self.in_channels)
        assert self.bias is not None
        with torch.no_grad():
            self.weight.copy_(identity[..., None].expand(-1, -1, self.rate) / self.rate)
            nn.init.zeros_(self.bias)
