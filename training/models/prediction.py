"""Predictions: what a classifier, a density or a language model says of a batch."""

from typing import NamedTuple

from torch import Tensor


class Prediction(NamedTuple):
    """Class logits `[N, K]` and, from a network with a confidence branch, the logits `[N]` of b(x)."""

    logits: Tensor
    confidence_logit: Tensor | None = None

    def split(self, n: int) -> "tuple[Prediction, Prediction]":
        """The predictions of the first `n` inputs and of the others."""
        confidence = self.confidence_logit
        if confidence is None:
            return Prediction(self.logits[:n]), Prediction(self.logits[n:])
        return Prediction(self.logits[:n], confidence[:n]), Prediction(self.logits[n:], confidence[n:])

    def float(self) -> "Prediction":
        """In float32, whatever precision the network ran in."""
        confidence = self.confidence_logit
        return Prediction(self.logits.float(), None if confidence is None else confidence.float())


class Likelihood(NamedTuple):
    """Negative log-likelihood `[N, H, W]` of each pixel of an image, all its channels together, in nats."""

    nats: Tensor

    def float(self) -> "Likelihood":
        """In float32, whatever precision the network ran in."""
        return Likelihood(self.nats.float())

    @property
    def of_images(self) -> Tensor:
        """Negative log-likelihood `[N]` of each image, in nats."""
        return self.nats.sum(dim=(1, 2))


class TokenPrediction(NamedTuple):
    """Logits `[N, L+1, V]`, the symbols `targets` int64 `[N, L+1]` that came, and bool `[N, L+1]` which are the text's.

    V counts the end of a text, which is among the counted.
    """

    logits: Tensor
    targets: Tensor
    counted: Tensor

    def float(self) -> "TokenPrediction":
        """In float32, whatever precision the network ran in."""
        return self._replace(logits=self.logits.float())
