"""A prediction: what a classifier says of a batch."""

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
