"""Tell what can't be known or done while another program's transforms rewrite a memory (not in the paper)."""

import torch
from jaxtyping import Bool
from torch import Tensor


def is_transformed() -> bool:
    """Tell whether torch.export, or torch.func (vmap, grad, jvp), rewrites what runs (not in the paper).

    Then what is made must not be kept for later calls, and a gradient that is written by hand can't be used.
    """
    # torch's own autograd functions ask this; none of torch 2.13's public functions tells it.
    within = getattr(torch._C, "_are_functorch_transforms_active", None)
    return torch.compiler.is_exporting() or (within is not None and within())


def holds(condition: Bool[Tensor, ""], unknown: bool) -> bool:
    """Tell whether a condition holds (so if all streams are new in M6); `unknown` if there are no numbers to tell by.

    That is in vmap and torch.export, and on the meta device.
    """
    return unknown if condition.is_meta or is_transformed() else bool(condition)
