"""Muon: SGD with orthogonalised momentum for matrices (Jordan 2024, kellerjordan.github.io/posts/muon).

PyTorch's own Muon accepts matrices only. This one accepts convolutions too. Like the optimizer of Jordan's CIFAR-10
networks it fixes the norm of each weight, which the following normalisation makes irrelevant. Parameters of other
groups are trained with SGD.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, overload

import torch
from torch import Tensor

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_STEPS = 3


def orthogonalised(matrices: Tensor, steps: int = _STEPS) -> Tensor:
    """Approximates the semi-orthogonal matrix nearest to each of `matrices` `[..., R, C]` by Newton-Schulz iteration.

    Five `steps` of the quintic iteration bring singular values that are not far below the largest to 0.5..1.5. After
    three steps, the number used in training, small singular values are still small. A GPU computes in bfloat16, as
    Jordan does.
    """
    a, b, c = _COEFFICIENTS
    is_wide = matrices.shape[-2] <= matrices.shape[-1]
    x = matrices if is_wide else matrices.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    x = x.bfloat16() if x.is_cuda else x
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    result: Tensor = (x if is_wide else x.mT).to(matrices.dtype)
    return result


def _orthogonalised_each(matrices: Sequence[Tensor]) -> list[Tensor]:
    """`orthogonalised` of each matrix: on a GPU those of one shape together, which on a CPU takes longer."""
    if not any(matrix.is_cuda for matrix in matrices):
        return [orthogonalised(matrix) for matrix in matrices]
    return orthogonalised_by_shape(matrices)


def orthogonalised_by_shape(matrices: Sequence[Tensor]) -> list[Tensor]:
    """`orthogonalised` of each of `matrices` `[R, C]`, in one batch for each shape."""
    results: dict[int, Tensor] = {}
    for shape in {matrix.shape for matrix in matrices}:
        numbers = [i for i, matrix in enumerate(matrices) if matrix.shape == shape]
        batch = orthogonalised(torch.stack([matrices[i] for i in numbers]))
        results.update(zip(numbers, batch, strict=True))
    return [results[i] for i in range(len(matrices))]


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
        weights = [weight for weight in group["params"] if weight.grad is not None]
        updates = [self._update(weight, group["momentum"]).flatten(1) for weight in weights]
        for weight, direction in zip(weights, _orthogonalised_each(updates), strict=True):
            weight.mul_(math.sqrt(len(weight)) / weight.norm())
            weight.add_(direction.view_as(weight), alpha=-group["lr"])

    def _update(self, weight: Tensor, momentum: float) -> Tensor:
        """The gradient of `weight` with Nesterov momentum."""
        assert weight.grad is not None, "only weights with a gradient are updated"
        state = self.state[weight]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        velocity: Tensor = state["momentum_buffer"].mul_(momentum).add_(weight.grad)
        return weight.grad.add(velocity, alpha=momentum)
