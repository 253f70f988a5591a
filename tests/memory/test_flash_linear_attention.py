"""The gated delta rule and gated slots against another library's reference operators: tests/golden/README.md."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from infty.memory.delta import Writing
from infty.memory.slots import fill_slots
from tests.memory.test_delta import write_at_once

KNOWN = load_file(Path(__file__).parents[1] / "golden/flash_linear_attention.safetensors")


def by_head(name: str) -> Tensor:
    return KNOWN[name].transpose(1, 2).double()


def assert_close(found: Tensor, name: str) -> None:
    torch.testing.assert_close(found.float(), KNOWN[name], rtol=1e-5, atol=1e-6)  # they are float32


def write_and_read(decays: bool, momentum: bool) -> tuple[Tensor, Tensor | None, Tensor]:
    """The matrices after all vectors, in chunks, and what each query reads just after its vector was written."""
    rate, matrix = by_head("beta"), KNOWN["initial"].double()
    log_decay = by_head("g") if decays else torch.zeros_like(rate)
    new = Writing(by_head("k"), by_head("v"), rate, log_decay, by_head("mu") if momentum else None)
    moving, read = torch.zeros_like(matrix) if momentum else None, []
    step, rest = matrix, moving
    for one, query in zip(new.cut(), by_head("q").unbind(2), strict=True):
        step, rest = write_at_once(step, rest, one, corrects=True)
        read.append((query[:, :, None] @ step)[:, :, 0])
    matrix, moving = write_at_once(matrix, moving, new, corrects=True)
    return matrix, moving, torch.stack(read, 1)


def test_the_gated_delta_rule() -> None:
    matrix, _, read = write_and_read(decays=True, momentum=False)
    assert_close(matrix, "gated_delta.state")
    assert_close(read, "gated_delta.output")


def test_deltanet() -> None:
    matrix, _, read = write_and_read(decays=False, momentum=False)
    assert_close(matrix, "delta.state")
    assert_close(read, "delta.output")


def test_the_delta_rule_with_momentum() -> None:
    matrix, moving, read = write_and_read(decays=True, momentum=True)
    assert moving is not None
    assert_close(matrix, "momentum.state")
    assert_close(moving, "momentum.moving")
    assert_close(read, "momentum.output")


def test_gated_slots() -> None:
    decay = by_head("slots.g")
    keys, values = (torch.zeros(KNOWN[name].shape, dtype=torch.float64) for name in ("slots.keys", "slots.values"))
    read = []
    for i, query in enumerate(by_head("q").unbind(2)):
        now = slice(i, i + 1)
        keys, values = (
            fill_slots(slots, by_head(name)[:, :, now], decay[:, :, now])
            for slots, name in ((keys, "slots.k"), (values, "slots.v"))
        )
        read.append(F.scaled_dot_product_attention(query[:, :, None], keys, values)[:, :, 0])
    assert_close(keys, "slots.keys")
    assert_close(values, "slots.values")
    assert_close(torch.stack(read, 1), "slots.output")
