"""Turn a model's state (M6, M12) into named tensors and back, for checkpoints."""

from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from infty.model.interface import SegmentModel, State
from infty.model.memory_layer import LayerState
from infty.model.weight_tensors import Named


def state_tensors(state: State) -> Named:
    """Name everything in the state `<layer>.<part>.<field>`, but keys and values, which are made anew."""
    return {f"{i}.{name}": tensor for i, layer in enumerate(state) for name, tensor in _walk_tensors(layer)}


def load_state(model: SegmentModel, tensors: Named, device: torch.device | None = None) -> State:
    """Undo `state_tensors`, on a device or the model's. KeyError if the tensors are of another model."""
    hidden = tensors["0.short_term.hidden"]
    if hidden.ndim != 3:
        raise KeyError(f"0.short_term.hidden is {list(hidden.shape)}")
    empty = model.initial_state(torch.zeros(len(hidden), dtype=torch.int64))
    there = {name: tensor.to(device or model.device) for name, tensor in tensors.items()}
    state = tuple(_fill(layer, f"{i}.", there) for i, layer in enumerate(empty))
    if others := there.keys() - state_tensors(state).keys():
        raise KeyError(f"{', '.join(sorted(others)[:3])} are not of a state of this model")
    return state


def concatenate_states(states: Sequence[State]) -> State:
    """Make one state of those of several batches; their rows follow each other."""
    return tuple(LayerState.concatenate(layers) for layers in zip(*states, strict=True))


def move_state(state: State, device: torch.device) -> State:
    """Move a state to another device."""
    return tuple(_change_tensors(layer, lambda tensor: tensor.to(device)) for layer in state)


def select_rows(state: State, rows: slice) -> State:
    """Make the state of some rows alone."""
    return tuple(_change_tensors(layer, lambda tensor: tensor[rows]) for layer in state)


def _change_tensors(part: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Change every tensor of a part of a state."""
    changes = {}
    for field in fields(part):
        value = getattr(part, field.name)
        if isinstance(value, Tensor):
            changes[field.name] = change(value)
        elif is_dataclass(value):
            changes[field.name] = _change_tensors(value, change)
    return replace(part, **changes)


def _walk_tensors(part: Any) -> Any:
    for field in fields(part):
        value = getattr(part, field.name)
        if isinstance(value, Tensor):
            yield field.name, value
        elif is_dataclass(value) and field.name != "key_value":
            for name, tensor in _walk_tensors(value):
                yield f"{field.name}.{name}", tensor


def _fill(part: Any, prefix: str, tensors: dict[str, Tensor]) -> Any:
    changes = {}
    for field in fields(part):
        value, name = getattr(part, field.name), f"{prefix}{field.name}"
        if is_dataclass(value):
            changes[field.name] = _fill(value, f"{name}.", tensors)
        elif isinstance(value, Tensor):
            changes[field.name] = _check_like(name, value, tensors[name])
        elif field.name == "filled" and name in tensors:
            rows = len(tensors["0.short_term.hidden"])
            changes[field.name] = _check_like(name, torch.zeros(rows, dtype=torch.int64), tensors[name])
    return replace(part, **changes)


def _check_like(name: str, empty: Tensor, found: Tensor) -> Tensor:
    """Return `found` if it is what the empty tensor may become: of as many rows, grown if that has no length yet.

    KeyError if it is not.
    """
    grown = zip(empty.shape[1:], found.shape[1:], strict=False)
    fits = empty.ndim == found.ndim and empty.shape[:1] == found.shape[:1]
    if not (fits and all(before in (0, after) for before, after in grown)) or found.dtype != empty.dtype:
        raise KeyError(f"{name} is {list(found.shape)} {found.dtype}, wanted {list(empty.shape)} {empty.dtype}")
    return found
