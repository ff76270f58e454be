"""Classifiers of images and of texts: a network of logits with what makes its input of stored rows."""

import torch
from torch import Tensor, nn

from bundle import ImageInput
from training.data.token_ids import TEXT_INPUTS, text_batch, text_shapes
from training.models.model import BATCH, Model
from training.models.prediction import Prediction


class Classifier(Model):
    """Base of both kinds: `network` gives `num_classes` logits and, with a confidence branch, one more."""

    def __init__(self, network: nn.Module, *, confidence_branch: bool = False) -> None:
        super().__init__(network)
        self.confidence_branch = confidence_branch

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

    input_names = TEXT_INPUTS
    dynamic_shapes = text_shapes(BATCH)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Prediction:
        """The prediction for token ids `tokens` int64 `[N, L]`, of which each row's first `lengths` `[N]` count."""
        return self._predict(self.network(tokens, lengths))

    def prepare(self, rows: Tensor) -> tuple[Tensor, ...]:
        """Token ids `[N, L]`, L the batch's longest text, and lengths `[N]`."""
        return text_batch(rows)


class Mirrored(Classifier):
    """The mean logits of each image and its mirror image: test-time augmentation inside the graph."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__(classifier, confidence_branch=classifier.confidence_branch)

    def forward(self, images: Tensor) -> Prediction:
        """The prediction for images `[N, H, W, C]`."""
        logits, confidence = self.network(torch.cat((images, images.flip(2))))
        logits = logits.unflatten(0, (2, -1)).mean(dim=0)
        return Prediction(logits, None if confidence is None else confidence.unflatten(0, (2, -1)).mean(dim=0))
