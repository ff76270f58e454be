r"""The margin loss of density networks (Hendrycks, Mazeika & Dietterich, ICLR 2019, section 4.4) for language models.

    E_in[nll(x)] + weight * E_in,out[max(0, margin + nll(x) - nll(x'))],    nll in nats per symbol of a text

The paper pulls predictions on outliers towards the uniform distribution, which widens the difference of
`kl_uniform`. This loss widens the difference of bits per symbol: an outlier x' must have `margin` nats per symbol more
than an in-distribution text x. It suits models of characters, which `kl_uniform` hardly helps to tell texts apart.
"""

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

from training.data.pairing import Batch
from training.models.language_model import TokenPrediction
from training.objectives.language_model import IGNORED, token_cross_entropy
from training.objectives.likelihood_margin import likelihood_margin_loss
from training.objectives.objective import Loss, not_negative, outliers_of


def nats_per_symbol(logits: Tensor, targets: Tensor, counted: Tensor) -> Tensor:
    """The mean nats `[N]` per symbol of texts with `logits` `[N, L, V]` and int64 `targets` `[N, L]`."""
    targets = targets.masked_fill(~counted, IGNORED)
    nats = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="none")
    return nats.view_as(targets).sum(dim=1) / counted.sum(dim=1)


class TextLikelihoodMargin:
    """Mean nats per in-distribution symbol plus `weight` times the margin loss.

    Args:
        weight: The factor of the margin loss.
        margin: The margin in nats per symbol.
    """

    uses_outliers = True
    uses_confidence = False

    def __init__(self, weight: float = 1.0, margin: float = 1.0) -> None:
        self.weight = not_negative("weight", weight)
        self.margin = not_negative("margin", margin)

    def __call__(self, forward: Callable[[Tensor], TokenPrediction], batch: Batch) -> Loss:
        """The loss of a paired batch; texts and outliers are padded separately."""
        prediction = forward(batch.x_in)
        nats_in, nats_out = nats_per_symbol(*prediction), nats_per_symbol(*forward(outliers_of(batch)))
        margin_loss = likelihood_margin_loss(nats_in, nats_out, self.margin)
        return Loss(token_cross_entropy(*prediction) + self.weight * margin_loss)
