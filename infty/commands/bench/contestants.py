"""Contestants of the bench, each in a fresh process: per line of stdin it runs once and prints seconds and peak bytes.

`python -m infty.commands.bench.contestants '{"kind": "step", …}'`: started by `measures`, not by hand.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from infty.commands.bench import peers, plain
from infty.commands.bench.timing import time_run
from infty.commands.bench.yardstick import build_its_model, compare_steps, draw_tokens, load_yardstick
from infty.config.definition import CellKey, open_experiment
from infty.experiment import Experiment, build_task, resolve
from infty.machine.freed_memory import keep_freed_memory
from infty.machine.idle_threads import watch_idle_threads
from infty.machine.ram import count_peak_bytes
from infty.memory.longterm import LongTermMemory, LongTermMemoryConfig
from infty.memory.precision import HOST
from infty.model.config import DecoderConfig
from infty.model.interface import State
from infty.training.data_parallel import Replica
from infty.training.step import make_optimizer, optimize

Run = Callable[[], Any]
Square = Float[Tensor, "size size"]
KL_WEIGHT, LEARNING_RATE = 1e-6, 2e-4
STREAM_TOKENS, TURNS = 1_000_000, 15
ADAPTING = 10  # steps, together of more than a second
ONCE = ("agree", "stream", "beside")  # what runs once needs no warming up
SHORT, REPEATS = ("read", "update"), 10  # a hundredth of a step, so repeated in a turn with warm caches
MATMUL_SIZES = (1024, 2048, 4096)
SYMBOLS = 20  # of the paper's sorting task
YARDSTICK_VOCABULARY = SYMBOLS + 2  # the separator, and a token that is never seen


@dataclass(frozen=True)
class Spec:
    """A contestant: an operation (`kind`) of an implementation (`who`), and sizes.

    who: a row, one of `PEERS`, or another that the kind knows. against: the yardstick's path. environment: variables
    that it starts with, as NAME=value.
    """

    kind: Literal["step", "read", "update", "stream", "matmul", "data", "agree", "beside", "gpt2", "decode", "alike"]
    who: str = "infty"
    scale: Literal["laptop", "paper"] = "paper"
    threads: int = 2
    length: int = 4000
    batch: int = 2
    heads: int = 6
    queries: int = 1024
    hidden: int = 300
    basis: int = 512
    against: str | None = None
    environment: tuple[str, ...] = ()

    @property
    def command(self) -> list[str]:
        """The command that starts the contestant."""
        start = ["env", *self.environment] if self.environment else []
        return [*start, sys.executable, "-m", "infty.commands.bench.contestants", json.dumps(asdict(self))]


def resolve_paper_experiment(
    model: str, length: int, batch: int, basis: int = 512, dropout: float | None = None
) -> Experiment:
    """Resolve the sorting experiment at the paper's sizes, with N = `basis` and as many slots for every model."""
    memory = [f"model.long_range.num_basis={basis}", f"model.long_range.kl_weight={KL_WEIGHT}"]
    slots = memory if model == "infty" else [f"model.short_term_length={1024 + basis}"]
    overrides = [*slots, f"task.length={length}", f"training.batch_size={batch}"]
    overrides += [] if dropout is None else [f"model.dropout={dropout}"]
    return resolve(open_experiment("sort", Path()), CellKey("sort", "paper", model, "x4", 0), overrides).experiment


def resolve_alike(scale: Literal["laptop", "paper"], model: str = "infty") -> Experiment:
    """Resolve the sorting experiment of which peers take steps as well, without dropout: x8, or the paper's sizes."""
    if scale == "laptop":
        return resolve(open_experiment("sort", Path()), CellKey("sort", scale, model, "x8", 0)).experiment
    return resolve_paper_experiment(model, 4000, 2, dropout=0.0)


def read_paper_decoder() -> DecoderConfig:
    """Read the sizes of the ∞-former that sorts at the paper's sizes."""
    return DecoderConfig.model_validate(resolve_paper_experiment("infty", 4000, 2).model.model_dump())


