r"""The confidence branch (DeVries & Taylor 2018, section 2) and its Outlier Exposure (paper, section 4.3).

The network predicts the softmax p and a confidence c = b(x) in (0, 1). In training, inputs with hints are predicted as

    p' = c p + (1 - c) onehot(y),    loss = E_in[-log p'_y] + budgeting * E_in[-log c]

Half of each batch gets hints (section 2.3.2). The weight `budgeting` rises while E[-log c] is above the budget and
falls while it is below (section 2.3.1). Outlier Exposure adds weight * E_out[log c], which lowers the confidence on
outliers. That term has no lower bound and can dominate the loss, so log c is clamped at the log of a floor.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.data.pairing import Batch
from training.models.classifier import Prediction
from training.objectives.objective import Forward, Loss, forward_pair, not_negative

_STEP = 1.01
"""The factor by which the budgeting weight changes after each batch, as in the authors' code."""

AUTHORS_FLOOR = 1e-12
"""The lower bound of the confidence in DeVries & Taylor's own code."""


def hinted_loss(prediction: Prediction, targets: Tensor, hinted: Tensor) -> tuple[Tensor, Tensor]:
    """Task loss E[-log p'_y] and confidence loss E[-log c], scalars.

    Args:
        prediction: The prediction for the in-distribution inputs.
        targets: Their classes int64 `[N]`.
        hinted: Bool `[N]`, which inputs get hints.
    """
    logit = _confidence(prediction)
    log_p = F.log_softmax(prediction.logits, dim=1).gather(1, targets[:, None]).squeeze(1)
    # log(c p_y + 1 - c), computed from logarithms because c may round to 0 or 1.
    with_hint = torch.logaddexp(F.logsigmoid(logit) + log_p, F.logsigmoid(-logit))
    return -torch.where(hinted, with_hint, log_p).mean(), -F.logsigmoid(logit).mean()


def outlier_confidence(prediction: Prediction, floor: float = AUTHORS_FLOOR) -> Tensor:
    """E_out[max(log c, log floor)], a scalar; an outlier whose confidence is below the floor has no gradient."""
    return F.logsigmoid(_confidence(prediction)).clamp(min=math.log(floor)).mean()


class Confidence(nn.Module):
    """The confidence branch's loss; its budgeting weight is part of the checkpoint."""

    uses_outliers = False
    uses_confidence = True
    budgeting: Tensor

    def __init__(self, budget: float = 0.3, budgeting: float = 0.1) -> None:
        super().__init__()
        if budget <= 0 or budgeting <= 0:
            raise ValueError(f"budget ({budget}) and budgeting ({budgeting}) must be positive")
        self.budget = budget
        self.register_buffer("budgeting", torch.tensor(budgeting))

    def forward(self, forward: Forward, batch: Batch) -> Loss:
        """The loss of the in-distribution part of `batch`."""
        return self._loss(forward(batch.x_in), batch)

    def _loss(self, prediction: Prediction, batch: Batch) -> Loss:
        hinted = torch.rand(len(batch.y_in), device=batch.y_in.device) < 0.5
        task, confidence = hinted_loss(prediction, batch.y_in, hinted)
        # Cloned, because the gradient needs the value that is changed below.
        loss = task + self.budgeting.clone() * confidence
        with torch.no_grad():
            self.budgeting *= torch.where(confidence > self.budget, _STEP, 1 / _STEP)
        return Loss(loss, prediction.logits)


class ConfidenceOutlierExposure(Confidence):
    """`Confidence` plus low confidence on outliers, with the given `weight`, down to `floor`."""

    uses_outliers = True

    def __init__(
        self, weight: float = 0.5, budget: float = 0.3, budgeting: float = 0.1, floor: float = AUTHORS_FLOOR
    ) -> None:
        super().__init__(budget, budgeting)
        if not 0 < floor < 1:
            raise ValueError(f"floor must be between 0 and 1, got {floor}")
        self.weight = not_negative("weight", weight)
        self.floor = floor

    def forward(self, forward: Forward, batch: Batch) -> Loss:
        """The loss of a paired batch."""
        in_dist, outliers = forward_pair(forward, batch)
        loss = self._loss(in_dist, batch)
        return loss._replace(value=loss.value + self.weight * outlier_confidence(outliers, self.floor))


def _confidence(prediction: Prediction) -> Tensor:
    if prediction.confidence_logit is None:
        raise ValueError("this objective needs a network with a confidence branch")
    return prediction.confidence_logit
