r"""Logit normalisation (Wei, Xie, Cheng, Feng, An & Li, ICML 2022, equation 5): training without outliers.

    E_in[-log softmax(z / (tau ||z||))_y]

The norm of the logits has no influence on the loss, so training cannot become overconfident by growing it.
"""

from torch import Tensor
from torch.nn import functional as F

from training.data.pairing import Batch
from training.objectives.objective import Forward, Loss

_SMALLEST_NORM = 1e-7
"""Added to the norm, as in the authors' code."""


def logit_norm_loss(logits: Tensor, targets: Tensor, *, tau: float = 0.04) -> Tensor:
    """Scalar loss of `logits` `[N, K]` with class indices `targets` `[N]`; `tau` is the temperature."""
    norms = logits.norm(dim=1, keepdim=True) + _SMALLEST_NORM
    return F.cross_entropy(logits / (norms * tau), targets)


class LogitNorm:
    """Logit normalisation with the temperature from the recipe; uses no outliers. The default is the paper's."""

    uses_outliers = False
    uses_confidence = False

    def __init__(self, tau: float = 0.04) -> None:
        if tau <= 0:
            raise ValueError(f"tau must be positive, got {tau}")
        self.tau = tau

    def __call__(self, forward: Forward, batch: Batch) -> Loss:
        """The loss of the in-distribution part of `batch`."""
        logits = forward(batch.x_in).logits
        return Loss(logit_norm_loss(logits, batch.y_in, tau=self.tau), logits)
