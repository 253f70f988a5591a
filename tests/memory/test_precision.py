"""The memory as a guest: its constants survive every way of building and loading; nothing of the host's changes."""

import copy
import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from infty.memory import compressor, longterm
from infty.memory.compressive import CompressiveMemory, CompressiveMemoryConfig
from infty.memory.longterm import LongTermMemory, LongTermMemoryConfig
from infty.memory.precision import full_precision, round_products

HIDDEN, LENGTH = 21, 11
GPU = torch.device("cuda")  # named, not used


def make(sticky: Any = None) -> LongTermMemory:
    sizes: dict[str, Any] = {"hidden_size": HIDDEN, "num_heads": 3, "segment_length": LENGTH, "num_basis": 34}
    return LongTermMemory(LongTermMemoryConfig(**sizes, num_samples=19, widths=(0.03, 0.11), sticky=sticky))


class HostConfig(PretrainedConfig):
    model_type = "infty-host"


class Host(PreTrainedModel):
    """Somebody's Hugging Face model that holds a memory."""

    config_class = HostConfig

    def __init__(self, config: HostConfig) -> None:
        super().__init__(config)
        self.before = nn.Linear(HIDDEN, HIDDEN)
        self.memories = cast("list[LongTermMemory]", nn.ModuleList(make(sticky) for sticky in (None, {"num_bins": 7})))
        self.post_init()

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        x, read = self.before(second), []
        for memory in self.memories:
            state = memory.update(memory.update(memory.initial_state(len(first)), first), second)
            far, density = memory.attend(x, state)
            read.append(far + memory.attend(far, memory.update(memory.observe(state, density), first))[0])
        return torch.stack(read)


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    return torch.randn(5, LENGTH, HIDDEN), torch.randn(5, LENGTH, HIDDEN)


def copies(folder: Path) -> Iterator[tuple[str, Host, Host]]:
    """A host and a second one that has its weights in another way, all that people use."""
    host = Host(HostConfig()).eval()
    host.save_pretrained(folder)
    yield "from_pretrained", host, Host.from_pretrained(folder)
    yield "from_pretrained in float64", host.double(), Host.from_pretrained(folder, dtype=torch.float64)

    host = Host(HostConfig()).eval()
    with torch.device("meta"):
        assigned, emptied, bfloat = (Host(HostConfig()).eval() for _ in range(3))
    assigned.load_state_dict(host.state_dict(), assign=True)
    yield "meta, assign", host, assigned
    emptied.to_empty(device="cpu").load_state_dict(host.state_dict())
    yield "meta, to_empty", host, emptied
    bfloat.load_state_dict({name: tensor.bfloat16() for name, tensor in host.state_dict().items()}, assign=True)
    yield "meta, assign bfloat16", copy.deepcopy(host).bfloat16(), bfloat

    yield "deepcopy", host, copy.deepcopy(host)
    file = io.BytesIO()
    torch.save(host, file)
    file.seek(0)
    yield "a whole module saved", host, torch.load(file, weights_only=False)
    moved = copy.deepcopy(host)
    for module in moved.modules():  # as libraries that keep weights elsewhere do: parameter by parameter
        for name, parameter in module.named_parameters(recurse=False):
            setattr(module, name, nn.Parameter(parameter.detach().double()))
    yield "weights replaced one by one", copy.deepcopy(host).double(), moved
    with torch.inference_mode():
        made = Host(HostConfig()).eval()
    made.load_state_dict(host.state_dict(), assign=True)
    yield "built in inference mode", host, made


def test_constants_survive_every_way_of_building_and_loading(tmp_path: Path, pair: tuple[Tensor, Tensor]) -> None:
    """transformers 5 builds on the meta device and fills non-persistent buffers with whatever memory holds.

    https://github.com/huggingface/transformers/issues/48892, seen with 5.24 and torch 2.13.
    """
    tried = 0
    for way, host, other in copies(tmp_path):
        x, y = (part.to(host.before.weight) for part in pair)
        expected, found = host(x, y), other.eval()(x, y)
        assert torch.equal(expected, found), way
        found.sum().backward()  # no constant is one of inference mode, nor of another transform
        assert all(parameter.grad is not None for parameter in other.parameters()), way
        for ours, theirs in zip(host.memories, other.memories, strict=True):
            torch.testing.assert_close(theirs.basis.centers, ours.basis.centers, check_dtype=False, msg=way)
            assert theirs.state_dict().keys() == ours.state_dict().keys()
        tried += 1
    assert tried == 9


def test_constants_are_no_buffers_and_are_rounded_from_float64_after_every_move() -> None:
    memory = make()
    assert not list(memory.buffers())
    basis = memory.basis
    exact = torch.linspace(0, 1, 17, dtype=torch.float64)
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        memory.to(dtype=dtype)
        assert torch.equal(basis.centers, exact.to(dtype))
    first = basis.centers
    assert basis.centers is first  # rounded once


def test_what_is_first_used_in_a_transform_or_in_inference_mode_can_be_used_later(pair: tuple[Tensor, Tensor]) -> None:
    with torch.device("meta"):
        memory = make().to_empty(device="cpu").to("meta").to_empty(device="cpu")
    for parameter in memory.parameters():
        nn.init.normal_(parameter, std=0.1)

    def read(x: Tensor) -> Tensor:
        return memory.attend(x, memory.update(memory.update(memory.initial_state(5), x), x))[0].sum()

    double = pair[0].double()
    memory.double()
    for module in memory.modules():
        vars(module).get("_rounded", {}).clear()
    transformed = torch.func.grad(read)(double)
    with torch.inference_mode():
        read(double)
    x = double.clone().requires_grad_()
    read(x).backward()
    assert x.grad is not None
    torch.testing.assert_close(transformed, x.grad)


