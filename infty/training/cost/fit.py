"""A straight line: what any number of sequences takes, from the few that were measured."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class LinearCost:
    """Seconds or bytes by the number of sequences at once: `fixed`, and `each` for every one of them."""

    fixed: float
    each: float

    @classmethod
    def fit(cls, measured: Mapping[int, float]) -> "LinearCost":
        """Draw the line through what the fewest and the most sequences took: level if they are one, never falling."""
        (few, low), (many, high) = min(measured.items()), max(measured.items())
        each = max(0.0, (high - low) / (many - few)) if many > few else 0.0
        return cls(high - many * each, each)

    def add(self, fixed: float) -> "LinearCost":
        """Add what is taken however many sequences there are."""
        return LinearCost(self.fixed + fixed, self.each)

    def predict(self, sequences: int) -> float:
        """Predict what so many sequences at once take."""
        return self.fixed + self.each * sequences

    def count_fitting(self, room: float, most: int) -> int:
        """Count the sequences at once that fit into `room`, up to `most`; 0 if not even one does."""
        if self.predict(most) <= room:
            return most
        return max(0, int((room - self.fixed) // self.each)) if self.each else 0
