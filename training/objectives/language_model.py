r"""Losses of language models: cross entropy and Outlier Exposure per symbol (paper, section 4.4).

    E_in[-log p(s_i | s_<i)] + weight * E_out[H(U; p(. | s_<i))],    H(U; p) = -1/V sum_v log p(v)

Means are over all counted symbols, which excludes padding and weights a text by its length. On outliers the loss pulls
the prediction of every symbol towards the uniform distribution U over the vocabulary of V symbols.
"""

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

from training.data.pairing import Batch
from training.models.language_model import TokenPrediction
from training.objectives.objective import Loss, not_negative, outliers_of

IGNORED = -100
"""The target of symbols that are not counted; not a symbol id."""


def token_cross_entropy(logits: Tensor, targets: Tensor, counted: Tensor) -> Tensor:
    """Mean of -log p of the symbols `targets` int64 `[N, L]` where `counted` `[N, L]`; `logits` are `[N, L, V]`."""
    targets = targets.masked_fill(~counted, IGNORED)
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)


def uniform_token_cross_entropy(logits: Tensor, counted: Tensor) -> Tensor:
    """Mean of H(U; softmax(logits)) over the symbols with `counted` `[N, L]`, a scalar; `logits` are `[N, L, V]`."""
    # By log p(v) = logit_v - logsumexp the mean over v needs no second tensor of the vocabulary's size.
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
    cross_entropy = token_cross_entropy(logits_in, targets_in, counted_in)
    return cross_entropy + weight * uniform_token_cross_entropy(logits_out, counted_out)


class TextMaximumLikelihood:
    """Mean nats per symbol of the in-distribution texts; uses no outliers."""

    uses_outliers = False
    uses_confidence = False

    def __call__(self, forward: Callable[[Tensor], TokenPrediction], batch: Batch) -> Loss:
        """The loss of the in-distribution part of `batch`."""
        return Loss(token_cross_entropy(*forward(batch.x_in)))


class LanguageModelOutlierExposure:
    """Outlier Exposure of a language model with the weight from the recipe."""

    uses_outliers = True
    uses_confidence = False

    def __init__(self, weight: float = 1.0) -> None:
        self.weight = not_negative("weight", weight)

    def __call__(self, forward: Callable[[Tensor], TokenPrediction], batch: Batch) -> Loss:
        """The loss of a paired batch; texts and outliers are padded separately."""
        outliers = forward(outliers_of(batch))
        loss = language_model_outlier_exposure_loss(
            *forward(batch.x_in), outliers.logits, outliers.counted, weight=self.weight
        )
        return Loss(loss)
