"""The classifier that is trained and exported alike: uint8 images in, logits out, normalisation inside."""

import torch
from torch import Tensor, nn

from bundle import ImageInput
from training.architectures import ARCHITECTURES
from training.recipe import Recipe
from training.registry import build


class ImageClassifier(nn.Module):
    """Normalises uint8 images `[N, H, W, C]` and hands them to a network of images `[N, C, H, W]`.

    `input.mean` and `input.std` are per channel, for pixel values scaled to 0..1.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, network: nn.Module, spec: ImageInput) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", 255.0 * torch.tensor(spec.mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("scale", 1.0 / (255.0 * torch.tensor(spec.std)).view(1, -1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Logits `[N, K]` of uint8 images `[N, H, W, C]`."""
        logits: Tensor = self.network(self.normalise(images))
        return logits

    def normalise(self, images: Tensor) -> Tensor:
        """Float images `[N, C, H, W]` from uint8 `[N, H, W, C]`."""
        # The permuted tensor is channels-last already: no copy is made on the way to a channels-last network.
        return (images.permute(0, 3, 1, 2).to(self.mean.dtype) - self.mean) * self.scale

    def initialise(self, images: Tensor) -> None:
        """Let a network that starts from data (it has a method `initialise`) see uint8 training images."""
        start = getattr(self.network, "initialise", None)
        if callable(start):
            start(self.normalise(images))


class Mirrored(nn.Module):
    """The mean logits of each image and its mirror image: test-time augmentation inside the graph."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, images: Tensor) -> Tensor:
        """Logits `[N, K]` of uint8 images `[N, H, W, C]`."""
        logits: Tensor = self.classifier(torch.cat((images, images.flip(2))))
        return logits.reshape(2, -1, logits.shape[1]).mean(dim=0)


def build_classifier(recipe: Recipe, num_classes: int) -> ImageClassifier:
    """The recipe's architecture for `num_classes` classes, freshly initialised from torch's generator."""
    network = build(
        "architecture",
        recipe.architecture,
        ARCHITECTURES,
        num_classes=num_classes,
        channels=recipe.input.channels,
    )
    return ImageClassifier(network, recipe.input)
