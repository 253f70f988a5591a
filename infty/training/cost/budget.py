"""What one device will hold while a model is trained, of what, whether that fits, and what helps where it doesn't."""

from bisect import bisect_right
from dataclasses import dataclass
from typing import Any

from infty.model.interface import SegmentModel
from infty.training.cost.probe import Probe

CARDS = (16, 24, 40, 80)  # GB of memory that GPUs are sold with
FILLED = 0.9  # share of it that a model can have: the rest is the driver's, and gaps


@dataclass(frozen=True)
class Room:
    """Bytes of a device before there is a model: held by the program, and free; None where the system doesn't tell."""

    held: int
    free: int | None


@dataclass(frozen=True)
class Budget:
    """Memory of one device that trains `own` sequences a step, `at_once` at a time, in bytes.

    evaluation: what a validation takes beyond what is kept. together: whether processes exchange gradients.
    """

    model: SegmentModel
    found: Probe
    own: int
    evaluation: int
    together: bool
    room: Room

    @property
    def parts(self) -> dict[str, int]:
        """Bytes that can be counted. memory: of all own sequences, long-term and short-term alike."""
        gradients = sum(parameter.nbytes for parameter in self.model.parameters() if parameter.requires_grad)
        return {
            "program": self.room.held,
            "weights": sum(tensor.nbytes for tensor in (*self.model.parameters(), *self.model.buffers())),
            "gradients": gradients,
            "optimizer": 2 * gradients,
            "memory": self.own * self.found.state,
        }

    def total(self, at_once: int) -> float:
        """Most bytes held with so many sequences at once: in steps as they were measured, or in a validation."""
        assert self.found.peak is not None
        (_, measured), (_, peak), state = self.found.peak.rows, self.found.peak.values, self.found.state
        training = peak + (at_once - measured) * max(self.found.peak.each, state) + (self.own - at_once) * state
        kept = [size for name, size in self.parts.items() if name != "gradients" or self.together]  # in what sends them
        return max(training, self.evaluation + sum(kept))

    def largest(self, room: float) -> int | None:
        """Most sequences at once in so many bytes; None where not even one fits."""
        return bisect_right(range(1, self.own + 1), room, key=self.total) or None

    def document(self, at_once: int) -> dict[str, Any]:
        """The budget in MiB. activations: what steps take beyond all that can be counted, work space of products too.

        Empty where the system doesn't tell how much is held.
        """
        if self.found.peak is None:
            return {}
        total, parts = self.total(at_once), self.parts
        activations = max(0.0, total - sum(parts.values()))
        sizes = {**parts, "activations": activations, "total": total}
        return {name: round(size / 2**20, 1) for name, size in sizes.items()} | self._fitting(at_once, total)

    def _fitting(self, at_once: int, total: float) -> dict[str, Any]:
        cards = {f"{card} GB": self.largest(FILLED * card * 1e9 + self.room.held) for card in CARDS}
        found: dict[str, Any] = {"largest_micro_batch": cards}
        if self.room.free is None:
            return found
        here = self.room.held + self.room.free
        found = {"free": round(here / 2**20, 1), **found}
        if total <= here:
            return found
        fits = self.largest(here)
        change = f"--micro-batch {fits}" if fits and fits < at_once else "a larger device"
        return {**found, "does_not_fit": f"{change} does; --recompute and more devices make it less"}
