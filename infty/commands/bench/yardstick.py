"""Compare infty with a plain implementation from a file of the user's: its interface, and its weights.

The file is a Python module with `LiteralModel(vocab, layers, hidden, heads, inner, basis, segment, dropout)`,
`LiteralMemory(hidden, heads, basis, length)` and `step(model, optimizer, tokens, length) -> loss`. Loading runs it.
"""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import torch
from jaxtyping import Int
from torch import Tensor, nn

from infty.base.batch import UNSCORED, Batch
from infty.base.errors import MissingError, UsageError
from infty.model.config import DecoderConfig
from infty.model.decoder import Decoder
from infty.model.tensors import Named
from infty.training.data_parallel import compute_losses, weigh_losses

NEEDED = ("LiteralModel", "LiteralMemory", "step")
CLIP = 0.25  # of the gradient's norm, in the file's step


def load_yardstick(path: Path) -> ModuleType:
    """Run the file as a module. Raises MissingError if there is none, UsageError if it lacks one of `NEEDED`."""
    if not path.is_file():
        raise MissingError(f"--against {path}: there is no such file")
    spec = importlib.util.spec_from_file_location("yardstick", path)
    if spec is None or spec.loader is None:
        raise UsageError(f"--against {path}: wanted a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if absent := [name for name in NEEDED if not hasattr(module, name)]:
        raise UsageError(f"--against {path} lacks {', '.join(absent)}")
    return module


def build_its_model(module: ModuleType, config: DecoderConfig, vocab: int, dropout: float) -> nn.Module:
    """Build the file's model at our sizes."""
    c, basis = config, config.long_range.slots if config.long_range else 0
    sizes = (c.num_layers, c.hidden_size, c.num_heads, c.feed_forward_size, basis, c.segment_length)
    return module.LiteralModel(vocab, *sizes, dropout)


def draw_tokens(vocab: int, length: int, batch: int) -> Int[Tensor, "batch length"]:
    """Draw random symbols, the separator, and random answers; the last token is only a target."""
    symbols = vocab - 2
    tokens = torch.randint(0, symbols, (batch, length + symbols + 1))
    tokens[:, length] = symbols
    return tokens


def translate(weights: Named) -> Named:
    """Translate the names of the yardstick's weights, or of their gradients, to ours."""
    translated = {}
    for name, value in weights.items():
        name = name.replace("layers.", "blocks.").replace(".memory.", ".long_range.")
        name = name.replace(".norm1.", ".attention_norm.").replace(".norm2.", ".feed_forward_norm.")
        name = re.sub(r"^(blocks\.\d+)\.(position|output)\.", r"\1.attention.\2.", name)
        if ".qkv." in name:
            query, key_value = value.split([value.shape[1], 2 * value.shape[1]])
            translated[name.replace(".qkv.", ".attention.query.")] = query
            translated[name.replace(".qkv.", ".attention.key_value.")] = key_value
        else:
            translated[name] = value
    return translated


def compare_steps(module: ModuleType, config: DecoderConfig, vocab: int, length: int, batch: int) -> dict[str, float]:
    """Compare a step of the yardstick with ours, with the same weights and data and without dropout.

    Returns relative differences: of the loss; of all gradients together, as the norm of the difference over the norm;
    and of the parameter whose largest difference, over its largest gradient, is worst.
    """
    # Give both the same weights; dropout, which would draw differently in each, is off.
    config = config.model_copy(update={"dropout": 0.0})
    torch.manual_seed(0)
    theirs, tokens = build_its_model(module, config, vocab, 0.0), draw_tokens(vocab, length, batch)
    ours = Decoder(config, vocab)
    ours.load_state_dict(translate(theirs.state_dict()))

    # Take the gradients of a step of each; a learning rate of 0 leaves their weights as they are.
    their_loss = module.step(theirs, torch.optim.SGD(theirs.parameters(), lr=0.0), tokens, length)
    targets = tokens[:, 1:].clone()
    targets[:, :length] = UNSCORED
    losses, _ = compute_losses(ours, [Batch(tokens[:, :-1], targets, torch.arange(batch))])
    weigh_losses(losses, ours).backward()
    torch.nn.utils.clip_grad_norm_(ours.parameters(), CLIP)

    # Compare them by our names.
    expected = translate({name: p.grad for name, p in theirs.named_parameters() if p.grad is not None})
    found = {name: p.grad for name, p in ours.named_parameters() if p.grad is not None}
    differences = {name: (found[name] - gradient).abs() for name, gradient in expected.items()}
    norm = torch.stack([gradient.norm() for gradient in expected.values()]).norm()
    return {
        "loss": abs(losses["loss"].item() - their_loss) / abs(their_loss),
        "gradient": (torch.stack([d.norm() for d in differences.values()]).norm() / norm).item(),
        "worst_parameter": max((d.max() / expected[name].abs().max()).item() for name, d in differences.items()),
    }
