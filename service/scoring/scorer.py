"""Turns a model's outputs into results: score, anomaly, p-value, threshold, flag and prediction."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from itertools import repeat
from typing import Any

from bundle import (
    SCORES,
    Bundle,
    Calibration,
    EncodedText,
    EvidenceSpec,
    FalseFlagRate,
    LikelihoodSpec,
    Reference,
    TokenCount,
)
from service.errors import DeadlineExceeded, InferenceFailed, InputError
from service.inference.engine import PREDICTION, PROBABILITY, own_output
from service.inference.outcomes import Expired, Outcome, Row
from service.inputs.explanation import (
    NEIGHBOUR_DISTANCES,
    NEIGHBOURS,
    PARTS,
    explain_evidence,
    explain_neighbours,
)
from service.inputs.modality import Array, Modality, Prepared, arrays_of
from service.scoring.options import Options
from service.scoring.scored_input import Prediction, Result, ScoredInput, ScoreEntry

Explain = Callable[[Array, Array, ScoredInput], Mapping[str, Any]]
"""Makes the `explanation` of a result from a prepared input, the output with its parts, and the result without it."""


@dataclass(frozen=True)
class Scorer:
    """Turns the outputs of one model into results.

    Attributes:
        calibrations: The calibration of each score.
        labels: The class names; empty for models without classes.
        alpha: The false-flag rate of requests that name none.
        explain: Makes the explanation of a result; None for models whose outputs have no parts to explain.
        references: The training examples that `neighbours` refers to.
    """

    calibrations: Mapping[str, Calibration]
    labels: Sequence[str]
    alpha: float
    explain: Explain | None = None
    references: Sequence[Reference] = ()

    @classmethod
    def of(cls, bundle: Bundle, alpha: float | None, modality: Modality | None = None) -> "Scorer":
        """The scorer of `bundle`.

        Args:
            bundle: The model, with its calibrations.
            alpha: The default false-flag rate; None takes the manifest's.
            modality: Makes the explanations; without it the scorer explains nothing.
        """
        manifest = bundle.manifest
        explain: Explain | None = None
        if modality is not None and manifest.likelihood is not None:
            explain = partial(_explain_likelihood, modality, manifest.likelihood)
        elif modality is not None and manifest.evidence is not None:
            explain = partial(_explain_class, manifest.evidence)
        alpha = manifest.calibration.alpha if alpha is None else alpha
        return cls(bundle.calibrations, manifest.labels, alpha, explain, bundle.references)

    @cached_property
    def thresholds(self) -> dict[str, float | None]:
        """The threshold of each score at the default alpha; None if no input can be flagged."""
        return {name: self._threshold(name, self.alpha) for name in self.calibrations}

    @cached_property
    def false_flag_rates(self) -> dict[str, FalseFlagRate]:
        """The false-flag rate of each score at the default alpha, with its 95% interval over calibration sets."""
        return {name: calibration.false_flag_rate(self.alpha) for name, calibration in self.calibrations.items()}

    @cached_property
    def _threshold(self) -> Callable[[str, float], float | None]:
        # One cache per model: a shared one would keep the calibrations of unloaded models in memory.
        calibrations = self.calibrations

        # Clients tend to repeat one alpha; the size limit bounds the memory for those that do not.
        @lru_cache(maxsize=1024)
        def threshold(score: str, alpha: float) -> float | None:
            value = calibrations[score].threshold(alpha)
            return value if math.isfinite(value) else None

        return threshold

    def score(
        self, rows: Sequence[Row], options: Options, counts: Sequence[TokenCount | None] | None = None
    ) -> list[Result]:
        """One result per row; `counts` are the token counts of the rows' inputs, None for images.

        A result is an `InputError` where a score or the prediction is not a finite number: NaN never reaches a client.
        """
        thresholds = {name: self._threshold_of(name, options) for name in options.scores}
        return [
            self._result(row, thresholds, count)
            for row, count in zip(rows, repeat(None, len(rows)) if counts is None else counts, strict=True)
        ]

    def results(self, prepared: Sequence[Prepared], outcomes: Sequence[Outcome], options: Options) -> list[Result]:
        """One result per input of a request.

        Args:
            prepared: The inputs, in the order of the request, each an array or the error of its preparation.
            outcomes: The outcomes of the arrays, in their order.
            options: The request's options.

        Returns:
            The results in the order of `prepared`; an `InputError` for each input that has no scores.
        """
        inputs = [item for item in prepared if not isinstance(item, InputError)]
        rows = [outcome for outcome in outcomes if isinstance(outcome, Row)]
        counts = [token_count(item) for item, outcome in zip(inputs, outcomes, strict=True) if isinstance(outcome, Row)]
        scored = iter(self.score(rows, options, counts) if rows else ())
        remaining = iter(outcomes)
        results: list[Result] = []
        for item in prepared:
            if isinstance(item, InputError):
                results.append(item)
                continue
            outcome = next(remaining)
            if isinstance(outcome, Row):
                result = next(scored)
                if options.explain and self.explain is not None and isinstance(result, ScoredInput):
                    (array,) = arrays_of([item])
                    parts = outcome.outputs[PARTS][outcome.index]
                    result = replace(result, explanation=self.explain(array, parts, result))
                if options.explain and self.references and isinstance(result, ScoredInput):
                    result = self._with_neighbours(result, outcome)
                if options.model_outputs and isinstance(result, ScoredInput):
                    own = {name: outcome.outputs[own_output(name)][outcome.index] for name in options.model_outputs}
                    result = replace(result, model_outputs=own)
                results.append(result)
            elif isinstance(outcome, Expired):
                results.append(InputError(DeadlineExceeded.type, "The deadline passed before the input was computed."))
            else:
                results.append(InputError(InferenceFailed.type, "The engine failed on this input's batch. Try again."))
        return results

    def warnings(self, options: Options) -> list[str]:
        """One message for each score that cannot flag anything, because alpha is too small for its calibration set."""
        alpha = self.alpha if options.alpha is None else options.alpha
        return [
            f"{name}: nothing can be flagged at alpha {alpha}: with {self.calibrations[name].n} calibration scores the "
            f"smallest p-value is {self.calibrations[name].smallest_alpha:.3g}"
            for name in options.scores
            if name not in options.thresholds and self.calibrations[name].smallest_alpha > alpha
        ]

    def _with_neighbours(self, result: ScoredInput, row: Row) -> Result:
        numbers, distances = (row.outputs[name][row.index] for name in (NEIGHBOURS, NEIGHBOUR_DISTANCES))
        try:
            return replace(result, neighbours=explain_neighbours(numbers, distances, self.references))
        except IndexError as error:
            return InputError("invalid-neighbours", f"The nearest training examples cannot be read: {error}")

    def _threshold_of(self, name: str, options: Options) -> float | None:
        threshold = options.thresholds.get(name)
        if threshold is not None:
            return threshold
        return self.thresholds[name] if options.alpha is None else self._threshold(name, options.alpha)

    def _result(self, row: Row, thresholds: Mapping[str, float | None], count: TokenCount | None) -> Result:
        # Plain floats: most requests have one input, for which NumPy's calls cost ten times what they compute.
        scores: dict[str, ScoreEntry] = {}
        for name, threshold in thresholds.items():
            value = float(row.outputs[name][row.index])
            anomaly = SCORES[name].anomaly_of(value)
            if not math.isfinite(anomaly):
                return InputError("non-finite-score", f"The model's score {name} is not a number for this input.")
            p_value = self.calibrations[name].p_value_of(anomaly)
            flagged = threshold is not None and anomaly > threshold
            scores[name] = ScoreEntry(value, anomaly, threshold, p_value, flagged)
        first = next(iter(scores.values()))
        try:
            prediction = self._prediction(row)
        except (ValueError, IndexError) as error:
            return InputError("invalid-prediction", f"The model's prediction cannot be read: {error}")
        return ScoredInput(first.flagged, first.p_value, prediction, scores, tokens=count)

    def _prediction(self, row: Row) -> Prediction | None:
        if not self.labels:
            return None
        index = int(row.outputs[PREDICTION][row.index])
        probability = float(row.outputs[PROBABILITY][row.index])
        if not 0 <= index < len(self.labels) or not math.isfinite(probability):
            raise ValueError(f"class {index} of {len(self.labels)} with probability {probability}")
        return Prediction(self.labels[index], index, probability)


def _explain_likelihood(
    modality: Modality, spec: LikelihoodSpec, item: Array, bits: Array, _result: ScoredInput
) -> Mapping[str, Any]:
    return modality.explain(item, bits, spec)


def _explain_class(spec: EvidenceSpec, _item: Array, values: Array, result: ScoredInput) -> Mapping[str, Any]:
    assert result.prediction is not None, "evidence is for models with labels"
    return explain_evidence(values, spec.bias[result.prediction.index])


def token_count(prepared: Prepared) -> TokenCount | None:
    """The token count of a prepared text; None for other inputs."""
    return prepared.tokens if isinstance(prepared, EncodedText) else None
