"""Maximum likelihood for density networks: the mean negative log-likelihood of a dimension of the inputs."""

from torch import Tensor


def maximum_likelihood_loss(nll: Tensor, dimensions: int) -> Tensor:
    """Scalar loss, nats per dimension: `nll` `[N]` in nats for each input of `dimensions` values.

    The mean is over dimensions, so that learning rates carry over from one image size to another; divide by ln 2 for
    the bits per dimension that papers report. An image's dimensions are its height x width x channels.
    """
    return nll.mean() / dimensions
