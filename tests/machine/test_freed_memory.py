"""Freed tensors leave their memory to the next ones: page faults are counted, in processes of their own."""

import os
import platform
import subprocess
import sys

import pytest

from infty.machine.freed_memory import CHOICES

PROGRAM = """
import resource, torch
from infty.machine.freed_memory import keep_freed_memory
print({call})
def step():
    tensors = [torch.ones(2**20) for _ in range(8)]  # 4 MB each
    tensors.clear()
for _ in range(5): step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10): step()
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // 10)
"""
PAGES = 8 * 2**20 * 4 // 4096  # that the eight fill

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")


def run(call: str, **environment: str) -> tuple[str, int]:
    command = [sys.executable, "-c", PROGRAM.format(call=call)]
    others = {name: value for name, value in os.environ.items() if name not in CHOICES}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**others, **environment})
    said, faults = done.stdout.split()
    return said, int(faults)


def test_a_step_takes_no_memory_anew() -> None:
    # Without it mostly 8,160 pages, but none if something lies at the heap's end by chance.
    said, faults = run("keep_freed_memory()")
    assert said == "True"
    assert faults < PAGES // 20


def test_a_user_s_own_choice_holds() -> None:
    said, faults = run("keep_freed_memory()", MALLOC_MMAP_THRESHOLD_="65536")
    assert said == "False"
    assert faults > PAGES // 2
