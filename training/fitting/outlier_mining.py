"""Outlier mining: the model learns from those of many drawn outliers that it predicts most confidently."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F


@torch.no_grad()
def most_confident(logits: Callable[[Tensor], Tensor], outliers: Tensor, n: int) -> Tensor:
    """The `n` rows of `outliers` `[M, ...]` with the largest maximum softmax probability, in any order.

    Chen, Li, Wu, Liang and Jha (ECML 2021, arXiv:2006.15207, algorithm 1) select so once per epoch; here it is done in
    every step.

    Args:
        logits: A classifier in evaluation mode: logits `[M, K]` of stored inputs `[M, ...]`.
        outliers: The drawn outliers.
        n: How many to select, at most M.
    """
    confidence = F.log_softmax(logits(outliers), dim=1).amax(dim=1)
    return outliers[confidence.topk(n).indices]
