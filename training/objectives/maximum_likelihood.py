"""Maximum likelihood for density networks: the mean negative log-likelihood per dimension of the inputs."""

from collections.abc import Callable
from math import prod

from torch import Tensor

from training.data.pairing import Batch
from training.models.density import Likelihood
from training.objectives.objective import Loss


def maximum_likelihood_loss(nll: Tensor, dimensions: int) -> Tensor:
    """Scalar loss in nats per dimension, of `nll` `[N]` in nats for inputs of `dimensions` values each.

    An image's dimensions are height x width x channels. The mean is over dimensions, so that learning rates carry over
    between image sizes. Divide by ln 2 for the bits per dimension that papers report.
    """
    return nll.mean() / dimensions


class MaximumLikelihood:
    """Mean nats per dimension of the in-distribution images; uses no outliers."""

    uses_outliers = False
    uses_confidence = False

    def __call__(self, forward: Callable[[Tensor], Likelihood], batch: Batch) -> Loss:
        """The loss of the in-distribution part of `batch`."""
        return Loss(maximum_likelihood_loss(forward(batch.x_in).of_images, prod(batch.x_in.shape[1:])))
