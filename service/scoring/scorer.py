"""Outputs and calibration to answers: value, anomaly, p-value, threshold, flag. Pure."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from bundle import SCORES, Bundle, Calibration
from service.errors import InputError
from service.inference.engine import PREDICTION, PROBABILITY
from service.inference.outcomes import Row
from service.scoring.options import Options


@dataclass(frozen=True)
class Scorer:
    """How one model's outputs are read: its calibrations, its labels, and the alpha where a request names none."""

    calibrations: Mapping[str, Calibration]
    labels: Sequence[str]
    alpha: float

    @classmethod
    def of(cls, bundle: Bundle, alpha: float | None) -> "Scorer":
        """The scorer of `bundle`; `alpha` replaces the manifest's default unless it is None."""
        manifest = bundle.manifest
        return cls(bundle.calibrations, manifest.labels, manifest.calibration.alpha if alpha is None else alpha)

    @cached_property
    def thresholds(self) -> dict[str, float | None]:
        """Each score's threshold at the default alpha; None where nothing can be flagged."""
        return {name: self._threshold(name, self.alpha) for name in self.calibrations}

    @cached_property
    def _threshold(self) -> Callable[[str, float], float | None]:
        # One cache for each model, not one for all: that would keep the calibrations of models that are gone.
        calibrations = self.calibrations

        # Clients tend to send one alpha over and over; the bound keeps those who do not from costing memory.
        @lru_cache(maxsize=1024)
        def threshold(score: str, alpha: float) -> float | None:
            found = calibrations[score].threshold(alpha)
            return found if math.isfinite(found) else None

        return threshold

    def score(self, rows: Sequence[Row], options: Options) -> list[dict[str, Any] | InputError]:
        """One result per row, `native.schemas.Result` without `index` and `id`, or what is wrong with the row.

        A result is an error where a score or the prediction is not a number: NaN never reaches a client.
        """
        thresholds = {name: self._threshold_of(name, options) for name in options.scores}
        return [self._result(row, thresholds) for row in rows]

    def warnings(self, options: Options) -> list[str]:
        """What a client should know about its options: an alpha too small for the calibration to flag anything."""
        alpha = self.alpha if options.alpha is None else options.alpha
        return [
            f"{name}: nothing can be flagged at alpha {alpha}: with {self.calibrations[name].n} calibration scores the "
            f"smallest p-value is {self.calibrations[name].smallest_alpha:.3g}"
            for name in options.scores
            if name not in options.thresholds and self.calibrations[name].smallest_alpha > alpha
        ]

    def _threshold_of(self, name: str, options: Options) -> float | None:
        threshold = options.thresholds.get(name)
        if threshold is not None:
            return threshold
        return self.thresholds[name] if options.alpha is None else self._threshold(name, options.alpha)

    def _result(self, row: Row, thresholds: Mapping[str, float | None]) -> dict[str, Any] | InputError:
        # Number by number: most requests have one input, for which NumPy's calls cost ten times what they compute.
        scores: dict[str, Any] = {}
        for name, threshold in thresholds.items():
            value = float(row.outputs[name][row.index])
            anomaly = SCORES[name].anomaly_of(value)
            if not math.isfinite(anomaly):
                return InputError("non-finite-score", f"The model's score {name} is not a number for this input.")
            scores[name] = {
                "value": value,
                "anomaly": anomaly,
                "threshold": threshold,
                "p_value": self.calibrations[name].p_value_of(anomaly),
                "flagged": threshold is not None and anomaly > threshold,
            }
        first = next(iter(scores.values()))
        try:
            prediction = self._prediction(row)
        except (ValueError, IndexError) as error:
            return InputError("invalid-prediction", f"The model's prediction cannot be read: {error}")
        return {"flagged": first["flagged"], "p_value": first["p_value"], "prediction": prediction, "scores": scores}

    def _prediction(self, row: Row) -> dict[str, Any] | None:
        if not self.labels:
            return None
        index = int(row.outputs[PREDICTION][row.index])
        probability = float(row.outputs[PROBABILITY][row.index])
        if not 0 <= index < len(self.labels) or not math.isfinite(probability):
            raise ValueError(f"class {index} of {len(self.labels)} with probability {probability}")
        return {"label": self.labels[index], "index": index, "probability": probability}
