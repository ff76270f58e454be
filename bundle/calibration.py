"""Split-conformal calibration: p-values, and thresholds for a chosen false-flag rate.

Bates, Candes, Lei, Romano & Sesia 2021, "Testing for Outliers with Conformal p-values". For n held-out in-distribution
scores and a new score s,

    p(s) = (1 + #{calibration >= s}) / (n + 1).

If the new input is exchangeable with the calibration inputs, P(p <= alpha) <= alpha for every alpha, on average over
calibration sets. `bundle.false_flag_rate` has the distribution of the rate for a single calibration set.
"""

import math
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bundle.errors import CalibrationError, CalibrationInvalid
from bundle.false_flag_rate import FalseFlagRate, false_flag_rate, flagging_rank, smallest_alpha


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """The anomaly scores of a held-out in-distribution split.

    Attributes:
        anomaly: `[n]` float64, ascending, finite, n >= 1; read-only.

    Raises:
        CalibrationError: for other arrays. `from_scores` takes scores in any order.
    """

    anomaly: NDArray[np.float64]

    def __post_init__(self) -> None:
        anomaly = self.anomaly
        if anomaly.ndim != 1 or anomaly.size == 0:
            raise CalibrationError(
                f"calibration scores have shape {list(anomaly.shape)}; give one dimension with at least one score"
            )
        if anomaly.dtype != np.float64:
            raise CalibrationError(f"calibration scores are {anomaly.dtype}; convert them to float64")
        if not np.isfinite(anomaly).all():
            bad = int(np.count_nonzero(~np.isfinite(anomaly)))
            raise CalibrationError(
                f"{bad} of {anomaly.size} calibration scores are NaN or infinite; find the inputs that cause them"
            )
        if (anomaly[1:] < anomaly[:-1]).any():
            raise CalibrationError("calibration scores are not in ascending order; use Calibration.from_scores")
        frozen = anomaly.copy()
        frozen.setflags(write=False)
        object.__setattr__(self, "anomaly", frozen)

    @classmethod
    def from_scores(cls, anomaly: ArrayLike) -> "Calibration":
        """Calibrate on anomaly scores `[n]` in any order.

        Raises:
            CalibrationError: for no scores, other shapes, NaN or infinite scores.
        """
        return cls(np.sort(np.atleast_1d(np.asarray(anomaly, dtype=np.float64)), axis=-1))

    @property
    def n(self) -> int:
        """The number of calibration scores."""
        return int(self.anomaly.size)

    @property
    def smallest_alpha(self) -> float:
        """The smallest possible p-value, 1 / (n + 1): below this alpha nothing can be flagged."""
        return smallest_alpha(self.n)

    def false_flag_rate(self, alpha: float) -> FalseFlagRate:
        """The false-flag rate at `alpha`: its bound on average over calibration sets, and its 95% interval.

        Raises:
            CalibrationError: unless 0 < alpha < 1.
        """
        return false_flag_rate(self.n, alpha)

    def p_value(self, anomaly: ArrayLike) -> NDArray[np.float64]:
        """The conformal p-values of `anomaly`, of the same shape, in [1 / (n + 1), 1]; NaN for NaN.

        Ties count as at least as anomalous, which keeps the bound valid for discrete scores.
        """
        scores = np.asarray(anomaly, dtype=np.float64)
        at_least = self.n - np.searchsorted(self.anomaly, scores, side="left")
        return np.asarray(np.where(np.isnan(scores), np.nan, (1 + at_least) / (self.n + 1)))

    def p_value_of(self, anomaly: float) -> float:
        """`p_value` of a single number: the same result in a fraction of the time."""
        if math.isnan(anomaly):
            return math.nan
        return (1 + self.n - bisect_left(self.anomaly.data, anomaly)) / (self.n + 1)

    def threshold(self, alpha: float) -> float:
        """The score above which an input is flagged at `alpha`: `anomaly > threshold` exactly when `p_value <= alpha`.

        It is the k-th largest calibration score, k the largest integer with k / (n + 1) <= alpha;
        `math.inf` when alpha < `smallest_alpha`, because then nothing can be flagged.

        Raises:
            CalibrationError: unless 0 < alpha < 1.
        """
        k = flagging_rank(self.n, alpha)
        return float(self.anomaly[self.n - k]) if k else math.inf

    def flagged(self, anomaly: ArrayLike, alpha: float) -> NDArray[np.bool_]:
        """Which of `anomaly` are flagged at `alpha`, of the same shape. NaN is never flagged.

        Raises:
            CalibrationError: unless 0 < alpha < 1.
        """
        return np.asarray(np.asarray(anomaly, dtype=np.float64) > self.threshold(alpha))


def save_calibrations(path: Path, calibrations: Mapping[str, Calibration]) -> None:
    """Write one array per score name to `path`, in NumPy's npz format. Equal calibrations give equal bytes."""
    arrays = {name: calibrations[name].anomaly for name in sorted(calibrations)}
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def load_calibrations(path: Path) -> dict[str, Calibration]:
    """Read the file of `save_calibrations`.

    Raises:
        CalibrationInvalid: if the file is unreadable, or if one of its arrays is not a calibration.
    """
    calibrations: dict[str, Calibration] = {}
    where = path.name
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("it holds a single array, not one array per score")
        with archive as arrays:
            for name in arrays.files:
                where = f"{path.name}[{name}]"
                calibrations[name] = Calibration(arrays[name])
    # zipfile, zlib, struct, ast and NumPy raise different types for a damaged archive.
    except Exception as error:
        raise CalibrationInvalid(
            path.parent, where, f"cannot be read as calibration scores: {error}", "Calibrate and export the model again"
        ) from error
    return calibrations
