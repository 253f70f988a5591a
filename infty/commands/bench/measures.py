"""The measures of `infty bench`: each a ratio with its parts, and the mark it is to reach."""

import json
import logging
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial, partialmethod
from pathlib import Path
from typing import Any, Literal

import torch

from infty.base.errors import InftyError, UsageError
from infty.commands.bench import device
from infty.commands.bench.contestants import SYMBOLS, Spec, read_paper_decoder, resolve_paper_experiment
from infty.commands.bench.peers import PEERS, find_versions
from infty.commands.bench.products import count_step_products
from infty.commands.bench.timing import time_run
from infty.commands.bench.yardstick import load_yardstick
from infty.machine.launch import Launch
from infty.machine.placement import Machine, choose_device
from infty.memory.precision import HOST

logger = logging.getLogger(__name__)

# b, H, queries and E of the two readings and updates that are timed, at N = M = 512 and L = 1,024
SIZES = {
    "hidden 300": Spec("read", batch=2, heads=6, queries=1024, hidden=300),
    "hidden 768": Spec("read", batch=1, heads=12, queries=512, hidden=768),
}


# Rows of sort
MEMORIES = ("transformer-xl", "compressive", "infty", "infty-softmax", "mean", "delta", "slots", "cache")


@dataclass(frozen=True)
class Rotation:
    """The figures of each contestant's runs, in order."""

    laps: dict[str, list[dict[str, Any]]]

    def find_median(self, name: str) -> float:
        """Find the median seconds of a contestant's runs."""
        return statistics.median(lap["seconds"] for lap in self.laps[name])

    def find_peak(self, name: str) -> int:
        """Find the most bytes that a contestant's process held."""
        return self.laps[name][-1]["peak_bytes"]

    def compare(self, name: str, other: str) -> float:
        """Find the median, over the rounds, of the ratio of seconds of `name` to those of `other`."""
        pairs = zip(self.laps[name], self.laps[other], strict=True)
        return statistics.median(lap["seconds"] / against["seconds"] for lap, against in pairs)

    def collect_parts(self) -> dict[str, Any]:
        """Collect the median seconds and the peak memory of each contestant."""
        seconds = {f"{name}_seconds": self.find_median(name) for name in self.laps}
        return seconds | {f"{name}_peak_mb": round(self.find_peak(name) / 2**20) for name in self.laps}


def rotate(commands: dict[str, list[str]], rounds: int) -> Rotation:
    """Start the contestants one by one, and let them take turns, A B C C B A A B C …, so slow phases hit all alike.

    commands: by name; each prints a line when it is ready, and answers every line on its stdin with a line of JSON.

    Raises:
        InftyError: One of them dies.
    """
    laps, processes = Rotation({name: [] for name in commands}), {}
    with ExitStack() as stack:
        for name, command in commands.items():
            pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            process = subprocess.Popen(command, **pipes, start_new_session=True)  # Ctrl-C is for us alone
            processes[name] = stack.enter_context(process)
            stack.callback(process.kill)
            logger.info(f"starting {name}")
            _read_line(name, process)
        for number in range(rounds):
            for name in list(processes)[:: -1 if number % 2 else 1]:
                logger.info(f"round {number + 1} of {rounds}: {name}")
                with suppress(BrokenPipeError):  # it ended, as the missing answer will tell
                    os.write(processes[name].stdin.fileno(), b"go\n")
                laps.laps[name].append(json.loads(_read_line(name, processes[name])))
    return laps


