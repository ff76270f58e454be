"""Cross entropy: the baseline that Outlier Exposure is compared with."""

from torch.nn import functional as F

from training.data.pairing import Batch
from training.objectives.objective import Forward, Loss


class CrossEntropy:
    """Mean cross entropy on the in-distribution batch; uses no outliers."""

    uses_outliers = False
    uses_confidence = False

    def __call__(self, forward: Forward, batch: Batch) -> Loss:
        """The loss of the in-distribution part of `batch`."""
        logits = forward(batch.x_in).logits
        return Loss(F.cross_entropy(logits, batch.y_in), logits)
