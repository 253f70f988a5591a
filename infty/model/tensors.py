"""Turn a model's weights and its state (M6, M12) into named tensors and back, for checkpoints."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import is_dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int, Shaped
from safetensors.torch import save_file
from torch import Tensor, nn

from infty.memory.precision import HOST
from infty.model.interface import SegmentModel, State
from infty.model.memory_layer import LayerState

MADE_AGAIN = (".key_value.", ".prepared.", ".extra.")
Named = dict[str, Shaped[Tensor, "..."]]  # tensors by name, each of a shape of its own


def weight_tensors(model: nn.Module) -> Named:
    """Make the state dict; a tensor with two names (GPT-2's softmax and embedding) is under the first alone."""
    kept: dict[int, str] = {}
    tensors = dict(model.state_dict())
    return {name: tensor for name, tensor in tensors.items() if kept.setdefault(tensor.data_ptr(), name) == name}


def load_weights(model: nn.Module, tensors: Named) -> None:
    """Load what `weight_tensors` made. RuntimeError if tensors of another model are given."""
    own = model.state_dict()
    if others := [name for name, tensor in tensors.items() if name in own and tensor.dtype != own[name].dtype]:
        raise RuntimeError(f"weights of another type: {', '.join(others[:3])}")
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    if absent := set(missing) & set(weight_tensors(model)) or set(unexpected):
        raise RuntimeError(f"weights of another model: {', '.join(sorted(absent)[:3])}")


def write_tensors(path: Path, tensors: Named) -> None:
    """Write a safetensors file. OSError or SafetensorError if it can't be written."""
    path.touch()  # with the usual permissions: the library would make it readable by its owner alone
    rights = path.stat().st_mode
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    with contextlib.suppress(OSError):  # some file systems let nobody change rights; what is in the file is whole
        path.chmod(rights)


def state_tensors(state: State) -> Named:
    """Name each tensor of the state `<layer>.<part>.<field>`, except keys, values and the like: they are made again."""
    found: Named = {}

    def collect(name: str, value: Any) -> Any:
        if isinstance(value, Tensor) and not any(part in name for part in MADE_AGAIN):
            found[name] = value
        return value

    _map_fields(state, collect)
    return found


def load_state(model: SegmentModel, tensors: Named) -> State:
    """Undo `state_tensors`, on the device of the tensors. KeyError if they are of another model."""
    hidden = tensors["0.short_term.hidden"]
    if hidden.ndim != 3:
        raise KeyError(f"0.short_term.hidden is {list(hidden.shape)}")
    zeros = torch.zeros(len(hidden), dtype=torch.int64)

    def fill(name: str, empty: Any) -> Any:
        if name.endswith(".filled") and name in tensors:
            return _check_like(name, zeros, tensors[name])
        return _check_like(name, empty, tensors[name]) if isinstance(empty, Tensor) else empty

    state = _map_fields(model.initial_state(zeros), fill)
    if others := tensors.keys() - state_tensors(state).keys():
        raise KeyError(f"{', '.join(sorted(others)[:3])} are not of a state of this model")
    return state


def concatenate_states(states: Sequence[State]) -> State:
    """Concatenate the states of several batches along their rows."""
    return tuple(LayerState.concatenate(layers) for layers in zip(*states, strict=True))


def select_rows(state: State, rows: slice | Int[Tensor, " n"], device: torch.device) -> State:
    """Make the state of some rows alone, on a device; whole numbers of rows stay on the host."""

    def select(_: str, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return value[rows].to(device if value.is_floating_point() else HOST)

    return _map_fields(state, select)


def take_rows(state: State, rows: Sequence[int]) -> State:
    """Take some rows out of a state, without the oldest tokens that are no row's own."""
    device = state[0].short_term.hidden.device
    chosen = select_rows(state, torch.tensor(rows, dtype=torch.int64, device=HOST), device)
    return tuple(replace(layer, short_term=layer.short_term.trim()) for layer in chosen)


def _map_fields(state: State, change: Callable[[str, Any], Any]) -> State:
    """Replace each field of a state, nested ones too, by `change(name, value)`, named as in `state_tensors`."""

    def visit(part: Any, prefix: str) -> Any:
        changed = {
            name: visit(value, f"{prefix}{name}.") if is_dataclass(value) else change(f"{prefix}{name}", value)
            for name, value in vars(part).items()
        }
        return replace(part, **changed)

    return tuple(visit(layer, f"{i}.") for i, layer in enumerate(state))


def _check_like(name: str, empty: Tensor, found: Tensor) -> Tensor:
    """Return `found` if it has the type and shape of `empty`, whose lengths of 0 may have grown. KeyError if not."""
    grown = zip(empty.shape[1:], found.shape[1:], strict=False)
    fits = empty.ndim == found.ndim and empty.shape[:1] == found.shape[:1]
    if not (fits and all(before in (0, after) for before, after in grown)) or found.dtype != empty.dtype:
        raise KeyError(f"{name} is {list(found.shape)} {found.dtype}, wanted {list(empty.shape)} {empty.dtype}")
    return found
