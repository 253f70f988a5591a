"""A model's memory as named tensors, for checkpoints."""

from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from infty.model.segments import SegmentModel, State


def state_tensors(state: State) -> dict[str, Tensor]:
    """`<layer>.<part>.<field>` for everything in the state but keys and values, which are made anew."""
    return {f"{i}.{name}": tensor for i, layer in enumerate(state) for name, tensor in _tensors(layer)}


def load_state(model: SegmentModel, tensors: dict[str, Tensor]) -> State:
    """The inverse of `state_tensors`, on the model's device. KeyError where tensors of another model are given."""
    batch = len(tensors["0.short_term.hidden"])
    empty = model.initial_state(torch.zeros(batch, dtype=torch.int64))
    if {int(name.partition(".")[0]) for name in tensors} != set(range(len(empty))):
        raise KeyError(f"a state of {len(empty)} layers was wanted")
    device = model.device
    moved = {name: tensor.to(device) for name, tensor in tensors.items()}
    return tuple(_filled(layer, f"{i}.", moved) for i, layer in enumerate(empty))


def _tensors(part: Any) -> Any:
    for field in fields(part):
        value = getattr(part, field.name)
        if isinstance(value, Tensor):
            yield field.name, value
        elif is_dataclass(value) and field.name != "key_value":
            for name, tensor in _tensors(value):
                yield f"{field.name}.{name}", tensor


def _filled(part: Any, prefix: str, tensors: dict[str, Tensor]) -> Any:
    changes = {}
    for field in fields(part):
        value, name = getattr(part, field.name), f"{prefix}{field.name}"
        if is_dataclass(value):
            changes[field.name] = _filled(value, f"{name}.", tensors)
        elif isinstance(value, Tensor):
            changes[field.name] = tensors[name]
            _refuse_other_shape(name, value, tensors[name])
        else:
            changes[field.name] = tensors.get(name)
    return replace(part, **changes)


def _refuse_other_shape(name: str, empty: Tensor, found: Tensor) -> None:
    """KeyError where a tensor can't be what the empty one becomes: what is empty along its second axis may grow."""
    grows = empty.ndim > 1 and empty.shape[1] == 0
    wanted = (*empty.shape[:1], *((found.shape[1:2]) if grows else empty.shape[1:2]), *empty.shape[2:])
    if found.dtype != empty.dtype or tuple(found.shape) != wanted:
        raise KeyError(f"{name} is {list(found.shape)} {found.dtype}, wanted {list(wanted)} {empty.dtype}")
