r"""Outlier Exposure for density networks (Hendrycks, Mazeika & Dietterich, ICLR 2019, section 4.4).

    E_in,out[max(0, num_pixels + nll(x) - nll(x'))],    x in-distribution, x' an outlier

An outlier must be less likely than an in-distribution image, by a margin of one nat for each pixel.
"""

from torch import Tensor
from torch.nn import functional as F


def likelihood_margin_loss(nll_in: Tensor, nll_out: Tensor, num_pixels: int) -> Tensor:
    """Scalar margin loss in nats of `nll_in` `[N]` and `nll_out` `[M]`, nats for each image of `num_pixels` pixels.

    The mean over all N x M pairs: images and outliers are drawn independently of each other, so every pair is a sample
    of the paper's expectation, and comparing them costs nothing beside computing their likelihoods. N and M may differ.
    """
    return F.relu(num_pixels + nll_in[:, None] - nll_out).mean()
