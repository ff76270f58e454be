"""Measures of a classifier's probabilities: calibration errors and soft F1.

The definitions are those of the paper's appendix on calibration and of its authors' code. A confidence is a maximum
softmax probability. A calibration error is 0 if, of the predictions with confidence c, a share c is correct.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import softmax

Floats = NDArray[np.float64]

BIN_SIZE = 100
"""Predictions per bin in the paper (beta in the authors' code)."""


@dataclass(frozen=True)
class ReliabilityBins:
    """Mean confidence, accuracy and size, each `[B]`, of bins of predictions in order of confidence."""

    confidence: Floats
    accuracy: Floats
    size: NDArray[np.int64]


def confidences(logits: ArrayLike, temperature: float = 1.0) -> Floats:
    """Maximum of softmax(logits / temperature), `[N]` in 1/K..1, of logits `[N, K]`; computed in float64."""
    return np.asarray(softmax(np.asarray(logits, dtype=np.float64) / temperature, axis=1).max(axis=1))


def posterior_rescaling(confidence: ArrayLike, num_classes: int) -> Floats:
    """Confidences mapped linearly from [1/K, 1] to [0, 1], for `num_classes` K.

    A maximum softmax probability is at least 1/K, but no class of an out-of-distribution input is correct, which asks
    for a confidence of 0. Without the map, the best possible detector would count as badly calibrated.
    """
    minimum = 1 / num_classes
    # Rounding can leave a uniform softmax slightly below 1/K.
    return np.clip((np.asarray(confidence, dtype=np.float64) - minimum) / (1 - minimum), 0.0, 1.0)


def reliability_bins(confidence: ArrayLike, correct: ArrayLike, bin_size: int = BIN_SIZE) -> ReliabilityBins:
    """Group predictions, in order of confidence, into bins of `bin_size`; the last bin includes the remainder.

    Predictions of equal confidence all count with their common accuracy, so that the result does not depend on the
    order of the inputs when a bin's edge falls among them.

    Args:
        confidence: Confidences `[N]` in 0..1.
        correct: Whether each prediction is correct, `[N]`.
        bin_size: Predictions per bin.

    Raises:
        ValueError: There are no predictions.
    """
    values = np.asarray(confidence, dtype=np.float64)
    n = len(values)
    if n == 0:
        raise ValueError("no predictions: a calibration error needs at least one")
    levels, level, count = np.unique(values, return_inverse=True, return_counts=True)
    accuracy = np.bincount(level, weights=np.asarray(correct, dtype=np.float64)) / count
    starts = np.arange(max(n // bin_size, 1)) * bin_size
    size = np.diff(starts, append=n)
    return ReliabilityBins(
        confidence=np.add.reduceat(np.repeat(levels, count), starts) / size,
        accuracy=np.add.reduceat(np.repeat(accuracy, count), starts) / size,
        size=size,
    )


def rms_calibration_error(confidence: ArrayLike, correct: ArrayLike, bin_size: int = BIN_SIZE) -> float:
    """Root mean square calibration error: sqrt(sum over bins b of |b|/n (mean confidence - accuracy)^2).

    The sum is over all bins. The authors' loop omits the last one, which has the most confident predictions.
    """
    bins = reliability_bins(confidence, correct, bin_size)
    return float(np.sqrt(np.average(np.square(bins.confidence - bins.accuracy), weights=bins.size)))


def mad_calibration_error(confidence: ArrayLike, correct: ArrayLike, bin_size: int = BIN_SIZE) -> float:
    """Mean absolute deviation calibration error: sum over bins b of |b|/n |mean confidence - accuracy|."""
    bins = reliability_bins(confidence, correct, bin_size)
    return float(np.average(np.abs(bins.confidence - bins.accuracy), weights=bins.size))


def soft_f1(confidence: ArrayLike, correct: ArrayLike) -> float:
    """F1 of detecting wrong predictions by 1 - confidence, without a threshold: 2 tp / (2 tp + fp + fn).

    tp = sum((1 - confidence) wrong), fp = sum((1 - confidence) correct), fn = sum(confidence wrong). The result is 0 if
    every prediction is correct, also in the case 0/0, where all confidences are 1.
    """
    doubt = 1 - np.asarray(confidence, dtype=np.float64)
    wrong = 1 - np.asarray(correct, dtype=np.float64)
    numerator, denominator = 2 * float((doubt * wrong).sum()), float((doubt + wrong).sum())
    return numerator / denominator if denominator else 0.0
