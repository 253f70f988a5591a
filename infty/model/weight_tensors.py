"""Turn a model's weights into named tensors, for checkpoints: what is shared (Radford et al. 2019) is kept once."""

from pathlib import Path

from jaxtyping import Shaped
from safetensors.torch import save_file
from torch import Tensor, nn

Named = dict[str, Shaped[Tensor, "..."]]  # tensors by name, each of a shape of its own


def weight_tensors(model: nn.Module) -> Named:
    """Make the state dict, in which what two names share (GPT-2's softmax and embedding) stands under the first."""
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
    """Write a safetensors file that whoever may read other files here may read: the library would ask for its owner.

    OSError or SafetensorError if it can't be written.
    """
    path.touch()
    rights = path.stat().st_mode
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    path.chmod(rights)
