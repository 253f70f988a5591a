"""Where models are: moved whole, to any device and precision; and what is recomputed, accumulated or rounded there."""

import ast
import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import infty
from infty.base.batch import Batch
from infty.base.errors import UsageError
from infty.config.definition import SHIPPED, CellKey, open_experiment
from infty.experiment import resolve
from infty.machine.launch import Launch, read_launch
from infty.machine.placement import Machine, choose_device
from infty.memory import longterm
from infty.memory.longterm import LongTermMemory
from infty.memory.precision import HOST, full_precision
from infty.model.interface import SegmentModel
from infty.model.tensors import state_tensors
from infty.training.data_parallel import compute_losses, weigh_losses
from tests.conftest import Infty

ROOT = Path(infty.__file__).parent
CELLS = [
    ("sort", "x4", ("transformer-xl", "compressive", "infty", "infty-sticky")),
    ("wikitext", "main", ("transformer-xl", "compressive", "infty", "infty-sticky")),
    ("gpt2", "wikitext", ("gpt2", "compressive", "infty", "infty-sticky")),
]
ROWS = [(name, case, row) for name, case, rows in CELLS for row in rows]
VOCAB = {"sort": 6, "wikitext": 400, "gpt2": 400}


def model_of(name: str, case: str, row: str, scale: str = "smoke", **sizes: int) -> SegmentModel:
    resolved = resolve(open_experiment(name, SHIPPED), CellKey(name, scale, row, case))
    return resolved.experiment.model.build(sizes.get("vocab_size", VOCAB[name]), seed=0)


def pieces(model: SegmentModel, name: str, count: int = 4) -> Batch:
    """Two rows of some segments, every token of the last one scored."""
    length = model.config.segment_length
    tokens = torch.randint(VOCAB[name], (2, count * length), generator=torch.Generator().manual_seed(1))
    targets = torch.where(torch.arange(count * length) < (count - 1) * length, -100, tokens.roll(-1, 1))
    return Batch(tokens, targets, torch.arange(2))


def carried(model: SegmentModel, batch: Batch) -> dict[str, Tensor]:
    with torch.no_grad():
        return state_tensors(compute_losses(model, [batch])[1])


@pytest.mark.parametrize(("name", "case", "row"), ROWS)
def test_a_whole_model_moves_to_float64_and_to_the_meta_device(name: str, case: str, row: str) -> None:
    """Nothing of it stays behind but whole numbers of rows: weights, constants, and the memory that it makes."""
    model = model_of(name, case, row).double()
    kept = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    assert {tensor.dtype for tensor in kept.values() if tensor.is_floating_point()} == {torch.float64}
    states = carried(model, pieces(model, name))
    assert {tensor.dtype for tensor in states.values() if tensor.is_floating_point()} == {torch.float64}
    model.to("meta")
    made = state_tensors(model.initial_state(torch.arange(2))).values()
    moved = [*model.parameters(), *model.buffers(), *(tensor for tensor in made if tensor.is_floating_point())]
    assert {tensor.device.type for tensor in moved} == {"meta"}
    assert {tensor.device.type for tensor in made if not tensor.is_floating_point()} <= {"cpu"}


@pytest.mark.parametrize(("name", "case", "row"), ROWS)
def test_a_model_of_the_papers_size_is_built_without_a_byte_of_weights(name: str, case: str, row: str) -> None:
    with torch.device("meta"):
        model = model_of(name, case, row, "paper", vocab_size=267_735)
    assert {tensor.device.type for tensor in (*model.parameters(), *model.buffers())} == {"meta"}


@pytest.mark.parametrize("row", ["compressive", "infty", "infty-sticky"])
def test_a_memory_holds_no_tensor_but_parameters_and_buffers(row: str) -> None:
    """What is no parameter, no buffer and no exact original of one would stay behind when a model moves."""
    for module in model_of("sort", "x4", row).modules():
        assert not [key for key, value in vars(module).items() if isinstance(value, Tensor)], type(module).__name__


def test_devices_are_named_in_two_places_only() -> None:
    """Only these two files may: one chooses a device, one keeps exact numbers on the host. Nothing calls `.cuda()`."""
    for path in ROOT.rglob("*.py"):
        place = path.relative_to(ROOT).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = node.func if isinstance(node, ast.Call) else None
            assert not (isinstance(called, ast.Attribute) and called.attr == "cuda"), place
            text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
            named = text in ("cpu", "cuda", "mps", "xpu") or text.startswith("cuda:")
            assert not named or place in ("machine/placement.py", "memory/precision.py"), f"{place}: {text}"


