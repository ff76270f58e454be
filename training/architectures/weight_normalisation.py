"""Weight normalisation (Salimans & Kingma 2016), w = g v / |v| for each filter, with data-dependent initialisation."""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.parametrize import ParametrizationList, is_parametrized

Convolution = nn.Conv2d | nn.ConvTranspose2d

_CONSTANT = 1e-4
"""The standard deviation below which a filter's responses to the initial batch are treated as constant."""


class WeightNormalised(nn.Module):
    """A weight-normalised convolution with biases, whose filter lengths g are parameters.

    Normalising the weights once per step adds one part in the number of pixels of a batch to the convolution's work.
    `fold` replaces the layer's weights with plain ones.

    Args:
        build: Makes the convolution.
        initial_scale: The initial value of g.
    """

    def __init__(self, build: Callable[[], Convolution], initial_scale: float = 1.0) -> None:
        super().__init__()
        self.build = build
        convolution = build()
        nn.init.normal_(convolution.weight, 0.0, 0.05)
        nn.init.zeros_(cast(Tensor, convolution.bias))
        self.initial_scale = initial_scale
        # The dimension of the filters, which is the second one in a transposed convolution.
        dim = 1 if isinstance(convolution, nn.ConvTranspose2d) else 0
        self.convolution = cast(Convolution, weight_norm(convolution, dim=dim))
        nn.init.constant_(self._lengths(), initial_scale)

    def forward(self, x: Tensor) -> Tensor:
        """The convolution of `x` `[N, C, H, W]`."""
        output: Tensor = self.convolution(x)
        return output

    def fold(self) -> None:
        """Replace the convolution with a plain one of the same weights, for export."""
        if not is_parametrized(self.convolution):
            return
        # torch's remove_parametrizations would change the class, which copies of the layer share.
        plain = self.build().to(self.convolution.weight)
        plain.load_state_dict({"weight": self.convolution.weight, "bias": self.convolution.bias})
        self.convolution = plain

    @torch.no_grad()
    def standardise(self, output: Tensor) -> Tensor:
        """Set lengths and biases so that the layer's response to the initial batch is standardised.

        Args:
            output: The response `[N, C, H, W]` to the initial batch with the current weights.

        Returns:
            The response with the new weights: mean 0 and standard deviation `initial_scale` in each channel.
        """
        std, mean = torch.std_mean(output, dim=(0, 2, 3))
        gain = torch.where(std > _CONSTANT, self.initial_scale / std, 1.0)
        bias = cast(Tensor, self.convolution.bias)
        bias.copy_((bias - mean) * gain)
        lengths = self._lengths()
        lengths.mul_(gain.view_as(lengths))
        return (output - mean.view(1, -1, 1, 1)) * gain.view(1, -1, 1, 1)

    def _lengths(self) -> Tensor:
        parametrizations = cast(nn.ModuleDict, self.convolution.parametrizations)
        return cast(Tensor, cast(ParametrizationList, parametrizations["weight"]).original0)


@torch.no_grad()
def initialise_from(network: nn.Module, batch: Tensor) -> None:
    """Data-dependent initialisation (section 3): standardise the responses of every `WeightNormalised` to `batch`.

    Takes one forward pass, in which each layer gets the standardised output of the earlier ones.
    """
    layers = [module for module in network.modules() if isinstance(module, WeightNormalised)]
    hooks = [layer.register_forward_hook(lambda layer, _, output: layer.standardise(output)) for layer in layers]
    try:
        network(batch)
    finally:
        for hook in hooks:
            hook.remove()
