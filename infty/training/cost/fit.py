"""Predict the cost of any number of sequences by a straight line through those that were measured."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class LinearCost:
    """Seconds or bytes by the number of sequences at once: a `fixed` part, and `each` per sequence."""

    fixed: float
    each: float

    @classmethod
    def fit(cls, measured: Mapping[int, float]) -> "LinearCost":
        """Fit a line to the costs of the fewest and the most sequences: level if only one is known, never falling."""
        (few, low), (many, high) = min(measured.items()), max(measured.items())
        each = max(0.0, (high - low) / (many - few)) if many > few else 0.0
        return cls(high - many * each, each)

    def add(self, fixed: float) -> "LinearCost":
        """Add a cost that does not depend on the number of sequences."""
        return LinearCost(self.fixed + fixed, self.each)

    def predict(self, sequences: int) -> float:
        """Predict the cost of so many sequences at once."""
        return self.fixed + self.each * sequences

    def count_fitting(self, limit: float, most: int) -> int:
        """Count the sequences at once that cost no more than `limit`, up to `most`; 0 if not even one does."""
        if self.predict(most) <= limit:
            return most
        return max(0, int((limit - self.fixed) // self.each)) if self.each else 0
