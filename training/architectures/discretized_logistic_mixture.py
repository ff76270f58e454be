r"""The discretised mixture of logistics over pixel values (Salimans et al. 2017, "PixelCNN++", section 2.1 and 2.2).

    P(x) = sum_i pi_i prod_c [sigmoid((x_c + 1/255 - mu_ic) / s_ic) - sigmoid((x_c - 1/255 - mu_ic) / s_ic)]

with the 256 values of a channel scaled to x in -1..1. The lowest value includes the lower tail and the highest the
upper tail, so the probabilities sum to 1. A component's mean of a channel is linear in the pixel's earlier channels:

    mu_G = m_G + tanh(a) x_R,    mu_B = m_B + tanh(b) x_R + tanh(c) x_G

If the difference of sigmoids is small, the authors' code uses the density at the bin's centre. This module is exact:

    log(sigmoid(u) - sigmoid(l)) = log sigmoid(u) + log sigmoid(-l) + log(1 - exp(l - u)),    l < u

None of the three terms is positive, so nothing cancels for any value and scale.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

_LOG_SCALE = (-7.0, 30.0)
"""The lower bound is that of the paper's code. Beyond the upper bound a bin's probability underflows in float32."""


def parameters_needed(channels: int, mixtures: int) -> int:
    """Parameters per pixel of `mixtures` components: 10 per component for three channels, 3 for one."""
    return mixtures * (1 + 2 * channels + channels * (channels - 1) // 2)


def discretized_logistic_mixture_nats(parameters: Tensor, pixels: Tensor) -> Tensor:
    """Negative log-likelihood in nats `[N, H, W]` of each pixel, all its channels together, in float32 or wider.

    Mixed precision does not apply: bfloat16 rounds means near an edge of -1..1 to half a value of a channel.

    Args:
        parameters: `[N, P, H, W]` with P from `parameters_needed`: K logits of the components, then K values for each
            of the C means, of the C log-scales and of the coefficients of earlier channels (G on R, B on R, B on G).
        pixels: `[N, C, H, W]`, whole values 0..255, uint8 or float.

    Raises:
        ValueError: P is no multiple of the parameters of one component.
    """
    channels = pixels.shape[1]
    per_component = parameters_needed(channels, 1)
    if parameters.shape[1] % per_component:
        problem = f"{parameters.shape[1]} parameters a pixel are no mixture over {channels} channels"
        raise ValueError(f"{problem}: give {per_component} for each component, see parameters_needed")
    # [N, per_component, K, H, W]
    rows = torch.unflatten(parameters, 1, (per_component, parameters.shape[1] // per_component))
    with torch.autocast(parameters.device.type, enabled=False):
        rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
        logits, means, log_scales = rows[:, 0], rows[:, 1 : 1 + channels], rows[:, 1 + channels : 1 + 2 * channels]
        values = pixels.to(rows.dtype).unsqueeze(2)
        means = _conditioned(means, rows[:, 1 + 2 * channels :], values)
        components = _log_probabilities(values, means, torch.exp(-log_scales.clamp(*_LOG_SCALE))).sum(dim=1)
        return -torch.logsumexp(components + F.log_softmax(logits, dim=1), dim=1)


def _conditioned(means: Tensor, coefficients: Tensor, values: Tensor) -> Tensor:
    """The means `[N, C, K, H, W]`, each shifted by the values `[N, C, 1, H, W]` of the earlier channels."""
    channels = means.shape[1]
    if channels == 1:
        return means
    scaled = (2 * values - 255) / 255
    shifted = []
    for channel in range(channels):
        mean, first = means[:, channel], channel * (channel - 1) // 2
        for earlier in range(channel):
            mean = mean + torch.tanh(coefficients[:, first + earlier]) * scaled[:, earlier]
        shifted.append(mean)
    return torch.stack(shifted, dim=1)


def _log_probabilities(values: Tensor, means: Tensor, precisions: Tensor) -> Tensor:
    """Log-probability `[N, C, K, H, W]` of each channel's value `[N, C, 1, H, W]` under each component."""
    # Computed so that the upper edge of a bin equals the lower edge of the next bin to the last bit.
    upper = ((2 * values - 254) / 255 - means) * precisions
    lower = ((2 * values - 256) / 255 - means) * precisions
    # log(1 - exp(l - u)) with u - l = 2 precisions / 255, by tanh because ONNX has no expm1.
    half = torch.tanh(precisions / 255)
    width = torch.log(2 * half) - torch.log1p(half)
    has_upper_edge, has_lower_edge = values < 255, values > 0
    return (
        torch.where(has_upper_edge, -F.softplus(-upper), 0.0)
        + torch.where(has_lower_edge, -F.softplus(lower), 0.0)
        + torch.where(has_upper_edge & has_lower_edge, width, 0.0)
    )
