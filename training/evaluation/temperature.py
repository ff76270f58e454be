"""Temperature scaling: the divisor of a classifier's logits that calibrates its probabilities."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

BRACKET = (0.05, 20.0)
"""The search range. The authors' code searches in 0.2..5."""


def tune_temperature(logits: ArrayLike, targets: ArrayLike) -> float:
    """The temperature T in `BRACKET` with the smallest mean negative log-likelihood of softmax(logits / T).

    The method is in the paper's appendix and in Guo et al. 2017, On Calibration of Modern Neural Networks. T does not
    change any prediction. The result is 1 if no temperature improves the loss. Logits that predict every target
    correctly have their minimum at 0 and get the lower end of `BRACKET`.

    Args:
        logits: Logits `[N, K]` of inputs that were not trained on.
        targets: Their classes `[N]`.
    """
    values = np.asarray(logits, dtype=np.float64)
    chosen = np.take_along_axis(values, np.asarray(targets, dtype=np.int64)[:, None], axis=1)[:, 0]

    def loss(log_temperature: float) -> float:
        inverse = np.exp(-log_temperature)
        return float(np.mean(logsumexp(values * inverse, axis=1) - chosen * inverse))

    # The loss is convex in 1/T, so its only minimum in log T is the global one.
    minimum = minimize_scalar(loss, bounds=np.log(BRACKET), method="bounded", options={"xatol": 1e-6})
    # With large correct logits the loss is 0 in floating point for every T.
    return float(np.exp(minimum.x)) if minimum.fun < loss(0.0) else 1.0
