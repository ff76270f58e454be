"""Muon: SGD with orthogonalised momentum for matrices (Jordan 2024, kellerjordan.github.io/posts/muon).

PyTorch's own Muon accepts matrices only. This one accepts convolutions too. Like the optimizer of Jordan's CIFAR-10
networks it fixes the norm of each weight, which the following normalisation makes irrelevant. Parameters of other
groups are trained with SGD.
"""

import math
from collections.abc import Callable
from typing import Any, overload

import torch
from torch import Tensor

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_STEPS = 3


def orthogonalised(matrix: Tensor, steps: int = _STEPS) -> Tensor:
    """Approximates the semi-orthogonal matrix nearest to `matrix` `[R, C]` by a quintic Newton-Schulz iteration.

    Five `steps` bring singular values that are not far below the largest to 0.5..1.5. After three steps, the number
    used in training, small singular values are still small.
    """
    a, b, c = _COEFFICIENTS
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x = wide / (wide.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    result: Tensor = x if wide is matrix else x.T
    return result


class Muon(torch.optim.SGD):
    """Nesterov SGD, and Muon for the groups with `muon=True`: weights `[out, ...]` of at least two dimensions.

    Before each step Muon scales a weight to the norm √out. Weight decay does not apply to those groups.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float, *, momentum: float, weight_decay: float) -> None:
        super().__init__(groups, lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=momentum > 0)

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take one step in every group; returns the loss of `closure`, if given."""
        with torch.enable_grad():
            loss = None if closure is None else closure()
        all_groups = self.param_groups
        try:
            self.param_groups = [group for group in all_groups if not group.get("muon")]
            super().step()
        finally:
            self.param_groups = all_groups
        for group in all_groups:
            if group.get("muon"):
                self._step_muon(group)
        return loss

    @torch.no_grad()
    def _step_muon(self, group: dict[str, Any]) -> None:
        for weight in group["params"]:
            if weight.grad is None:
                continue
            state = self.state[weight]
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(weight)
            velocity = state["momentum_buffer"].mul_(group["momentum"]).add_(weight.grad)
            update = weight.grad.add(velocity, alpha=group["momentum"])
            weight.mul_(math.sqrt(len(weight)) / weight.norm())
            weight.add_(orthogonalised(update.flatten(1)).view_as(weight), alpha=-group["lr"])