def gradients(model: SegmentModel, batch: Batch) -> tuple[dict[str, Tensor], int]:
    """With dropout on, and how many bytes were kept for them."""
    sizes: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    model.train()
    torch.manual_seed(4)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        losses, _ = compute_losses(model, [batch])
    weigh_losses(losses, model).backward()
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}, sum(sizes.values())


@pytest.mark.parametrize(("name", "case", "row"), ROWS)
def test_what_is_recomputed_has_the_same_gradients_and_keeps_less(name: str, case: str, row: str) -> None:
    plain, bytes_kept = gradients(model := model_of(name, case, row), batch := pieces(model, name))
    again, fewer = gradients(Machine(HOST, recompute=True).place(model_of(name, case, row)), batch)
    assert plain.keys() == again.keys()
    for key, gradient in plain.items():
        torch.testing.assert_close(again[key], gradient, rtol=1e-6, atol=1e-9, msg=key)
    assert fewer < 0.9 * bytes_kept


def test_a_run_that_recomputes_is_the_same_run(infty: Infty, tmp_path: Path) -> None:

    found = []
    for name, more in (("kept", ()), ("again", ("--recompute", "--micro-batch", "4"))):
        done = infty("train", "sort", "--scale", "smoke", "--runs", name, "--json", *more)
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout))
        environment = json.loads((tmp_path / name / "sort/smoke/infty@x4/seed-0/environment.json").read_text())
        assert (environment["recompute"], environment["micro_batch"]) == (bool(more), 4 if more else None)
    assert found[0]["metrics"] == pytest.approx(found[1]["metrics"], rel=1e-5)


