"""The scores of logits, computed by SciPy in float64: the reference for torch and for ONNX graphs."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp, softmax
from scipy.stats import entropy


def reference_scores(logits: NDArray[np.floating]) -> dict[str, NDArray[np.float64]]:
    """The value `[N]` of each score of `bundle.LOGIT_SCORES`, by name, of `logits` `[N, K]`."""
    values = logits.astype(np.float64)
    probability = softmax(values, axis=1)
    # The authors' generalized_entropy with its defaults, gamma = 0.1 and M = 100.
    top = np.sort(probability, axis=1)[:, -100:]
    return {
        "msp": probability.max(axis=1),
        "max_logit": values.max(axis=1),
        "energy": -logsumexp(values, axis=1),
        "entropy": entropy(probability, axis=1),
        "kl_uniform": -np.log(probability).mean(axis=1),
        "gen": np.sum(top**0.1 * (1 - top) ** 0.1, axis=1),
    }