def _read_line(name: str, process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    if line := process.stdout.readline():
        return line
    raise InftyError(f"{name} ended with exit code {process.wait()}; what it said stands above")


@dataclass(frozen=True)
class Measure:
    """One figure: a ratio, or what the name says; and the mark it is to reach or not to exceed, if there is one."""

    name: str
    value: float
    parts: dict[str, Any]
    bound: Literal["at least", "at most"] = "at least"
    mark: float | None = None

    @property
    def met(self) -> bool | None:
        """True if the mark is reached, False if not; None if there is none."""
        if self.mark is None:
            return None
        return self.value >= self.mark if self.bound == "at least" else self.value <= self.mark

    def document(self) -> dict[str, Any]:
        """Describe the measure for JSON, with `met`."""
        return {**asdict(self), "met": self.met}

    def format_line(self) -> str:
        """Format the measure as one line for the screen."""
        verdict = "" if self.mark is None else f"  ({self.bound} {self.mark:g}: {'yes' if self.met else 'no'})"
        return f"{self.name}: {self.value:.4g}{verdict}"


@dataclass(frozen=True)
class Bench:
    """The setting of a bench: the yardstick's file, if any, the sizes of a step, rounds and threads."""

    against: Path | None
    length: int
    batch: int
    rounds: int
    threads: int
    on: str | None = None  # the device's name; None: this CPU

    @cached_property
    def device(self) -> torch.device:
        """Choose the device. UsageError if it is not there."""
        return choose_device(self.on, Launch()) if self.on else HOST

    def environment(self) -> dict[str, Any]:
        """Describe the versions and the machine that it runs on."""
        return {**Machine(self.device).describe_environment(), "threads": self.threads}

    def steps_on_device(self) -> Iterator[Measure]:
        """Measure a GPU's steps in milliseconds, of each row in each precision, and attention beside other kernels."""
        for row, precision, found in device.measure_steps(self.device):
            claim, mark = f"{row} x4, {precision}", {"infty": 12.0}.get(row) if precision == "tf32" else None
            yield Measure(f"step: ms, {claim}", found.milliseconds, asdict(found), "at most", mark)
            least = 0.4 if mark else None
            yield Measure(f"step: share of products and attention, {claim}", found.products, {}, mark=least)
        plain: dict[str, device.Figures] = {}
        for way, precision, found in device.measure_attention(self.device):
            claim = f"{way}, {precision}"
            yield Measure(f"attention: ms, {claim}", found.milliseconds, asdict(found))
            plain |= {precision: found} if way == "plain" else {}
            if way == "kernels":
                share = found.peak_megabytes / max(plain[precision].peak_megabytes, 1)
                yield Measure(f"attention: peak memory to plain, {claim}", share, {}, "at most", 0.5)

    def step(self) -> Iterator[Measure]:
        """Measure a training step of the sorting task at the paper's sizes."""
        size = Spec("step", length=self.length, batch=self.batch)
        specs = {"infty": size, "transformer-xl": replace(size, who="transformer-xl"), "matmul": Spec("matmul")}
        if self.against:
            (found,) = self._rotate({"agree": replace(size, kind="agree")}, rounds=1).laps["agree"]
            parts = {key: found[key] for key in ("loss", "gradient", "worst_parameter")}
            worst = max(parts["loss"], parts["gradient"])
            yield Measure("step: relative difference to yardstick", worst, parts, "at most", 1e-5)
            specs["yardstick"] = replace(size, who="yardstick")
        laps = self._rotate(specs)
        parts = laps.collect_parts()
        if self.against:
            yield Measure("step: times as fast as yardstick", laps.compare("yardstick", "infty"), parts, mark=2.5)
            memory = laps.find_peak("infty") / laps.find_peak("yardstick")
            yield Measure("step: peak memory to yardstick", memory, parts, "at most", 0.6)
        yield self._compare_slots(laps, 512)
        yield from self._measure_shares(laps)
        larger = {who: replace(size, who=who, basis=1024) for who in ("infty", "transformer-xl")}
        yield self._compare_slots(self._rotate(larger), 1024)

    def stream(self) -> Iterator[Measure]:
        """Measure a million tokens in one stream through a model of the paper's sizes."""
        (pace,) = self._rotate({"stream": Spec("stream", batch=1)}, rounds=1).laps["stream"]
        yield Measure("stream: time of late segments to the 10th to 20th", pace["late_to_early"], pace, "at most", 1.05)
        yield Measure("stream: MB more at the end", pace["growth_bytes"] / 1e6, pace, "at most", 20.0)

    def data(self) -> Iterator[Measure]:
        """Measure how many times faster sequences are made than trained on."""
        laps = self._rotate({kind: Spec(kind, length=8000, batch=self.batch) for kind in ("data", "step")})
        made = laps.compare("step", "data")
        yield Measure("data: sequences made to trained, 8,000 symbols", made, laps.collect_parts(), mark=20.0)

    def beside(self) -> Iterator[Measure]:
        """Measure laptop's sorting step beside a busy program, against idle threads that only spin or only sleep."""
        policies = {"infty": (), "spinning": ("GOMP_SPINCOUNT=300000",), "sleeping": ("OMP_WAIT_POLICY=passive",)}
        laps = self._rotate({name: Spec("beside", environment=policy) for name, policy in policies.items()})
        kept = {
            name: statistics.median(lap["seconds"] / lap["beside_seconds"] for lap in laps.laps[name])
            for name in policies
        }
        parts = {**laps.collect_parts(), **{f"{name}_kept": share for name, share in kept.items()}}
        yield Measure("beside: speed kept beside a busy program", kept["infty"], parts, mark=0.5)
        yield Measure(
            "beside: speed alone to threads that only spin", laps.compare("spinning", "infty"), parts, mark=0.97
        )

    def generate(self) -> Iterator[Measure]:
        """Measure a token that is generated after some of its segment: of a GPT-2 with a memory, and of our decoder."""
        from infty.commands.bench.generation import TOKENS  # loads transformers

        for begun in (100, 400):
            size = Spec("gpt2", length=begun)
            laps = self._rotate({"infty": size, "hugging-face": replace(size, who="hugging-face")})
            name = f"generate, GPT-2 small with a memory, after {begun} tokens: times as fast as Hugging Face's cache"
            yield Measure(name, laps.compare("hugging-face", "infty"), laps.collect_parts(), mark=0.9)
        for begun, mark in ((75, 2.5), (150 - TOKENS - 1, 3.0)):
            size = Spec("decode", length=begun)
            laps = self._rotate({"infty": size, "again": replace(size, who="again")})
            name = f"generate, WikiText's sizes, after {begun} tokens: times as fast as reading them again"
            yield Measure(name, laps.compare("again", "infty"), laps.collect_parts(), mark=mark)

    def peers(self) -> Iterator[Measure]:
        """Measure a training step of sorting beside those of other packages at the same sizes, without dropout."""
        versions = find_versions()
        scales: dict[Literal["laptop", "paper"], str] = {"laptop": "laptop's x8", "paper": "the paper's sizes"}
        for scale, sizes in scales.items():
            laps = self._rotate({who: Spec("alike", who, scale) for who in ("infty", "transformer-xl", *PEERS)})
            tokens = laps.laps["infini"][0]["tokens"]
            parts = laps.collect_parts()
            parts |= {f"{who}_tokens_per_second": round(tokens / laps.find_median(who)) for who in laps.laps}
            for name, peer in PEERS.items():
                claim = f"peers, {sizes}: times as fast as {peer.package} {versions[name]} ({peer.without})"
                goal = 1.5 if (scale, name) == ("laptop", "infini") else None
                yield Measure(claim, laps.compare(name, "infty"), parts, mark=goal)

    def memories(self) -> Iterator[Measure]:
        """Measure a training step of sorting with each memory, beside Infini-attention's package at the same sizes."""
        name = f"{PEERS['infini'].package} {find_versions()['infini']}"
        laps = self._rotate({who: Spec("alike", who, "laptop") for who in ("infini", *MEMORIES)})
        parts, marks = laps.collect_parts(), {"delta": 1.0, "slots": 1.0}
        for row in MEMORIES:
            claim = f"memories, laptop's x8: {row}, times as fast as {name}"
            yield Measure(claim, laps.compare("infini", row), parts, mark=marks.get(row))
        ceiling = "memories, laptop's x8: cache, time to Transformer-XL"
        yield Measure(ceiling, laps.compare("cache", "transformer-xl"), parts, "at most", 1.5)

    def start(self) -> Iterator[Measure]:
        """Measure the seconds of `infty --help`."""
        run = partial(subprocess.run, [sys.executable, "-m", "infty", "--help"], check=True, capture_output=True)
        seconds = [time_run(run) for _ in range(self.rounds + 1)][1:]
        middle = statistics.median(seconds)
        yield Measure("start: seconds of infty --help", middle, {"seconds": seconds}, "at most", 0.4)

    def _measure_memory(self, kind: Literal["read", "update"], mark: float | None) -> Iterator[Measure]:
        """Measure reading, forward and backward, or an update without gradient: contract, append and refit."""
        rivals: tuple[Literal["plain", "yardstick"], ...] = ("plain", "yardstick") if self.against else ("plain",)
        for name, size in SIZES.items():
            laps = self._rotate({who: replace(size, kind=kind, who=who) for who in ("infty", *rivals)})
            for rival in rivals:
                claim, held = f"{kind}, {name}: times as fast as {rival}", mark if rival == rivals[-1] else None
                yield Measure(claim, laps.compare(rival, "infty"), laps.collect_parts(), mark=held)

    read = partialmethod(_measure_memory, "read", mark=3.0)
    update = partialmethod(_measure_memory, "update", mark=None)

    def _compare_slots(self, laps: Rotation, basis: int) -> Measure:
        """Compare with Transformer-XL at as many memory slots: N = 512 (the authors' code) or 1,024 (the paper)."""
        name = f"step: time to Transformer-XL with as many slots, N {basis}"
        return Measure(name, laps.compare("infty", "transformer-xl"), laps.collect_parts(), "at most", 1.0)

    def _measure_shares(self, laps: Rotation) -> Iterator[Measure]:
        """Compare the needed products per second with those that square matrices reach here."""
        full, done = count_step_products(read_paper_decoder(), SYMBOLS + 1, self.length + SYMBOLS, SYMBOLS, self.batch)
        product = laps.laps["matmul"][0]["operations"]
        peak = product / laps.find_median("matmul")
        for name, operations, mark in (("all layers whole", full, 0.45), ("last layer where it is read", done, None)):
            parts = {"operations": operations, "peak_operations_per_second": peak, "seconds": laps.find_median("infty")}
            share = operations / product * laps.compare("matmul", "infty")
            yield Measure(f"step: share of matmul peak, {name}", share, parts, mark=mark)

    def _rotate(self, specs: dict[str, Spec], rounds: int | None = None) -> Rotation:
        against = str(self.against.resolve()) if self.against else None
        specs = {name: replace(spec, threads=self.threads, against=against) for name, spec in specs.items()}
        return rotate({name: spec.command for name, spec in specs.items()}, rounds or self.rounds)


MEASURES = ("step", "read", "update", "stream", "data", "beside", "generate", "start")
EXTRA = ("peers", "memories")  # what wants packages of an extra is measured if it is named


def run_measures(bench: Bench, wanted: list[str]) -> Iterator[Measure]:
    """Run the wanted measures, or all that need no extra.

    Raises:
        UsageError: A measure or size can't be. Nothing is timed then.
        MissingError: A file or a package isn't there; likewise.
    """
    if unknown := [name for name in wanted if name not in MEASURES + EXTRA]:
        raise UsageError(f"no measure {unknown[0]!r}; there is {', '.join(MEASURES + EXTRA)}")
    resolve_paper_experiment("infty", bench.length, bench.batch)
    if bench.device != HOST:
        if wanted != ["step"]:
            raise UsageError(f"--device {bench.device} is for: infty bench step")
        yield from bench.steps_on_device()
        return
    if bench.against:
        load_yardstick(bench.against)
    if set(EXTRA) & {*wanted}:
        find_versions()
    for name in wanted or MEASURES:
        yield from getattr(bench, name)()
