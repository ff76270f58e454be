r"""MixOE, mixture outlier exposure (Zhang, Inkawhich, Linderman, Chen & Li, WACV 2023, section 3.2), with mixup.

    E_in[-log f_y(x)] + weight * E[H(t; f(m))],    m = l x + (1 - l) x',    t = l onehot(y) + (1 - l) U

with l ~ Beta(alpha, alpha). The loss lets the confidence decay from in-distribution inputs to outliers.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from training.data.pairing import Batch
from training.objectives.objective import Forward, Loss, not_negative, outliers_of

_IMAGE_DIMENSIONS = 3


def mixture_targets(targets: Tensor, num_classes: int, share: Tensor) -> Tensor:
    """Soft targets `[N, K]`: weight `share` `[N]` on the class `targets` `[N]`, the rest uniform over all classes."""
    one_hot = F.one_hot(targets, num_classes).to(share.dtype)
    return share[:, None] * one_hot + (1 - share[:, None]) / num_classes


class MixOE:
    """Cross entropy on the in-distribution batch and on its pixel-wise mixtures with as many outliers.

    Args:
        weight: The weight of the loss on mixtures.
        alpha: Both parameters of the Beta distribution of the shares.
        input_shape: The shape of the images, (H, W, C).
        outlier_ratio: The stage's number of outliers per in-distribution image, at least 1.
    """

    uses_outliers = True
    uses_confidence = False

    def __init__(
        self,
        weight: float = 5.0,
        alpha: float = 1.0,
        input_shape: tuple[int, ...] = (32, 32, 3),
        outlier_ratio: float = 1.0,
    ) -> None:
        if len(input_shape) != _IMAGE_DIMENSIONS:
            raise ValueError(f"it mixes images [H, W, C], the network's inputs are {list(input_shape)}")
        if outlier_ratio < 1:
            raise ValueError(
                f"it mixes each image with a different outlier, the stage's outlier_ratio is {outlier_ratio}"
            )
        self.weight = not_negative("weight", weight)
        self._mixing = torch.distributions.Beta(alpha, alpha)

    def __call__(self, forward: Forward, batch: Batch) -> Loss:
        """The loss of a paired batch of images; ValueError for fewer outliers than images."""
        n = len(batch.x_in)
        outliers = outliers_of(batch)
        if len(outliers) < n:
            raise ValueError("MixOE mixes each image with a different outlier: set the stage's outlier_ratio to 1")
        # One share for the batch, as in the code of mixup and of the authors.
        share = self._mixing.sample().to(batch.x_in.device).expand(n)
        images = batch.x_in.float()
        mixed = torch.lerp(outliers[:n].float(), images, share[:, None, None, None])
        in_dist, of_mixed = forward(torch.cat((images, mixed))).split(n)
        soft = mixture_targets(batch.y_in, in_dist.logits.shape[1], share)
        loss = F.cross_entropy(in_dist.logits, batch.y_in) + self.weight * F.cross_entropy(of_mixed.logits, soft)
        return Loss(loss, in_dist.logits)
