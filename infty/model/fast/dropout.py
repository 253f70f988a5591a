"""Dropout (Srivastava et al. 2014) that draws two bytes an element: on a CPU draws are most of what dropout costs."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from infty.memory.precision import HOST

STEPS = 2**16  # a probability is rounded to this many parts


class Dropout(nn.Dropout):
    """`nn.Dropout` from the same generator, four elements to a random number; on a GPU it is `nn.Dropout`."""

    def forward(self, input: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Each element is zero with probability p, else divided by 1 − p; unchanged in evaluation."""
        dropped = round(self.p * STEPS)
        if not (self.training and dropped and input.device.type == HOST.type):
            return super().forward(input)
        words = torch.empty(-(-input.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        draws = words.view(torch.int16)[: input.numel()].view(input.shape)
        return input * (draws >= dropped - STEPS // 2) * (STEPS / (STEPS - dropped))
