"""Densities of images and their predictions: the likelihood of each pixel."""

from typing import NamedTuple

from torch import Tensor

from training.models.model import Model


class Likelihood(NamedTuple):
    """Negative log-likelihood `[N, H, W]` of each pixel of an image, all channels together, in nats."""

    nats: Tensor

    def float(self) -> "Likelihood":
        """The likelihood in float32."""
        return Likelihood(self.nats.float())

    @property
    def of_images(self) -> Tensor:
        """Negative log-likelihood `[N]` of each image, in nats."""
        return self.nats.sum(dim=(1, 2))


class Density(Model):
    """Passes pixels as floats 0..255 to a network that returns the nats `[N, H, W]` of each pixel."""

    def forward(self, images: Tensor) -> Likelihood:
        """The likelihood of images `[N, H, W, C]`, uint8 or float 0..255."""
        return Likelihood(self.network(_pixels(images)))

    def initialise(self, rows: Tensor) -> None:
        """Call the network's own method `initialise`, if it has one, with uint8 training images `[N, H, W, C]`."""
        initialise = getattr(self.network, "initialise", None)
        if callable(initialise):
            initialise(_pixels(rows))


def _pixels(images: Tensor) -> Tensor:
    """Float images `[N, C, H, W]`."""
    return images.permute(0, 3, 1, 2).float()
