"""Kill runs with -9 at random moments, again and again: each must end like one that was never killed, to the byte.

python -m tests.reliability.torture [--kills N] [--seed N]        (or: make torture)
"""

import functools
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from tests.reliability.runs import GPT2, SORT, TEXT, Example, dies, finish, outcome, start, wandb_ids

DYING = ["-m", "tests.reliability.dying"]


class Torture:
    """An example that is killed; `whole`: the outcome of its run that never was."""

    def __init__(self, example: Example, folder: Path) -> None:
        self.example, self.folder, self.runs = example, folder, 0
        done = dies(folder, "files:0:SIGKILL", *example.words, "--runs", str(folder / "whole"))
        assert done.returncode == 0, done.stderr
        self.operations = int(done.stderr.splitlines()[-1].removeprefix("events: "))
        self.whole = outcome(example.run(folder / "whole"))

    def kill(self, moments: Iterator[float | int]) -> int:
        """One run, killed at each moment until they end or the run does: how often that was. AssertionError where
        what is left is not told truthfully, or where the end is another one."""
        self.runs += 1
        runs, kills = self.folder / f"killed-{self.runs}", 0
        run = self.example.run(runs)
        for moment in moments:
            if not self._dies(runs, moment):
                break
            kills += 1
            state = run.state()
            assert state in ("missing", "interrupted", "done"), f"killed at {moment}, the run says {state}"
        done = finish(self.folder, *self.example.words, "--runs", str(runs))
        assert done.returncode == 0, done.stderr
        assert "skipped" not in done.stderr, done.stderr  # no moment leaves half a checkpoint under its name
        found = outcome(run)
        for part, value in self.whole.items():
            assert found[part] == value, f"{part} is another one after {kills} kills in {runs}"
        assert len(wandb_ids(run)) <= 1 + kills, wandb_ids(run)  # before its first checkpoint a run begins anew
        return kills

    def _dies(self, runs: Path, moment: float | int) -> bool:
        """Start or continue the run and kill it: after so many seconds (float) or operations on files (int)."""
        words = [*self.example.words, "--runs", str(runs)]
        if isinstance(moment, int):
            done = dies(self.folder, f"files:{moment}:SIGKILL", *words)
            code, err = done.returncode, done.stderr
        else:
            process = start(self.folder, ["-m", "infty", *words])
            try:
                _, err = process.communicate(timeout=moment)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                _, err = process.communicate()
            code = process.returncode
        assert code in (0, -signal.SIGKILL), err
        return code != 0

    @functools.cached_property
    def seconds(self) -> float:
        """That a whole run takes, from the start of its process."""
        begin = time.monotonic()
        process = start(self.folder, ["-m", "infty", *self.example.words, "--runs", str(self.folder / "timed")])
        assert process.wait() == 0
        return time.monotonic() - begin

    def moments(self, rng: random.Random, count: int) -> Iterator[float | int]:
        """By the clock and by operations on files, in turn, anywhere in the whole of a run."""
        for i in range(count):
            yield rng.uniform(0, self.seconds) if i % 2 else rng.randint(1, self.operations)


def main(
    kills: Annotated[int, typer.Option(help="Of each task.")] = 20,
    seed: Annotated[int | None, typer.Option(help="Of the moments; by default another one each time.")] = None,
) -> None:
    """Sorting, language modelling and GPT-2, at smoke scale."""
    seed = random.randrange(10**6) if seed is None else seed
    print(f"seed {seed}")
    for example in (SORT, TEXT, GPT2):
        with tempfile.TemporaryDirectory(prefix="torture-", ignore_cleanup_errors=True) as name:
            finish(Path(name), *example.words, "--runs", "first")  # makes the data: no run after it is longer
            torture = Torture(example, Path(name))
            print(f"{example.experiment}: {torture.seconds:.1f} s and {torture.operations} operations uninterrupted")
            done, rng = 0, random.Random(f"{seed} {example}")
            while done < kills:
                more = torture.kill(torture.moments(rng, min(kills - done, rng.randint(1, 6))))
                done += more
                print(f"{example.experiment}: a run killed {more} times, the same end; {done} of {kills}", flush=True)
    print("every run came to the same end")


if __name__ == "__main__":
    sys.exit(typer.run(main))
