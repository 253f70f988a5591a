"""Idle threads: they sleep while other programs compete for the CPUs, and otherwise wait as OpenMP has them wait."""

import json
import os
import subprocess
import sys

import pytest

from infty.machine.idle_threads import count_waited

COUNTED = """
import json, os, resource, time
import torch
from infty.machine.idle_threads import CROWDED, PERIOD, IdleThreads

torch.set_num_threads(2)
numbers = torch.ones(2**17)

def count_sleeps():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
    for _ in range(1000):
        numbers.mul_(1)
        sum(range(2000))  # the time between two operations in which the other threads are idle
    return resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - before

idle, sleeps = IdleThreads(), {"at first": count_sleeps()}
for name, waited in (("reference", 5.0), ("crowded", 5.0 + 2 * CROWDED * PERIOD), ("unknown", None)):
    idle.adapt(waited)
    sleeps[name] = count_sleeps()
for waited in (5.0, 5.0 + CROWDED * PERIOD / 2):
    idle.adapt(waited)
sleeps["in peace"] = count_sleeps()
print(json.dumps(sleeps))
"""
WATCHED = """
import json, os, threading
from infty.config.settings import load_settings
from infty.machine.idle_threads import watch_idle_threads
from infty.machine.placement import prepare_machine

watching = []
for threads, chosen in [(1, {}), (2, {"OMP_WAIT_POLICY": "active"}), (2, {"GOMP_SPINCOUNT": "7"}), (2, {})]:
    os.environ |= chosen
    watch_idle_threads.cache_clear()
    for _ in range(2):
        prepare_machine(load_settings(threads=threads))
    watching.append(threading.active_count() - 1)
    for name in chosen:
        del os.environ[name]
print(json.dumps(watching))
"""
needs_statistics = pytest.mark.skipif(
    count_waited() is None, reason="this system does not tell how long threads waited"
)


def run_python(code: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return done.stdout


@needs_statistics
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="OpenMP has more threads than CPUs from the start")
def test_idle_threads_sleep_only_while_the_process_waits_for_cpus() -> None:
    """Counted by the system: how often a thread gave up its CPU of its own accord, in a thousand operations."""
    affinity = ",".join(map(str, sorted(os.sched_getaffinity(0))[:2]))
    sleeps = json.loads(run_python(f"import os\nos.sched_setaffinity(0, {{{affinity}}})\n{COUNTED}"))
    spinning = max(sleeps["at first"], sleeps["reference"], sleeps["in peace"])
    assert min(sleeps["crowded"], sleeps["unknown"]) > 500 > 2 * spinning, sleeps


@needs_statistics
def test_the_machine_is_watched_once_and_not_for_one_thread_or_against_the_users_choice() -> None:
    assert json.loads(run_python(WATCHED)) == [0, 0, 0, 1]
