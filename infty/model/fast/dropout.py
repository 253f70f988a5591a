"""Drop out (Srivastava et al. 2014) by draws of two bytes per element: on a CPU draws are most of what it costs."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from infty.memory.precision import HOST

STEPS = 2**16  # a probability is rounded to this many parts


class Dropout(nn.Dropout):
    """`nn.Dropout` from the same generator, four elements to a random number; on a GPU it is `nn.Dropout`."""

    def forward(self, input: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Make each element zero with probability p, else divide it by 1 − p; in evaluation keep all."""
        dropped = round(self.p * STEPS)
        if not (self.training and dropped and input.device.type == HOST.type):
            return super().forward(input)
        words = torch.empty(-(-input.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        draws = words.view(torch.int16)[: input.numel()].view(input.shape)
        return input * (draws >= dropped - STEPS // 2) * (STEPS / (STEPS - dropped))
