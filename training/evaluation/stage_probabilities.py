"""Calibration of every stage's probabilities: on the in-distribution test set, and with out-of-distribution inputs."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from training.evaluation.mixture import Mixture, draw_mixture
from training.evaluation.probabilities import (
    Floats,
    confidences,
    mad_calibration_error,
    posterior_rescaling,
    rms_calibration_error,
    soft_f1,
)

Inputs = Literal["in-distribution", "mixture"]
"""The in-distribution test set alone, or the paper's mixture of it with all out-of-distribution test sets."""


@dataclass(frozen=True)
class StageLogits:
    """One stage's logits: `inside` `[N, K]` for the in-distribution test set, whose classes are `targets` `[N]`, and
    `outside` `[M, K]` for each out-of-distribution set; and the stage's `temperature`.

    The temperature is tuned on the calibration split. Conformal scores are of the untempered logits: p-values and
    false-flag rates do not depend on it.
    """

    inside: NDArray[np.floating]
    targets: NDArray[np.int64]
    outside: Mapping[str, NDArray[np.floating]]
    temperature: float


@dataclass(frozen=True)
class Predictions:
    """What a stage predicts on one kind of inputs: confidences and whether each is right, `[N]`.

    With a mixture, confidences are rescaled to reach 0, and every prediction on an out-of-distribution input is wrong.
    """

    inputs: Inputs
    tuned: bool
    temperature: float
    confidence: Floats
    correct: NDArray[np.bool_]


class ProbabilityResult(BaseModel):
    """One stage on one kind of inputs, with or without its temperature: calibration errors and soft F1 in percent."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stage: str
    inputs: Inputs
    tuned: bool
    temperature: float
    size: int
    rms: float
    mad: float
    soft_f1: float


def stage_predictions(logits: StageLogits, sets: Collection[str], *, seed: int) -> Iterator[Predictions]:
    """A stage's predictions without and with temperature: in-distribution, then mixed with the `sets`.

    The mixture is one seeded draw, the same for every stage.
    """
    mixture = draw_mixture(len(logits.targets), {name: len(logits.outside[name]) for name in sets}, seed=seed)
    right = logits.inside.argmax(axis=1) == logits.targets
    for tuned, temperature in ((False, 1.0), (True, logits.temperature)):
        yield Predictions("in-distribution", tuned, temperature, confidences(logits.inside, temperature), right)
    for tuned, temperature in ((False, 1.0), (True, logits.temperature)):
        yield _mixed(logits, right, mixture, tuned, temperature)


def measure_probabilities(
    stages: Mapping[str, StageLogits], sets: Collection[str], *, seed: int
) -> list[ProbabilityResult]:
    """Every stage's calibration errors and soft F1 on every kind of inputs."""
    return [
        ProbabilityResult(
            stage=stage,
            inputs=found.inputs,
            tuned=found.tuned,
            temperature=round(found.temperature, 4),
            size=len(found.confidence),
            rms=_percent(rms_calibration_error(found.confidence, found.correct)),
            mad=_percent(mad_calibration_error(found.confidence, found.correct)),
            soft_f1=_percent(soft_f1(found.confidence, found.correct)),
        )
        for stage, logits in stages.items()
        for found in stage_predictions(logits, sets, seed=seed)
    ]


def _mixed(
    logits: StageLogits, right: NDArray[np.bool_], mixture: Mixture, tuned: bool, temperature: float
) -> Predictions:
    outside = [logits.outside[name][rows] for name, rows in mixture.outside.items()]
    drawn = np.concatenate([logits.inside[mixture.inside], *outside])
    correct = np.zeros(len(drawn), dtype=np.bool_)
    correct[: len(mixture.inside)] = right[mixture.inside]
    confidence = posterior_rescaling(confidences(drawn, temperature), drawn.shape[1])
    return Predictions("mixture", tuned, temperature, confidence, correct)


def _percent(share: float) -> float:
    return round(100 * share, 3)
