"""Every kind of memory, with its settings, at prime sizes: to be held to what is asked of each."""

from typing import Any

from pydantic import TypeAdapter

from infty.memory.contract import Memory, MemoryConfig
from infty.model.config import KINDS, SHARED_SIZES, LongRangeConfig

HEADS, HEAD_SIZE, SEGMENT, BATCH = 2, 7, 5, 3
HIDDEN = HEADS * HEAD_SIZE
SHARED = dict(zip(SHARED_SIZES, (HIDDEN, HEADS, SEGMENT), strict=True))
SIGNAL: dict[str, Any] = {"kind": "long_term", "num_basis": 14, "num_samples": 19, "widths": (0.05, 0.2)}
ELU: dict[str, Any] = {"kind": "delta", "keys": "elu", "forgets": False, "write_rate": False}
EVERY: dict[str, dict[str, Any]] = {
    "infty": SIGNAL,
    "infty-sticky": {**SIGNAL, "sticky": {"num_bins": 29}},
    "infty-softmax": {**SIGNAL, "density": "softmax", "num_points": 31},
    "infty-softmax-sticky": {**SIGNAL, "density": "softmax", "num_points": 31, "sticky": {"num_bins": 29}},
    "compressive": {"kind": "compressive", "num_slots": 13, "compression_rate": 2},
    "mean": {"kind": "mean"},
    "mean-forgetting": {"kind": "mean", "forgets": True},
    "delta": {"kind": "delta"},
    "delta-keys": {"kind": "delta", "key_size": 11, "gate": False},
    "delta-momentum": {"kind": "delta", "momentum": True},
    "deltanet": {"kind": "delta", "forgets": False, "gate": False},
    "linear-attention": {**ELU, "rule": "add", "gate": False},
    "infini-attention": {**ELU, "rule": "delta"},
    "slots": {"kind": "slots", "num_slots": 11},
    "cache": {"kind": "cache", "num_slots": 13},
    "cache-top": {"kind": "cache", "num_slots": 13, "top_k": 3},
    "cache-compressed": {"kind": "cache", "num_slots": 13, "compression_rate": 2},
}
# Without those that are settings of another, which make no difference to layers and checkpoints.
ROWS = ("compressive", "infty", "infty-sticky", "infty-softmax", "mean", "delta", "slots", "cache")


def configure(name: str) -> MemoryConfig:
    """The configuration of one of them."""
    chosen = EVERY[name]
    sizes = {size: value for size, value in SHARED.items() if size in KINDS[chosen["kind"]].model_fields}
    config: MemoryConfig = TypeAdapter(LongRangeConfig).validate_python(chosen | sizes)
    return config


def build(name: str) -> Memory[Any]:
    """One of them."""
    return configure(name).build()
