"""Contestants in turn, A B C C B A A B C …: a machine that is slower for a while is so for all of them."""

import json
import logging
import os
import statistics
import subprocess
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

from infty.base.errors import InftyError

logger = logging.getLogger(__name__)

Laps = list[dict[str, Any]]


@dataclass(frozen=True)
class Rotation:
    """The figures of each contestant's runs, in order."""

    laps: dict[str, Laps]

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


def rotate(commands: dict[str, list[str]], rounds: int) -> Rotation:
    """Start the contestants one by one, and let them take turns `rounds` times. Raises InftyError if one dies.

    commands: of each, one that prints a line when it is ready, and answers every line on its stdin with a line of JSON.
    """
    laps: dict[str, Laps] = {name: [] for name in commands}
    with ExitStack() as stack:
        processes = {}
        for name, command in commands.items():
            pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            process = subprocess.Popen(command, **pipes, start_new_session=True)  # Ctrl-C is for us alone
            processes[name] = stack.enter_context(process)
            stack.callback(process.kill)
            logger.info(f"starting {name}")
            _read_line(name, processes[name])
        for number in range(rounds):
            for name in list(processes)[:: -1 if number % 2 else 1]:
                logger.info(f"round {number + 1} of {rounds}: {name}")
                laps[name].append(_run_lap(name, processes[name]))
    return Rotation(laps)


def _run_lap(name: str, process: "subprocess.Popen[str]") -> dict[str, Any]:
    assert process.stdin is not None
    with suppress(BrokenPipeError):  # it ended, as the missing answer will tell
        os.write(process.stdin.fileno(), b"go\n")
    return json.loads(_read_line(name, process))


def _read_line(name: str, process: "subprocess.Popen[str]") -> str:
    """Read the next line of a contestant. Raises InftyError if it has ended."""
    assert process.stdout is not None
    if line := process.stdout.readline():
        return line
    raise InftyError(f"{name} ended with exit code {process.wait()}; what it said stands above")
