"""Build Hugging Face's GPT-2 (Radford et al. 2019) with memories grafted on (section 4.2); save and load it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.utils import logging

from infty.base.errors import MissingError, UsageError, describe_fault
from infty.base.files import read_json, write_json
from infty.memory.equations import split_heads
from infty.model.config import Gpt2ModelConfig
from infty.model.gpt2_tensors import WEIGHTS, refuse_other_tensors
from infty.model.graft import Graft, Heads, Hidden
from infty.model.tensors import write_tensors

END_OF_TEXT = 50_256  # of GPT-2's own vocabulary
MEMORY, SIZES = "memory.safetensors", "memory.json"


class Gpt2Family:
    """Adapter to GPT-2's layers (Radford et al. 2019): one projection, `c_attn`, makes queries, keys and values."""

    only_causal: ClassVar[bool] = True  # nothing but later tokens is ever masked

    def layers(self, decoder: nn.Module) -> Sequence[nn.Module]:
        """List the layers of the transformer within the language model."""
        return list(decoder.transformer.h)  # pyright: ignore

    def attention(self, layer: nn.Module) -> nn.Module:
        """Get the attention of a layer."""
        return layer.attn  # pyright: ignore

    def queries(self, attention: Any, x: Hidden) -> Hidden:
        """Make queries: the first third of what `c_attn` makes."""
        weight, size = attention.c_attn.weight, attention.split_size  # weight: in × out
        return F.linear(x, weight[:, :size].T, attention.c_attn.bias[:size])

    def query_part(self, attention: Any) -> tuple[nn.Module, slice]:
        """Get `c_attn`, and the first third of what it makes."""
        return attention.c_attn, slice(attention.split_size)

    def key_values(self, attention: Any, x: Float[Tensor, "b n hidden"]) -> tuple[Heads, Heads]:
        """Make keys and values: the other two thirds, split into heads."""
        weight, size = attention.c_attn.weight, attention.split_size
        both = F.linear(x, weight[:, size:].T, attention.c_attn.bias[size:])
        key, value = (split_heads(part, attention.num_heads) for part in both.chunk(2, -1))
        return key, value

    def places(self, decoder: Any, layer: Any) -> Float[Tensor, "places hidden"]:
        """Make what the layer's first norm makes of the embedding of each place, but for its length: held constant."""
        embeddings = decoder.transformer.wpe.weight.detach()
        return (embeddings - embeddings.mean(1, keepdim=True)) * layer.ln_1.weight.detach()

    def load(self, decoder: Any, folder: Path) -> None:
        """Read a GPT-2's weights from a Hugging Face folder (safetensors).

        Its configuration is ignored, since it could name another file, other code, or another type of numbers.

        Raises:
            MissingError: The folder lacks a tensor or has one of another shape.
            UsageError: It has more than this GPT-2, an output matrix of its own, or numbers that are not finite.
        """
        try:
            if (folder / WEIGHTS).is_file():
                refuse_other_tensors(folder, decoder.config.n_layer)
            options = {"use_safetensors": True, "local_files_only": True, "dtype": torch.float32}
            options |= {"ignore_mismatched_sizes": True}  # told below, in our words
            with _quiet():
                base, info = cast("Any", GPT2LMHeadModel).from_pretrained(
                    folder, config=decoder.config, output_loading_info=True, **options
                )
            if info["missing_keys"]:
                lacking = ", ".join(sorted(info["missing_keys"])[:3])
                raise MissingError(f"{folder} holds no weights of this GPT-2: it lacks {lacking}")
            if info["mismatched_keys"]:
                name, theirs, ours = min(info["mismatched_keys"])
                sizes = f"{name} has sizes {tuple(theirs)}, not {tuple(ours)}"
                raise MissingError(f"{folder} holds no weights of this GPT-2: {sizes}")
            if odd := [name for name, value in base.state_dict().items() if not value.isfinite().all()]:
                raise UsageError(f"{folder}: {odd[0]} holds NaN or infinite numbers: the file is damaged")
            decoder.load_state_dict(base.state_dict())
        except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as fault:
            raise MissingError(f"{folder} holds no weights of this GPT-2: {describe_fault(fault)}") from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Let Hugging Face's library say nothing but errors; then it is as the program has it."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def build_gpt2(config: Gpt2ModelConfig, vocab_size: int) -> Graft:
    """Build a GPT-2 of these sizes with random weights, and its memories."""
    special = END_OF_TEXT if vocab_size > END_OF_TEXT else None
    sizes = GPT2Config(
        vocab_size=vocab_size,
        n_positions=config.num_positions,
        n_embd=config.hidden_size,
        n_layer=config.num_layers,
        n_head=config.num_heads,
        initializer_range=config.initial_std,
        **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), config.dropout),
        **dict.fromkeys(("bos_token_id", "eos_token_id"), special),
    )
    return Graft(config, GPT2LMHeadModel(sizes), Gpt2Family())


def save_pretrained(model: Graft, folder: Path) -> None:
    """Save a normal Hugging Face folder, for `GPT2LMHeadModel.from_pretrained`, and the memories' tensors in it."""
    model.base.save_pretrained(folder)
    write_json(folder / SIZES, model.config.model_dump(mode="json"))
    write_tensors(folder / MEMORY, model.blocks.state_dict())


def from_pretrained(folder: Path) -> Graft:
    """Load what `save_pretrained` saved.

    Raises:
        MissingError: A file is missing, is damaged, or does not fit the others.
        UsageError: The weights are of another GPT-2.
    """
    mend = "save it there again with save_pretrained"
    sizes, vocab_size = read_json(folder / SIZES, mend), read_json(folder / "config.json", mend).get("vocab_size")
    try:
        model = build_gpt2(Gpt2ModelConfig.model_validate(sizes), int(str(vocab_size)))
        model.blocks.load_state_dict(load_file(folder / MEMORY))
    except (OSError, ValueError, RuntimeError, SafetensorError) as fault:
        raise MissingError(f"{folder} holds no memories of a GPT-2: {describe_fault(fault)}; {mend}") from None
    model.load_decoder(folder)
    return model
