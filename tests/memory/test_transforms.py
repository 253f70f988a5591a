"""Inside other programs' transforms: vmap, gradients, torch.export and the meta device; and batches of nothing."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, hessian, jvp, vmap

from infty.config.definition import SHIPPED, CellKey, open_experiment
from infty.experiment import resolve
from infty.memory.compressive import CompressiveMemory, CompressiveMemoryConfig
from infty.memory.contract import KNOCK_OUTS, Rows
from infty.memory.longterm import LongTermMemory, LongTermMemoryConfig, LongTermState

SCRIPTED = "ignore:.torch.jit.script. is deprecated"  # which torch 2.13's own jvp calls
BATCH, HIDDEN, LENGTH = 5, 21, 11
SIZES: dict[str, Any] = {"hidden_size": HIDDEN, "num_heads": 3, "segment_length": LENGTH, "num_basis": 34}


class Host(nn.Module):
    """Somebody's layer: two updates, a read and its regulariser."""

    def __init__(self, sticky: Any = None) -> None:
        super().__init__()
        config = LongTermMemoryConfig(**SIZES, num_samples=19, widths=(0.03, 0.11), sticky=sticky)
        self.memory = LongTermMemory(config)

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        memory = self.memory
        state = memory.update(memory.update(memory.initial_state(first.shape[0]), first), second)
        far, density = memory.attend(second, state)
        return far, memory.kl(density, state)


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    return torch.randn(BATCH, LENGTH, HIDDEN), torch.randn(BATCH, LENGTH, HIDDEN)


