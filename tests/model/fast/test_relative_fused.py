"""Relative attention in one kernel: in Triton's interpreter, and compiled for a GPU that need not be here."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from infty.model import relative_attention
from infty.model.fast import relative_fused
from infty.model.fast.relative_fused import attend_in_kernels
from infty.model.fast.relative_tiled import attend_in_tiles
from infty.model.relative_attention import RelativeAttention
from tests.model.fast.fused import CASES, NAMES

pytest.importorskip("triton", reason="Triton is for Linux")


def run(what: str, folder: Path, **variables: str) -> dict[str, Any]:
    """Run the kernels in a process of its own."""
    environment = {**os.environ, "TRITON_CACHE_DIR": str(folder), "OMP_NUM_THREADS": "1", **variables}
    command = [sys.executable, "-m", "tests.model.fast.fused", what]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, float]]:
    return run("interpret", tmp_path_factory.mktemp("triton"), TRITON_INTERPRET="1")


@pytest.mark.parametrize("case", CASES)
def test_equals_the_plain_equation_in_value_and_gradient(case: str, interpreted: dict[str, dict[str, float]]) -> None:
    """In float32 to 1e-6 of float64: what is read, and the gradients of all that it is read with."""
    assert set(interpreted[case]) == set(NAMES)
    assert max(interpreted[case].values()) <= 1e-6, interpreted[case]


@pytest.mark.slower
def test_compiles_for_a_gpu_without_spilling_a_register(tmp_path: Path) -> None:
    """For sm_90, and into the shared memory of smaller GPUs (99 KB of a block), whatever the precision."""
    found = run("compile", tmp_path, TRITON_INTERPRET="0")
    for name, figures in found.items():
        print(f"{name}: {figures}")
    assert len(found) == 16
    assert {name: figures["spilt"] for name, figures in found.items() if figures["spilt"]} == {}
    assert max(figures["registers"] for figures in found.values()) <= 255
    assert max(figures["shared"] for figures in found.values()) <= 99 * 2**10


def test_is_used_if_products_are_rounded_and_only_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither on a CPU, nor for one query, nor with dropout on the weights, nor without Triton."""
    used: list[str] = []

    def note(content: Tensor, *_: Any) -> Tensor:
        used.append(str(content.dtype))
        return torch.zeros_like(content)

    monkeypatch.setattr(relative_attention, "attend_in_kernels", note)

    def attend(queries: int = 5, dropout: float = 0.0) -> None:
        attention = RelativeAttention(12, 2, dropout)
        positions = attention.positions(torch.randn(9, 12), torch.randn(2, 6), torch.randn(2, 6))
        attention(torch.randn(1, queries, 12), attention.key_values(torch.randn(1, 9, 12)), positions)

    attend()
    assert used == []
    monkeypatch.setattr(relative_attention, "are_products_rounded", lambda _: True)
    attend(queries=1)
    attend(dropout=0.1)
    assert used == []
    attend()
    assert used == ["torch.float32"]
    monkeypatch.setattr(relative_attention, "AVAILABLE", False)
    attend()
    assert used == ["torch.float32"]


def test_if_a_kernel_can_not_be_compiled_one_line_says_so_and_tiles_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def fail(kernel: Any, *_: Any) -> None:
        tried.append(kernel.__name__)
        raise RuntimeError("Failed to find C compiler. Please specify via CC environment variable.")

    monkeypatch.setattr(relative_fused, "_run", fail)
    monkeypatch.setattr(relative_fused, "FAULTS", [])
    b, heads, t, k, size = 2, 3, 5, 11, 7
    shapes = (b, heads, t, size), (b, heads, t, size), (b, heads, size, k), (b, heads, k, size), (heads, size, k + 1)
    content, position, key, value, encoding = (torch.randn(shape) for shape in shapes)
    wanted = attend_in_tiles(content, position, key, value, encoding)
    with pytest.warns(UserWarning, match="^attention is not computed in one kernel: Failed to find C compiler"):
        assert torch.equal(attend_in_kernels(content, position, key, value, encoding), wanted)
    assert torch.equal(attend_in_kernels(content, position, key, value, encoding), wanted)
    assert tried == ["attend"]
    relative_fused.FAULTS.clear()
    monkeypatch.setattr(relative_fused, "WIDEST", size - 1)  # wider heads are for tiles
    assert torch.equal(attend_in_kernels(content, position, key, value, encoding), wanted)
    assert tried == ["attend"]


@pytest.mark.parametrize("size", [7, 16, 50, 64])
def test_kernels_get_rows_of_a_power_of_two_of_numbers(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    launches: list[tuple[str, Any, list[torch.Size]]] = []

    def note(kernel: Any, count: int, size: int, inputs: Any, more: Any) -> None:
        launches.append((kernel.__name__, count, [part.shape[-1:] for part in inputs if part is not None]))

    monkeypatch.setattr(relative_fused, "_run", note)
    b, heads, t, k = 2, 3, 5, 11
    shapes = (b, heads, t, size), (b, heads, t, size), (b, heads, size, k), (b, heads, k, size), (heads, size, k + 1)
    given = [torch.randn(shape, requires_grad=True) for shape in shapes]
    gradients = torch.autograd.grad(attend_in_kernels(*given).sum(), given)
    assert [gradient.shape for gradient in gradients] == [part.shape for part in given]
    width = {7: 16, 16: 16, 50: 64, 64: 64}[size]
    assert [launch[:2] for launch in launches] == [
        ("attend", t), ("go_back_to_queries", t), ("go_back_to_keys", k), ("go_back_to_distances", k)
    ]  # fmt: skip
    assert all(shape == (width,) for *_, shapes in launches for shape in shapes)
