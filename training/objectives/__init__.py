"""Training objectives: each maps logits of one in-distribution and one outlier batch to a loss."""

from collections.abc import Callable, Mapping
from typing import Protocol

from torch import Tensor

from training.objectives.cross_entropy import CrossEntropy
from training.objectives.outlier_exposure import OutlierExposure, outlier_exposure_loss


class Objective(Protocol):
    """What `fit` minimises."""

    uses_outliers: bool

    def __call__(self, logits_in: Tensor, targets: Tensor, logits_out: Tensor | None) -> Tensor:
        """Scalar loss from logits `[N, K]`, class indices `[N]` and, when `uses_outliers`, logits `[M, K]`."""
        ...


OBJECTIVES: Mapping[str, Callable[..., Objective]] = {
    "cross_entropy": CrossEntropy,
    "outlier_exposure": OutlierExposure,
}

__all__ = ["OBJECTIVES", "CrossEntropy", "Objective", "OutlierExposure", "outlier_exposure_loss"]
