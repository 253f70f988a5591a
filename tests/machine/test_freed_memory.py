"""Freed tensors leave their memory to the next ones: page faults are counted, in processes of their own."""

import os
import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, torch
from infty.machine.freed_memory import keep_freed_memory
print({call})
def step():
    return [torch.ones(2**20) for _ in range(8)] and torch.ones(10 * 2**20)  # 4 MB each, and one above 32 MB
for _ in range(5): step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10): step()
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // 10)
"""
PAGES = 8 * 2**20 * 4 // 4096  # that the eight fill

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")


def run(call: str, **environment: str) -> tuple[str, int]:
    command = [sys.executable, "-c", PROGRAM.format(call=call)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **environment})
    said, faults = done.stdout.split()
    return said, int(faults)


def test_a_step_takes_no_memory_anew() -> None:
    _, before = run("None")
    said, after = run("keep_freed_memory()")
    assert before > PAGES  # or the test shows nothing
    assert said == "True"
    assert after < PAGES // 20


def test_a_user_s_own_choice_holds() -> None:
    said, faults = run("keep_freed_memory()", MALLOC_MMAP_THRESHOLD_="65536")
    assert said == "False"
    assert faults > PAGES
