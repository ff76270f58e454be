r"""Outlier Exposure for classifiers (Hendrycks, Mazeika & Dietterich, ICLR 2019, section 4.2).

    E_in[-log f_y(x)] + weight * E_out[H(U; f(x'))],    H(U; f(x')) = -1/K sum_k log f_k(x')

On outliers the softmax is drawn towards the uniform distribution U over the K classes.
"""

from torch import Tensor
from torch.nn import functional as F


def outlier_exposure_loss(logits_in: Tensor, targets: Tensor, logits_out: Tensor, weight: float = 0.5) -> Tensor:
    """Scalar Outlier Exposure loss.

    `logits_in` `[N, K]` with class indices `targets` `[N]`; `logits_out` `[M, K]`; `weight` is the paper's lambda
    (0.5 for vision, 1.0 for text).
    """
    to_uniform = -F.log_softmax(logits_out, dim=1).mean()
    return F.cross_entropy(logits_in, targets) + weight * to_uniform


class OutlierExposure:
    """The Outlier Exposure loss with its weight fixed by the recipe."""

    uses_outliers = True

    def __init__(self, weight: float = 0.5) -> None:
        if weight < 0:
            raise ValueError(f"weight must not be negative, got {weight}")
        self.weight = weight

    def __call__(self, logits_in: Tensor, targets: Tensor, logits_out: Tensor | None) -> Tensor:
        """Scalar loss from logits `[N, K]`, class indices `[N]` and outlier logits `[M, K]`."""
        if logits_out is None:
            raise ValueError("Outlier Exposure needs the logits of an outlier batch")
        return outlier_exposure_loss(logits_in, targets, logits_out, self.weight)
