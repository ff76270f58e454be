"""Classifiers of images and of texts, and their predictions."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from bundle import ImageInput
from training.data.token_ids import TEXT_INPUTS, text_batch, text_shapes
from training.models.model import BATCH, Model


class Prediction(NamedTuple):
    """Class logits `[N, K]` and, from a network with a confidence branch, the logits `[N]` of b(x).

    `features` `[N, D]` are there if they were asked for, or if the classifier's inputs are features.
    """

    logits: Tensor
    confidence_logit: Tensor | None = None
    features: Tensor | None = None

    def split(self, n: int) -> "tuple[Prediction, Prediction]":
        """The predictions of the first `n` inputs and of the remaining ones, without features."""
        confidence = self.confidence_logit
        if confidence is None:
            return Prediction(self.logits[:n]), Prediction(self.logits[n:])
        return Prediction(self.logits[:n], confidence[:n]), Prediction(self.logits[n:], confidence[n:])

    def float(self) -> "Prediction":
        """The prediction in float32."""
        confidence, features = self.confidence_logit, self.features
        return Prediction(
            self.logits.float(),
            None if confidence is None else confidence.float(),
            None if features is None else features.float(),
        )


class Classifier(Model):
    """Base of image and text classifiers.

    The network returns one logit per class and, with a confidence branch, one more.
    """

    def __init__(self, network: nn.Module, *, confidence_branch: bool = False) -> None:
        super().__init__(network)
        self.confidence_branch = confidence_branch

    def _predict(self, outputs: Tensor) -> Prediction:
        if not self.confidence_branch:
            return Prediction(outputs)
        return Prediction(outputs[:, :-1], outputs[:, -1])


class ImageClassifier(Classifier):
    """Normalises uint8 images `[N, H, W, C]` and passes them to a network of images `[N, C, H, W]`.

    `spec.mean` and `spec.std` are per channel, for pixel values scaled to 0..1.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, network: nn.Module, spec: ImageInput, *, confidence_branch: bool = False) -> None:
        super().__init__(network, confidence_branch=confidence_branch)
        self.register_buffer("mean", 255.0 * torch.tensor(spec.mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("scale", 1.0 / (255.0 * torch.tensor(spec.std)).view(1, -1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Prediction:
        """The prediction for images `[N, H, W, C]`, uint8 or float 0..255."""
        return self._predict(self.network(self.normalise(images)))

    def normalise(self, images: Tensor) -> Tensor:
        """Float images `[N, C, H, W]` from `[N, H, W, C]`."""
        # The permuted tensor is already in channels-last memory format, so a channels-last network needs no copy.
        return (images.permute(0, 3, 1, 2).to(self.mean.dtype) - self.mean) * self.scale

    def initialise(self, rows: Tensor) -> None:
        """Call the network's own method `initialise`, if it has one, with uint8 training images `[N, H, W, C]`."""
        initialise = getattr(self.network, "initialise", None)
        if callable(initialise):
            initialise(self.normalise(rows))


class TextClassifier(Classifier):
    """Passes token ids and lengths to a network of texts."""

    input_names = TEXT_INPUTS
    dynamic_shapes = text_shapes(BATCH)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Prediction:
        """The prediction for token ids int64 `[N, L]`; text i is the first `lengths[i]` ids of row i."""
        return self._predict(self.network(tokens, lengths))

    def prepare(self, rows: Tensor) -> tuple[Tensor, ...]:
        """Token ids `[N, L]` and lengths `[N]`, with L the length of the batch's longest text."""
        return text_batch(rows)

    def initialise(self, rows: Tensor) -> None:
        """Call the network's own method `initialise`, if it has one, with training texts."""
        initialise = getattr(self.network, "initialise", None)
        if callable(initialise):
            initialise(*self.prepare(rows))


class FeatureClassifier(Classifier):
    """Passes the features of a frozen backbone to a network of features; they are the prediction's features, too."""

    input_names = ("features",)

    def forward(self, features: Tensor) -> Prediction:
        """The prediction for features `[N, 1, D]`; see `training.backbones.with_features`."""
        vectors = features.squeeze(1)
        return self._predict(self.network(vectors))._replace(features=vectors)

    def initialise(self, rows: Tensor) -> None:
        """Call the network's method `initialise`, if it has one, with training features `[N, D]`."""
        initialise = getattr(self.network, "initialise", None)
        if callable(initialise):
            initialise(rows.squeeze(1))


class Mirrored(Classifier):
    """Test-time augmentation inside the graph: the mean logits of each image and its mirror image."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__(classifier, confidence_branch=classifier.confidence_branch)

    def forward(self, images: Tensor) -> Prediction:
        """The prediction for images `[N, H, W, C]`."""
        logits, confidence, _ = self.network(torch.cat((images, images.flip(2))))
        logits = logits.unflatten(0, (2, -1)).mean(dim=0)
        return Prediction(logits, None if confidence is None else confidence.unflatten(0, (2, -1)).mean(dim=0))
