"""Combination of scores: the statistics of the score `combined`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from training.models.feature_statistics import Statistics, as_constants, load_statistics, save_statistics

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

    @classmethod
    def load(cls, path: Path, scores: Sequence[str]) -> Self | None:
        """The combination of `scores` whose statistics `save` wrote to `path`; None if the file does not exist."""
        statistics = load_statistics(path)
        return cls(tuple(scores), statistics) if statistics else None

    def save(self, path: Path) -> None:
        """Write the statistics to `path`, an `.npz` file."""
        save_statistics(path, self.statistics)

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
