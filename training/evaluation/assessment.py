"""Assessment: reads the usability of the exported detector off the figures of a report."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
from scipy.stats import binom

from training.evaluation.report import Report, SetResult
from training.evaluation.usability import Usability, verdict_of

_GAIN = 10.0
"""The gain of the flagged share, in points, from which another score or another alpha is suggested."""
_SIGNIFICANCE = 0.01
"""The probability at which calibration no longer explains the flagged share of the in-distribution test set."""


def assess(report: Report, stage: str, remedies: Sequence[str] = ()) -> Usability:
    """The usability of the detector that is exported from `stage` and decides by the report's default score.

    Args:
        report: The figures, with at least one test set.
        stage: The stage to export.
        remedies: Sentences on what to do if the detector is not useful, besides the advice that follows from the
            figures.
    """
    score, sets = report.default_score, counted_sets(report)
    flagged = [report.find(name, stage, score).flagged for name in sets]
    verdict = verdict_of(flagged)
    advice = [] if verdict == "useful" else [*_other_settings(report, stage, sets), *remedies]
    false_flags = next(row.flagged for row in report.false_flags if (row.stage, row.score) == (stage, score))
    if _exceeds_interval(report, false_flags):
        verdict = "partly useful" if verdict == "useful" else verdict
        advice.insert(
            0,
            "The in-distribution test data are flagged more often than calibration explains: check that they come from "
            "the same source as the calibration data.",
        )
    if set(sets) <= set(report.synthetic):
        verdict = "unknown" if verdict == "useful" else verdict
        advice.append("Test it on real data of other kinds, which are harder to detect than noise.")
    elif set(sets) <= set(report.upper_bounds):
        advice.append(
            "This share is an upper bound, because these are outliers like those trained on: put the outliers into one "
            "sub-folder per source, so that whole sources are tested."
        )
    least = int(np.argmin(flagged))
    return Usability(
        verdict=verdict,
        stage=stage,
        score=score,
        alpha=report.alpha,
        sets=tuple(sets),
        flagged=round(float(np.mean(flagged)), 3),
        least=sets[least],
        least_flagged=flagged[least],
        false_flags=false_flags,
        advice=tuple(advice),
    )


def counted_sets(report: Report) -> list[str]:
    """The test sets that a verdict is about: real data, unlike the outliers trained on as far as there are such."""
    real = [name for name in report.test_sets if name not in report.synthetic]
    unlike_training = [name for name in real if name not in report.upper_bounds]
    return unlike_training or real or report.test_sets


def _exceeds_interval(report: Report, false_flags: float) -> bool:
    """Whether more in-distribution test inputs are flagged than the choice of the calibration set explains."""
    if report.false_flag_interval is None:
        return False
    n, upper = report.in_dist_size, report.false_flag_interval.upper / 100
    return float(binom.sf(round(false_flags * n / 100) - 1, n, upper)) < _SIGNIFICANCE


def _other_settings(report: Report, stage: str, sets: Sequence[str]) -> Iterator[str]:
    """Another score or a larger alpha of the same report that flags more."""

    def mean_over(score: str, share: Callable[[SetResult], float | None]) -> float:
        return float(np.mean([share(report.find(name, stage, score)) or 0.0 for name in sets]))

    now = mean_over(report.default_score, lambda row: row.flagged)
    by_score = {
        row.score: mean_over(row.score, lambda result: result.flagged)
        for row in report.false_flags
        if row.stage == stage
    }
    best = max(by_score, key=lambda score: by_score[score])
    if by_score[best] >= now + _GAIN:
        yield (
            f"Try another score: {best} flags {by_score[best]:.1f}% (export.default_score={best}; confirm it on other "
            "data than these)."
        )
    for rate in report.results[0].flagged_at:
        share = mean_over(report.default_score, partial(SetResult.flagged_share, alpha=rate.alpha))
        if rate.alpha > report.alpha and share >= now + _GAIN:
            yield f"At alpha {rate.alpha:g} it flags {share:.1f}%."
