r"""Energy-bounded fine-tuning (Liu, Wang, Owens & Li, NeurIPS 2020, section 3.3, equations 7 to 9).

    E_in[-log f_y(x)] + weight * (E_in[max(0, E(x) - margin_in)^2] + E_out[max(0, margin_out - E(x'))^2])

with the energy E(x) = -logsumexp of the logits. The loss penalises in-distribution energies above margin_in and outlier
energies below margin_out.
"""

from torch import Tensor
from torch.nn import functional as F

from training.data.pairing import Batch
from training.objectives.objective import Forward, Loss, forward_pair, not_negative


def energy_bounded_loss(
    logits_in: Tensor,
    targets: Tensor,
    logits_out: Tensor,
    *,
    margin_in: float = -23.0,
    margin_out: float = -5.0,
    weight: float = 0.1,
) -> Tensor:
    """Scalar loss of `logits_in` `[N, K]` with class indices `targets` `[N]` and `logits_out` `[M, K]`.

    The margins are energies in nats; the defaults are the paper's for CIFAR-10.
    """
    above = F.relu(-logits_in.logsumexp(dim=1) - margin_in)
    below = F.relu(margin_out + logits_out.logsumexp(dim=1))
    return F.cross_entropy(logits_in, targets) + weight * (above.square().mean() + below.square().mean())


class EnergyBounded:
    """The energy-bounded loss with margins and weight from the recipe."""

    uses_outliers = True
    uses_confidence = False

    def __init__(self, margin_in: float = -23.0, margin_out: float = -5.0, weight: float = 0.1) -> None:
        if margin_in >= margin_out:
            raise ValueError(f"margin_in ({margin_in}) must lie below margin_out ({margin_out})")
        self.margin_in, self.margin_out = margin_in, margin_out
        self.weight = not_negative("weight", weight)

    def __call__(self, forward: Forward, batch: Batch) -> Loss:
        """The loss of a paired batch."""
        in_dist, outliers = forward_pair(forward, batch)
        loss = energy_bounded_loss(
            in_dist.logits,
            batch.y_in,
            outliers.logits,
            margin_in=self.margin_in,
            margin_out=self.margin_out,
            weight=self.weight,
        )
        return Loss(loss, in_dist.logits)
