"""DCGAN (Radford, Metz & Chintala 2016): a generator of small square images and a discriminator of the same depth.

Images are `[N, channels, size, size]` in -1..1. Repeated halving of the size must end at 8 or less: 16, 28, 32, 64.
"""

from itertools import pairwise

from torch import Tensor, nn

_MAX_START = 8


class Generator(nn.Module):
    """Maps noise `[N, latent]` to images in -1..1; `width` channels before the last layer, doubled per layer before."""

    def __init__(self, size: int, channels: int = 3, latent: int = 100, width: int = 64) -> None:
        super().__init__()
        start, widths = _layer_sizes(size, width)
        layers: list[nn.Module] = [nn.ConvTranspose2d(latent, widths[-1], start, bias=False)]
        for width_in, width_out in pairwise(reversed(widths)):
            layers += [nn.BatchNorm2d(width_in), nn.ReLU()]
            layers += [nn.ConvTranspose2d(width_in, width_out, 4, stride=2, padding=1, bias=False)]
        layers += [nn.BatchNorm2d(width), nn.ReLU()]
        layers += [nn.ConvTranspose2d(width, channels, 4, stride=2, padding=1), nn.Tanh()]
        self.layers = nn.Sequential(*layers)
        self.apply(_initialise)

    def forward(self, noise: Tensor) -> Tensor:
        """Images `[N, channels, size, size]` of standard normal `noise` `[N, latent]`."""
        images: Tensor = self.layers(noise[:, :, None, None])
        return images


class Discriminator(nn.Module):
    """Maps images in -1..1 to the logit that an image is real; `width` channels after the first layer."""

    def __init__(self, size: int, channels: int = 3, width: int = 64) -> None:
        super().__init__()
        start, widths = _layer_sizes(size, width)
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for width_in, width_out in pairwise(widths):
            layers += [nn.Conv2d(width_in, width_out, 4, stride=2, padding=1, bias=False)]
            layers += [nn.BatchNorm2d(width_out), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, start), nn.Flatten(0))
        self.apply(_initialise)

    def forward(self, images: Tensor) -> Tensor:
        """Logits `[N]` of `images` `[N, channels, size, size]`."""
        logits: Tensor = self.layers(images)
        return logits


def _layer_sizes(size: int, width: int) -> tuple[int, list[int]]:
    """The size after repeated halving and the channels after each halving; ValueError if that size is too large."""
    widths: list[int] = []
    start = size
    while start % 2 == 0 and start > 4:
        widths.append(width * 2 ** len(widths))
        start //= 2
    if not widths or start > _MAX_START:
        raise ValueError(f"a DCGAN halves images down to at most {_MAX_START} pixels, {size} ends at {start}")
    return start, widths


def _initialise(module: nn.Module) -> None:
    """Initialise weights from a normal distribution with deviation 0.02 (section 4)."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
