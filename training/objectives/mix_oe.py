r"""MixOE, mixture outlier exposure (Zhang, Inkawhich, Linderman, Chen & Li, WACV 2023, section 3.2), with mixup.

    E_in[-log f_y(x)] + weight * E[H(t; f(m))],    m = l x + (1 - l) x',    t = l onehot(y) + (1 - l) U

with l ~ Beta(alpha, alpha).
The mixtures lie between the in-distribution and the outliers, and confidence is taught to decay from the one to the
other.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from training.data.pairing import Batch
from training.objectives.objective import Forward, Loss, not_negative


def mixture_targets(targets: Tensor, num_classes: int, share: Tensor) -> Tensor:
    """Soft targets `[N, K]`: `share` `[N]` of each one-hot target `[N]`, the rest spread evenly over the classes."""
    one_hot = F.one_hot(targets, num_classes).to(share.dtype)
    return share[:, None] * one_hot + (1 - share[:, None]) / num_classes


class MixOE:
    """Cross entropy on the in-distribution batch and on its mixtures, by pixel, with as many outliers."""

    uses_outliers = True
    uses_confidence = False

    def __init__(self, weight: float = 5.0, alpha: float = 1.0) -> None:
        self.weight = not_negative("weight", weight)
        self._mixing = torch.distributions.Beta(alpha, alpha)

    def __call__(self, forward: Forward, batch: Batch) -> Loss:
        """The loss of a paired batch of images; ValueError for texts, or for fewer outliers than images."""
        n = len(batch.x_in)
        if batch.x_out is None or len(batch.x_out) < n or batch.x_in.dim() != 4:
            raise ValueError("MixOE mixes images, each with an outlier of its own: set the stage's outlier_ratio to 1")
        # One share for a whole batch, as in mixup's and the authors' code.
        share = self._mixing.sample().to(batch.x_in.device).expand(n)
        inside = batch.x_in.float()
        mixed = torch.lerp(batch.x_out[:n].float(), inside, share[:, None, None, None])
        predicted, of_mixed = forward(torch.cat((inside, mixed))).split(n)
        soft = mixture_targets(batch.y_in, predicted.logits.shape[1], share)
        loss = F.cross_entropy(predicted.logits, batch.y_in) + self.weight * F.cross_entropy(of_mixed.logits, soft)
        return Loss(loss, predicted.logits)
