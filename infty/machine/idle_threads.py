"""Let torch's idle threads sleep while other programs compete for the CPUs. In peace they spin, which is quicker.

On Linux, torch computes with GNU's OpenMP. Its idle threads spin for milliseconds before they sleep, since the next
operation mostly comes sooner. Beside another busy program, spinning takes CPUs from the threads that work. How
long they spin is read once, as the library is loaded, with one exception: if a process has more OpenMP threads than
CPUs, they spin 100 times in place of 300,000 (its manual on GOMP_SPINCOUNT). So as long as our threads have to wait
for a CPU, sleeping threads are kept here. No result depends on it: operations are divided as before.
"""

import os
import threading
import time
from functools import cache
from pathlib import Path

import torch

CHOICES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")  # a user who sets one has chosen how threads wait
PERIOD = 0.5  # seconds between two looks
CROWDED = 0.05  # seconds per second in which our threads waited: next to none alone, far more beside a busy program
DIVISIBLE = 2**20  # elements of a tensor that torch fills with all of its threads
THREADS = Path("/proc/self/task")


def count_waited() -> float | None:
    """Count the seconds in which threads of this process waited for a CPU; None if the system does not tell."""
    try:
        return sum(int((thread / "schedstat").read_text().split()[1]) for thread in THREADS.iterdir()) / 1e9
    except (OSError, IndexError, ValueError):  # no Linux, a kernel without these statistics, or a thread that ended
        return None


class IdleThreads:
    """Threads that are kept asleep, so that OpenMP counts more of them than CPUs and lets idle ones sleep early."""

    def __init__(self) -> None:
        self._before: float | None = None
        self._kept: list[threading.Thread] = []
        self._end = threading.Event()

    def adapt(self, waited: float | None) -> None:
        """Keep threads if this process waited for CPUs since the last look, and release them if not.

        waited: seconds since the process began, as of `count_waited`; None says nothing about now.
        """
        before, self._before = self._before, waited
        if waited is None or before is None:
            return
        crowded = waited - before > CROWDED * PERIOD
        if crowded and not self._kept:
            self._keep()
        elif not crowded and self._kept:
            self.release()

    def release(self) -> None:
        """End the threads that are kept."""
        self._end.set()
        for thread in self._kept:
            thread.join()
        self._kept = []

    def _keep(self) -> None:
        # Each has a pool of OpenMP threads of its own: with torch's own one, more than there are CPUs.
        self._end = threading.Event()
        count = len(os.sched_getaffinity(0)) // torch.get_num_threads()
        self._kept = [threading.Thread(target=_open_pool, args=(self._end,), daemon=True) for _ in range(max(count, 1))]
        for thread in self._kept:
            thread.start()


def _open_pool(end: threading.Event) -> None:
    torch.empty(DIVISIBLE).fill_(0)
    end.wait()


@cache
def watch_idle_threads() -> None:
    """Adapt idle threads from now on, once per process; not if the user has chosen, nor for a single thread."""
    chosen = any(name in os.environ for name in CHOICES)
    if not chosen and torch.get_num_threads() > 1 and count_waited() is not None:
        threading.Thread(target=_watch, daemon=True).start()


def _watch() -> None:
    idle = IdleThreads()
    while True:
        time.sleep(PERIOD)
        idle.adapt(count_waited())
