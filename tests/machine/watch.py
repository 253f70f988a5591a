"""Watch what a computation asks of a device: the meta device stands for one, and has no numbers to answer with."""

from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Operators that launch nothing: views, and what only takes memory.
NO_KERNEL = {
    "alias", "as_strided", "chunk", "detach", "diagonal", "empty", "empty_like", "empty_strided", "expand",
    "lift_fresh", "narrow", "new_empty", "new_empty_strided", "permute", "_reshape_alias", "select", "slice", "split",
    "split_with_sizes", "squeeze", "t", "transpose", "unbind", "unfold", "_unsafe_view", "unsafe_split", "unsqueeze",
    "view",
}  # fmt: skip


class Watch(TorchDispatchMode):
    """Notes kernels, copies from the host (by shape), and operators with tensors of two devices.

    A question (`bool`, `item`, `tolist`, `nonzero`) needs no note: the meta device answers with an error.
    """

    def __init__(self) -> None:
        super().__init__()
        self.kernels: Counter[str] = Counter()
        self.copies: list[tuple[int, ...]] = []
        self.mixed: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = [part for part in tree_leaves((args, kwargs or {})) if isinstance(part, Tensor)]
        made = func(*args, **(kwargs or {}))
        returned = [part for part in tree_leaves(made) if isinstance(part, Tensor)]
        name = func.overloadpacket._qualified_op_name.split("::")[1]
        devices = {part.device.type for part in given}
        if name in ("_to_copy", "copy_") and len(devices | {part.device.type for part in returned}) > 1:
            self.copies.append(tuple(given[-1].shape))
        elif len({part.device.type for part in given if part.dim() or part.is_meta}) > 1:
            self.mixed.append(str(func))
        if name not in NO_KERNEL and any(part.is_meta for part in returned):
            self.kernels[name] += 1
        return made


def as_on_a_gpu(monkeypatch: Any) -> None:
    """Let the meta device count as a GPU where torch has kernels of its own for one."""
    from torch.utils import _foreach_utils

    def drop(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        return torch.native_dropout(x, p, True)[0] if training and p else x

    monkeypatch.setattr(torch.nn.functional, "dropout", drop)
    monkeypatch.setattr(_foreach_utils, "_get_foreach_kernels_supported_devices", lambda: ["meta"])
