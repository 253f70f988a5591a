#!/usr/bin/env bash
# torch's counter of FLOPs counts the same attention as nothing or in full, by device and dropout, and no in-place product.
#
# Version     torch 2.13.0.
# Behaviour   `FlopCounterMode` counts `scaled_dot_product_attention` on a CPU as 0 FLOPs, forward and backward; with a dropout of
#             0.1, or on the meta device, the same call counts in full. `torch.baddbmm` is counted, `Tensor.baddbmm_` is not.
#             Neither is said.
# Guess       Products are products: what is counted depends on shapes alone, as the counter knows an operator's formula by its
#             name, and an operator that it does not know is told.
# Hurts       Whoever compares models by FLOPs that were counted on a CPU, or tests a budget of them there: a GPT-2 without
#             dropout loses its attention, and beside one with dropout looks cheaper than it is.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
cat > "$folder/count.py" <<'PYTHON'
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode


def count(act):
    with FlopCounterMode(display=False) as counter:
        act()
    return counter.get_total_flops()


def attend(device, dropout):
    q, k, v = (torch.randn(2, 4, 64, 32, device=device, requires_grad=True) for _ in range(3))
    return lambda: F.scaled_dot_product_attention(q, k, v, dropout_p=dropout).sum().backward()


a, b, c = torch.randn(2, 8, 8), torch.randn(2, 8, 16), torch.randn(2, 16, 8)
print(
    count(attend("cpu", 0.0)),
    count(attend("cpu", 0.1)),
    count(attend("meta", 0.0)),
    count(lambda: torch.baddbmm(a, b, c)),
    count(lambda: a.baddbmm_(b, c)),
)
PYTHON
read -r plain dropped meta product in_place < <("$folder/venv/bin/python" "$folder/count.py")
echo "attention forward and backward: $plain FLOPs on a CPU, $dropped there with dropout, $meta on the meta device"
echo "a product: $product FLOPs, in place $in_place"
[ "$plain" = 0 ] && [ "$dropped" -gt 0 ] && [ "$meta" = "$dropped" ] && [ "$product" -gt 0 ] && [ "$in_place" = 0 ] ||
    { echo "this has changed"; exit 1; }