def make_run(spec: Spec) -> Run:
    """Make the function that runs a contestant once."""
    torch.manual_seed(0)
    match spec.kind, spec.who:
        case "step", "yardstick":
            return _make_yardstick_step(spec)
        case "step", _:
            return _make_step(spec)
        case "alike", who if who in peers.PEERS:
            return peers.make_step(who, resolve_alike(spec.scale))
        case "alike", _:
            return _make_step_of(resolve_alike(spec.scale, spec.who))
        case "read" | "update", _:
            return _make_memory_run(spec)
        case "matmul", _:
            products = [partial(_multiply, *torch.randn(3, size, size)) for size in MATMUL_SIZES]
            return min(products, key=lambda run: min(time_run(run) for _ in range(3)))
        case "stream", _:
            return _make_stream()
        case "beside", _:
            return _make_run_beside()
        case "gpt2" | "decode", _:
            return _make_generation(spec)
        case "data", _:
            experiment = resolve_paper_experiment("infty", spec.length, spec.batch)
            return lambda: build_task(experiment, Path()).training_batch(0, spec.batch, 0)  # which keeps none yet
        case "agree", _:
            module = load_yardstick(Path(spec.against or ""))
            return lambda: compare_steps(module, read_paper_decoder(), YARDSTICK_VOCABULARY, spec.length, spec.batch)


def _make_generation(spec: Spec) -> Run:
    from infty.commands.bench import generation  # loads transformers: 140 MB that others' peaks are not to hold

    if spec.kind == "decode":
        return generation.make_decoder(spec.length, again=spec.who == "again")
    return (generation.make_hugging_face if spec.who == "hugging-face" else generation.make_gpt2)(spec.length)


def _make_step(spec: Spec) -> Run:
    return _make_step_of(resolve_paper_experiment(spec.who, spec.length, spec.batch, spec.basis))


def _make_step_of(experiment: Experiment) -> Run:
    task = build_task(experiment, Path())
    model = experiment.model.build(task.vocab_size, seed=0)
    optimizer = make_optimizer(model, LEARNING_RATE)
    replica = Replica(model)
    return lambda: optimize(replica, optimizer, task, experiment.training, 0, 0)


def _make_run_beside() -> Run:
    """Make a run of laptop's sorting steps, in peace and then beside a program that keeps one CPU busy."""
    experiment = resolve(open_experiment("sort", Path()), CellKey("sort", "laptop", "infty", "x8", 0)).experiment
    step = _make_step_of(experiment)
    watch_idle_threads()

    def time_steps() -> float:
        """Time a step, after those in which idle threads adapt."""
        for _ in range(ADAPTING):
            step()
        return statistics.median(time_run(step) for _ in range(TURNS))

    def run() -> dict[str, float]:
        quiet = time_steps()
        with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
            try:
                return {"seconds": quiet, "beside_seconds": time_steps()}
            finally:
                busy.kill()

    return run


def _make_yardstick_step(spec: Spec) -> Run:
    module, sizes = load_yardstick(Path(spec.against or "")), read_paper_decoder()
    model = build_its_model(module, sizes, YARDSTICK_VOCABULARY, sizes.dropout)
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    tokens = draw_tokens(YARDSTICK_VOCABULARY, spec.length, spec.batch)
    return lambda: module.step(model, optimizer, tokens, spec.length)


def _make_memory_run(spec: Spec) -> Run:
    """Make a read, forward from given coefficients and backward, or an update, which is a refit without gradient."""
    # Queries and vectors are random: no time depends on them.
    reading = spec.kind == "read"
    queries = torch.randn(spec.batch, spec.queries if reading else 1, spec.hidden, requires_grad=reading)
    cotangent = torch.randn(queries.shape)
    length = 2 if reading and spec.who == "yardstick" else 1024  # it reads only after an update, so that one is tiny
    evicted = torch.randn(spec.batch, length, spec.hidden)

    # The yardstick reads and updates in one call.
    if spec.who == "yardstick":
        theirs = load_yardstick(Path(spec.against or "")).LiteralMemory(spec.hidden, spec.heads, 512, length)
        if reading:
            return lambda: _propagate(theirs(evicted, queries, None), cotangent, [queries, *theirs.parameters()])
        past = torch.randn(spec.batch, 512, spec.hidden)
        return torch.no_grad()(lambda: theirs(evicted, queries, past))

    # Ours is updated once before, so that there is a signal to refit or read.
    config = LongTermMemoryConfig(
        hidden_size=spec.hidden, num_heads=spec.heads, segment_length=length, num_basis=512, num_samples=512
    )
    memory = LongTermMemory(config)
    state = memory.update(memory.initial_state(spec.batch), evicted).detach()
    plainly = spec.who == "plain"

    # Both are timed as they are called in training, or by the plain equations.
    if not reading:
        update = plain.make_update(memory) if plainly else memory.update
        return torch.no_grad()(lambda: update(state, evicted))
    state = replace(state, coefficients=state.coefficients.requires_grad_())
    attend = partial(plain.attend, memory) if plainly else memory.attend

    def read() -> None:
        context, density = attend(queries, state)
        _propagate((context, memory.kl(density, state)), cotangent, [queries, state.coefficients, *memory.parameters()])

    return read


