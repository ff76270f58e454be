"""Calibration of each stage's probabilities, on the in-distribution test set and on the paper's mixture."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from training.evaluation.detection import Mixture, draw_mixture
from training.evaluation.probabilities import (
    Floats,
    confidences,
    mad_calibration_error,
    posterior_rescaling,
    rms_calibration_error,
    soft_f1,
)

Inputs = Literal["in-distribution", "mixture"]
"""The in-distribution test set alone, or the paper's mixture with all out-of-distribution test sets."""


@dataclass(frozen=True)
class StageLogits:
    """One stage's logits on the test sets, and its temperature.

    Attributes:
        in_dist: Logits `[N, K]` of the in-distribution test set.
        targets: The classes `[N]` of that set.
        ood: Out-of-distribution set -> logits `[M, K]`.
        temperature: Tuned on the calibration split. Scores, p-values and flags do not use it.
    """

    in_dist: NDArray[np.floating]
    targets: NDArray[np.int64]
    ood: Mapping[str, NDArray[np.floating]]
    temperature: float


@dataclass(frozen=True)
class Predictions:
    """A stage's predictions on one kind of inputs: confidences and whether each is correct, both `[N]`.

    On the mixture, confidences are rescaled to 0..1, and every prediction on an out-of-distribution input is wrong.
    """

    inputs: Inputs
    with_temperature: bool
    temperature: float
    confidence: Floats
    correct: NDArray[np.bool_]


class ProbabilityResult(BaseModel):
    """One stage on one kind of inputs, with or without its temperature: calibration errors and soft F1 in percent.

    `with_temperature` is `tuned` in JSON.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    stage: str
    inputs: Inputs
    with_temperature: bool = Field(alias="tuned")
    temperature: float
    size: int
    rms: float
    mad: float
    soft_f1: float


def stage_predictions(logits: StageLogits, sets: Collection[str], *, seed: int) -> Iterator[Predictions]:
    """A stage's predictions without and with temperature, on the in-distribution test set and then on the mixture.

    Args:
        logits: The stage's logits.
        sets: The out-of-distribution sets in the mixture.
        seed: The seed of the mixture, which is therefore the same for every stage.
    """
    mixture = draw_mixture(len(logits.targets), {name: len(logits.ood[name]) for name in sets}, seed=seed)
    correct = logits.in_dist.argmax(axis=1) == logits.targets
    temperatures = ((False, 1.0), (True, logits.temperature))
    for with_temperature, temperature in temperatures:
        confidence = confidences(logits.in_dist, temperature)
        yield Predictions("in-distribution", with_temperature, temperature, confidence, correct)
    for with_temperature, temperature in temperatures:
        yield _mixture_predictions(logits, correct, mixture, with_temperature, temperature)


def measure_probabilities(
    stages: Mapping[str, StageLogits], sets: Collection[str], *, seed: int
) -> list[ProbabilityResult]:
    """The calibration errors and soft F1 of every stage, as `stage_predictions` lists them; `sets` form the mixture."""
    return [
        ProbabilityResult(
            stage=stage,
            inputs=predictions.inputs,
            with_temperature=predictions.with_temperature,
            temperature=round(predictions.temperature, 4),
            size=len(predictions.confidence),
            rms=_percent(rms_calibration_error(predictions.confidence, predictions.correct)),
            mad=_percent(mad_calibration_error(predictions.confidence, predictions.correct)),
            soft_f1=_percent(soft_f1(predictions.confidence, predictions.correct)),
        )
        for stage, logits in stages.items()
        for predictions in stage_predictions(logits, sets, seed=seed)
    ]


def _mixture_predictions(
    logits: StageLogits,
    correct_in_dist: NDArray[np.bool_],
    mixture: Mixture,
    with_temperature: bool,
    temperature: float,
) -> Predictions:
    ood = [logits.ood[name][rows] for name, rows in mixture.ood.items()]
    drawn = np.concatenate([logits.in_dist[mixture.in_dist], *ood])
    correct = np.zeros(len(drawn), dtype=np.bool_)
    correct[: len(mixture.in_dist)] = correct_in_dist[mixture.in_dist]
    confidence = posterior_rescaling(confidences(drawn, temperature), drawn.shape[1])
    return Predictions("mixture", with_temperature, temperature, confidence, correct)


def _percent(share: float) -> float:
    return round(100 * share, 3)
