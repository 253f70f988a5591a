#!/usr/bin/env bash
# A Compressive Transformer from PyPI stops training its keys and values at the first segment that it compresses.
#
# Version     compressive-transformer-pytorch 0.4.0 with torch 2.13.0.
# Behaviour   In training, the first segment that pushes something into the compressed memory takes the projection of keys and
#             values (`to_kv.weight`) of every layer out of training for good: `requires_grad` is False from then on, with no
#             warning, since its loss on what it compressed detaches the parameter itself, in place, and a detached parameter
#             is a constant in every later graph. The optimiser skips it, as it has no gradient. Queries, outputs and the
#             compression are still trained.
# Guess       Keys and values are constants in the compression's own loss, as in the paper, and are trained by the language
#             model's.
# Hurts       Whoever takes this package as the Compressive Transformer's baseline: its attention keeps the keys and values of
#             its first steps, and loses to models whose attention is trained.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 compressive-transformer-pytorch==0.4.0
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import torch
from compressive_transformer_pytorch import CompressiveTransformer

torch.manual_seed(0)
model = CompressiveTransformer(
    num_tokens=20, dim=16, depth=2, heads=2, seq_len=8, mem_len=8, cmem_len=8, cmem_ratio=4, gru_gated_residual=False
)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
weights = {name: weight for name, weight in model.named_parameters() if ".to_kv." in name or ".to_q." in name}

moved, memory = [], None
for segment in range(6):  # the language model's loss alone; its third value is the compression's
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    tokens = torch.randint(0, 20, (4, 9))
    logits, memory, _ = model(tokens[:, :-1], memory)
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
    optimizer.step()
    moved.append({part: any(f".{part}." in name and not weight.equal(before[name]) for name, weight in weights.items())
                  for part in ("to_q", "to_kv")})
    print(f"segment {segment + 1}: compressed vectors {memory.compressed_mem.shape[2]}, moved by the step: {moved[-1]}")
learn = [step["to_kv"] for step in moved]
sys.exit(0 if learn[0] and not any(learn[1:]) and all(step["to_q"] for step in moved) else "this has changed")
PYTHON