def _make_stream() -> Run:
    """Make a run of a million symbols in one stream, which then times segments at both ends in turns."""
    experiment = resolve_paper_experiment("infty", 4000, 1)
    length = experiment.model.segment_length
    model, segments = experiment.model.build(SYMBOLS + 1, seed=0).eval(), -(-STREAM_TOKENS // length)
    positions = model.positions()

    def advance(state: State, more: int) -> State:
        for _ in range(more):
            state = model(torch.randint(0, SYMBOLS, (1, length)), state, positions, wanted=0).state
        return state

    @torch.no_grad()
    def run() -> dict[str, Any]:
        # Read the stream; by segment 20 all that is ever held in memory has been allocated.
        early = late = advance(model.initial_state(torch.zeros(1, dtype=torch.int64)), 10)
        early_peak = 0
        for number in range(10, segments):
            early_peak = count_peak_bytes(HOST) if number == 20 else early_peak
            late = advance(late, 1)
        growth = count_peak_bytes(HOST) - early_peak

        # Time segments at both ends.
        ends = [partial(advance, state, 10) for state in (early, late)]
        turns = [[time_run(end) / 10 for end in ends] for _ in range(TURNS)]
        return {
            "segments": segments,
            "early_segment_seconds": statistics.median(seconds for seconds, _ in turns),
            "late_segment_seconds": statistics.median(seconds for _, seconds in turns),
            "late_to_early": statistics.median(slow / quick for quick, slow in turns),
            "growth_bytes": growth,
        }

    return run


def _propagate(read: tuple[Tensor, ...], cotangent: Tensor, inputs: list[Tensor]) -> None:
    """Compute the gradients of all inputs afresh, as in a training step."""
    for tensor in inputs:
        tensor.grad = None
    context, kl, *_ = read
    ((context * cotangent).sum() + KL_WEIGHT * kl).backward()


def _multiply(a: Square, b: Square, out: Square) -> dict[str, float]:
    """Multiply square matrices, smaller ones more often, so that all sizes take the same number of operations."""
    size, repeats = len(a), 4096**3 // len(a) ** 3
    for _ in range(repeats):
        torch.mm(a, b, out=out)
    return {"operations": 2.0 * size**3 * repeats, "size": size}


def main() -> None:
    """Make the contestant, warm it up, and run it once for every line on stdin, until nobody reads the answers."""
    spec = Spec(**json.loads(sys.argv[1]))
    torch.set_num_threads(spec.threads)
    keep_freed_memory()
    run, repeats, returned = make_run(spec), REPEATS if spec.kind in SHORT else 1, None
    for _ in range(0 if spec.kind in ONCE else 2):
        run()
    try:
        print("ready", flush=True)
        for _ in sys.stdin:
            start = time.perf_counter()
            for _ in range(repeats):
                returned = run()
            seconds = (time.perf_counter() - start) / repeats
            facts = returned if isinstance(returned, dict) else {}
            print(json.dumps({"seconds": seconds, "peak_bytes": count_peak_bytes(HOST), **facts}), flush=True)
    except BrokenPipeError:  # the parent process is gone; an ordinary exit would write the rest
        os._exit(1)


if __name__ == "__main__":
    main()
