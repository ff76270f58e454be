"""The evaluation of stages: measures every stage on every set by every score and collects the figures in a report."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypedDict

import numpy as np

from bundle import SCORES, Calibration
from training.evaluation.detection import RECALL, MetricSummary, Scores, resampled_metrics
from training.evaluation.report import (
    FAR_MEAN,
    IN_DISTRIBUTION,
    MEAN,
    NEAR_MEAN,
    FalseFlagInterval,
    FalseFlags,
    FlaggedShare,
    FprAtRecall,
    MeanBits,
    RemovedInputs,
    Report,
    SegmentResults,
    SetResult,
    Spread,
)
from training.evaluation.shortcuts import ShortcutCheck
from training.evaluation.stage_probabilities import StageLogits, measure_probabilities

FALSE_FLAG_RATES = (0.01, 0.05)
"""The alphas at which every report gives the flagged share of each set, in addition to the recipe's alpha."""


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
class SegmentScores:
    """The scores of every stage on segments of `symbols` words or characters; sets without a segment are missing."""

    symbols: int
    stages: Mapping[str, StageScores]


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
        removed: The name of a set -> the inputs left out of it.
        validation: The sets that the averages leave out.
        synthetic: The sets that are generated, such as noise.
        near: The sets that resemble the in-distribution data; they have a mean of their own.
        recalls: The recalls, in 0..1, at which false positive rates are measured; 0.95 is always among them.
        provenance: Facts about the run, as shown in the report.
        upper_bounds: The sets of outliers like those trained on.
        shortcuts: The shortcut check of the training data, if it was made.
        segments: The scores of a language model on segments of the same sets.
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
    removed: Mapping[str, RemovedInputs] = field(default_factory=dict)
    synthetic: Collection[str] = ()
    upper_bounds: Collection[str] = ()
    shortcuts: ShortcutCheck | None = None
    near: Collection[str] = ()
    recalls: Iterable[float] = (RECALL,)
    segments: SegmentScores | None = None


def evaluate_stages(inputs: EvaluationInputs) -> Report:
    """Measure every stage on every set by every score."""
    results, false_flags = _measure(inputs.stages, inputs)
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
        synthetic=tuple(inputs.synthetic),
        removed=dict(inputs.removed),
        validation=tuple(inputs.validation),
        upper_bounds=tuple(inputs.upper_bounds),
        shortcuts=inputs.shortcuts,
        near=tuple(inputs.near),
        error=errors,
        results=results,
        false_flags=false_flags,
        false_flag_interval=_false_flag_interval(first.calibrations[inputs.default_score], inputs.alpha),
        probabilities=measure_probabilities(logits, test_sets, seed=inputs.seed),
        bits=[row for stage, scores in inputs.stages.items() for row in _mean_bits(stage, scores)],
        segments=_segment_results(inputs),
        provenance=dict(inputs.provenance),
    )


def _measure(stages: Mapping[str, StageScores], inputs: EvaluationInputs) -> tuple[list[SetResult], list[FalseFlags]]:
    """Measure every stage on each of its sets by every score, in the order and with the settings of `inputs`."""
    results: list[SetResult] = []
    false_flags: list[FalseFlags] = []
    recalls = sorted({RECALL, *inputs.recalls}, reverse=True)
    for stage, scores in stages.items():
        sets = [name for name in inputs.sets if name in scores.ood]
        for score, anomaly in scores.in_dist.items():
            calibration = scores.calibrations[score]
            flagged = _percent(calibration.flagged(anomaly, inputs.alpha).mean())
            shares = _flagged_shares(calibration, anomaly)
            false_flags.append(FalseFlags(stage=stage, score=score, flagged=flagged, flagged_at=shares))
            rows = []
            for name in sets:
                ood = scores.ood[name][score]
                summary = resampled_metrics(anomaly, ood, recalls=recalls, draws=inputs.draws, seed=inputs.seed)
                result = SetResult(
                    set=name,
                    stage=stage,
                    score=score,
                    **_metrics(summary),
                    flagged=_percent(calibration.flagged(ood, inputs.alpha).mean()),
                    flagged_at=_flagged_shares(calibration, ood),
                )
                rows.append(result)
            results += [*rows, *_averages(rows, inputs)]
    return results, false_flags


