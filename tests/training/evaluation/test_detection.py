"""Detection metrics equal their definitions and independent implementations; mixtures are those of the paper."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from torchmetrics.functional.classification import binary_average_precision

from training.evaluation import detection_metrics, resampled_metrics
from training.evaluation.detection import draw_mixture

Scores = NDArray[np.float64]
scores = arrays(np.float64, st.integers(1, 40), elements=st.integers(-5, 5).map(float))


def fpr_at_nearest_recall(in_dist: Scores, ood: Scores) -> float:
    """The paper's definition: the false positive rate at the threshold whose recall is nearest to 95%."""
    best = (np.inf, 0.0, 0.0)
    for threshold in (*np.unique(np.concatenate((in_dist, ood))), np.inf):
        recall, fpr = float(np.mean(ood >= threshold)), float(np.mean(in_dist >= threshold))
        best = min(best, (round(abs(recall - 0.95), 12), -recall, fpr))
    return best[2]


@given(in_dist=scores, ood=scores)
def test_auroc_is_the_chance_that_an_outlier_scores_higher_ties_counting_half(in_dist: Scores, ood: Scores) -> None:
    higher = (ood[:, None] > in_dist).mean() + 0.5 * (ood[:, None] == in_dist).mean()
    assert detection_metrics(in_dist, ood).auroc == pytest.approx(higher)


@given(in_dist=scores, ood=scores)
def test_fpr95_is_the_false_positive_rate_at_the_recall_nearest_to_95_percent(in_dist: Scores, ood: Scores) -> None:
    assert detection_metrics(in_dist, ood).fpr95 == pytest.approx(fpr_at_nearest_recall(in_dist, ood))


@given(in_dist=scores, ood=scores)
def test_aupr_equals_an_independent_implementation(in_dist: Scores, ood: Scores) -> None:
    truth = torch.from_numpy(np.repeat([0, 1], [len(in_dist), len(ood)]))
    # Scaled into 0..1: torchmetrics takes anything else for logits and squashes it.
    both = torch.from_numpy((np.concatenate((in_dist, ood)) + 5) / 10)
    expected = float(binary_average_precision(both, truth))
    assert detection_metrics(in_dist, ood).aupr == pytest.approx(expected, abs=1e-6)


@given(in_dist=scores, ood=scores)
def test_metrics_depend_only_on_the_order_of_scores(in_dist: Scores, ood: Scores) -> None:
    transformed = detection_metrics(np.exp(in_dist) * 3 - 7, np.exp(ood) * 3 - 7)
    assert transformed == detection_metrics(in_dist, ood)


@given(in_dist=scores, ood=scores)
def test_swapping_the_roles_mirrors_auroc(in_dist: Scores, ood: Scores) -> None:
    metrics, swapped = detection_metrics(in_dist, ood), detection_metrics(ood, in_dist)
    assert metrics.auroc + swapped.auroc == pytest.approx(1)


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


def test_draws_of_everything_are_the_metrics_of_all_scores_without_deviation() -> None:
    # 20 outliers are one per five of 100: without replacement, each draw is a permutation of all scores.
    generator = np.random.default_rng(0)
    in_dist, ood = generator.normal(size=100), generator.normal(1, size=20)
    summary = resampled_metrics(in_dist, ood, draws=4, seed=3)
    expected = detection_metrics(in_dist, ood)
    for metric in ("fpr95", "auroc", "aupr"):
        assert getattr(summary.mean, metric) == pytest.approx(getattr(expected, metric), abs=1e-12)
        assert getattr(summary.deviation, metric) == pytest.approx(0, abs=1e-12)


def test_a_small_set_is_used_completely_against_fewer_in_distribution_scores() -> None:
    # Outliers 0..9 against 50 of 1,000 scores: all outliers are drawn, so only the in-distribution scores vary.
    summary = resampled_metrics(np.zeros(1000), np.arange(10.0), draws=5)
    assert summary.mean == detection_metrics(np.zeros(50), np.arange(10.0))
    assert summary.deviation.auroc == 0


def test_draws_differ_and_are_the_same_for_the_same_seed() -> None:
    generator = np.random.default_rng(0)
    in_dist, ood = generator.normal(size=500), generator.normal(1, size=400)
    first = resampled_metrics(in_dist, ood, draws=10, seed=1)
    assert first == resampled_metrics(in_dist, ood, draws=10, seed=1)
    assert first.deviation.auroc > 0
    assert first.mean.auroc == pytest.approx(detection_metrics(in_dist, ood).auroc, abs=0.03)


def test_too_few_scores_for_the_mixture_are_refused() -> None:
    with pytest.raises(ValueError, match="5:1"):
        resampled_metrics(np.zeros(3), np.zeros(9))


def test_scores_for_a_single_outlier_make_a_mixture() -> None:
    assert resampled_metrics(np.zeros(5), np.ones(1), draws=2).mean.auroc == 1


SIZES = {"noise": 150, "places": 150, "tuning": 50}


def test_the_same_seed_draws_the_same_mixture_and_another_seed_another() -> None:
    first, again, other = (draw_mixture(500, SIZES, seed=seed) for seed in (1, 1, 2))
    assert first.ood["noise"].tolist() == again.ood["noise"].tolist()
    assert first.ood["noise"].tolist() != other.ood["noise"].tolist()


def test_larger_sets_contribute_the_missing_share_of_a_small_set() -> None:
    mixture = draw_mixture(500, {"a": 10, "b": 400, "c": 60}, seed=0)
    assert {name: len(rows) for name, rows in mixture.ood.items()} == {"a": 10, "b": 45, "c": 45}


@given(in_dist=st.integers(5, 300), sizes=st.lists(st.integers(0, 60), min_size=1, max_size=5).filter(any))
def test_a_mixture_has_one_outlier_in_six_inputs_and_no_row_twice(in_dist: int, sizes: list[int]) -> None:
    mixture = draw_mixture(in_dist, {f"set {i}": n for i, n in enumerate(sizes)}, seed=0)
    n_ood = sum(len(rows) for rows in mixture.ood.values())
    assert n_ood == min(in_dist // 5, sum(sizes))
    assert len(mixture.in_dist) == 5 * n_ood
    for rows, n in [(mixture.in_dist, in_dist), *zip(mixture.ood.values(), sizes, strict=True)]:
        assert len(set(rows.tolist())) == len(rows)
        assert all(0 <= row < n for row in rows)


def test_too_few_inputs_for_a_mixture_are_refused() -> None:
    with pytest.raises(ValueError, match="5:1"):
        draw_mixture(4, {"noise": 10}, seed=0)
