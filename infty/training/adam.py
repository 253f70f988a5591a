"""Update parameters by Adam (Kingma and Ba 2015): torch's own fused kernel, without what `torch.optim` loads.

Making or stepping a `torch.optim.Optimizer` imports torch's compiler (2.13: `torch._dynamo`, for its decorators), which
takes longer than all else before the first step. The function that does the work needs none of it.
"""

from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim.adam import adam

BETAS, EPSILON = (0.9, 0.999), 1e-8  # torch's, and the paper's


class Adam:
    """Adam over groups of parameters, `params`, each with a learning rate of its own, `lr`; other keys are kept.

    `state` holds of each parameter that has had a gradient: `step`, `exp_avg` and `exp_avg_sq`, as `torch.optim.Adam`.
    """

    def __init__(self, groups: Iterable[dict[str, Any]]) -> None:
        self.param_groups = list(groups)
        self.state: dict[nn.Parameter, dict[str, Tensor]] = {}

    @torch.no_grad()
    def step(self) -> None:
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            learnt = [parameter for parameter in group["params"] if parameter.grad is not None]
            states = [self._get_state(parameter) for parameter in learnt]
            adam(
                learnt,
                [parameter.grad for parameter in learnt],
                [state["exp_avg"] for state in states],
                [state["exp_avg_sq"] for state in states],
                [],
                [state["step"] for state in states],
                fused=True,
                amsgrad=False,
                beta1=BETAS[0],
                beta2=BETAS[1],
                lr=group["lr"],
                weight_decay=0.0,
                eps=EPSILON,
                maximize=False,
            )

    def zero_grad(self) -> None:
        """Free the gradients."""
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def _get_state(self, parameter: nn.Parameter) -> dict[str, Float[Tensor, "..."]]:
        if parameter not in self.state:
            step = torch.zeros((), device=parameter.device)
            averages = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
            self.state[parameter] = {"step": step, **averages}
        return self.state[parameter]
