r"""The discretised mixture of logistics over pixel values (Salimans et al. 2017, "PixelCNN++", section 2.1 and 2.2).

    P(x) = sum_i pi_i prod_c [sigmoid((x_c + 1/255 - mu_ic) / s_ic) - sigmoid((x_c - 1/255 - mu_ic) / s_ic)]

with the 256 values of a channel scaled to x in -1..1. The lowest takes the whole lower tail, the highest the upper
one, so that the probabilities sum to 1. A component's mean of a channel is linear in the pixel's earlier channels:

    mu_G = m_G + tanh(a) x_R,    mu_B = m_B + tanh(b) x_R + tanh(c) x_G

The authors' code takes the density at the bin's centre where the difference of sigmoids is small; here it is exact:

    log(sigmoid(u) - sigmoid(l)) = log sigmoid(u) + log sigmoid(-l) + log(1 - exp(l - u)),    l < u

None of the three terms is positive: nothing cancels, however far out the value or narrow the component.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

_LOG_SCALE = (-7.0, 30.0)
"""The paper's code has the lower bound; beyond the upper one a bin's probability would leave float32."""


def parameters_needed(channels: int, mixtures: int) -> int:
    """Values per pixel that describe `mixtures` components: 10 each for three channels, 3 each for one."""
    return mixtures * (1 + 2 * channels + channels * (channels - 1) // 2)


def discretized_logistic_mixture_nats(parameters: Tensor, pixels: Tensor) -> Tensor:
    """Negative log-likelihood in nats `[N, H, W]` of each pixel, all its channels together.

    `pixels` `[N, C, H, W]`, whole values 0..255, uint8 or float; `parameters` `[N, P, H, W]` with P the
    `parameters_needed`: K logits of the components, then K values each for the C means, for the C log-scales and for
    the coefficients of the earlier channels (G on R, B on R, B on G). Raises ValueError for another P.
    """
    channels = pixels.shape[1]
    each = parameters_needed(channels, 1)
    if parameters.shape[1] % each:
        found = f"{parameters.shape[1]} parameters a pixel are no mixture over {channels} channels"
        raise ValueError(f"{found}: give {each} for each component, see parameters_needed")
    rows = torch.unflatten(parameters, 1, (each, parameters.shape[1] // each))  # [N, each, K, H, W]
    logits, means, log_scales = rows[:, 0], rows[:, 1 : 1 + channels], rows[:, 1 + channels : 1 + 2 * channels]
    values = pixels.to(parameters.dtype).unsqueeze(2)
    means = _conditioned(means, rows[:, 1 + 2 * channels :], values)
    components = _log_probabilities(values, means, torch.exp(-log_scales.clamp(*_LOG_SCALE))).sum(dim=1)
    return -torch.logsumexp(components + F.log_softmax(logits, dim=1), dim=1)


def _conditioned(means: Tensor, coefficients: Tensor, values: Tensor) -> Tensor:
    """The means `[N, C, K, H, W]`, each moved by the values `[N, C, 1, H, W]` of the channels before its own."""
    channels = means.shape[1]
    if channels == 1:
        return means
    scaled = (2 * values - 255) / 255
    moved = []
    for channel in range(channels):
        mean, first = means[:, channel], channel * (channel - 1) // 2
        for earlier in range(channel):
            mean = mean + torch.tanh(coefficients[:, first + earlier]) * scaled[:, earlier]
        moved.append(mean)
    return torch.stack(moved, dim=1)


def _log_probabilities(values: Tensor, means: Tensor, precisions: Tensor) -> Tensor:
    """Log-probability `[N, C, K, H, W]` of each channel's value `[N, C, 1, H, W]` under each component."""
    # The upper edge of a value's bin is the lower edge of the next one's, to the last bit.
    upper = ((2 * values - 254) / 255 - means) * precisions
    lower = ((2 * values - 256) / 255 - means) * precisions
    # log(1 - exp(l - u)) with u - l = 2 precisions / 255, by tanh: ONNX has no expm1.
    half = torch.tanh(precisions / 255)
    width = torch.log(2 * half) - torch.log1p(half)
    inside_above, inside_below = values < 255, values > 0
    return (
        torch.where(inside_above, -F.softplus(-upper), 0.0)
        + torch.where(inside_below, -F.softplus(lower), 0.0)
        + torch.where(inside_above & inside_below, width, 0.0)
    )
