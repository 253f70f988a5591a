"""bf16 and --compile: what they change, what they leave, and what happens where there is no compiler."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from infty.machine.placement import Machine
from infty.memory.longterm import LongTermMemory, LongTermState
from infty.model.decoder import Decoder
from tests.conftest import Infty
from tests.model.test_decoder import MEMORIES, make, segments

CPU = torch.device("cpu")


def outputs(model: Decoder, parts: list[Tensor]) -> tuple[Tensor, Any]:
    state, output = model.initial_state(torch.arange(len(parts[0]))), None
    for tokens in parts:
        output = model(tokens, state)
        state = output.state
    assert output is not None
    return output.logits, output


@pytest.mark.parametrize("memory", MEMORIES)
def test_bf16_stays_near_float32_and_its_gradients_are_finite(memory: str) -> None:
    model, parts = make(memory), segments(5)
    exact, _ = outputs(model, parts)
    rounded, output = outputs(Machine(CPU, "bf16").place(model), parts)
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, exact)
    assert (rounded - exact).abs().max() <= 0.1 * exact.abs().max()
    (rounded.square().mean() + sum(output.auxiliary.values())).backward()
    assert all(p.grad is None or (p.dtype == torch.float32 and p.grad.isfinite().all()) for p in model.parameters())


def test_bf16_leaves_the_memory_in_float32() -> None:
    """Under autocast an update and a read give the very numbers that they give without it."""
    memory = make("infty").blocks[0].long_range
    assert isinstance(memory, LongTermMemory)
    x, queries = torch.randn(3, 5, 22), torch.randn(3, 5, 22)

    def use() -> tuple[LongTermState, Tensor]:
        state = memory.update(memory.update(memory.initial_state(3), x), x)
        return state, memory.attend(queries, state)[0]

    state, context = use()
    with torch.autocast("cpu", torch.bfloat16):
        same_state, same_context = use()
    assert torch.equal(same_state.coefficients, state.coefficients)
    assert torch.equal(same_context, context)


def test_weights_keep_their_names_however_a_model_is_placed() -> None:
    names = list(make("infty").state_dict())
    assert list(Machine(CPU, "bf16", compiled=True).place(make("infty")).state_dict()) == names


def test_without_a_compiler_a_model_is_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_compiler(function: Any, **_: Any) -> Any:
        def fail(*_: Any, **__: Any) -> Any:
            raise RuntimeError("no C++ compiler found,\n  and more\n")

        return fail

    parts = segments(4)
    model = make("infty")
    expected, _ = outputs(model, parts)
    monkeypatch.setattr(torch, "compile", no_compiler)
    model = Machine(CPU, compiled=True).place(model)
    with pytest.warns(UserWarning, match="is left out") as warned:
        logits, _ = outputs(model, parts)
    assert torch.equal(logits, expected)
    assert [str(w.message) for w in warned] == ["--compile failed and is left out: no C++ compiler found, and more"]


def test_a_fault_of_the_model_is_not_hidden_by_compilation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    model = Machine(CPU, compiled=True).place(make("infty"))
    wrong = torch.randn(3, 5, 23)
    with pytest.warns(UserWarning, match="is left out"), pytest.raises(RuntimeError, match="23"):
        model.blocks[0].position_wise(wrong, wrong)


def test_what_failed_once_is_not_tried_again_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Any] = []

    def fail(function: Any, **_: Any) -> Any:
        tried.append(function)
        raise RuntimeError("none here")

    monkeypatch.setattr(torch, "compile", fail)
    machine, parts = Machine(CPU, compiled=True), segments(4)
    with warnings.catch_warnings(record=True, action="always") as warned:
        for _ in range(2):
            outputs(machine.place(make("infty")), parts)
    assert len(tried) == len(warned) == 1


def test_nothing_is_compiled_for_a_segment_in_which_nothing_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each form of a function is compiled once, and dynamo gives up a function that has too many."""
    lengths: list[int] = []

    def record(plain: Any, **_: Any) -> Any:
        return lambda x, *more: (lengths.append(x.shape[1]), plain(x, *more))[1]

    monkeypatch.setattr(torch, "compile", record)
    model = Machine(CPU, compiled=True).place(make("infty"))
    state, unwanted = model.initial_state(torch.arange(3)), 0
    for tokens, wanted in zip(segments(2), (unwanted, 2), strict=True):
        state = model(tokens, state, wanted=wanted).state
    assert 2 in lengths
    assert 0 not in lengths


@pytest.mark.parametrize("memory", MEMORIES)
def test_what_is_compiled_is_recomputed_to_its_end(monkeypatch: pytest.MonkeyPatch, memory: str) -> None:
    """torch 2.13 ends a recomputation by an error, which would pass for one of the compiler's."""
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    gradients, parts = [], segments(4)
    for machine in (Machine(CPU), Machine(CPU, compiled=True, recompute=True)):
        torch.manual_seed(0)
        model = machine.place(make(memory))
        logits, _ = outputs(model, parts)
        logits.square().sum().backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    torch.testing.assert_close(gradients[0], gradients[1])


def test_bf16_ends_with_the_model() -> None:
    """Nothing that follows a forward pass is computed in bfloat16."""
    outputs(Machine(CPU, "bf16").place(make("infty")), segments(4))
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.slower
def test_compiled_training_is_the_same_training(infty: Infty, tmp_path: Path) -> None:
    """Through the real command and compiler, or where there is none through the fall-back: losses as without."""
    short = ("train", "sort", "--scale", "smoke", "--set", "training.steps=2", "--set", "model.dropout=0")
    short = (*short, "--set", "training.log_every=1")
    losses, said = [], []
    for name, more in (("as-it-is", ()), ("fused", ("--compile",))):
        done = infty(*short, "--name", name, *more, timeout=280)
        assert done.returncode == 0, done.stderr
        said.append(done.stderr.replace(name, "").splitlines())
        lines = (tmp_path / f"runs/sort/smoke/infty@x4+{name}/seed-0/metrics.jsonl").read_text().splitlines()
        losses.append([json.loads(line)["train/loss"] for line in lines if "train/loss" in line])
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    more = [line for line in said[1] if line not in said[0] and not line.startswith("step ")]
    assert all(line.startswith("infty: warning: --compile ") for line in more), more  # no raw line of torch
    assert more[0].startswith("infty: warning: --compile gains nothing on a CPU")


def test_precision_is_recorded(infty: Infty, tmp_path: Path) -> None:
    done = infty("train", "sort", "--scale", "smoke", INFTY_PRECISION="bf16")
    assert done.returncode == 0, done.stderr
    environment = json.loads((tmp_path / "runs/sort/smoke/infty@x4/seed-0/environment.json").read_text())
    assert (environment["precision"], environment["compiled"]) == ("bf16", False)
