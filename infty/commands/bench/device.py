"""Measure a training step on one device: rows and precisions in one process, and attention beside other kernels."""

import gc
import statistics
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from infty.commands.bench.timing import time_run
from infty.config.definition import SHIPPED, CellKey, open_experiment
from infty.experiment import Experiment, build_task, resolve
from infty.machine.placement import Machine, Precision, is_gpu
from infty.machine.ram import count_peak_bytes, forget_peak
from infty.memory.precision import round_products
from infty.model.fast.relative_fused import AVAILABLE, FAULTS, attend_in_kernels
from infty.model.fast.relative_tiled import attend_in_tiles
from infty.model.relative_attention import attend_plainly, relative_shift
from infty.model.short_term import KeyValue
from infty.training.ahead import Ahead
from infty.training.data_parallel import Replica
from infty.training.recorded import BEFORE
from infty.training.step import make_optimizer, optimize

ROWS = ("infty", "transformer-xl", "compressive")
PRECISIONS: tuple[Precision, ...] = ("float32", "tf32", "bf16")
WARM, TIMED = BEFORE + 2, 20  # steps: what is recorded is, before they are timed
PRODUCTS = ("gemm", "cutlass", "xmma", "wgmma", "attend", "go_back_to", "fmha", "flash")  # in the names of kernels
SHOWN = 15  # kernels that are named, the dearest


@dataclass(frozen=True)
class Figures:
    """What was measured of something that is done again and again."""

    milliseconds: float  # the median
    peak_megabytes: int
    kernels: int  # launched by one; 0 if torch's profiler sees no GPU
    products: float  # share of the kernels' time in products and attention
    dearest: dict[str, float]  # milliseconds of the dearest kernels by name


def measure(act: Callable[[], Any], device: torch.device, times: int = TIMED) -> Figures:
    """Measure an act that was done before, so that all it needs is loaded."""
    forget_peak(device)
    seconds = [time_run(partial(_wait_for, act, device)) for _ in range(times)]
    peak = count_peak_bytes(device)
    milliseconds, launched = profile(act, device)
    whole, in_products = sum(milliseconds.values()), 0.0
    for name, spent in milliseconds.items():
        in_products += spent * any(part in name.lower() for part in PRODUCTS)
    return Figures(
        milliseconds=1e3 * statistics.median(seconds),
        peak_megabytes=peak >> 20,
        kernels=launched,
        products=in_products / whole if whole else 0.0,
        dearest={name[:120]: round(spent, 4) for name, spent in milliseconds.most_common(SHOWN)},
    )


def _wait_for(act: Callable[[], Any], device: torch.device) -> None:
    act()
    if is_gpu(device):
        torch.cuda.synchronize(device)


def profile(act: Callable[[], Any], device: torch.device) -> tuple[Counter[str], int]:
    """Profile one act on a GPU: milliseconds by kernel, and how many were launched."""
    spent: Counter[str] = Counter()
    if not is_gpu(device):
        return spent, 0
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as found:
        _wait_for(act, device)
    kernels = [event for event in found.events() or () if event.device_type.name == "CUDA"]
    for event in kernels:
        spent[event.name] += event.device_time_total / 1e3
    return spent, len(kernels)


def prepare_step(experiment: Experiment, machine: Machine) -> Callable[[], Any]:
    """Prepare a function that takes one training step after the other."""
    task, steps = build_task(experiment, SHIPPED), count()
    model = machine.place(experiment.model.build(task.vocab_size, seed=0))
    optimizer = make_optimizer(model, experiment.training.learning_rate)
    replica, data = Replica(model), Ahead(task, 10**6)

    def step() -> None:
        optimize(replica, optimizer, data, experiment.training, next(steps), 0)

    for _ in range(WARM):
        step()
    return step


def measure_steps(device: torch.device, scale: str = "paper") -> Iterator[tuple[str, Precision, Figures]]:
    """Measure a step of sorting x4 of each row in each precision that the device has."""
    for row in ROWS:
        experiment = resolve(open_experiment("sort", SHIPPED), CellKey("sort", scale, row, "x4")).experiment
        for precision in _list_precisions(device):
            _round(precision, device)
            gc.collect()  # the model before is of no use
            forget_peak(device)
            step = prepare_step(experiment, Machine(device, precision))
            peak = count_peak_bytes(device)  # of steps that were not recorded yet: a replay takes none by torch's count
            yield row, precision, replace(measure(step, device), peak_megabytes=peak >> 20)


def _list_precisions(device: torch.device) -> list[Precision]:
    return [precision for precision in PRECISIONS if is_gpu(device) or precision != "tf32"]


def _round(precision: Precision, device: torch.device) -> None:
    if is_gpu(device):
        round_products("tf32" if precision == "tf32" else "ieee")


Attended = Float[Tensor, "b h t d"]
Attend = Callable[[Attended, Attended, Float[Tensor, "b h d k"], Attended, Float[Tensor, "h d places"]], Attended]


def attend_by_torch(
    content: Attended,
    position: Attended,
    key: Float[Tensor, "b h d k"],
    value: Float[Tensor, "b h k d"],
    encoding: Float[Tensor, "h d places"],
) -> Attended:
    """Attend by torch's fused attention, with the position scores, made in full, as its mask."""
    scores = relative_shift(position @ encoding[..., :-1])  # b h t k
    t, k = scores.shape[2:]
    future = torch.ones(t, k, dtype=torch.bool, device=scores.device).triu(1 + k - t)
    return F.scaled_dot_product_attention(
        content, key.mT, value, attn_mask=scores.masked_fill(future, -torch.inf), scale=1.0
    )


def _attend_plainly(content: Tensor, position: Tensor, key: Tensor, value: Tensor, encoding: Tensor) -> Tensor:
    return attend_plainly(content, position, KeyValue(key, value), encoding, torch.nn.Identity())


def measure_attention(
    device: torch.device, sizes: tuple[int, int, int, int, int] = (8, 6, 1024, 2048, 50)
) -> Iterator[tuple[str, Precision, Figures]]:
    """Measure relative attention forward and backward. sizes: batch, heads, queries, keys, numbers of a head."""
    ways: dict[str, Attend] = {"tiles": attend_in_tiles, "plain": _attend_plainly, "torch": attend_by_torch}
    if AVAILABLE and is_gpu(device):
        ways["kernels"] = attend_in_kernels
    b, heads, t, k, size = sizes
    for precision in _list_precisions(device):
        _round(precision, device)
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        shapes = (b, heads, t, size), (b, heads, t, size), (b, heads, size, k), (b, heads, k, size)
        made = [torch.randn(*shape, device=device, dtype=dtype) for shape in (*shapes, (heads, size, k + 1))]
        given = [part.requires_grad_() for part in made]
        for name, attend in ways.items():
            if name == "kernels" and precision == "float32":  # exact products spill registers
                continue

            def run(attend: Attend = attend, given: list[Tensor] = given) -> None:
                read = attend(*given)
                torch.autograd.grad(read, given, torch.ones_like(read))

            for _ in range(3):
                run()
            if name == "kernels" and FAULTS:  # tiles in their place
                continue
            yield name, precision, measure(run, device)
