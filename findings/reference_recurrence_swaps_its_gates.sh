#!/usr/bin/env bash
# The reference recurrence of the gated delta rule in flash-linear-attention takes its two gates in the other order than the
# reference chunk beside it, and than the library's own operators.
#
# Version     fla-core 0.6.0 (flash-linear-attention) with torch 2.13.0.
# Behaviour   `naive_recurrent_gated_delta_rule(q, k, v, beta, g)`, but `naive_chunk_gated_delta_rule(q, k, v, g, beta)`, as the
#             operators have it. Both gates are batch × tokens × heads, so that a call by position runs either way. By name the
#             two references agree; by position, in one order, one of them takes rates for logarithms of a decay, and grows.
# Guess       Two references of one operator, in one file, take the same arguments in the same order.
# Hurts       Whoever holds an own implementation, or a kernel, to one of them and writes the call after the other's: nothing is
#             raised, and the fault seems to be one's own.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 einops==0.8.2
"$folder/venv/bin/pip" install --quiet --no-deps fla-core==0.6.0
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import importlib.util
import sys
import sysconfig
from pathlib import Path

import torch
from torch.nn import functional as F

# The file of references alone: the package wants a GPU's compiler, they don't.
file = Path(sysconfig.get_paths()["purelib"]) / "fla/ops/gated_delta_rule/naive.py"
spec = importlib.util.spec_from_file_location("naive", file)
naive = importlib.util.module_from_spec(spec)
spec.loader.exec_module(naive)

torch.manual_seed(0)
shape = 1, 64, 2
q, k, v = (torch.randn(*shape, 8) for _ in range(3))
k = F.normalize(k, dim=-1)
g, beta = F.logsigmoid(torch.randn(shape)), torch.rand(shape)


def differ(one, other):
    return float((one - other).norm() / other.norm())


chunk = naive.naive_chunk_gated_delta_rule(q, k, v, g, beta)[0]
by_name = differ(naive.naive_recurrent_gated_delta_rule(q, k, v, g=g, beta=beta)[0], chunk)
by_place = differ(naive.naive_recurrent_gated_delta_rule(q, k, v, g, beta)[0], chunk)
print(f"recurrence against chunk, share of the norm: gates by name {by_name:.1e}, by position {by_place:.2g}")
sys.exit(0 if by_name < 1e-5 and by_place > 0.5 else "this has changed")
PYTHON
