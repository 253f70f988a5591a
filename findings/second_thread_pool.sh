#!/usr/bin/env bash
# A Python thread that ran one torch operation, and now only waits, changes how all other threads' operations wait.
#
# Version     torch 2.13.0 on Linux, whose operations run on GNU's OpenMP (libgomp).
# Behaviour   With as many torch threads as CPUs, an idle one spins until the next operation, and the process hardly
#             ever gives up a CPU. Once a second Python thread has run one operation, and for as long as that thread
#             lives, the first thread's operations put their helpers to sleep between any two: thousands of switches a
#             second, though the second thread has nothing to do. libgomp's manual has it under GOMP_SPINCOUNT: a process
#             with more OpenMP threads than CPUs spins 100 times and not 300,000; each thread that computes has a pool of its
#             own, which stays until it ends.
# Guess       An idle thread's pool costs memory and nothing else.
# Hurts       Whoever computes once in a data, logging or checkpoint thread that lives as long as the program: each
#             small operation of training then pays for waking a thread. Ending the thread ends it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0
"$folder/venv/bin/python" - <<'PYTHON'
import os
import resource
import sys
import threading

cpus = sorted(os.sched_getaffinity(0))[:2]
if len(cpus) < 2:
    sys.exit("wanted two CPUs")
os.sched_setaffinity(0, cpus)
import torch

torch.set_num_threads(2)
numbers, end = torch.ones(2**17), threading.Event()


def count_sleeps():
    """How often threads of this process gave up a CPU by themselves in a thousand operations with short pauses."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
    for _ in range(1000):
        numbers.mul_(1)
        sum(range(2000))
    return resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - before


def compute_once():
    torch.ones(2**20).mul_(1)
    end.wait()


alone = count_sleeps()
other = threading.Thread(target=compute_once)
other.start()
beside = count_sleeps()
end.set()
other.join()
after = count_sleeps()
print(f"torch {torch.__version__}: sleeps in 1,000 operations: {alone} alone, {beside} beside a waiting thread that computed once, {after} after it ended")
sys.exit(0 if beside > 500 > 2 * max(alone, after) else "this has changed")
PYTHON
