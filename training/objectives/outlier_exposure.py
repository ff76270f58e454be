r"""Outlier Exposure for classifiers (Hendrycks, Mazeika & Dietterich, ICLR 2019, section 4.2).

    E_in[-log f_y(x)] + weight * E_out[H(U; f(x'))],    H(U; f(x')) = -1/K sum_k log f_k(x')

On outliers the loss pulls the softmax towards the uniform distribution U over the K classes.
"""

from torch import Tensor
from torch.nn import functional as F

from training.data.pairing import Batch
from training.objectives.objective import Forward, Loss, forward_pair, not_negative


def uniform_cross_entropy(logits: Tensor) -> Tensor:
    """H(U; softmax(logits)) averaged over the batch, a scalar from `[M, K]`."""
    return -F.log_softmax(logits, dim=1).mean()


def outlier_exposure_loss(logits_in: Tensor, targets: Tensor, logits_out: Tensor, weight: float = 0.5) -> Tensor:
    """Scalar Outlier Exposure loss.

    `logits_in` `[N, K]` with class indices `targets` `[N]`; `logits_out` `[M, K]`; `weight` is the paper's lambda
    (0.5 for vision, 1.0 for text).
    """
    return F.cross_entropy(logits_in, targets) + weight * uniform_cross_entropy(logits_out)


class OutlierExposure:
    """The Outlier Exposure loss with the weight from the recipe."""

    uses_outliers = True
    uses_confidence = False

    def __init__(self, weight: float = 0.5) -> None:
        self.weight = not_negative("weight", weight)

    def __call__(self, forward: Forward, batch: Batch) -> Loss:
        """The loss of a paired batch."""
        in_dist, outliers = forward_pair(forward, batch)
        loss = outlier_exposure_loss(in_dist.logits, batch.y_in, outliers.logits, self.weight)
        return Loss(loss, in_dist.logits)
