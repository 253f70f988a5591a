"""Sort symbols by their frequency in a stretch of the past, while the distribution drifts and returns.

A variant of the sorting task (section 4.1): an average of everything doesn't tell one stretch from the rest.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Int64
from numpy import ndarray
from pydantic import Field, model_validator

from infty.base.batch import Batch
from infty.base.errors import UsageError
from infty.corpora.text_pieces import Text
from infty.tasks.protocols import SORT
from infty.tasks.sort import SortConfig, SortTask


class SortStretchConfig(SortConfig):
    """The sizes of the task: those of sorting, and the stretch that is asked for."""

    kind: Literal["sort-stretch"] = Field(  # pyright: ignore[reportIncompatibleVariableOverride]
        default="sort-stretch", description="sorting symbols by their frequency in a stretch of the past"
    )
    begin: float = Field(ge=0, lt=1, description="where the stretch begins, a share of the sequence")
    end: float = Field(gt=0, le=1, description="where it ends, a share of the sequence")
    returns: int = Field(default=1, gt=0, description="times that the distribution comes back to the first one")

    @model_validator(mode="after")
    def _stretch_fits(self) -> "SortStretchConfig":
        if self.counted.start >= self.counted.stop:
            raise ValueError(f"the stretch from {self.begin} to {self.end} holds no symbol")
        return self

    @property
    def drift(self) -> Int64[ndarray, " length"]:
        """How far, of `length`, each symbol's distribution has gone from the first to the second: there and back."""
        phase = 2 * self.returns * np.arange(self.length) % (2 * self.length)
        return np.minimum(phase, 2 * self.length - phase)

    @property
    def counted(self) -> slice:
        """The places of the symbols that the answer is about."""
        return slice(int(self.begin * self.length), int(self.end * self.length))

    def open(self, *_: Any, **__: Any) -> "SortStretchTask":
        """Open the task; sequences are generated."""
        return SortStretchTask(self)


class SortStretchTask(SortTask):
    """Sequences that drift and return, and a question about a stretch of them."""

    protocol = replace(SORT, name="sort-stretch-accuracy-v1")

    def cut_stream(self, file: Text, segment_length: int) -> Iterator[Batch]:
        """Refuse: where the stretch of a stream lies is known at its end. UsageError says so."""
        raise UsageError("sort-stretch asks for a part of a sequence: --stream is for sorting and for texts")
