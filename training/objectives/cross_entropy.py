"""Plain cross entropy: the baseline that Outlier Exposure is measured against."""

from torch import Tensor
from torch.nn import functional as F


class CrossEntropy:
    """Mean cross entropy on the in-distribution batch; sees no outliers."""

    uses_outliers = False

    def __call__(self, logits_in: Tensor, targets: Tensor, logits_out: Tensor | None = None) -> Tensor:
        """Scalar loss from logits `[N, K]` and class indices `[N]`."""
        del logits_out
        return F.cross_entropy(logits_in, targets)
