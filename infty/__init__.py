"""Experiments on ∞-former's unbounded long-term memory (arXiv 2109.00301).

`from infty import LongTermMemory, LongTermMemoryConfig, load_run` works, and only such an import loads torch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from infty.commands.load import load_run
    from infty.memory.longterm import LongTermMemory, LongTermMemoryConfig

__all__ = ["LongTermMemory", "LongTermMemoryConfig", "load_run"]
_HOMES = {
    "LongTermMemory": "infty.memory.longterm",
    "LongTermMemoryConfig": "infty.memory.longterm",
    "load_run": "infty.commands.load",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'infty' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
