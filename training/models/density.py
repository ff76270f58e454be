"""The density of images: a network of pixels' likelihoods with what makes its input of stored images."""

from torch import Tensor

from training.models.model import Model
from training.models.prediction import Likelihood


class Density(Model):
    """Hands pixels, 0..255 as they are, to a network that gives the nats of each pixel `[N, H, W]`."""

    def forward(self, images: Tensor) -> Likelihood:
        """The likelihood of images `[N, H, W, C]`, uint8 or float 0..255."""
        return Likelihood(self.network(_pixels(images)))

    def initialise(self, rows: Tensor) -> None:
        """Let a network that starts from data (it has a method `initialise`) see uint8 training images."""
        start = getattr(self.network, "initialise", None)
        if callable(start):
            start(_pixels(rows))


def _pixels(images: Tensor) -> Tensor:
    return images.permute(0, 3, 1, 2).float()
