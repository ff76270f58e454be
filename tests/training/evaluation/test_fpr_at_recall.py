"""False positive rates at a recall: the reports' rule and the authors' rule for thresholds of equal recall."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from training.evaluation import authors_fpr_at_recall, detection_metrics, fpr_at_recall, resampled_metrics

Scores = NDArray[np.float64]
scores = arrays(np.float64, st.integers(1, 40), elements=st.integers(-5, 5).map(float))
recalls = st.sampled_from([0.3, 0.5, 0.8, 0.9, 0.95, 1.0])


def points(in_dist: Scores, ood: Scores) -> list[tuple[float, float]]:
    """Recall and false positive rate of every distinct score as a threshold, in ascending order of thresholds."""
    thresholds = np.unique(np.concatenate((in_dist, ood)))
    # Counts are divided as the authors divide them, so that equal recalls are equal floating-point numbers.
    return [(float((ood >= t).sum() / len(ood)), float((in_dist >= t).sum() / len(in_dist))) for t in thresholds]


def authors_rule(in_dist: Scores, ood: Scores, recall: float) -> float:
    """The rule of the authors' `fpr_and_fdr_at_recall`, written out.

    Thresholds are visited upwards. The first is the highest threshold that detects every outlier. A threshold replaces
    an earlier one only if its recall is strictly nearer, so that the earliest of equal recalls, with the most false
    positives, counts.
    """
    curve = points(in_dist, ood)
    first = max(i for i, (tpr, _) in enumerate(curve) if tpr == 1)
    best_distance, best_fpr = np.inf, np.nan
    for tpr, fpr in curve[first:]:
        if abs(tpr - recall) < best_distance:
            best_distance, best_fpr = abs(tpr - recall), fpr
    return best_fpr


@given(in_dist=scores, ood=scores, recall=recalls)
def test_the_authors_rule_equals_an_independent_implementation(in_dist: Scores, ood: Scores, recall: float) -> None:
    assert authors_fpr_at_recall(in_dist, ood, recall) == authors_rule(in_dist, ood, recall)


def test_the_authors_rule_equals_an_independent_implementation_on_many_draws_without_ties() -> None:
    generator = np.random.default_rng(3)
    for _ in range(300):
        in_dist, ood = generator.normal(size=100), generator.normal(1.5, size=generator.integers(1, 40))
        assert authors_fpr_at_recall(in_dist, ood, 0.9) == authors_rule(in_dist, ood, 0.9)


@given(in_dist=scores, ood=scores, recall=recalls)
def test_the_reports_rule_is_the_smallest_rate_of_the_nearest_recall(
    in_dist: Scores, ood: Scores, recall: float
) -> None:
    curve = [*points(in_dist, ood), (0.0, 0.0)]
    expected = min((round(abs(tpr - recall), 12), -tpr, fpr) for tpr, fpr in curve)
    assert fpr_at_recall(in_dist, ood, recall) == expected[2]


# 20 outliers: one below all in-distribution scores, the others above some of them.
OOD = np.array([-1.0, *np.arange(10.5, 29.5)])
IN_DIST = np.array([0.0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 15])


@pytest.mark.parametrize(("rule", "expected"), [(fpr_at_recall, 1 / 11), (authors_fpr_at_recall, 1.0)])
def test_of_thresholds_with_equal_recall_the_authors_take_the_lowest(
    rule: Callable[[Scores, Scores, float], float], expected: float
) -> None:
    # Thresholds from 0 to 10.5 detect 19 of the 20 outliers, a recall of 0.95.
    assert rule(IN_DIST, OOD, 0.95) == pytest.approx(expected)


def test_at_full_recall_both_rules_take_the_highest_threshold() -> None:
    in_dist, ood = np.array([0.0, 1, 2, 3]), np.array([2.5])
    assert fpr_at_recall(in_dist, ood, 0.95) == authors_fpr_at_recall(in_dist, ood, 0.95) == 0.25


def test_metrics_have_a_rate_by_both_rules_for_each_recall() -> None:
    metrics = detection_metrics(IN_DIST, OOD, recalls=(0.95, 0.5))
    assert metrics.fpr == {0.95: fpr_at_recall(IN_DIST, OOD, 0.95), 0.5: fpr_at_recall(IN_DIST, OOD, 0.5)}
    assert metrics.authors_fpr == {
        0.95: authors_fpr_at_recall(IN_DIST, OOD, 0.95),
        0.5: authors_fpr_at_recall(IN_DIST, OOD, 0.5),
    }
    assert metrics.fpr95 == metrics.fpr[0.95]


def test_draws_have_means_and_deviations_of_each_rate() -> None:
    generator = np.random.default_rng(0)
    in_dist, ood = generator.normal(size=300), generator.normal(1, size=300)
    summary = resampled_metrics(in_dist, ood, recalls=(0.95, 0.9), draws=5, seed=1)
    assert summary.mean.fpr[0.9] < summary.mean.fpr[0.95]
    assert summary.mean.authors_fpr[0.9] >= summary.mean.fpr[0.9]
    assert summary.deviation.fpr[0.9] > 0
