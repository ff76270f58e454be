"""Detection metrics equal what their definitions give by brute force, and what the authors' code gives."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from torchmetrics.functional.classification import binary_average_precision

from training.evaluation import detection_metrics, resampled_metrics

Scores = NDArray[np.float64]
scores = arrays(np.float64, st.integers(1, 40), elements=st.integers(-5, 5).map(float))


def fpr_at_nearest_recall(inside: Scores, outside: Scores) -> float:
    """The paper's figure by its definition: over all thresholds, the one whose recall is nearest to 95%."""
    best = (np.inf, 0.0, 0.0)
    for threshold in (*np.unique(np.concatenate((inside, outside))), np.inf):
        recall, fpr = float(np.mean(outside >= threshold)), float(np.mean(inside >= threshold))
        best = min(best, (round(abs(recall - 0.95), 12), -recall, fpr))
    return best[2]


@given(inside=scores, outside=scores)
def test_auroc_is_the_chance_that_an_outlier_scores_higher_ties_counting_half(inside: Scores, outside: Scores) -> None:
    higher = (outside[:, None] > inside).mean() + 0.5 * (outside[:, None] == inside).mean()
    assert detection_metrics(inside, outside).auroc == pytest.approx(higher)


@given(inside=scores, outside=scores)
def test_fpr95_is_the_false_positive_rate_at_the_recall_nearest_to_95_percent(inside: Scores, outside: Scores) -> None:
    assert detection_metrics(inside, outside).fpr95 == pytest.approx(fpr_at_nearest_recall(inside, outside))


@given(inside=scores, outside=scores)
def test_aupr_equals_an_independent_implementation(inside: Scores, outside: Scores) -> None:
    truth = torch.from_numpy(np.repeat([0, 1], [len(inside), len(outside)]))
    # Scaled into 0..1: torchmetrics takes anything else for logits and squashes it.
    both = torch.from_numpy((np.concatenate((inside, outside)) + 5) / 10)
    expected = float(binary_average_precision(both, truth))
    assert detection_metrics(inside, outside).aupr == pytest.approx(expected, abs=1e-6)


@given(inside=scores, outside=scores)
def test_metrics_depend_on_the_order_of_scores_alone(inside: Scores, outside: Scores) -> None:
    moved = detection_metrics(np.exp(inside) * 3 - 7, np.exp(outside) * 3 - 7)
    assert moved == detection_metrics(inside, outside)


@given(inside=scores, outside=scores)
def test_swapping_the_roles_mirrors_auroc(inside: Scores, outside: Scores) -> None:
    there, back = detection_metrics(inside, outside), detection_metrics(outside, inside)
    assert there.auroc + back.auroc == pytest.approx(1)


def test_a_perfect_detector_is_perfect_and_a_reversed_one_is_not() -> None:
    low, high = np.arange(100.0), np.arange(200.0, 220.0)
    perfect, reversed_ = detection_metrics(low, high), detection_metrics(high, low)
    assert (perfect.fpr95, perfect.auroc, perfect.aupr) == (0, 1, 1)
    assert (reversed_.fpr95, reversed_.auroc) == (1, 0)


def test_draws_keep_one_outlier_per_five_in_distribution_inputs() -> None:
    # With constant scores AUPR is the share of outliers in the mixture: 1 / 6.
    for n_in, n_out in ((1000, 900), (1000, 40), (50, 5000)):
        summary = resampled_metrics(np.zeros(n_in), np.zeros(n_out), draws=3)
        assert summary.mean.aupr == pytest.approx(1 / 6)


def test_draws_differ_and_are_the_same_for_the_same_seed() -> None:
    generator = np.random.default_rng(0)
    inside, outside = generator.normal(size=500), generator.normal(1, size=400)
    first = resampled_metrics(inside, outside, draws=10, seed=1)
    assert first == resampled_metrics(inside, outside, draws=10, seed=1)
    assert first.deviation.auroc > 0
    assert first.mean.auroc == pytest.approx(detection_metrics(inside, outside).auroc, abs=0.03)


def test_too_few_scores_for_the_mixture_are_refused() -> None:
    with pytest.raises(ValueError, match="5:1"):
        resampled_metrics(np.zeros(3), np.zeros(9))
