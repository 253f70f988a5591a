"""A model's memory (section 3) as named tensors, for checkpoints."""

from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from infty.model.interface import SegmentModel, State
from infty.model.memory_layer import LayerState
from infty.model.weight_tensors import Named


def state_tensors(state: State) -> Named:
    """`<layer>.<part>.<field>` for everything in the state but keys and values, which are made anew."""
    return {f"{i}.{name}": tensor for i, layer in enumerate(state) for name, tensor in _tensors(layer)}


def load_state(model: SegmentModel, tensors: Named, device: torch.device | None = None) -> State:
    """The inverse of `state_tensors`, on a device or the model's. KeyError where tensors of another model are given."""
    hidden = tensors["0.short_term.hidden"]
    if hidden.ndim != 3:
        raise KeyError(f"0.short_term.hidden is {list(hidden.shape)}")
    empty = model.initial_state(torch.zeros(len(hidden), dtype=torch.int64))
    there = {name: tensor.to(device or model.device) for name, tensor in tensors.items()}
    state = tuple(_filled(layer, f"{i}.", there) for i, layer in enumerate(empty))
    if others := there.keys() - state_tensors(state).keys():
        raise KeyError(f"{', '.join(sorted(others)[:3])} are not of a state of this model")
    return state


def joined(states: Sequence[State]) -> State:
    """States of several batches as that of one, in which their rows follow each other."""
    return tuple(LayerState.joined(layers) for layers in zip(*states, strict=True))


def moved(state: State, device: torch.device) -> State:
    """A state on another device."""
    return tuple(_mapped(layer, lambda tensor: tensor.to(device)) for layer in state)


def rows_of(state: State, rows: slice) -> State:
    """The state of some rows alone."""
    return tuple(_mapped(layer, lambda tensor: tensor[rows]) for layer in state)


def _mapped(part: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A part of a state with every tensor changed."""
    changes = {}
    for field in fields(part):
        value = getattr(part, field.name)
        if isinstance(value, Tensor):
            changes[field.name] = change(value)
        elif is_dataclass(value):
            changes[field.name] = _mapped(value, change)
    return replace(part, **changes)


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
            changes[field.name] = _like(name, value, tensors[name])
        elif field.name == "filled" and name in tensors:
            rows = len(tensors["0.short_term.hidden"])
            changes[field.name] = _like(name, torch.zeros(rows, dtype=torch.int64), tensors[name])
    return replace(part, **changes)


def _like(name: str, empty: Tensor, found: Tensor) -> Tensor:
    """`found`, if it is what the empty tensor may become: of as many rows, grown where that has no length yet.

    KeyError where it is not.
    """
    grown = zip(empty.shape[1:], found.shape[1:], strict=False)
    fits = empty.ndim == found.ndim and empty.shape[:1] == found.shape[:1]
    if not (fits and all(before in (0, after) for before, after in grown)) or found.dtype != empty.dtype:
        raise KeyError(f"{name} is {list(found.shape)} {found.dtype}, wanted {list(empty.shape)} {empty.dtype}")
    return found
