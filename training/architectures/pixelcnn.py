"""PixelCNN++ (Salimans, Karpathy, Chen & Kingma, ICLR 2017): the density of images, pixel by pixel.

The network has two streams of features. `down` depends on the rows above a pixel; `right` (the paper's down-right
stream) depends on those and on the pixels to the left in the same row. The encoder halves the image at each level, the
decoder doubles it, and every decoder layer gets the output of the encoder layer of the same size (figure 2).

At the paper's sizes (160 filters, 5 blocks, 3 levels) a pixel takes 929 filters^2 multiplications, which is 24 billion
for a 32x32 image. The work grows with the square of the filters, so use fewer on a CPU. With fewer blocks or levels the
network reaches less far to the left: with two blocks per level a pixel does not depend on all of a row of twelve.
"""

from copy import deepcopy
from functools import partial
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.architectures.discretized_logistic_mixture import discretized_logistic_mixture_nats, parameters_needed
from training.architectures.gated_residual import Features, GatedResidual
from training.architectures.shifted_convolutions import (
    column_left,
    down,
    down_doubling,
    down_right,
    down_right_doubling,
    row_above,
)
from training.architectures.weight_normalisation import WeightNormalised, initialise_from

_INITIAL_IMAGES = 64
"""Images for the data-dependent initialisation, evenly spaced; their pixels suffice for a channel's statistics."""


class PixelCNN(nn.Module):
    """Nats of each pixel given the earlier ones, row by row from left to right.

    Input float pixels 0..255 `[N, channels, H, W]`, output `[N, H, W]`; H and W must be multiples of
    2**(levels - 1). Call `initialise` before training and `folded` before export.

    Args:
        channels: The channels of the images.
        filters: The features of each stream.
        resnets: The gated residual blocks per level.
        levels: The number of image sizes.
        mixtures: The logistics per pixel.
        dropout: The dropout rate in each block; 0.5 in the paper.
    """

    def __init__(
        self,
        channels: int = 3,
        filters: int = 160,
        resnets: int = 5,
        levels: int = 3,
        mixtures: int = 10,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        sizes = {"channels": channels, "filters": filters, "resnets": resnets, "levels": levels, "mixtures": mixtures}
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"{name} must be 1 or more, got {size}")
        self.multiple = 2 ** (levels - 1)
        self.first = _First(channels, filters)
        self.encoder = nn.ModuleList()
        self.decoder = nn.ModuleList()
        for level in range(levels):
            if level > 0:
                self.encoder.append(_Halving(filters))
                self.decoder.append(_Doubling(filters))
            self.encoder.extend(_Block(filters, 0, dropout) for _ in range(resnets))
            # The decoder starts with the encoder's last output, so that all levels but the deepest have one more block.
            blocks = resnets if level == 0 else resnets + 1
            self.decoder.extend(_Block(filters, 1, dropout) for _ in range(blocks))
        self.last = WeightNormalised(partial(nn.Conv2d, filters, parameters_needed(channels, mixtures), 1))

    def initialise(self, pixels: Tensor) -> None:
        """Set the scales of all layers from training images, float pixels 0..255 `[N, C, H, W]`, with dropout."""
        count = min(len(pixels), _INITIAL_IMAGES)
        initialise_from(self, pixels[torch.linspace(0, len(pixels) - 1, count).round().long()])

    def folded(self) -> Self:
        """A copy with plain instead of weight-normalised convolutions, for export and scoring."""
        copy = deepcopy(self)
        for module in copy.modules():
            if isinstance(module, WeightNormalised):
                module.fold()
        return copy

    def forward(self, pixels: Tensor) -> Tensor:
        """Nats `[N, H, W]` of each pixel, all its channels together."""
        return discretized_logistic_mixture_nats(self.mixture(pixels), pixels)

    def mixture(self, pixels: Tensor) -> Tensor:
        """Each pixel's distribution given the earlier ones: `[N, P, H, W]` parameters of a logistic mixture."""
        height, width = pixels.shape[2:]
        if height % self.multiple or width % self.multiple:
            raise ValueError(
                f"images of {height}x{width} cannot be halved to whole sizes: take multiples of {self.multiple}, or "
                "fewer levels (each halves but the first)"
            )
        streams = self.first(pixels / 127.5 - 1)
        encoded = [streams]
        for layer in self.encoder:
            streams = layer(streams)
            encoded.append(streams)
        encoded.pop()
        for layer in self.decoder:
            streams = layer(streams) if isinstance(layer, _Doubling) else layer(streams, encoded.pop())
        parameters: Tensor = self.last(F.elu(streams.right.plain))
        return parameters


class _Streams(NamedTuple):
    down: Features
    right: Features


class _First(nn.Module):
    """Both streams of an image `[N, C, H, W]`; an added channel of ones distinguishes the image from its padding."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.down = row_above(channels + 1, width, rows=2)
        self.right_above = row_above(channels + 1, width, rows=1)
        self.right_left = column_left(channels + 1, width)

    def forward(self, images: Tensor) -> _Streams:
        marked = F.pad(images, (0, 0, 0, 0, 0, 1), value=1.0)
        right = self.right_above(marked) + self.right_left(marked)
        return _Streams(Features.of(self.down(marked)), Features.of(right))


class _Block(nn.Module):
    """A gated residual block per stream; both use the `shortcuts`, and `right` also uses the output of `down`."""

    def __init__(self, width: int, shortcuts: int, dropout: float) -> None:
        super().__init__()
        self.down = GatedResidual(down, width, shortcuts, dropout)
        self.right = GatedResidual(down_right, width, shortcuts + 1, dropout)

    def forward(self, streams: _Streams, *shortcuts: _Streams) -> _Streams:
        above = self.down(streams.down, *(shortcut.down for shortcut in shortcuts))
        return _Streams(above, self.right(streams.right, above, *(shortcut.right for shortcut in shortcuts)))


class _Halving(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.down = down(width, width, stride=2)
        self.right = down_right(width, width, stride=2)

    def forward(self, streams: _Streams) -> _Streams:
        return _Streams(Features.of(self.down(streams.down.plain)), Features.of(self.right(streams.right.plain)))


class _Doubling(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.down = down_doubling(width)
        self.right = down_right_doubling(width)

    def forward(self, streams: _Streams) -> _Streams:
        return _Streams(Features.of(self.down(streams.down.plain)), Features.of(self.right(streams.right.plain)))
