"""Other packages' models at our sizes, each in a training step on the same sorting sequences.

They come with the extra `peers`. All read a sequence as ours do: earlier segments without a gradient, the last one with
it, their memory carried on; what no size asks for is left as the package has it. Dropout is off.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from infty.base.batch import UNSCORED
from infty.base.errors import MissingError
from infty.experiment import Experiment, build_task
from infty.model.config import DecoderConfig
from infty.training.adam import Adam

Tokens = Int[Tensor, "batch length"]
Read = Callable[[Tokens, Any], tuple[Float[Tensor, "batch length vocab"], Any]]  # from a memory; None: an empty one


def _name_sizes(config: DecoderConfig) -> dict[str, Any]:
    """Name sizes as three of the packages do."""
    mult = config.feed_forward_size / config.hidden_size
    return {"dim": config.hidden_size, "depth": config.num_layers, "heads": config.num_heads, "ff_mult": mult}


def _count_slots(config: DecoderConfig) -> int:
    """Count the vectors that our memory keeps a layer."""
    return config.long_range.slots if config.long_range else 0


def build_infini(config: DecoderConfig, vocab_size: int) -> tuple[nn.Module, Read]:
    """Build an Infini-transformer (arXiv 2404.07143)."""
    from infini_transformer_pytorch import InfiniTransformer

    model = InfiniTransformer(
        num_tokens=vocab_size, dim_head=config.hidden_size // config.num_heads, **_name_sizes(config)
    )

    def read(tokens: Tokens, memory: Any) -> tuple[Tensor, Any]:
        logits, _, after = model(tokens, past_memories=memory, return_new_memories=True)
        return logits, after

    return model, read


def build_x_transformer(config: DecoderConfig, vocab_size: int) -> tuple[nn.Module, Read]:
    """Build a decoder of x-transformers with rotary positions, fused attention and the last hidden states kept."""
    from x_transformers import Decoder, TransformerWrapper

    sizes = _name_sizes(config)
    layers = Decoder(
        attn_dim_head=config.hidden_size // config.num_heads, rotary_pos_emb=True, attn_flash=True, **sizes
    )
    model = TransformerWrapper(
        num_tokens=vocab_size,
        max_seq_len=config.segment_length,
        max_mem_len=config.short_term_length,
        use_abs_pos_emb=False,
        attn_layers=layers,
    )
    return model, lambda tokens, memory: model(tokens, mems=memory, return_mems=True)


def build_recurrent_memory(config: DecoderConfig, vocab_size: int) -> tuple[nn.Module, Read]:
    """Build a Recurrent Memory Transformer (arXiv 2207.06881) with as many memory tokens as slots."""
    from recurrent_memory_transformer_pytorch import RecurrentMemoryTransformer

    model = RecurrentMemoryTransformer(
        num_tokens=vocab_size,
        dim_head=config.hidden_size // config.num_heads,
        seq_len=config.segment_length,
        num_memory_tokens=_count_slots(config),
        abs_pos_emb=False,
        rotary_pos_emb=True,
        num_residual_streams=1,
        use_flash_attn=True,
        **_name_sizes(config),
    )

    def read(tokens: Tokens, memory: Any) -> tuple[Tensor, Any]:
        written, cached = memory or (None, None)
        logits, *after = model(tokens, written, xl_memories=cached)
        return logits, tuple(after)

    return model, read


def build_compressive(config: DecoderConfig, vocab_size: int) -> tuple[nn.Module, Read]:
    """Build a Compressive Transformer (arXiv 1911.05507) with its rate of 4; its loss on what it compressed is left."""
    from compressive_transformer_pytorch import CompressiveTransformer

    model = CompressiveTransformer(
        vocab_size,
        dim=config.hidden_size,
        depth=config.num_layers,
        heads=config.num_heads,
        seq_len=config.segment_length,
        mem_len=config.short_term_length,
        cmem_len=_count_slots(config),
        gru_gated_residual=False,
    )

    def read(tokens: Tokens, memory: Any) -> tuple[Tensor, Any]:
        logits, after, _ = model(tokens, memory)
        return logits, after

    return model, read


@dataclass(frozen=True)
class Peer:
    """Another package. without: what it does not do, or does otherwise, next to our model in the same step."""

    package: str
    build: Callable[[DecoderConfig, int], tuple[nn.Module, Read]]
    without: str


PEERS = {
    "infini": Peer(
        "infini-transformer-pytorch",
        build_infini,
        "no short-term memory: it attends within its segment; its memory is a matrix a head, without times",
    ),
    "x-transformers": Peer(
        "x-transformers", build_x_transformer, "no long-term memory: the hidden states of the last segment, and no more"
    ),
    "recurrent-memory": Peer(
        "recurrent-memory-transformer-pytorch",
        build_recurrent_memory,
        "no memory in a layer: N tokens of the input, in each layer to read and again to write; they fill its cache",
    ),
    "compressive": Peer(
        "compressive-transformer-pytorch",
        build_compressive,
        "feed-forward parts four times the hidden size, which no option changes; "
        "keys and values are no longer trained once it compressed, nor is its compression here",
    ),
}


def find_versions() -> dict[str, str]:
    """Find which version of each is installed, by name in `PEERS`. MissingError if one is not."""
    versions = {}
    for name, peer in PEERS.items():
        try:
            versions[name] = version(peer.package)
        except PackageNotFoundError:
            mend = "pip install 'infty-former[peers]'"
            raise MissingError(f"the package {peer.package} is not installed: {mend}") from None
    return versions


def make_step(name: str, experiment: Experiment) -> Callable[[], dict[str, int]]:
    """Make a training step of a peer: a batch's segments, loss of what is scored, gradient, clipping, Adam."""
    warnings.simplefilter("ignore")  # of what they use and torch has given up
    torch.manual_seed(0)
    task, training = build_task(experiment, Path()), experiment.training
    config = DecoderConfig.model_validate(experiment.model.model_dump())
    model, read = PEERS[name].build(config, task.vocab_size)
    optimizer = Adam([{"params": list(model.parameters()), "lr": training.learning_rate}])

    def step() -> dict[str, int]:
        batch, memory = task.training_batch(0, training.batch_size, 0), None
        *earlier, last = batch.segments(config.segment_length)
        with torch.no_grad():
            for segment in earlier:
                _, memory = read(segment.tokens, memory)
        logits, _ = read(last.tokens, memory)
        F.cross_entropy(logits.flatten(0, 1), last.targets.flatten(), ignore_index=UNSCORED).backward()
        nn.utils.clip_grad_norm_(model.parameters(), training.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        return {"tokens": batch.tokens.numel()}

    return step
