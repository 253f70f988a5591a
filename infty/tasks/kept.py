"""Keep what is generated as bytes, so that it is generated once however often it is read (section 4.1)."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

MOST = 2**28  # bytes that are kept; what is larger is generated each time

Rows = Int64[ndarray, "n numbers"]


class Kept:
    """Rows of numbers from 0 to `greatest`, each made when it is first taken. `make` takes their indices."""

    def __init__(self, count: int, numbers: int, greatest: int, make: Callable[[Int64[ndarray, " n"]], Rows]) -> None:
        fits = greatest < 2**8 and count * numbers <= MOST
        self._make, self._bytes = make, np.empty((count, numbers), dtype=np.uint8) if fits else None
        self._known = np.zeros(count if fits else 0, dtype=bool)

    def take(self, indices: Int64[ndarray, " n"]) -> Rows:
        """Take some rows: an array of its own."""
        if self._bytes is None:
            return self._make(indices)
        if len(new := np.unique(indices[~self._known[indices]])):
            self._bytes[new] = self._make(new)
            self._known[new] = True
        return self._bytes[indices].astype(np.int64)
