"""Time one run."""

import time
from collections.abc import Callable
from typing import Any


def time_run(run: Callable[[], Any]) -> float:
    """Time one run in seconds."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
