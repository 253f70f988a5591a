"""Apply dropout (Srivastava et al. 2014) with two random bytes per element: on a CPU, drawing is most of its cost."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from infty.memory.precision import HOST

STEPS = 2**16  # a probability is rounded to this many parts


class Dropout(nn.Dropout):
    """`nn.Dropout` with one number of the same generator for four elements; on a GPU it is `nn.Dropout` itself."""

    def forward(self, input: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Make each element zero with probability p, else divide it by 1 − p; in evaluation keep all."""
        dropped = round(self.p * STEPS)
        if not (self.training and dropped and input.device.type == HOST.type):
            return super().forward(input)
        words = torch.empty(-(-input.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        draws = words.view(torch.int16)[: input.numel()].view(input.shape)
        return input * (draws >= dropped - STEPS // 2) * (STEPS / (STEPS - dropped))
