#!/usr/bin/env bash
# The Transformer-XL cache of a Recurrent Memory Transformer from PyPI keeps its memory tokens before any of the text.
#
# Version     recurrent-memory-transformer-pytorch 0.7.0 with torch 2.13.0.
# Behaviour   `xl_mem_len` counts keys from the end of what a segment's attention had, and the segment's end is its memory
#             tokens, not its text. Of a cache of n keys, with m memory tokens, n − m are of the text; with as many memory
#             tokens as the cache is long, none: the first layer's cache is then the same whatever was read. Once a cache is
#             handed on, it is refilled in the same way at every segment.
# Guess       The cache holds the last `xl_mem_len` tokens of the text, as Transformer-XL's does, and the memory tokens are
#             handed on beside it.
# Hurts       Whoever compares memories at one attention span, or searches for the number of memory tokens: more of them
#             silently shortens the attention over the text.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 recurrent-memory-transformer-pytorch==0.7.0 packaging==26.3
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import sys

import torch
from recurrent_memory_transformer_pytorch import RecurrentMemoryTransformer

LENGTH, CACHE = 16, 8
texts = torch.randint(0, 20, (2, 1, LENGTH), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def count_of_the_text(memory_tokens):
    """Of the first layer's cached keys, how many depend on the text that was read?"""
    torch.manual_seed(0)
    model = RecurrentMemoryTransformer(
        16, num_tokens=20, depth=2, num_memory_tokens=memory_tokens, seq_len=LENGTH, heads=2, dim_head=8,
        abs_pos_emb=False, rotary_pos_emb=True, xl_mem_len=CACHE,
    ).eval()
    one, other = (model(text)[2][0][0] for text in texts)  # batch, heads, keys, size of a head
    assert one.shape[2] == CACHE
    return int((one != other).any(-1).any(1).sum())


found = {count: count_of_the_text(count) for count in (1, 4, 8, 16)}
for count, keys in found.items():
    print(f"{count} memory tokens: of {CACHE} cached keys, {keys} are of the text")
sys.exit(0 if found == {1: 7, 4: 4, 8: 0, 16: 0} else "this has changed")
PYTHON
