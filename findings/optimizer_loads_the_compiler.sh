#!/usr/bin/env bash
# Making the simplest optimiser, in a program that compiles nothing, loads torch's compiler.
#
# Version     torch 2.13.0.
# Behaviour   `torch.optim.SGD([parameter], lr=0.1)` imports torch._dynamo, and with it torch._inductor's and torch.export's
#             modules: hundreds of modules, and more time than everything else between `import torch` and the first step of a
#             small model. The decorator that keeps the compiler away from an optimiser's methods is what imports it. The
#             functions behind the classes, such as torch.optim.adam.adam, update parameters without it.
# Guess       What eager training needs is there after `import torch`; the compiler is loaded by whoever compiles.
# Hurts       Command-line tools, tests and sweeps of short runs: each process pays one to two seconds, and the memory,
#             for a compiler that it never calls.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0
"$folder/venv/bin/python" - <<'PYTHON'
import sys
import time

import torch
from torch.optim.adam import adam


def train(update):
    """One step of eager training: seconds, modules loaded by it, and whether the compiler is there after it."""
    before, start = len(sys.modules), time.perf_counter()
    parameter = torch.ones(3, requires_grad=True)
    parameter.square().sum().backward()
    update(parameter)
    return time.perf_counter() - start, len(sys.modules) - before, "torch._dynamo" in sys.modules


def by_function(parameter):
    averages = [torch.zeros(3) for _ in range(2)]
    with torch.no_grad():
        adam(
            [parameter], [parameter.grad], averages[:1], averages[1:], [], [torch.tensor(0.0)],
            amsgrad=False, beta1=0.9, beta2=0.999, lr=0.1, weight_decay=0.0, eps=1e-8, maximize=False,
        )


figures = {}
for name, update in {
    "by the function": by_function,
    "by the class": lambda parameter: torch.optim.SGD([parameter], lr=0.1).step(),
}.items():
    seconds, modules, compiler = figures[name] = train(update)
    print(f"torch {torch.__version__}, {name}: {seconds:.2f} s, {modules} modules loaded, compiler loaded: {compiler}")
(_, few, without), (_, many, with_it) = figures.values()
sys.exit(0 if with_it and not without and many > 300 > 10 * few else "this has changed")
PYTHON
