"""Muon: momentum, orthogonalised as a matrix before it is added (Jordan 2024, kellerjordan.github.io/posts/muon).

PyTorch's own Muon takes matrices only. This one takes convolutions and, like that of Jordan's CIFAR-10 networks, fixes
the norm of each weight, which a normalisation behind it makes meaningless; parameters of other groups get SGD.
"""

import math
from collections.abc import Callable
from typing import Any, overload

import torch
from torch import Tensor

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_STEPS = 3


def orthogonalised(matrix: Tensor, steps: int = _STEPS) -> Tensor:
    """About the nearest semi-orthogonal matrix to `matrix` `[R, C]`, by a quintic Newton-Schulz iteration.

    Five `steps` bring singular values that are not far below the largest between 0.5 and 1.5; the three that training
    takes leave the small ones smaller.
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

    Those take no weight decay: before each step they are scaled to the norm √out.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float, *, momentum: float, weight_decay: float) -> None:
        super().__init__(groups, lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=momentum > 0)

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step of every group; the loss that `closure` gives, if any."""
        with torch.enable_grad():
            loss = None if closure is None else closure()
        every = self.param_groups
        try:
            self.param_groups = [group for group in every if not group.get("muon")]
            super().step()
        finally:
            self.param_groups = every
        for group in every:
            if group.get("muon"):
                self._step(group)
        return loss

    @torch.no_grad()
    def _step(self, group: dict[str, Any]) -> None:
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