def close(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_vmap_over_inputs_is_the_batch(pair: tuple[Tensor, Tensor]) -> None:
    """In torch an autograd function has to be made for that; mamba's was not, nor finufft's.

    https://github.com/state-spaces/mamba/issues/239, https://github.com/flatironinstitute/pytorch-finufft/issues/95.
    """
    host = Host()
    expected, kl = host(*pair)
    far, kls = vmap(lambda a, b: host(a[None], b[None]))(*pair)
    close(far[:, 0], expected)
    close(kls.mean(), kl)


def test_vmap_over_queries_and_over_states(pair: tuple[Tensor, Tensor]) -> None:
    memory = Host().memory
    state = memory.update(memory.update(memory.initial_state(BATCH), pair[0]), pair[1])
    state = state.reset(torch.arange(BATCH) == 2)  # its next update is its first
    queries = torch.randn(7, BATCH, 3, HIDDEN)
    expected = torch.stack([memory.attend(part, state)[0] for part in queries])
    close(vmap(lambda part: memory.attend(part, state)[0])(queries), expected)
    close(vmap(lambda x: memory.attend(queries[0], state)[0] * x)(torch.ones(2)), expected[:1].expand(2, -1, -1, -1))

    def advance(x: Tensor, *fields: Tensor) -> Tensor:
        return memory.update(LongTermState(*(field[None] for field in fields)), x[None]).coefficients[0]

    close(vmap(advance)(pair[0], *vars(state).values()), memory.update(state, pair[0]).coefficients)


@pytest.mark.filterwarnings(SCRIPTED)
@pytest.mark.parametrize("sticky", [None, {"num_bins": 7}])
def test_gradients_of_torch_func_are_those_of_backward(sticky: Any, pair: tuple[Tensor, Tensor]) -> None:
    host = Host(sticky)
    weights: dict[str, Tensor] = dict(host.named_parameters())

    def loss(weights: dict[str, Tensor], first: Tensor, second: Tensor) -> Tensor:
        far, kl = functional_call(host, weights, (first, second))
        return far.square().sum() + kl

    loss(weights, *pair).backward()
    close(grad(loss)(weights, *pair), {name: weight.grad for name, weight in weights.items()})
    if sticky is None:  # per stream, as for private training
        each = vmap(grad(lambda w, a, b: loss(w, a[None], b[None])), (None, 0, 0))(weights, *pair)
        name = "memory.value.weight"
        close(each[name].sum(0), weights[name].grad)
    first = pair[0]
    value, slope = cast("tuple[Tensor, Tensor]", jvp(lambda second: host(first, second)[0], (pair[1],), (pair[1],)))
    assert value.shape == slope.shape == first.shape


@pytest.mark.filterwarnings(SCRIPTED)
def test_second_derivatives(float64: None) -> None:
    host, first, second = Host(), torch.randn(1, LENGTH, HIDDEN), torch.randn(1, LENGTH, HIDDEN)

    def scaled(factor: Tensor) -> Tensor:
        return host(first, second * factor)[0].square().sum()

    one, step = torch.ones(()), 1e-4
    numeric = (scaled(one + step) - 2 * scaled(one) + scaled(one - step)) / step**2
    torch.testing.assert_close(hessian(scaled)(one), numeric, rtol=1e-4, atol=1e-8)


EXPORTED = """
import sys
import torch
from torch.export import Dim, export
from infty import LongTermMemory, LongTermMemoryConfig
from infty.memory.compressive import CompressiveMemory, CompressiveMemoryConfig

class Host(torch.nn.Module):
    def __init__(self, sticky):
        super().__init__()
        sizes = {"hidden_size": 21, "num_heads": 3, "segment_length": 11, "num_basis": 34, "num_samples": 19}
        self.memory = LongTermMemory(LongTermMemoryConfig(**sizes, sticky=sticky))
        self.slots = CompressiveMemory(CompressiveMemoryConfig(hidden_size=21, num_slots=7, compression_rate=3))

    def forward(self, first, second):
        memory = self.memory
        state = memory.update(memory.update(memory.initial_state(first.shape[0]), first), second)
        far, density = memory.attend(second, state)
        slots, _ = self.slots.advance(self.slots.initial_state(first.shape[0]), far, None, lambda _, x: x.mean(1))
        return far, memory.kl(density, state), slots.slots

pair, batch = torch.randn(2, 5, 11, 21).unbind(), {0: Dim("batch", min=2, max=64)}
host = Host(None)
expected = host(*pair)
for strict in (True, False):
    program = export(host, pair, strict=strict)
    torch.testing.assert_close(program.module()(*pair), expected)
    torch.export.save(export(host, pair, strict=strict, dynamic_shapes=(batch, batch)), sys.argv[1])
    other = torch.export.load(sys.argv[1]).module()
    twice = [torch.cat([part, part.flip(0)]) for part in pair]
    torch.testing.assert_close(other(*twice), host(*twice))
    torch.testing.assert_close(host(*pair), expected, rtol=0, atol=0)  # and the module is what it was
    try:
        export(Host({"num_bins": 7}), pair, strict=strict)
    except Exception as fault:
        assert "draws where it samples" in str(fault) and "use a memory that is not sticky" in str(fault), fault
    else:
        raise AssertionError("a sticky memory was exported")
"""


@pytest.mark.slower
def test_an_exported_program_computes_the_same_for_any_batch_or_says_why_not(tmp_path: Path) -> None:
    """In a program of its own, without the checks of shapes that all tests have."""
    command = [sys.executable, "-c", EXPORTED, str(tmp_path / "host.pt2")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr


def test_what_a_sticky_memory_can_t_do_is_said_in_words(pair: tuple[Tensor, Tensor]) -> None:
    host = Host({"num_bins": 7})
    message = "a sticky memory draws where it samples .* give the streams as one batch"
    with pytest.raises(RuntimeError, match=message):
        vmap(lambda a, b: host(a[None], b[None])[0])(*pair)
    state = host.memory.update(host.memory.initial_state(BATCH), pair[0])
    assert vmap(lambda x: host.memory.attend(x[None].expand(BATCH, -1, -1), state)[0])(pair[1]).shape[:2] == (5, 5)


@pytest.mark.parametrize("sticky", [None, {"num_bins": 7}])
def test_on_the_meta_device_shapes_are_known(sticky: Any, pair: tuple[Tensor, Tensor]) -> None:
    with torch.device("meta"):
        host = Host(sticky)
    far, kl = host(*(part.to("meta") for part in pair))
    assert (far.device.type, far.shape, kl.shape) == ("meta", pair[1].shape, ())


@pytest.mark.parametrize("sticky", [None, {"num_bins": 7}])
@pytest.mark.parametrize(("streams", "queries"), [(0, 13), (BATCH, 0), (0, 0)])
def test_a_batch_of_nothing_gives_nothing(sticky: Any, streams: int, queries: int) -> None:
    """No error, no number that is none, and a gradient of zeros."""
    memory = Host(sticky).memory
    x, asked = torch.randn(streams, LENGTH, HIDDEN), torch.randn(streams, queries, HIDDEN)
    state = memory.initial_state(streams)
    context, density = memory.attend(asked, state)
    for _ in range(3):
        state = memory.update(memory.observe(state, density), x)
        context, density = memory.attend(asked, state)
    read, state, losses = memory.read(asked, asked, state)
    assert context.shape == asked.shape
    assert read is None or read.shape == asked.shape
    (context.sum() + memory.kl(density, state)).backward()
    assert memory.kl(density, state).item() == 0
    assert all(loss.item() == 0 for loss in losses.values())
    assert all(bool(tensor.isfinite().all()) for tensor in vars(state).values())
    for kind in KNOCK_OUTS:
        assert memory.knock_out(state, kind).coefficients.shape == state.coefficients.shape
    assert state.reset(torch.zeros(streams, dtype=torch.bool)).updates.shape == (streams,)


def mean_of(rows: Rows | slice, vectors: Tensor) -> Tensor:
    """What a layer might read from vectors."""
    return vectors.mean(1, keepdim=True)


def compress() -> CompressiveMemory:
    return CompressiveMemory(CompressiveMemoryConfig(hidden_size=HIDDEN, num_slots=7, compression_rate=3))


def test_a_compressive_memory_is_as_good_a_guest(pair: tuple[Tensor, Tensor]) -> None:
    memory = compress()

    def run(x: Tensor, rows: Rows | None = None) -> Tensor:
        state, _ = memory.advance(memory.initial_state(x.shape[0]), x, None, mean_of)
        return memory.advance(state, x, rows, mean_of)[0].slots

    expected = run(pair[0])
    close(vmap(lambda x: run(x[None])[0])(pair[0]), expected)
    marked = torch.eye(BATCH, dtype=torch.bool)
    with pytest.raises(RuntimeError, match=r"can't tell which rows .* give all rows"):
        vmap(lambda rows: run(pair[0], rows))(marked)
    with torch.no_grad():
        assert vmap(lambda rows: run(pair[0], rows))(marked).shape == (BATCH, *expected.shape)
    state, losses = memory.advance(memory.initial_state(0), pair[0][:0], torch.zeros(0, dtype=torch.bool), mean_of)
    assert (state.slots.shape, losses) == ((0, 4, HIDDEN), {})


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # the loss of a compressive memory, in vmap
@pytest.mark.parametrize("row", ["transformer-xl", "compressive", "infty"])
def test_a_whole_model_is_mapped_emptied_and_known_by_its_shapes(row: str) -> None:
    experiment = resolve(open_experiment("sort", SHIPPED), CellKey("sort", "smoke", row, "x4")).experiment
    model = experiment.model.build(6, seed=0).eval()
    tokens = torch.randint(6, (2, model.config.segment_length))

    def read(tokens: Tensor) -> Tensor:
        state = model.initial_state(torch.arange(tokens.shape[0]))
        for _ in range(2):
            state = model(tokens, state).state
        return model(tokens, state).logits

    expected = read(tokens)
    mapped: Callable[[Tensor], Tensor] = vmap(lambda one: read(one[None])[0])
    close(mapped(tokens), expected)
    assert read(tokens[:0]).shape == (0, *expected.shape[1:])
    model.to("meta")
    assert read(tokens.to("meta")).shape == expected.shape
