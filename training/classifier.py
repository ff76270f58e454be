"""The classifier that is trained and exported alike: a network with what makes its input of stored rows."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from bundle import PADDING, ImageInput
from training.architectures import ARCHITECTURES, TEXT_ARCHITECTURES
from training.data.examples import NO_TOKEN
from training.prediction import Prediction
from training.recipe import Recipe
from training.registry import build

_BATCH = Dim("N")


class Classifier(nn.Module):
    """Base of both kinds: `network` gives `num_classes` logits and, with a confidence branch, one more.

    `input_names` and `dynamic_shapes` describe the exported graph's inputs, which `prepare` makes of stored rows.
    """

    input_names: tuple[str, ...]
    dynamic_shapes: tuple[dict[int, Any], ...]

    def __init__(self, network: nn.Module, *, confidence_branch: bool = False) -> None:
        super().__init__()
        self.network = network
        self.confidence_branch = confidence_branch

    def prepare(self, rows: Tensor) -> tuple[Tensor, ...]:
        """The graph's inputs for stored rows, `[N, ...]` as in `training.data.InputArray`: images as they are."""
        return (rows,)

    def initialise(self, rows: Tensor) -> None:
        """Let a network that starts from data see stored training rows."""

    def _predict(self, outputs: Tensor) -> Prediction:
        if not self.confidence_branch:
            return Prediction(outputs)
        return Prediction(outputs[:, :-1], outputs[:, -1])


class ImageClassifier(Classifier):
    """Normalises uint8 images `[N, H, W, C]` and hands them to a network of images `[N, C, H, W]`.

    `input.mean` and `input.std` are per channel, for pixel values scaled to 0..1.
    """

    mean: Tensor
    scale: Tensor
    input_names = ("images",)
    dynamic_shapes = ({0: _BATCH},)

    def __init__(self, network: nn.Module, spec: ImageInput, *, confidence_branch: bool = False) -> None:
        super().__init__(network, confidence_branch=confidence_branch)
        self.register_buffer("mean", 255.0 * torch.tensor(spec.mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("scale", 1.0 / (255.0 * torch.tensor(spec.std)).view(1, -1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Prediction:
        """The prediction for images `[N, H, W, C]`, uint8 or float 0..255."""
        return self._predict(self.network(self.normalise(images)))

    def normalise(self, images: Tensor) -> Tensor:
        """Float images `[N, C, H, W]` from `[N, H, W, C]`."""
        # The permuted tensor is channels-last already: no copy is made on the way to a channels-last network.
        return (images.permute(0, 3, 1, 2).to(self.mean.dtype) - self.mean) * self.scale

    def initialise(self, rows: Tensor) -> None:
        """Let a network that starts from data (it has a method `initialise`) see uint8 training images."""
        start = getattr(self.network, "initialise", None)
        if callable(start):
            start(self.normalise(rows))


class TextClassifier(Classifier):
    """Hands token ids and lengths to a network of texts."""

    input_names = ("tokens", "lengths")
    dynamic_shapes = ({0: _BATCH, 1: Dim("L")}, {0: _BATCH})

    def forward(self, tokens: Tensor, lengths: Tensor) -> Prediction:
        """The prediction for token ids `tokens` int64 `[N, L]`, of which each row's first `lengths` `[N]` count."""
        return self._predict(self.network(tokens, lengths))

    def prepare(self, rows: Tensor) -> tuple[Tensor, ...]:
        """Token ids `[N, L]`, L the batch's longest text, and lengths `[N]`."""
        lengths = (rows != NO_TOKEN).sum(dim=1)
        tokens = rows[:, : int(lengths.max())].long()
        return tokens.where(tokens != NO_TOKEN, PADDING), lengths


class Mirrored(Classifier):
    """The mean logits of each image and its mirror image: test-time augmentation inside the graph."""

    input_names = ImageClassifier.input_names
    dynamic_shapes = ImageClassifier.dynamic_shapes

    def __init__(self, classifier: Classifier) -> None:
        super().__init__(classifier, confidence_branch=classifier.confidence_branch)

    def forward(self, images: Tensor) -> Prediction:
        """The prediction for images `[N, H, W, C]`."""
        logits, confidence = self.network(torch.cat((images, images.flip(2))))
        logits = logits.unflatten(0, (2, -1)).mean(dim=0)
        return Prediction(logits, None if confidence is None else confidence.unflatten(0, (2, -1)).mean(dim=0))


def build_classifier(recipe: Recipe, num_classes: int, vocabulary_size: int | None = None) -> Classifier:
    """The recipe's architecture for `num_classes` classes, freshly initialised from torch's generator."""
    outputs = num_classes + recipe.confidence_branch
    if isinstance(recipe.input, ImageInput):
        network = build(
            "architecture",
            recipe.architecture,
            ARCHITECTURES,
            num_classes=outputs,
            channels=recipe.input.channels,
        )
        return ImageClassifier(network, recipe.input, confidence_branch=recipe.confidence_branch)
    network = build(
        "architecture",
        recipe.architecture,
        TEXT_ARCHITECTURES,
        num_classes=outputs,
        vocabulary_size=vocabulary_size,
        max_tokens=recipe.input.max_tokens,
    )
    return TextClassifier(network, confidence_branch=recipe.confidence_branch)
