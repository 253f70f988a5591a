"""What the bench measures on a GPU, tried on a CPU at small sizes. No timing is judged here."""

import pytest
import torch
from torch import Tensor, nn

from infty.commands.bench import device
from infty.memory.precision import HOST
from infty.model.relative_attention import attend_plainly
from infty.model.short_term import KeyValue
from tests.conftest import Infty


def test_each_row_takes_steps_in_each_precision_that_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "TIMED", 1)
    monkeypatch.setattr(device, "WARM", 1)
    found = list(device.measure_steps(HOST, "smoke"))
    assert [(row, precision) for row, precision, _ in found] == [
        (row, precision) for row in ("infty", "transformer-xl", "compressive") for precision in ("float32", "bf16")
    ]
    for *_, figures in found:
        assert figures.milliseconds > 0
        assert figures.peak_megabytes > 0
        assert (figures.kernels, figures.products, figures.dearest) == (0, 0, {})  # no GPU, no kernels


def test_steps_go_on_through_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another batch each time: what is timed is training, not one batch over and over."""
    experiment = device.resolve(
        device.open_experiment("sort", device.SHIPPED), device.CellKey("sort", "smoke", "infty", "x4")
    ).experiment
    taken: list[int] = []
    monkeypatch.setattr(device, "optimize", lambda *given: taken.append(given[4]))
    step = device.prepare_step(experiment, device.Machine(HOST))
    step()
    assert taken == [*range(device.WARM + 1)]


def test_attention_by_torch_is_the_same_attention(float64: None) -> None:
    b, heads, t, k, size = 2, 3, 5, 13, 7
    shapes = (b, heads, t, size), (b, heads, t, size), (b, heads, size, k), (b, heads, k, size), (heads, size, k + 1)
    content, position, key, value, encoding = (torch.randn(shape) for shape in shapes)
    wanted: Tensor = attend_plainly(content, position, KeyValue(key, value), encoding, nn.Identity())
    torch.testing.assert_close(device.attend_by_torch(content, position, key, value, encoding), wanted)


def test_attention_is_measured_beside_other_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "TIMED", 2)
    found = [(way, precision) for way, precision, _ in device.measure_attention(HOST, (1, 2, 5, 9, 4))]
    assert found == [(way, precision) for precision in ("float32", "bf16") for way in ("tiles", "plain", "torch")]


def test_a_gpu_that_is_not_there_is_told(infty: Infty) -> None:
    done = infty("bench", "step", "--device", "cuda", CUDA_VISIBLE_DEVICES="")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "infty: device cuda: torch sees 0 GPUs here; use cpu or auto\n"
