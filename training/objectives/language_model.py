r"""Losses of language models, of symbols instead of classes (paper, section 4.4).

    E_in[-log p(s_i | s_<i)] + weight * E_out[H(U; p(. | s_<i))],    H(U; p) = -1/V sum_v log p(v)

Means are over the symbols that count, so that a text weighs by its length and padding not at all. On outliers the
prediction of every symbol is drawn towards the uniform distribution U over the vocabulary of V.
"""

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

from training.data.pairing import Batch
from training.models.prediction import TokenPrediction
from training.objectives.objective import Loss, not_negative, outliers_of

_IGNORED = -100
"""No symbol's id."""


def token_cross_entropy(logits: Tensor, targets: Tensor, counted: Tensor) -> Tensor:
    """-log p of the symbols `targets` int64, averaged over the `counted`, both `[N, L]`; `logits` are `[N, L, V]`."""
    targets = targets.masked_fill(~counted, _IGNORED)
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=_IGNORED)


def uniform_token_cross_entropy(logits: Tensor, counted: Tensor) -> Tensor:
    """H(U; softmax(logits)) averaged over the `counted` of `[N, L]` symbols, a scalar; `logits` `[N, L, V]`."""
    # log p(v) = logit_v - logsumexp: its mean over v needs no second tensor of the vocabulary's size.
    cross_entropy = logits.logsumexp(dim=2) - logits.mean(dim=2)
    return cross_entropy.where(counted, 0.0).sum() / counted.sum()


def language_model_outlier_exposure_loss(
    logits_in: Tensor,
    targets_in: Tensor,
    counted_in: Tensor,
    logits_out: Tensor,
    counted_out: Tensor,
    weight: float = 1.0,
) -> Tensor:
    """Scalar Outlier Exposure loss of texts and outlier texts; `weight` is the paper's lambda (1.0 for text)."""
    inside = token_cross_entropy(logits_in, targets_in, counted_in)
    return inside + weight * uniform_token_cross_entropy(logits_out, counted_out)


class TextMaximumLikelihood:
    """Mean nats per symbol of the in-distribution texts; sees no outliers."""

    uses_outliers = False
    uses_confidence = False

    def __call__(self, forward: Callable[[Tensor], TokenPrediction], batch: Batch) -> Loss:
        """The loss of the in-distribution part of `batch`."""
        return Loss(token_cross_entropy(*forward(batch.x_in)))


class LanguageModelOutlierExposure:
    """Outlier Exposure of a language model with its weight fixed by the recipe."""

    uses_outliers = True
    uses_confidence = False

    def __init__(self, weight: float = 1.0) -> None:
        self.weight = not_negative("weight", weight)

    def __call__(self, forward: Callable[[Tensor], TokenPrediction], batch: Batch) -> Loss:
        """The loss of a paired batch; each half is padded to its own longest text."""
        outside = forward(outliers_of(batch))
        loss = language_model_outlier_exposure_loss(
            *forward(batch.x_in), outside.logits, outside.counted, weight=self.weight
        )
        return Loss(loss)
