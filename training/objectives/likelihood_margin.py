r"""Outlier Exposure for density networks (Hendrycks, Mazeika & Dietterich, ICLR 2019, section 4.4).

    E_in,out[max(0, num_pixels + nll(x) - nll(x'))],    x in-distribution, x' an outlier, both in nats

An outlier must be less likely than an in-distribution image, by one nat for each of num_pixels. The paper does not
define num_pixels, and its code for densities is not published. Bits "per pixel" as the paper reports them are bits per
colour channel; by this reading num_pixels is height x width x channels, a margin of 1 nat (1.44 bits) per dimension.
With num_pixels as height x width, the margin of an image with three channels is 1/3 nat per dimension.
"""

from collections.abc import Callable
from math import prod

import torch
from torch import Tensor
from torch.nn import functional as F

from training.data.pairing import Batch
from training.models.density import Likelihood
from training.objectives.maximum_likelihood import maximum_likelihood_loss
from training.objectives.objective import Loss, not_negative, outliers_of


def likelihood_margin_loss(nll_in: Tensor, nll_out: Tensor, margin: float) -> Tensor:
    """Scalar margin loss of images with likelihoods `nll_in` `[N]` and outliers with `nll_out` `[M]`, all in nats.

    The loss is the mean over all N x M pairs. Images and outliers are drawn independently, so every pair is a sample of
    the paper's expectation.
    """
    return F.relu(margin + nll_in[:, None] - nll_out).mean()


class LikelihoodMargin:
    """Maximum likelihood of the in-distribution images plus `weight` times the margin loss, in nats per dimension.

    Args:
        weight: The factor of the margin loss.
        margin: The margin in nats per dimension; an image has height x width x channels dimensions.
    """

    uses_outliers = True
    uses_confidence = False

    def __init__(self, weight: float = 1.0, margin: float = 1.0) -> None:
        self.weight = not_negative("weight", weight)
        self.margin = not_negative("margin", margin)

    def __call__(self, forward: Callable[[Tensor], Likelihood], batch: Batch) -> Loss:
        """The loss of a paired batch."""
        n, dimensions = len(batch.x_in), prod(batch.x_in.shape[1:])
        nll = forward(torch.cat((batch.x_in, outliers_of(batch)))).of_images
        margin_loss = likelihood_margin_loss(nll[:n], nll[n:], self.margin * dimensions)
        return Loss(maximum_likelihood_loss(nll[:n], dimensions) + self.weight * margin_loss / dimensions)
