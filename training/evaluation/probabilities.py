"""How far a classifier's probabilities are from how often it is right: calibration errors and soft F1.

Definitions as in the paper's appendix on calibration and its authors' code. A confidence is a maximum softmax
probability; an error is 0 where, of the predictions made with confidence c, a share c is right.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import softmax

Floats = NDArray[np.float64]

BIN_SIZE = 100
"""The paper's bins hold so many predictions each (beta in the authors' code)."""


@dataclass(frozen=True)
class ReliabilityBins:
    """Predictions in order of confidence, in bins of equal count: means and sizes, each `[B]`."""

    confidence: Floats
    accuracy: Floats
    size: NDArray[np.int64]


def confidences(logits: ArrayLike, temperature: float = 1.0) -> Floats:
    """Maximum of softmax(logits / temperature), `[N]` in 1/K..1, of logits `[N, K]`; in float64 throughout."""
    return np.asarray(softmax(np.asarray(logits, dtype=np.float64) / temperature, axis=1).max(axis=1))


def posterior_rescaling(confidence: ArrayLike, num_classes: int) -> Floats:
    """Confidences mapped linearly from [1/K, 1] onto [0, 1], for `num_classes` K.

    A maximum softmax probability cannot be below 1/K, yet the right confidence in any class of an out-of-distribution
    input is 0: without the map, the best possible detector would count as badly calibrated.
    """
    least = 1 / num_classes
    # Rounding leaves a uniform softmax a little below 1/K.
    return np.clip((np.asarray(confidence, dtype=np.float64) - least) / (1 - least), 0.0, 1.0)


def reliability_bins(confidence: ArrayLike, correct: ArrayLike, bin_size: int = BIN_SIZE) -> ReliabilityBins:
    """Bins of `bin_size` predictions, in order of `confidence` `[N]` in 0..1; `correct` `[N]` says which are right.

    The last bin takes the remainder too. Predictions of equal confidence count with their common accuracy, wherever
    a bin's edge falls among them: the result does not depend on the order of the inputs.
    Raises ValueError when there is no prediction.
    """
    values = np.asarray(confidence, dtype=np.float64)
    n = len(values)
    if n == 0:
        raise ValueError("no predictions: a calibration error needs at least one")
    levels, level, count = np.unique(values, return_inverse=True, return_counts=True)
    right = np.bincount(level, weights=np.asarray(correct, dtype=np.float64)) / count
    starts = np.arange(max(n // bin_size, 1)) * bin_size
    size = np.diff(starts, append=n)
    return ReliabilityBins(
        confidence=np.add.reduceat(np.repeat(levels, count), starts) / size,
        accuracy=np.add.reduceat(np.repeat(right, count), starts) / size,
        size=size,
    )


def rms_calibration_error(confidence: ArrayLike, correct: ArrayLike, bin_size: int = BIN_SIZE) -> float:
    """Root mean square calibration error: sqrt(sum over bins b of |b|/n (mean confidence - accuracy)^2).

    Over all bins: the authors' loop leaves out the last, that of the most confident predictions.
    """
    bins = reliability_bins(confidence, correct, bin_size)
    return float(np.sqrt(np.average(np.square(bins.confidence - bins.accuracy), weights=bins.size)))


def mad_calibration_error(confidence: ArrayLike, correct: ArrayLike, bin_size: int = BIN_SIZE) -> float:
    """Mean absolute deviation calibration error: sum over bins b of |b|/n |mean confidence - accuracy|; all bins."""
    bins = reliability_bins(confidence, correct, bin_size)
    return float(np.average(np.abs(bins.confidence - bins.accuracy), weights=bins.size))


def soft_f1(confidence: ArrayLike, correct: ArrayLike) -> float:
    """F1 of finding the wrong predictions by 1 - confidence, without a threshold: 2 tp / (2 tp + fp + fn).

    tp = sum((1 - confidence) wrong), fp = sum((1 - confidence) correct), fn = sum(confidence wrong). It is 0 where
    nothing is wrong, certainty in everything included (0/0).
    """
    doubt = 1 - np.asarray(confidence, dtype=np.float64)
    wrong = 1 - np.asarray(correct, dtype=np.float64)
    found, all_of_both = 2 * float((doubt * wrong).sum()), float((doubt + wrong).sum())
    return found / all_of_both if all_of_both else 0.0
