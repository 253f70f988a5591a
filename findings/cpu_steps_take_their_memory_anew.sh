#!/usr/bin/env bash
# On a CPU, each of a thousand equal training steps takes its memory from the system anew.
#
# Version     torch 2.13.0 with GNU's C library 2.36, Linux.
# Behaviour   A CPU's tensors are taken and freed one by one, by `malloc`. What is free at the heap's end, beyond twice the largest
#             block so far, goes back to the system, and so does every block above 32 MB; the next step takes it anew, and the
#             kernel fills it with zeros, page by page: thousands of page faults a step, in any steady training loop whose
#             tensors are megabytes. With the two thresholds of mallopt(3) raised there are next to none, at nearly the same peak.
# Guess       After the first steps memory is there: torch keeps freed blocks for the next tensors, as its allocator of GPUs does.
# Hurts       Whoever trains or evaluates on CPUs: faults and zeros are the kernel's time, in each step anew, and no profile of
#             torch's operators names them.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
cat > "$folder/train.py" <<'PYTHON'
import ctypes
import resource
import sys

if sys.argv[1] == "kept":
    libc = ctypes.CDLL("libc.so.6")
    libc.mallopt(-3, 2**25)  # M_MMAP_THRESHOLD: blocks up to this size lie in the heap
    libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: free bytes at the heap's end that are kept

import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
model = nn.Sequential(*(part for _ in range(4) for part in (nn.Linear(256, 1024), nn.GELU(), nn.Linear(1024, 256))))
x = torch.randn(2048, 256)


def step():
    model.zero_grad()
    model(x).square().mean().backward()


for _ in range(5):
    step()
usage = lambda: resource.getrusage(resource.RUSAGE_SELF)
before = usage()
for _ in range(20):
    step()
after = usage()
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]
print((after.ru_minflt - before.ru_minflt) // 20, int(peak) // 1024, round((after.ru_stime - before.ru_stime) * 50, 1))
PYTHON
read -r faults peak system < <("$folder/venv/bin/python" "$folder/train.py" plain)
read -r kept_faults kept_peak kept_system < <("$folder/venv/bin/python" "$folder/train.py" kept)
echo "by itself:         $faults page faults a step, $system ms of the kernel's time, peak $peak MB"
echo "thresholds raised: $kept_faults page faults a step, $kept_system ms, peak $kept_peak MB"
[ "$faults" -gt 2000 ] && [ "$kept_faults" -lt $((faults / 20)) ] || { echo "this has changed"; exit 1; }
