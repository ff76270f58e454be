"""Temperature: the one number that a classifier's logits are divided by to make its probabilities honest."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

BRACKET = (0.05, 20.0)
"""Where a temperature is looked for. The authors' code looks in 0.2..5."""


def tune_temperature(logits: ArrayLike, targets: ArrayLike) -> float:
    """The temperature T in `BRACKET` with the least mean negative log-likelihood of softmax(logits / T).

    For logits `[N, K]` and classes `targets` `[N]` of inputs that were not trained on (paper, appendix; Guo et al.
    2017, On Calibration of Modern Neural Networks). T leaves every prediction as it is. It is 1 where no other is
    better; logits that are right about every target have their minimum at 0, and get the bracket's lower end.
    """
    values = np.asarray(logits, dtype=np.float64)
    chosen = np.take_along_axis(values, np.asarray(targets, dtype=np.int64)[:, None], axis=1)[:, 0]

    def loss(log_temperature: float) -> float:
        inverse = np.exp(-log_temperature)
        return float(np.mean(logsumexp(values * inverse, axis=1) - chosen * inverse))

    # Convex in 1/T, so that the one minimum in log T is the global one.
    found = minimize_scalar(loss, bounds=np.log(BRACKET), method="bounded", options={"xatol": 1e-6})
    # Confident and right about everything, the loss is 0 in floating point wherever one looks.
    return float(np.exp(found.x)) if found.fun < loss(0.0) else 1.0
