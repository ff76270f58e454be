"""Weight normalisation (Salimans & Kingma 2016): w = g v / |v| for each filter, with a start taken from data."""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.parametrize import ParametrizationList, is_parametrized

Convolution = nn.Conv2d | nn.ConvTranspose2d

_CONSTANT = 1e-4
"""The standard deviation below which a filter's responses to the initial batch say nothing about its scale."""


class WeightNormalised(nn.Module):
    """The convolution (with biases) that `build` makes, its filters' lengths g parameters; `initial_scale` at first.

    Normalising the weights takes time in proportion to their number, once a step: of the convolution's own work that
    is one part in the number of pixels in the batch. `fold` ends it.
    """

    def __init__(self, build: Callable[[], Convolution], initial_scale: float = 1.0) -> None:
        super().__init__()
        self.build = build
        convolution = build()
        nn.init.normal_(convolution.weight, 0.0, 0.05)
        nn.init.zeros_(cast(Tensor, convolution.bias))
        self.initial_scale = initial_scale
        # The dimension of the filters: a transposed convolution has its inputs first.
        dim = 1 if isinstance(convolution, nn.ConvTranspose2d) else 0
        self.convolution = cast(Convolution, weight_norm(convolution, dim=dim))
        nn.init.constant_(self._lengths(), initial_scale)

    def forward(self, x: Tensor) -> Tensor:
        """The convolution of `x` `[N, C, H, W]`."""
        output: Tensor = self.convolution(x)
        return output

    def fold(self) -> None:
        """Keep the weights as they are now and leave a plain convolution, as exported graphs need it."""
        if not is_parametrized(self.convolution):
            return
        # Not torch's remove_parametrizations: it changes the class, which copies of the layer share.
        plain = self.build().to(self.convolution.weight)
        plain.load_state_dict({"weight": self.convolution.weight, "bias": self.convolution.bias})
        self.convolution = plain

    @torch.no_grad()
    def standardise(self, output: Tensor) -> Tensor:
        """Set lengths and biases so that `output`, the response to the initial batch, would have had mean 0 and
        standard deviation `initial_scale` in each channel; return it as it would have been.
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
    """Data-dependent initialisation (section 3): standardise every `WeightNormalised` on what it makes of `batch`.

    One forward pass, in which each layer sees the standardised output of those before it.
    """
    layers = [module for module in network.modules() if isinstance(module, WeightNormalised)]
    hooks = [layer.register_forward_hook(lambda layer, _, output: layer.standardise(output)) for layer in layers]
    try:
        network(batch)
    finally:
        for hook in hooks:
            hook.remove()