def switches() -> dict[str, Any]:
    """Every switch of TF32, the old names and the new ones."""
    backends: Any = torch.backends
    return {
        "all": backends.fp32_precision,
        "cuda": backends.cudnn.fp32_precision,
        "matmul": backends.cuda.matmul.fp32_precision,
        "conv": backends.cudnn.conv.fp32_precision,
        "rnn": backends.cudnn.rnn.fp32_precision,
        "mkldnn": backends.mkldnn.matmul.fp32_precision,
    }


@pytest.fixture
def restored() -> Iterator[None]:
    """Switches as torch starts with them, in the test and after it."""
    _reset_tf32()
    yield
    _reset_tf32()


def _reset_tf32() -> None:
    backends: Any = torch.backends
    backends.fp32_precision = backends.cudnn.fp32_precision = "none"
    torch.set_float32_matmul_precision("highest")
    backends.cuda.matmul.fp32_precision = backends.mkldnn.matmul.fp32_precision = "none"
    backends.cudnn.allow_tf32 = True


def set_tf32(way: str) -> None:
    backends: Any = torch.backends
    match way:
        case "as torch starts":
            pass
        case "high":
            torch.set_float32_matmul_precision("high")
        case "medium":
            torch.set_float32_matmul_precision("medium")
        case "allow_tf32":
            backends.cuda.matmul.allow_tf32 = True
        case "neither":
            backends.cuda.matmul.allow_tf32 = backends.cudnn.allow_tf32 = False
        case "everything":
            backends.fp32_precision = "tf32"
        case "nothing":
            backends.fp32_precision = "ieee"
        case "cudnn":
            backends.cudnn.fp32_precision = "tf32"
        case _:
            backends.cudnn.conv.fp32_precision = "ieee"


WAYS = ("as torch starts", "high", "medium", "allow_tf32", "neither", "everything", "nothing", "cudnn", "convolutions")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_switch_is_as_it_was_after_a_memory_was_used(
    way: str, device: str, restored: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each by itself; a GPU's are tried by name. torch's old and new names must not be mixed: reading then raises.

    https://github.com/pytorch/pytorch/issues/179445, seen with torch 2.13.
    """
    within: list[dict[str, Any]] = []

    def watch(_: torch.device, **more: Any) -> Any:
        within.append({})
        return full_precision(torch.device(device), **more)

    monkeypatch.setattr(longterm, "full_precision", watch)
    monkeypatch.setattr(compressor, "full_precision", watch)
    set_tf32(way)
    before, legacy = switches(), read_old_names()
    memory, x = make(), torch.randn(2, LENGTH, HIDDEN)
    memory.attend(x, memory.update(memory.initial_state(2), x))
    CompressiveMemory(CompressiveMemoryConfig(hidden_size=HIDDEN, num_slots=4, compression_rate=2)).compress.make_slots(
        x
    )
    assert len(within) == 4
    assert (switches(), read_old_names()) == (before, legacy)
    if way in ("everything", "cudnn"):  # what followed the switch above it follows it still
        torch.backends.cudnn.fp32_precision = "ieee"
        assert torch.backends.cuda.matmul.fp32_precision == "ieee"


def read_old_names() -> list[Any]:
    """What the old names say, or that they can't."""
    found: list[Any] = []
    for read in (
        lambda: torch.backends.cudnn.allow_tf32,
        lambda: torch.backends.cuda.matmul.allow_tf32,
        torch.get_float32_matmul_precision,
    ):
        try:
            found.append(read())
        except RuntimeError:
            found.append("mixed")
    return found


@pytest.mark.parametrize("way", WAYS)
def test_products_are_exact_within_and_a_cpu_s_are_left_alone(way: str, restored: None) -> None:
    set_tf32(way)
    before = switches()
    with full_precision(torch.device("cpu"), convolutions=True):
        assert switches() == before
    with full_precision(GPU):
        assert switches()["matmul"] in ("ieee", "none")
        assert {**switches(), "matmul": None, "mkldnn": None} == {**before, "matmul": None, "mkldnn": None}
    with pytest.raises(ValueError, match="whatever"), full_precision(GPU, convolutions=True):
        raise ValueError("whatever", switches()["conv"])
    with full_precision(GPU, convolutions=True), full_precision(GPU, convolutions=True):
        assert switches()["conv"] in ("ieee", "none")
    assert switches() == before


def test_a_program_may_set_its_own_rounding_for_good(restored: None) -> None:
    round_products("tf32")
    assert (switches()["matmul"], switches()["conv"]) == ("tf32", "tf32")
    assert read_old_names() == [True, True, "high"]
    with full_precision(GPU):  # torch's compiler may read either
        assert switches()["matmul"] == "ieee"
        assert read_old_names() == [True, False, "highest"]
    assert read_old_names() == [True, True, "high"]
    round_products("ieee")
    assert switches()["matmul"] == "ieee"
    assert switches()["conv"] != "tf32"
    assert read_old_names() == [False, False, "highest"]


def test_a_memory_keeps_float32_products_in_a_program_that_computes_in_bfloat16() -> None:
    memory, x = make(), torch.randn(2, LENGTH, HIDDEN)
    expected = memory.attend(x, memory.update(memory.initial_state(2), x))[0]
    with torch.autocast("cpu", torch.bfloat16), warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(memory.attend(x, memory.update(memory.initial_state(2), x))[0], expected)
        assert torch.is_autocast_enabled("cpu")
