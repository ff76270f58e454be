"""The evaluation of stages: measures every stage on every set by every score and collects the figures in a report."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from bundle import SCORES, Calibration
from training.evaluation.detection import MetricSummary, Scores, resampled_metrics
from training.evaluation.report import (
    IN_DISTRIBUTION,
    MEAN,
    FalseFlagInterval,
    FalseFlags,
    MeanBits,
    Report,
    SetResult,
    Spread,
)
from training.evaluation.shortcuts import ShortcutCheck
from training.evaluation.stage_probabilities import StageLogits, measure_probabilities


@dataclass(frozen=True)
class StageScores:
    """One stage's anomaly scores on the test sets.

    Attributes:
        in_dist: Score name -> values `[N]` on the in-distribution test set.
        ood: Out-of-distribution set -> score name -> values `[M]`.
        calibrations: Score name -> the stage's calibration.
        error: A classifier's share of misclassified in-distribution test inputs, in 0..1.
        logits: A classifier's logits, if its probabilities are to be measured.
    """

    in_dist: Mapping[str, Scores]
    ood: Mapping[str, Mapping[str, Scores]]
    calibrations: Mapping[str, Calibration]
    error: float | None = None
    logits: StageLogits | None = None


@dataclass(frozen=True)
class EvaluationInputs:
    """The scores of all stages and the settings of their report.

    Attributes:
        stages: Stage name -> its scores.
        title: The report's title.
        alpha: The false-flag rate of the flags, in 0..1.
        draws: The number of random draws behind each mean and deviation.
        seed: The seed of the draws, which are the same for all stages.
        default_score: The score that the exported bundle decides by; the plots show it.
        in_dist: The name of the in-distribution test set.
        sets: The name of each out-of-distribution set -> its description.
        validation: The sets that the averages leave out.
        provenance: Facts about the run, as shown in the report.
        upper_bounds: The sets of outliers like those trained on.
        shortcuts: The shortcut check of the training data, if it was made.
    """

    stages: Mapping[str, StageScores]
    title: str
    alpha: float
    draws: int
    seed: int
    default_score: str
    in_dist: str
    sets: Mapping[str, str]
    provenance: Mapping[str, str]
    validation: Collection[str] = ()
    upper_bounds: Collection[str] = ()
    shortcuts: ShortcutCheck | None = None


def evaluate_stages(inputs: EvaluationInputs) -> Report:
    """Measure every stage on every set by every score."""
    results: list[SetResult] = []
    false_flags: list[FalseFlags] = []
    for stage, scores in inputs.stages.items():
        for score, anomaly in scores.in_dist.items():
            calibration = scores.calibrations[score]
            flagged = _percent(calibration.flagged(anomaly, inputs.alpha).mean())
            false_flags.append(FalseFlags(stage=stage, score=score, flagged=flagged))
            rows = []
            for name in inputs.sets:
                ood = scores.ood[name][score]
                summary = resampled_metrics(anomaly, ood, draws=inputs.draws, seed=inputs.seed)
                rows.append(_result(name, stage, score, summary, calibration.flagged(ood, inputs.alpha).mean()))
            results += [*rows, _average([row for row in rows if row.set not in inputs.validation])]
    first = next(iter(inputs.stages.values()))
    logits = {stage: scores.logits for stage, scores in inputs.stages.items() if scores.logits is not None}
    errors = {stage: _percent(scores.error) for stage, scores in inputs.stages.items() if scores.error is not None}
    test_sets = [name for name in inputs.sets if name not in inputs.validation]
    return Report(
        alpha=inputs.alpha,
        draws=inputs.draws,
        default_score=inputs.default_score,
        in_dist=inputs.in_dist,
        in_dist_size=len(first.in_dist[inputs.default_score]),
        calibration_size=first.calibrations[inputs.default_score].n,
        sets=dict(inputs.sets),
        validation=tuple(inputs.validation),
        upper_bounds=tuple(inputs.upper_bounds),
        shortcuts=inputs.shortcuts,
        error=errors,
        results=results,
        false_flags=false_flags,
        false_flag_interval=_false_flag_interval(first.calibrations[inputs.default_score], inputs.alpha),
        probabilities=measure_probabilities(logits, test_sets, seed=inputs.seed),
        bits=[row for stage, scores in inputs.stages.items() for row in _mean_bits(stage, scores)],
        provenance=dict(inputs.provenance),
    )


def _false_flag_interval(calibration: Calibration, alpha: float) -> FalseFlagInterval:
    rate = calibration.false_flag_rate(alpha)
    return FalseFlagInterval(
        lower=_percent(rate.lower),
        upper=_percent(rate.upper),
        exceeds_alpha=_percent(rate.exceeds_alpha),
        smallest_alpha=rate.smallest_alpha,
    )


def _mean_bits(stage: str, scores: StageScores) -> Iterator[MeanBits]:
    for score, in_dist in scores.in_dist.items():
        if SCORES[score].unit == "bits":
            ood = ((name, anomalies[score]) for name, anomalies in scores.ood.items())
            for name, values in ((IN_DISTRIBUTION, in_dist), *ood):
                # The anomaly of a score in bits is the score itself.
                yield MeanBits(set=name, stage=stage, score=score, bits=round(float(np.mean(values)), 4))


def _result(name: str, stage: str, score: str, summary: MetricSummary, flagged: np.floating) -> SetResult:
    def spread(metric: str) -> Spread:
        mean, deviation = getattr(summary.mean, metric), getattr(summary.deviation, metric)
        return Spread(mean=_percent(mean), deviation=_percent(deviation))

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
    """The mean over sets; its deviation is that of the sets' means."""

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
