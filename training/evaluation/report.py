"""The report: every stage on every out-of-distribution set by every score, as data."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict

from bundle import SCORES, Calibration, Evaluation, OODResult
from training.evaluation.comparison import Comparison
from training.evaluation.detection import DetectionMetrics, MetricSummary, Scores, resampled_metrics
from training.evaluation.stage_probabilities import ProbabilityResult, StageLogits, measure_probabilities

INSIDE = "in-distribution"
"""The name of the in-distribution test set among sets."""

MEAN = "mean"
"""The name of the row that averages all sets."""


@dataclass(frozen=True)
class StageScores:
    """One stage's anomaly scores by score name: on the in-distribution test set, and on each out-of-distribution set.

    `calibrations` are the stage's own. A classifier has an `error`, the share of in-distribution test inputs that it
    misclassifies, and `logits`, so that its probabilities can be measured too.
    """

    inside: Mapping[str, Scores]
    outside: Mapping[str, Mapping[str, Scores]]
    calibrations: Mapping[str, Calibration]
    error: float | None = None
    logits: StageLogits | None = None


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Spread(_Part):
    """A percentage's mean and standard deviation over draws."""

    mean: float
    deviation: float


class SetResult(_Part):
    """One stage, one score, one set: the metrics in percent and the share of the set flagged at alpha."""

    set: str
    stage: str
    score: str
    fpr95: Spread
    auroc: Spread
    aupr: Spread
    flagged: float


class FalseFlags(_Part):
    """The percentage of the in-distribution test set that a stage's calibrated threshold flags."""

    stage: str
    score: str
    flagged: float


class MeanBits(_Part):
    """What a stage's bits of likelihood are on one set, on the mean."""

    set: str
    stage: str
    score: str
    bits: float


class Report(_Part):
    """Everything that was measured, in percent."""

    alpha: float
    draws: int
    default_score: str
    inside: str
    inside_size: int
    calibration_size: int
    sets: dict[str, str]
    validation: tuple[str, ...] = ()
    error: dict[str, float] = {}
    results: list[SetResult]
    false_flags: list[FalseFlags]
    probabilities: list[ProbabilityResult] = []
    bits: list[MeanBits] = []
    comparison: Comparison | None = None
    provenance: dict[str, str]

    @property
    def stages(self) -> list[str]:
        """The stages in their order."""
        return list(dict.fromkeys(row.stage for row in self.results))

    @property
    def test_sets(self) -> list[str]:
        """The sets that no choice was made by."""
        return [name for name in self.sets if name not in self.validation]

    def find(self, name: str, stage: str, score: str) -> SetResult:
        """The result of one set, stage and score."""
        return next(r for r in self.results if (r.set, r.stage, r.score) == (name, stage, score))


def evaluate(
    stages: Mapping[str, StageScores],
    *,
    alpha: float,
    draws: int,
    seed: int,
    default_score: str,
    inside: str,
    sets: Mapping[str, str],
    validation: Collection[str] = (),
    provenance: Mapping[str, str],
) -> Report:
    """Measure every stage, set and score; `sets` says of each set in words what it is.

    The average leaves out the sets named in `validation`. All stages are measured on the same draws.
    """
    results: list[SetResult] = []
    false_flags: list[FalseFlags] = []
    for stage, scores in stages.items():
        for score, anomaly in scores.inside.items():
            calibration = scores.calibrations[score]
            false_flags.append(
                FalseFlags(stage=stage, score=score, flagged=_percent(calibration.flagged(anomaly, alpha).mean()))
            )
            rows = []
            for name in sets:
                outside = scores.outside[name][score]
                summary = resampled_metrics(anomaly, outside, draws=draws, seed=seed)
                rows.append(_result(name, stage, score, summary, calibration.flagged(outside, alpha).mean()))
            results += [*rows, _average([row for row in rows if row.set not in validation])]
    first = next(iter(stages.values()))
    logits = {stage: scores.logits for stage, scores in stages.items() if scores.logits is not None}
    return Report(
        alpha=alpha,
        draws=draws,
        default_score=default_score,
        inside=inside,
        inside_size=len(first.inside[default_score]),
        calibration_size=first.calibrations[default_score].n,
        sets=dict(sets),
        validation=tuple(validation),
        error={stage: _percent(scores.error) for stage, scores in stages.items() if scores.error is not None},
        results=results,
        false_flags=false_flags,
        probabilities=measure_probabilities(logits, [name for name in sets if name not in validation], seed=seed),
        bits=[row for stage, scores in stages.items() for row in _mean_bits(stage, scores)],
        provenance=dict(provenance),
    )


def manifest_evaluation(report: Report, stage: str) -> Evaluation:
    """What a bundle's manifest keeps of the report: every stage on the test sets, and the exported stage's error."""
    return Evaluation(
        error_percent=report.error.get(stage),
        sets=[
            OODResult(
                name=result.set,
                stage=result.stage,
                score=result.score,
                fpr95=result.fpr95.mean,
                auroc=result.auroc.mean,
                aupr=result.aupr.mean,
            )
            for result in report.results
            if result.set not in report.validation
        ],
    )


def _mean_bits(stage: str, scores: StageScores) -> Iterator[MeanBits]:
    for score, inside in scores.inside.items():
        if SCORES[score].unit == "bits":
            for name, values in ((INSIDE, inside), *((name, found[score]) for name, found in scores.outside.items())):
                # A score in bits is its own anomaly.
                yield MeanBits(set=name, stage=stage, score=score, bits=round(float(np.mean(values)), 4))


def _result(name: str, stage: str, score: str, summary: MetricSummary, flagged: np.floating) -> SetResult:
    def spread(pick: str) -> Spread:
        mean: DetectionMetrics = summary.mean
        return Spread(mean=_percent(getattr(mean, pick)), deviation=_percent(getattr(summary.deviation, pick)))

    return SetResult(
        set=name,
        stage=stage,
        score=score,
        fpr95=spread("fpr95"),
        auroc=spread("auroc"),
        aupr=spread("aupr"),
        flagged=_percent(flagged),
    )


def _average(rows: list[SetResult]) -> SetResult:
    """The mean over sets; its deviation is the deviation over the sets' means."""

    def spread(values: list[float]) -> Spread:
        return Spread(mean=round(float(np.mean(values)), 3), deviation=round(float(np.std(values)), 3))

    return SetResult(
        set=MEAN,
        stage=rows[0].stage,
        score=rows[0].score,
        fpr95=spread([row.fpr95.mean for row in rows]),
        auroc=spread([row.auroc.mean for row in rows]),
        aupr=spread([row.aupr.mean for row in rows]),
        flagged=round(float(np.mean([row.flagged for row in rows])), 3),
    )


def _percent(share: float | np.floating) -> float:
    return round(100 * float(share), 3)