def test_a_memory_computes_in_full_float32_where_products_are_rounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every product of an update and a read is made while TF32 is off, and it is as before afterwards.

    A GPU is named, not used: on a CPU nothing is switched.
    """
    model = model_of("sort", "x4", "infty-sticky")
    memory = model.memory_layers[0].long_range
    assert isinstance(memory, LongTermMemory)
    seen: list[str] = []
    matmul = torch.backends.cuda.matmul

    class Watched(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if getattr(function, "__name__", "") in ("matmul", "bmm", "linear", "__matmul__", "baddbmm", "einsum"):
                seen.append(str(matmul.fp32_precision))
            return function(*args, **(kwargs or {}))

    monkeypatch.setattr(longterm, "full_precision", lambda _: full_precision(torch.device("cuda:0")))
    before = str(matmul.fp32_precision)
    matmul.fp32_precision = "tf32"
    try:
        length, size = memory.config.segment_length, memory.config.hidden_size
        x = torch.randn(2, length, size)
        with Watched(), torch.no_grad():
            state = memory.update(memory.update(memory.initial_state(2), x), x)
            memory.attend(x, state)
        assert len(seen) > 5
        assert set(seen) == {"ieee"}
        assert matmul.fp32_precision == "tf32"
        with pytest.raises(ValueError, match="whatever"), full_precision(torch.device("cuda:0")):
            raise ValueError("whatever")
        assert matmul.fp32_precision == "tf32"
    finally:
        matmul.fp32_precision = before


def test_tf32_is_refused_where_there_is_no_gpu(infty: Infty) -> None:
    done = infty("train", "sort", "--scale", "smoke", "--precision", "tf32", "--device", "cpu")
    assert (done.returncode, done.stderr) == (2, "infty: precision tf32 is a GPU's, and this is cpu: float32 or bf16\n")


@pytest.mark.parametrize(
    ("name", "count", "launch", "wanted"),
    [
        ("auto", 0, Launch(), "cpu"),
        ("auto", 2, Launch(), "cuda:0"),
        ("cpu", 2, Launch(), "cpu"),
        ("cuda:1", 2, Launch(), "cuda:1"),
        ("auto", 2, Launch(slot=3), "cuda:1"),
        ("auto", 0, Launch(slot=3), "cpu"),
        ("cuda:0", 2, Launch(slot=3), "cuda:0"),
        ("auto", 4, Launch(3, 4, 3, 4), "cuda:3"),
        ("cuda", 8, Launch(9, 16, 1, 8), "cuda:1"),
        ("auto", 0, Launch(1, 2, 1, 2), "cpu"),
        ("auto", 1, Launch(1, 2, 1, 2, by_slurm=True), "cuda:0"),
        ("cuda", 0, Launch(), "torch sees 0 GPUs here; use cpu or auto"),
        ("cuda:2", 2, Launch(), "torch sees 2 GPUs here"),
        ("cuda:1", 2, Launch(1, 2, 1, 2), "use cuda or auto, and each takes its own"),
        ("auto", 1, Launch(1, 2, 1, 2), "2 processes here and 1 GPUs: start as many as those, or use cpu"),
    ],
)
def test_each_process_takes_a_device_of_its_own(
    monkeypatch: pytest.MonkeyPatch, name: str, count: int, launch: Launch, wanted: str
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    if wanted.startswith(("cpu", "cuda")):
        assert str(choose_device(name, launch)) == wanted
    else:
        with pytest.raises(UsageError, match=wanted):
            choose_device(name, launch)


TORCHRUN = {"RANK": "5", "WORLD_SIZE": "6", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "first",
            "MASTER_PORT": "123"}  # fmt: skip
SRUN = {"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "7", "SLURM_LOCALID": "1", "SLURM_NODEID": "2",
        "SLURM_STEP_TASKS_PER_NODE": "2(x2),3", "SLURM_JOB_ID": "41234",
        "SLURM_STEP_ID": "3", "SLURM_STEP_NUM_NODES": "3"}  # fmt: skip


def test_launchers_are_understood() -> None:
    assert read_launch({}) == Launch()
    assert read_launch(TORCHRUN) == Launch(5, 6, 1, 2, "first", 123)
    assert read_launch({**TORCHRUN, "RANK": "0", "WORLD_SIZE": "1"}) == Launch()
    with_address = {**SRUN, "MASTER_ADDR": "node1"}
    assert read_launch(with_address) == Launch(5, 7, 1, 3, "node1", 10_000 + (101 * 41_234 + 3) % 20_000, by_slurm=True)
    assert read_launch({**with_address, **TORCHRUN}) == Launch(5, 6, 1, 2, "first", 123)  # torchrun within a Slurm step
    assert read_launch({"RANK": "3"}) == Launch()  # somebody else's variable
    assert read_launch({**SRUN, "SLURM_STEP_NUM_TASKS": "1", "INFTY_SLOT": "5"}) == Launch(slot=5)
    assert read_launch({"SLURM_NTASKS": "8", "SLURM_PROCID": "0"}) == Launch()  # a batch script's own process
    one = {**SRUN, "SLURM_STEP_NUM_NODES": "1", "SLURM_STEP_TASKS_PER_NODE": "7", "SLURM_NODEID": "0"}
    assert read_launch(one).address == "127.0.0.1"


def test_variables_that_contradict_each_other_are_told_with_their_names() -> None:
    with pytest.raises(UsageError, match=r"process 6 of 6, .*: no such thing; unset RANK, WORLD_SIZE, .* or srun$"):
        read_launch({**TORCHRUN, "RANK": "6"})
    with pytest.raises(UsageError, match=r"process 7 of 7, .*: no such thing; unset SLURM_PROCID, .* or srun$"):
        read_launch({**SRUN, "SLURM_PROCID": "7"})


def test_slurm_is_asked_for_its_first_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "scontrol"
    program.write_text('#!/bin/sh\n[ "$*" = "show hostnames gpu[3-4],gpu9" ] && printf "gpu3\\ngpu4\\ngpu9\\n"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert read_launch({**SRUN, "SLURM_STEP_NODELIST": "gpu[3-4],gpu9"}).address == "gpu3"
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(
        UsageError, match="MASTER_ADDR must name the machine of process 0; to work alone, unset SLURM_PROCID"
    ):
        read_launch(SRUN)


@given(
    st.dictionaries(st.sampled_from([*TORCHRUN, *SRUN]), st.sampled_from(["", "0", "1", "-1", "x", "3(x", "9" * 30]))
)
def test_whatever_the_variables_are_it_is_a_launch_or_one_line(more: dict[str, str]) -> None:
    for base in (TORCHRUN, {**SRUN, "MASTER_ADDR": "node1"}):
        with contextlib.suppress(UsageError):
            found = read_launch({**base, **more})
            assert 0 <= found.rank < found.size
            assert 0 <= found.local_rank < found.local_size <= found.size
