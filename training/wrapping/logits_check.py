"""The logits check: a tensor that is a softmax already would give scores that mean something else."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from training.errors import GraphError
from training.wrapping.original import Original
from training.wrapping.values import normalised_from

_TOLERANCE = 5e-3
"""How far float16 probabilities of many classes sum from 1."""


def require_logits(original: Original, logits: NDArray[np.float32], options: str) -> None:
    """GraphError where every row of `logits` `[N, K]`, of real inputs, is probabilities or their logarithms.

    `options` are those of the command that say what the graph takes.
    """
    values = logits.astype(np.float64)
    if not np.isfinite(values).all():
        reason = f"{int((~np.isfinite(values)).any(axis=1).sum())} calibration inputs have NaN or infinite values"
        raise GraphError(original.logits, reason, f"Check {options} and the calibration data")
    if (values >= 0).all() and np.abs(values.sum(axis=1) - 1).max() < _TOLERANCE:
        what = "probabilities: its rows are not negative and sum to 1"
    elif np.abs(logsumexp(values, axis=1)).max() < _TOLERANCE:
        what = "log-probabilities: the exponentials of its rows sum to 1"
    else:
        return
    source = normalised_from(original.model, original.logits)
    remedy = f"Give the softmax's input: --logits {source}" if source else "Give the tensor before the softmax"
    raise GraphError(original.logits, f"holds {what}; energy and other scores need logits", remedy)
