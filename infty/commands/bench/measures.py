"""The measures of `infty bench`: each a ratio with its parts, and the mark it is to reach."""

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from infty.base.errors import UsageError
from infty.commands.bench.contestants import SYMBOLS, Spec, paper_decoder, paper_experiment
from infty.commands.bench.products import count_step_products
from infty.commands.bench.rotation import Rotation, contestant, rotate
from infty.commands.bench.yardstick import load_yardstick
from infty.machine.environment import describe_environment
from infty.machine.placement import Machine
from infty.memory.precision import HOST

# b, H, queries and E of the two readings and updates that are timed, at N = M = 512 and L = 1,024
SIZES = {
    "hidden 300": Spec("read", batch=2, heads=6, queries=1024, hidden=300),
    "hidden 768": Spec("read", batch=1, heads=12, queries=512, hidden=768),
}


@dataclass(frozen=True)
class Measure:
    """One figure and the mark it is to reach.

    value: a ratio, or what the name says. mark: what it is to be at least or at most; None: it is only told.
    """

    name: str
    value: float
    parts: dict[str, Any]
    bound: Literal["at least", "at most"] = "at least"
    mark: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the mark is reached; None where there is none."""
        if self.mark is None:
            return None
        return self.value >= self.mark if self.bound == "at least" else self.value <= self.mark

    def document(self) -> dict[str, Any]:
        """The measure as JSON holds it, with whether its mark is reached."""
        return {**asdict(self), "met": self.met}

    def line(self) -> str:
        """The measure in one line for the screen."""
        verdict = "" if self.mark is None else f"  ({self.bound} {self.mark:g}: {'yes' if self.met else 'no'})"
        return f"{self.name}: {self.value:.4g}{verdict}"


@dataclass(frozen=True)
class Bench:
    """What is timed: the yardstick's file if there is one, the size of a step, how often, on how many threads."""

    against: Path | None
    length: int
    batch: int
    rounds: int
    threads: int

    def environment(self) -> dict[str, Any]:
        """What it is measured with."""
        return {**describe_environment(Machine(HOST)), "threads": self.threads}

    def step(self) -> Iterator[Measure]:
        """A training step of the sorting task at the paper's sizes."""
        size = Spec("step", length=self.length, batch=self.batch)
        specs = {"infty": size, "transformer-xl": replace(size, who="transformer-xl"), "matmul": Spec("matmul")}
        if self.against:
            (found,) = self._rotate({"agree": replace(size, kind="agree")}, rounds=1).laps["agree"]
            parts = {key: found[key] for key in ("loss", "gradient", "worst_parameter")}
            worst = max(parts["loss"], parts["gradient"])
            yield Measure("step: relative difference to yardstick", worst, parts, "at most", 1e-5)
            specs["yardstick"] = replace(size, who="yardstick")
        laps = self._rotate(specs)
        parts = _parts(laps)
        if self.against:
            yield Measure("step: times as fast as yardstick", laps.ratio("yardstick", "infty"), parts, mark=2.5)
            memory = laps.peak_bytes("infty") / laps.peak_bytes("yardstick")
            yield Measure("step: peak memory to yardstick", memory, parts, "at most", 0.6)
        yield self._slots(laps, 512)
        yield from self._shares(laps)
        larger = {who: replace(size, who=who, basis=1024) for who in ("infty", "transformer-xl")}
        yield self._slots(self._rotate(larger), 1024)

    def read(self) -> Iterator[Measure]:
        """Reading the long-term memory, forward and backward."""
        yield from self._memory("read", mark=3.0)

    def update(self) -> Iterator[Measure]:
        """Contract, append and refit, without gradient."""
        yield from self._memory("update", mark=None)

    def stream(self) -> Iterator[Measure]:
        """A million tokens through a model of the paper's sizes, one stream."""
        (pace,) = self._rotate({"stream": Spec("stream", batch=1)}, rounds=1).laps["stream"]
        yield Measure("stream: time of late segments to the 10th to 20th", pace["late_to_early"], pace, "at most", 1.05)
        yield Measure("stream: MB more at the end", pace["growth_bytes"] / 1e6, pace, "at most", 20.0)

    def data(self) -> Iterator[Measure]:
        """How many times as quickly sequences are made as trained on."""
        laps = self._rotate({kind: Spec(kind, length=8000, batch=self.batch) for kind in ("data", "step")})
        made = laps.ratio("step", "data")
        yield Measure("data: sequences made to trained, 8,000 symbols", made, _parts(laps), mark=20.0)

    def start(self) -> Iterator[Measure]:
        """Seconds of `infty --help`."""
        seconds = [_seconds([sys.executable, "-m", "infty", "--help"]) for _ in range(self.rounds + 1)][1:]
        yield Measure(
            "start: seconds of infty --help", statistics.median(seconds), {"seconds": seconds}, "at most", 0.4
        )

    def _memory(self, kind: Literal["read", "update"], mark: float | None) -> Iterator[Measure]:
        rivals: tuple[Literal["plain", "yardstick"], ...] = ("plain", "yardstick") if self.against else ("plain",)
        for name, size in SIZES.items():
            specs = {who: replace(size, kind=kind, who=who) for who in ("infty", *rivals)}
            laps = self._rotate(specs)
            for rival in rivals:
                held = mark if rival == rivals[-1] else None
                yield Measure(f"{kind}, {name}: times as fast as {rival}", laps.ratio(rival, "infty"), _parts(laps),
                              mark=held)  # fmt: skip

    def _slots(self, laps: Rotation, basis: int) -> Measure:
        """What the memory costs beside more short-term memory, N = 512 (the authors' code) and 1,024 (the paper)."""
        name = f"step: time to Transformer-XL with as many slots, N {basis}"
        return Measure(name, laps.ratio("infty", "transformer-xl"), _parts(laps), "at most", 1.0)

    def _shares(self, laps: Rotation) -> Iterator[Measure]:
        """Needed products in a second to those that square matrices reach here."""
        full, done = count_step_products(paper_decoder(), SYMBOLS + 1, self.length + SYMBOLS, SYMBOLS, self.batch)
        product = laps.laps["matmul"][0]["operations"]
        peak = product / laps.seconds("matmul")
        for name, operations, mark in (("all layers whole", full, 0.45), ("last layer where it is read", done, None)):
            parts = {"operations": operations, "peak_operations_per_second": peak, "seconds": laps.seconds("infty")}
            share = operations / product * laps.ratio("matmul", "infty")
            yield Measure(f"step: share of matmul peak, {name}", share, parts, mark=mark)

    def _rotate(self, specs: dict[str, Spec], rounds: int | None = None) -> Rotation:
        against = str(self.against.resolve()) if self.against else None
        specs = {name: replace(spec, threads=self.threads, against=against) for name, spec in specs.items()}
        commands = {name: contestant(spec.json()) for name, spec in specs.items()}
        return rotate(commands, rounds or self.rounds)


MEASURES = ("step", "read", "update", "stream", "data", "start")


def run_measures(bench: Bench, wanted: list[str]) -> Iterator[Measure]:
    """The wanted measures, or all.

    UsageError for one that is not there, a length that does not fit, or a yardstick that lacks something: at once,
    before anything is timed.
    """
    if unknown := [name for name in wanted if name not in MEASURES]:
        raise UsageError(f"no measure {unknown[0]!r}; there is {', '.join(MEASURES)}")
    paper_experiment("infty", bench.length, bench.batch)
    if bench.against:
        load_yardstick(bench.against)
    for name in wanted or MEASURES:
        yield from getattr(bench, name)()


def _parts(laps: Rotation) -> dict[str, Any]:
    """Seconds (median) and peak memory of each contestant."""
    seconds = {f"{name}_seconds": laps.seconds(name) for name in laps.laps}
    return seconds | {f"{name}_peak_mb": round(laps.peak_bytes(name) / 2**20) for name in laps.laps}


def _seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start
