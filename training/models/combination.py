"""Combination of scores: the statistics of the score `combined`."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.models.feature_statistics import Statistics, as_constants

_SMALLEST_DEVIATION = 1e-4


@dataclass(frozen=True)
class Combination:
    """The scores that `combined` combines, and the constants that standardise them.

    Attributes:
        scores: The names of the scores.
        statistics: The mean and the standard deviation of each score's anomaly.
    """

    scores: tuple[str, ...]
    statistics: Statistics

    def tolerance(self, tolerance: float) -> float:
        """The largest difference of the combined score if each score that it combines differs by `tolerance`."""
        return float((tolerance / self.statistics["anomaly_deviations"]).sum())


def fit_combination(anomalies: Mapping[str, NDArray[np.float64]]) -> Combination:
    """The combination of the scores in `anomalies`.

    Args:
        anomalies: Score name -> its anomalies `[N]` for in-distribution examples. Neither training nor calibration
            examples may be among them: a classifier is surer of training examples, and p-values need a score that does
            not depend on the calibration examples.
    """
    means = np.array([values.mean() for values in anomalies.values()])
    deviations = np.array([values.std() for values in anomalies.values()])
    # The rounding of a score that hardly varies must not decide.
    deviations = np.maximum(deviations, _SMALLEST_DEVIATION)
    return Combination(tuple(anomalies), as_constants({"anomaly_means": means, "anomaly_deviations": deviations}))
