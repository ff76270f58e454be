"""A convolutional network that trains fast on small images, after Jordan 2024 (arXiv:2404.00498, section 3).

The first layer is fixed and whitens 2x2 patches of the training images. Three blocks of two or three 3x3 convolutions
with one max pooling each follow; every convolution starts as the identity on its input channels. On a CPU the network
reaches a given accuracy in a fraction of the time of a wide residual network.
"""

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.architectures.pooling import GlobalMaxPool

_PATCH = 2
_EPSILON = 5e-4
_ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU}


class WhitenedConvNet(nn.Module):
    """Whitening layer, three convolutional blocks of the given widths, global max pooling, linear classifier.

    Input `[N, channels, H, W]`, output logits `[N, num_classes]`; H, W >= 9. Call `initialise` before training.

    Args:
        num_classes: The number of classes.
        channels: The channels of the images.
        widths: The width of each block.
        activation: The paper uses gelu.
        convolutions: Convolutions per block. The paper's networks for long schedules have three, with a residual
            connection around the third.
    """

    logit_scale = 1 / 9
    """The factor between the linear layer and the logits."""

    def __init__(
        self,
        num_classes: int,
        channels: int = 3,
        widths: tuple[int, ...] = (64, 256, 256),
        activation: Literal["relu", "gelu"] = "relu",
        convolutions: Literal[2, 3] = 2,
    ) -> None:
        super().__init__()
        if convolutions not in {2, 3}:
            raise ValueError(f"convolutions must be 2 or 3 a block, got {convolutions}")
        if activation not in _ACTIVATIONS:
            raise ValueError(f"activation must be {' or '.join(_ACTIVATIONS)}, got {activation}")
        self.activation = _ACTIVATIONS[activation]()
        patch_values = channels * _PATCH**2
        self.whitening = nn.Conv2d(channels, 2 * patch_values, _PATCH, bias=True)
        self.whitening.weight.requires_grad_(False)
        self.whitening.bias = nn.Parameter(torch.zeros(2 * patch_values))
        sizes = (2 * patch_values, *widths)
        self.blocks = nn.Sequential(*(_Block(a, b, self.activation, convolutions) for a, b in pairwise(sizes)))
        self.pool = GlobalMaxPool()
        self.classifier = nn.Linear(widths[-1], num_classes, bias=False)

    def initialise(self, images: Tensor) -> None:
        """Set the whitening layer from normalised training images `[N, channels, H, W]`."""
        patches = images.unfold(2, _PATCH, 1).unfold(3, _PATCH, 1).permute(0, 2, 3, 1, 4, 5)
        flat = patches.reshape(-1, images.shape[1] * _PATCH**2)
        values, vectors = torch.linalg.eigh(flat.T @ flat / len(flat))
        filters = (vectors / torch.sqrt(values + _EPSILON)).T.reshape(-1, images.shape[1], _PATCH, _PATCH)
        with torch.no_grad():
            self.whitening.weight.copy_(torch.cat((filters, -filters)))

    def forward(self, images: Tensor) -> Tensor:
        """Logits `[N, num_classes]` of normalised images `[N, channels, H, W]`."""
        features = self.blocks(self.activation(self.whitening(images)))
        logits: Tensor = self.classifier(self.pool(features)) * self.logit_scale
        return logits


class _Block(nn.Module):
    def __init__(self, width_in: int, width_out: int, activation: nn.Module, convolutions: int) -> None:
        super().__init__()
        self.activation = activation
        self.conv1 = _identity_convolution(width_in, width_out)
        self.norm1 = nn.BatchNorm2d(width_out)
        self.conv2 = _identity_convolution(width_out, width_out)
        self.norm2 = nn.BatchNorm2d(width_out)
        self.residual = (
            nn.Sequential(_identity_convolution(width_out, width_out), nn.BatchNorm2d(width_out))
            if convolutions == 3
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.activation(self.norm1(F.max_pool2d(self.conv1(x), 2)))
        out: Tensor = self.activation(self.norm2(self.conv2(pooled)))
        return out if self.residual is None else self.activation(pooled + self.residual(out))


def _identity_convolution(width_in: int, width_out: int) -> nn.Conv2d:
    """A 3x3 convolution that starts as the identity on its `width_in` input channels."""
    convolution = nn.Conv2d(width_in, width_out, 3, padding=1, bias=False)
    with torch.no_grad():
        nn.init.dirac_(convolution.weight[:width_in])
    return convolution
