"""What tests share: one thread (small tensors, equal bytes), and the real command."""

import importlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

from tests import forks
from tests.forks import clean_environment

for name in forks.LIBRARIES:  # before `infty`: what is loaded while its shapes are given checks is compiled anew
    importlib.import_module(name)
torch.set_num_threads(1)
SLOW = [HealthCheck.too_slow]  # which is no fault of a test: the machine may be busy
settings.register_profile(  # red stays red; `make fuzz` tries more
    "infty", deadline=None, suppress_health_check=SLOW, derandomize=True, max_examples=30
)
settings.register_profile("thorough", deadline=None, suppress_health_check=SLOW, max_examples=3000, print_blob=True)
settings.load_profile("infty")

Infty = Callable[..., subprocess.CompletedProcess[str]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest comes first: no process is left alone with it at the end."""
    items.sort(key=lambda item: item.path.name != "test_walk.py")


@pytest.fixture(autouse=True)
def _same_random_numbers() -> None:
    torch.manual_seed(0)


@pytest.fixture
def float64() -> Iterator[None]:
    """Everything made in the test is float64 unless it says otherwise."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def infty(tmp_path: Path) -> Infty:
    """Run the real command in an empty folder: `infty("train", "sort", …)`. Its stdin is closed."""

    def run(*words: str, timeout: float = 120, **environment: str) -> subprocess.CompletedProcess[str]:
        return forks.run(words, tmp_path, clean_environment(tmp_path, **environment), timeout)

    return run