def _segment_results(inputs: EvaluationInputs) -> SegmentResults | None:
    """The figures by segment; None if no test set has a segment."""
    if inputs.segments is None:
        return None
    first = next(iter(inputs.segments.stages.values()))
    if not first.ood.keys() - inputs.validation:
        return None
    results, false_flags = _measure(inputs.segments.stages, inputs)
    score, in_dist = next(iter(first.in_dist.items()))
    return SegmentResults(
        symbols=inputs.segments.symbols,
        in_dist_size=len(in_dist),
        calibration_size=first.calibrations[score].n,
        sizes={name: len(first.ood[name][score]) for name in inputs.sets if name in first.ood},
        results=results,
        false_flags=false_flags,
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


class _Metrics(TypedDict):
    """The metrics of a `SetResult`."""

    fpr95: Spread
    auroc: Spread
    aupr: Spread
    fpr_at_recall: list[FprAtRecall]


def _metrics(summary: MetricSummary) -> _Metrics:
    mean, deviation = summary.mean, summary.deviation

    def spread(mean: float, deviation: float) -> Spread:
        return Spread(mean=_percent(mean), deviation=_percent(deviation))

    return _Metrics(
        fpr95=spread(mean.fpr95, deviation.fpr95),
        auroc=spread(mean.auroc, deviation.auroc),
        aupr=spread(mean.aupr, deviation.aupr),
        fpr_at_recall=[
            FprAtRecall(
                recall=recall,
                fpr=spread(mean.fpr[recall], deviation.fpr[recall]),
                authors=spread(mean.authors_fpr[recall], deviation.authors_fpr[recall]),
            )
            for recall in mean.fpr
        ],
    )


def _flagged_shares(calibration: Calibration, anomaly: Scores) -> list[FlaggedShare]:
    """The share of `anomaly` that is flagged at each of `FALSE_FLAG_RATES`."""
    return [
        FlaggedShare(
            alpha=alpha,
            flagged=None
            if alpha < calibration.smallest_alpha
            else _percent(calibration.flagged(anomaly, alpha).mean()),
        )
        for alpha in FALSE_FLAG_RATES
    ]


def _averages(rows: Sequence[SetResult], inputs: EvaluationInputs) -> Iterator[SetResult]:
    """The means over the near and far test sets, if there are near ones, and over all test sets."""
    tested = [row for row in rows if row.set not in inputs.validation]
    near = [row for row in tested if row.set in inputs.near]
    far = [row for row in tested if row.set not in inputs.near]
    if near:
        yield from (_average(name, group) for name, group in ((NEAR_MEAN, near), (FAR_MEAN, far)) if group)
    yield _average(MEAN, tested)


def _average(name: str, rows: Sequence[SetResult]) -> SetResult:
    """The means over the sets of `rows`; their deviations are those of the sets' means."""

    def spread(spreads: Iterable[Spread]) -> Spread:
        means = [spread.mean for spread in spreads]
        return Spread(mean=round(float(np.mean(means)), 3), deviation=round(float(np.std(means)), 3))

    first = rows[0]
    return SetResult(
        set=name,
        stage=first.stage,
        score=first.score,
        fpr95=spread(row.fpr95 for row in rows),
        auroc=spread(row.auroc for row in rows),
        aupr=spread(row.aupr for row in rows),
        flagged=round(float(np.mean([row.flagged for row in rows])), 3),
        fpr_at_recall=[
            FprAtRecall(
                recall=rates[0].recall,
                fpr=spread(rate.fpr for rate in rates),
                authors=spread(rate.authors for rate in rates),
            )
            for rates in zip(*(row.fpr_at_recall for row in rows), strict=True)
        ],
        flagged_at=[
            FlaggedShare(alpha=shares[0].alpha, flagged=_mean_share([share.flagged for share in shares]))
            for shares in zip(*(row.flagged_at for row in rows), strict=True)
        ],
    )


def _mean_share(shares: Sequence[float | None]) -> float | None:
    """The mean; None if a share is None, in which case all are: they have the same calibration."""
    known = [share for share in shares if share is not None]
    return round(float(np.mean(known)), 3) if known else None


def _percent(share: float | np.floating) -> float:
    return round(100 * float(share), 3)
