"""What tests share: one thread (small tensors, equal bytes), a clean environment, and the real command."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

from tests import forks

torch.set_num_threads(1)
SLOW = [HealthCheck.too_slow]  # which is no fault of a test: the machine may be busy
settings.register_profile(  # red stays red; `make fuzz` tries more
    "infty", deadline=None, suppress_health_check=SLOW, derandomize=True, max_examples=50
)
settings.register_profile("thorough", deadline=None, suppress_health_check=SLOW, max_examples=3000, print_blob=True)
settings.load_profile("infty")

Infty = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(autouse=True)
def _same_random_numbers() -> None:
    torch.manual_seed(0)


@pytest.fixture
def float64() -> Iterator[None]:
    """Everything made in the test is float64 unless it says otherwise."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def clean_environment(folder: Path, **more: str) -> dict[str, str]:
    """The environment of a user who set nothing, in `folder`, with one thread.

    And without W&B, which takes as long as a smoke run: a test that wants it has WANDB_MODE="", which is the default.
    """
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("INFTY_", "WANDB_"))}
    return {
        **kept,
        "INFTY_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "HOME": str(folder),
        "NO_COLOR": "1",
        "COLUMNS": "120",
        "WANDB_MODE": "disabled",
        **more,
    }


@pytest.fixture
def infty(tmp_path: Path) -> Infty:
    """Run the real command in an empty folder: `infty("train", "sort", …)`. Its stdin is closed."""

    def run(*words: str, timeout: float = 120, **environment: str) -> subprocess.CompletedProcess[str]:
        return forks.run(words, tmp_path, clean_environment(tmp_path, **environment), timeout)

    return run
