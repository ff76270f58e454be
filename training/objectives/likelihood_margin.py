r"""Outlier Exposure for density networks (Hendrycks, Mazeika & Dietterich, ICLR 2019, section 4.4).

    E_in,out[max(0, num_pixels + nll(x) - nll(x'))],    x in-distribution, x' an outlier

An outlier must be less likely than an in-distribution image, by a margin of one nat for each pixel.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from training.data.pairing import Batch
from training.models.density import Likelihood
from training.objectives.maximum_likelihood import maximum_likelihood_loss
from training.objectives.objective import Loss, not_negative, outliers_of


def likelihood_margin_loss(nll_in: Tensor, nll_out: Tensor, num_pixels: int) -> Tensor:
    """Scalar margin loss in nats of images with likelihoods `nll_in` `[N]` and outliers with `nll_out` `[M]`, in nats.

    The loss is the mean over all N x M pairs. Images and outliers are drawn independently, so every pair is a sample of
    the paper's expectation.
    """
    return F.relu(num_pixels + nll_in[:, None] - nll_out).mean()


class LikelihoodMargin:
    """Maximum likelihood of the in-distribution images plus `weight` times the margin loss, in nats per dimension."""

    uses_outliers = True
    uses_confidence = False

    def __init__(self, weight: float = 1.0) -> None:
        self.weight = not_negative("weight", weight)

    def __call__(self, forward: Callable[[Tensor], Likelihood], batch: Batch) -> Loss:
        """The loss of a paired batch."""
        n, (height, width, channels) = len(batch.x_in), batch.x_in.shape[1:]
        nll = forward(torch.cat((batch.x_in, outliers_of(batch)))).of_images
        margin = likelihood_margin_loss(nll[:n], nll[n:], height * width)
        dimensions = height * width * channels
        return Loss(maximum_likelihood_loss(nll[:n], dimensions) + self.weight * margin / dimensions)
