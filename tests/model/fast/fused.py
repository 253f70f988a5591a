"""Run the kernels of relative attention without a GPU, or compile them for one, and print what is found as JSON.

`python -m tests.model.fast.fused interpret`, with TRITON_INTERPRET=1, or `… compile`. It is a process of its own, since
Triton decides as it is loaded.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from infty.model.fast import relative_fused
from infty.model.fast.relative_fused import attend_in_kernels
from infty.model.relative_attention import attend_plainly
from infty.model.short_term import KeyValue

# Batch, heads, queries, keys, head size; and how many of the oldest keys each row doesn't see.
CASES: dict[str, tuple[int, int, int, int, int, list[int] | None]] = {
    "odd lengths": (2, 3, 45, 77, 20, None),
    "a head of 50, as the paper's": (1, 2, 33, 129, 50, None),
    "queries and keys alike": (1, 2, 70, 70, 16, None),
    "blocks that fit": (1, 1, 64, 96, 32, None),
    "one query": (2, 2, 1, 41, 8, None),
    "unseen keys": (3, 1, 40, 107, 12, [0, 31, 67]),
    "all but one unseen": (2, 2, 5, 70, 16, [65, 64]),
}
NAMES = "read", "content", "position", "key", "value", "encoding"
ARRAYS_OF_FLOATS = "log_sums", "means", "to_encoding"  # whatever the precision of the rest


def draw(case: str) -> tuple[list[Tensor], Tensor, Tensor | None]:
    """Draw what attention reads, in float64; the gradient of what it returns; and what it doesn't see."""
    b, heads, t, k, size, unseen = CASES[case]
    random = torch.Generator().manual_seed(len(case))

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    encoding = torch.cat([normal(heads, size, k + 3), torch.zeros(heads, size, 1, dtype=torch.float64)], 2)
    queries = [normal(b, heads, t, size) / size**0.5 for _ in range(2)]
    inputs = [*queries, normal(b, heads, size, k), normal(b, heads, k, size), encoding]
    return inputs, normal(b, heads, t, size), None if unseen is None else torch.tensor(unseen)


def interpret(case: str) -> dict[str, float]:
    """Measure how far values and gradients in float32 are from the plain equation in float64, relative to these."""
    found = []
    given, gradient, unseen = draw(case)
    for dtype in (torch.float64, torch.float32):
        c, p, key, value, whole = inputs = [part.to(dtype).requires_grad_() for part in given]
        encoding = whole[..., -key.shape[3] - 1 :]
        if dtype == torch.float64:
            read = attend_plainly(c, p, KeyValue(key, value), encoding, nn.Identity(), unseen)
        else:
            read = attend_in_kernels(c, p, key, value, encoding, unseen)
        found.append([read.detach(), *torch.autograd.grad(read, inputs, gradient.to(dtype))])
    pairs = zip(NAMES, *found, strict=True)
    return {name: ((near.double() - exact).norm() / exact.norm()).item() for name, exact, near in pairs}


def compile_for(kernel: Any, dtype: str, *, hides: bool) -> dict[str, int]:
    """Compile a kernel for sm_90 at the paper's head size; count registers, and bytes of shared and of local memory."""
    from triton import knobs
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    constants: dict[str, Any] = {"hides": hides, "how": "tf32", "block": relative_fused.BLOCK, "width": 64}
    types: dict[str, str] = {}
    for name in kernel.arg_names:
        if name in constants:
            types[name] = "constexpr"
        elif name in ("heads", "t", "k", "size"):
            types[name] = "i32"
        elif name == "unseen":
            types[name] = "*i64" if hides else "constexpr"
        else:
            types[name] = "*fp32" if name in ARRAYS_OF_FLOATS else f"*{dtype}"
    if not hides:
        constants["unseen"] = None
    aligned = {(place,): [["tt.divisibility", 16]] for place, kind in enumerate(types.values()) if kind[0] == "*"}
    source = ASTSource(kernel, types, constexprs=constants, attrs=aligned)
    made = compile(source, target=GPUTarget("cuda", 90, 32), options=relative_fused.tune(kernel))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "kernel.cubin")
        file.write_bytes(made.asm["cubin"])
        command = [knobs.nvidia.cuobjdump.path, "-res-usage", file]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    ((registers, local),) = re.findall(r"REG:(\d+) STACK:(\d+)", told)
    return {"registers": int(registers), "spilt": int(local), "shared": made.metadata.shared}


def main(what: str) -> None:
    """Print what the tests ask about."""
    if what == "interpret":
        assert os.environ["TRITON_INTERPRET"] == "1"
        print(json.dumps({case: interpret(case) for case in CASES}))
        return
    from infty.model.fast import relative_kernels

    kernels = [getattr(relative_kernels, name) for name in relative_fused.STAGES]
    print(
        json.dumps(
            {
                f"{kernel.__name__}, {dtype}{', unseen keys' if hides else ''}": compile_for(kernel, dtype, hides=hides)
                for kernel in kernels
                for dtype in ("bf16", "fp32")
                for hides in (False, True)
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1])
