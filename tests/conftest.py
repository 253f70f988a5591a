"""What tests share: one thread (small tensors, equal bytes), and the real command."""

import importlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings
from transformers import GPT2Config, GPT2LMHeadModel

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

SMOKE = {"vocab_size": 400, "n_positions": 16, "n_embd": 16, "n_layer": 2, "n_head": 2}  # sizes of that scale's GPT-2
Infty = Callable[..., subprocess.CompletedProcess[str]]


def save_gpt2(folder: Path, **sizes: int) -> Path:
    """A GPT-2 with random weights, as Hugging Face saves it; by default of the smoke scale's sizes."""
    config: dict[str, Any] = {**SMOKE, "bos_token_id": 0, "eos_token_id": 0, **sizes}
    GPT2LMHeadModel(GPT2Config(**config)).save_pretrained(folder)
    return folder


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
