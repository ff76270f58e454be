"""The Outlier Exposure loss equals the paper's formula computed another way."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import entropy

from training.objectives import CrossEntropy, OutlierExposure, outlier_exposure_loss


@given(
    n=st.integers(1, 8),
    m=st.integers(1, 8),
    k=st.integers(2, 12),
    weight=st.floats(0, 3),
    seed=st.integers(0, 2**16),
)
def test_the_loss_is_cross_entropy_plus_weighted_cross_entropy_from_the_uniform_distribution(
    n: int, m: int, k: int, weight: float, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    logits_in, logits_out = 4 * generator.normal(size=(n, k)), 4 * generator.normal(size=(m, k))
    targets = generator.integers(k, size=n)
    uniform = np.full(k, 1 / k)
    inside = -np.log(softmax(logits_in, axis=1)[np.arange(n), targets]).mean()
    # H(U; p) = H(U) + KL(U || p), both by SciPy.
    outside = np.mean([entropy(uniform) + entropy(uniform, p) for p in softmax(logits_out, axis=1)])
    ours = outlier_exposure_loss(
        torch.from_numpy(logits_in), torch.from_numpy(targets), torch.from_numpy(logits_out), weight
    )
    assert float(ours) == pytest.approx(inside + weight * outside, rel=1e-9)


def test_uniform_outlier_logits_cost_exactly_the_log_of_the_classes() -> None:
    certain = torch.tensor([[100.0, 0.0, 0.0]])
    loss = OutlierExposure(weight=2.0)(certain, torch.tensor([0]), torch.zeros(5, 3))
    assert float(loss) == pytest.approx(2 * math.log(3), rel=1e-6)


def test_the_outlier_gradient_pulls_the_softmax_towards_uniform() -> None:
    logits = torch.tensor([[2.0, 0.0, -1.0]], requires_grad=True)
    OutlierExposure(weight=1.0)(torch.zeros(1, 3), torch.tensor([0]), logits).backward()
    assert logits.grad is not None
    expected = torch.softmax(logits.detach(), dim=1) - 1 / 3
    torch.testing.assert_close(logits.grad, expected)


def test_cross_entropy_ignores_outliers() -> None:
    logits, targets = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    assert CrossEntropy()(logits, targets, torch.randn(9, 3)) == CrossEntropy()(logits, targets, None)


def test_outlier_exposure_without_outliers_is_refused() -> None:
    with pytest.raises(ValueError, match="outlier batch"):
        OutlierExposure()(torch.zeros(1, 2), torch.tensor([0]), None)


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="-1"):
        OutlierExposure(weight=-1)
