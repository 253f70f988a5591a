"""Name symbols in the order in which they first came: an average, which knows no order, can't hold it.

A variant of the sorting task (section 4.1): the same sequences, and another question.
"""

from dataclasses import replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Int64
from numpy import ndarray
from pydantic import Field

from infty.tasks.protocols import SORT
from infty.tasks.sort import SortConfig, SortTask


class FirstSeenConfig(SortConfig):
    """The sizes of the task, which are those of sorting."""

    kind: Literal["first-seen"] = Field(  # pyright: ignore[reportIncompatibleVariableOverride]
        default="first-seen", description="naming symbols in the order in which they first came"
    )

    def open(self, *_: Any, **__: Any) -> "FirstSeenTask":
        """Open the task; sequences are generated."""
        return FirstSeenTask(self)


class FirstSeenTask(SortTask):
    """The sorting task's sequences with another question."""

    protocol = replace(SORT, name="first-seen-accuracy-v1")

    def order_symbols(
        self, counts: Int64[ndarray, "batch vocabulary"], first: Int64[ndarray, "batch vocabulary"]
    ) -> Int64[ndarray, "batch vocabulary"]:
        """Order all symbols by first occurrence; those that never occur last, ascending."""
        return np.argsort(first, axis=-1, kind="stable")
